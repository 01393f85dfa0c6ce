package process

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// Units follow the main processes of services: systemd does.
type Units interface {
	// Open begins. Changed is called when an answer of Main is another one than
	// before, from any goroutine; it does not wait.
	Open(changed func()) Mains
}

// Mains are the main processes of the services that are followed.
type Mains interface {
	Follow(name string)
	Unfollow(name string)

	// Main is the main process of a service, from memory: 0 if it has none, and
	// what tells it from another one with the same number. Not known is what has
	// yet to be found out; changed will be called. An error that has a method
	// Temporary which is true ends by itself.
	Main(name string) (pid int, started uint64, known bool, err error)

	// Close ends it, after which changed is not called.
	Close()
}

// noUnits is where nobody follows services.
type noUnits struct{}

func (noUnits) Open(func()) Mains { return noUnits{} }
func (noUnits) Follow(string)     {}
func (noUnits) Unfollow(string)   {}
func (noUnits) Close()            {}

func (noUnits) Main(name string) (int, uint64, bool, error) {
	return 0, 0, true, fmt.Errorf("%w: unit=%s: nobody follows services here; write exe=/PATH or pidfile=/PATH", belfry.ErrUnsupported, name)
}

// errPending is what there is to say of a service before systemd has answered.
var errPending = errors.New("systemd has not answered yet")

// mayCome tells whether to go on looking for what is waited for.
func mayCome(why error) bool {
	temporary, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](why)
	return errors.Is(why, belfry.ErrNoEvent) || ok && temporary.Temporary()
}

// follow begins to follow the service that a target names.
func (s *session) follow(t *target) {
	if t.subject.kind != byUnit {
		return
	}
	if s.mains == nil {
		s.mains = s.units.Open(func() {
			select {
			case s.news <- struct{}{}:
			default: // it is awake already
			}
		})
	}
	s.followed[t.subject.unit]++
	s.mains.Follow(t.subject.unit)
}

// unfollow ends what follow began.
func (s *session) unfollow(t *target) {
	name := t.subject.unit
	if t.subject.kind != byUnit || s.followed[name] == 0 {
		return
	}
	if s.followed[name]--; s.followed[name] > 0 {
		return
	}
	delete(s.followed, name)
	s.mains.Unfollow(name)
	if len(s.followed) == 0 {
		s.mains.Close()
		s.mains = nil
	}
}

// A turn is one main process of a service.
type turn struct {
	pid     int
	started uint64
}

// findMain is the main process of a service. That whose exit was told is its
// main process no more, though systemd may have yet to say so.
func (s *session) findMain(t *target) (stat, error) {
	pid, started, known, err := s.mains.Main(t.subject.unit)
	switch {
	case !known:
		return stat{}, errPending
	case err != nil:
		return stat{}, err
	case pid == 0, t.over == turn{pid, started}:
		return stat{}, fmt.Errorf("%w: %s has no main process; start it, or wait for it (--wait)", belfry.ErrNoEvent, t.subject.unit)
	}
	t.next = turn{pid, started}
	return alive(pid, fmt.Sprintf("process %d of %s is not there", pid, t.subject.unit))
}

// hasOther tells whether a service has another main process than the one that is
// held. One that has ended is not let go of before its exit was told.
func (s *session) hasOther(t *target) bool {
	pid, started, known, err := s.mains.Main(t.subject.unit)
	return known && err == nil && pid != 0 && t.held.turn != turn{pid, started} && !over(t.held)
}

// over tells whether a process has ended: its pidfd is readable (pidfd_open(2)).
func over(h *held) bool {
	fds := []unix.PollFd{{Fd: int32(h.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// checkUnit refuses what can not be the name of a service. Whether there is one
// systemd knows.
func checkUnit(name string) error {
	const characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
	stem, ok := strings.CutSuffix(name, ".service")
	switch {
	case !ok:
		return fmt.Errorf("%w: unit=%q: only services have a main process; write unit=NAME.service", belfry.ErrUsage, name)
	case stem == "", strings.HasPrefix(stem, "@"), len(name) > 255, strings.Trim(name, characters) != "":
		return fmt.Errorf("%w: unit=%q is no name of a service; write one as `systemctl list-units` prints it", belfry.ErrUsage, name)
	case strings.HasSuffix(stem, "@"):
		return fmt.Errorf("%w: unit=%s is a template, which does not run itself; write unit=%sNAME.service", belfry.ErrUsage, name, stem)
	}
	return nil
}

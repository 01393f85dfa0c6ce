package process

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
)

// attempts bounds how often a search is repeated because what it found was
// gone before it could be held.
const attempts = 8

// shared is one look at the processes for all targets that are due together.
type shared struct{ seen *view }

func (s *shared) view() (*view, error) {
	if s.seen != nil {
		return s.seen, nil
	}
	v, err := look()
	s.seen = v
	return v, err
}

// locate finds the process that t names now, if it holds none or holds
// another one by now, and tells the machine. A watch that does not wait ends
// when there is none.
func (s *session) locate(now time.Time, t *target, once *shared) error {
	if t.held != nil && !s.changed(t) {
		return nil
	}
	if t.held == nil {
		s.listen(t) // first, so that nothing comes in between
	}
	for range attempts {
		found, why := s.find(t, once)
		if why != nil {
			return s.absent(t, why)
		}
		if t.held != nil && t.held.pid == found.pid && t.held.start == found.start {
			return nil // a pid file that was written anew with the old number
		}
		if err := s.release(t); err != nil {
			return err
		}
		ok, err := s.hold(t, found)
		if err != nil {
			s.forget(t)
			return s.send(event.End{Entry: t.watch.Entry, Err: err})
		}
		if ok {
			return s.send(event.Associate{Entry: t.watch.Entry, Instance: t.held.instance(), Exclusive: t.subject.exclusive()})
		}
		once.seen = nil // what we saw is no longer so
	}
	return s.absent(t, fmt.Errorf("%w: %s: each process of that name ended at once", belfry.ErrNoEvent, t.subject.text))
}

// changed tells whether the held process, which lives, may no longer be the
// one that is meant: it runs another program now, or the pid file was written.
func (s *session) changed(t *target) bool {
	if !t.held.reaped.IsZero() {
		return false // it is dead: its exit comes first
	}
	switch t.subject.kind {
	case byExe:
		file, err := exeFile(t.held.pid)
		return err == nil && file != t.held.file
	case byPidfile:
		pid, err := readPidfile(t.subject.path)
		return err == nil && pid != t.held.pid && !over(t.held)
	case byUnit:
		return s.hasOther(t)
	}
	return false
}

// release lets go of a process that lives but is not meant any more.
func (s *session) release(t *target) error {
	if t.held == nil {
		return nil
	}
	instance := t.held.instance()
	s.drop(t)
	t.had = true
	s.listen(t)
	return s.send(event.Invalidate{Entry: t.watch.Entry, Instance: instance})
}

// absent ends a watch that does not wait. One that had a process before goes on looking.
func (s *session) absent(t *target, why error) error {
	if errors.Is(why, errPending) {
		return nil
	}
	if t.held != nil {
		if t.subject.kind == byPidfile || t.subject.kind == byUnit {
			return nil // it names nothing that lives: the old one may still be it
		}
		return s.release(t)
	}
	if t.had || t.watch.Wait && (mayCome(why) || t.anotherOf(why)) {
		t.executed = t.executed && t.hint > 0
		return nil
	}
	s.forget(t)
	return s.send(event.End{Entry: t.watch.Entry, Err: why})
}

// find searches for the process that a target names.
func (s *session) find(t *target, once *shared) (stat, error) {
	if t.subject.kind == byUnit {
		return s.findMain(t)
	}
	return find(t.subject, once)
}

// find searches for the process that a subject names.
func find(sub subject, once *shared) (stat, error) {
	switch sub.kind {
	case byPID:
		if of, ok := threadOf(sub.pid); ok {
			return stat{}, fmt.Errorf("%w: %d is a thread; write pid=%d for its process", belfry.ErrUsage, sub.pid, of)
		}
		return alive(sub.pid, fmt.Sprintf("no process %d", sub.pid))
	case byPidfile:
		return findPidfile(sub)
	}
	v, err := once.view()
	if err != nil {
		return stat{}, fmt.Errorf("%w: %s: %w", belfry.ErrUnknown, sub.text, err)
	}
	var found stat
	var ok bool
	if sub.kind == byExe {
		found, ok = v.byExe(sub.path)
	} else {
		found, ok = v.byCmdline(sub)
	}
	if ok {
		return found, nil
	}
	if sub.kind == byCmdline {
		return stat{}, fmt.Errorf("%w: no command line matches %s; start it, or wait for it (--wait)", belfry.ErrNoEvent, sub.expression)
	}
	if pid, ok := v.suspect(sub.path); ok {
		return stat{}, fmt.Errorf("%w: process %d may run %s, but only its owner and root may see; run the agent as one of them",
			errHidden, pid, sub.path)
	}
	return stat{}, fmt.Errorf("%w: no process runs %s; start it, or wait for it (--wait)", belfry.ErrNoEvent, sub.path)
}

func findPidfile(sub subject) (stat, error) {
	pid, err := readPidfile(sub.path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return stat{}, fmt.Errorf("%w: the agent may not read %s", belfry.ErrPermission, sub.path)
	case err != nil:
		return stat{}, fmt.Errorf("%w: %w; start the service, or wait for it (--wait)", belfry.ErrNoEvent, err)
	}
	return alive(pid, fmt.Sprintf("%s names process %d, which is not there", sub.path, pid))
}

// alive refuses with ErrNoEvent what has ended already, even if its parent
// has not taken the status yet.
func alive(pid int, otherwise string) (stat, error) {
	s, err := readStat(pid)
	if err != nil || s.dead() {
		return stat{}, fmt.Errorf("%w: %s; start it, or wait for it (--wait)", belfry.ErrNoEvent, otherwise)
	}
	return s, nil
}

// status is how a process ended. The kernel keeps it with the pidfd once the
// parent has taken it (PIDFD_GET_INFO, Linux 6.15); until then it stands in
// /proc for those who may trace. It answers false when to ask again later.
func status(h *held) (exit, bool) {
	how, reaped, _ := pidfdStatus(h.pidfd)
	if reaped {
		return how, true
	}
	if s, err := readStat(h.pid); err == nil && s.start == h.start && s.dead() && (s.status != 0 || mayTrace(h.pid)) {
		return decode(s.status, "proc"), true
	}
	how, reaped, err := pidfdStatus(h.pidfd) // it may have been taken between the two
	return how, reaped || err != nil
}

// pidfdStatus asks the pidfd. An error means that it will never say:
// ENOTTY and EINVAL before Linux 6.15, ESRCH there when the process is gone.
func pidfdStatus(pidfd int) (how exit, reaped bool, err error) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil {
		return unknown, false, err
	}
	if info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return unknown, false, nil
	}
	return decode(uint32(info.Exit_code), "pidfd"), true, nil
}

package process_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// services says what the main processes are.
type services struct {
	mu      sync.Mutex
	mains   map[string]main
	changed func() // nil: not open
	follows map[string]int
}

type main struct {
	pid     int
	started uint64
	err     error
}

func newServices() *services { return &services{mains: map[string]main{}, follows: map[string]int{}} }

func (s *services) Open(changed func()) process.Mains {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = changed
	return s
}

func (s *services) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = nil
}

func (s *services) Follow(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follows[name]++
}

func (s *services) Unfollow(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follows[name]--
}

func (s *services) Main(name string) (int, uint64, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, known := s.mains[name]
	return m.pid, m.started, known, m.err
}

func (s *services) set(name string, m main) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mains[name] = m
	if s.changed != nil {
		s.changed()
	}
}

const web = "unit=web.service"

func mainOf(c *child, started uint64) main { return main{pid: c.Process.Pid, started: started} }

func TestARegistrationByUnitFollowsRestarts(t *testing.T) {
	t.Parallel()
	s := newServices()
	one := start(t, "/bin/sh", "exit 0")
	s.set("web.service", mainOf(one, 1))
	d := producertest.Start(t, process.New().WithUnits(s))
	w := d.Watch(event.Watch{Class: process.Class, Subject: web})
	a := associated(t, d, one)
	if a.Exclusive {
		t.Error("unit= is exclusive, but an alias names the same service")
	}
	one.kill(syscall.SIGKILL)
	if data := exited(t, d, a); data.Signal != "KILL" {
		t.Errorf("%v, want KILL", data)
	}
	s.set("web.service", mainOf(one, 1)) // what was said before it ended arrives late
	s.set("web.service", main{})
	d.Quiet(150 * time.Millisecond)
	two := start(t, "/bin/sh", "exit 7")
	s.set("web.service", mainOf(two, 2))
	a = associated(t, d, two)

	// A service may hand over to another process while the old one lives.
	three := start(t, "/bin/sh", "exit 3")
	s.set("web.service", mainOf(three, 3))
	if i := producertest.NextOf[event.Invalidate](d); i.Instance != a.Instance {
		t.Errorf("%+v, want %s", i, a.Instance)
	}
	a = associated(t, d, three)
	two.release()
	three.release()
	if data := exited(t, d, a); data.GetExitCode() != 3 {
		t.Errorf("%v, want 3", data)
	}
	d.Unwatch(w.ID)
	d.Unwatch(w.ID) // when it is taken, the first was carried out
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follows["web.service"] != 0 || s.changed != nil {
		t.Errorf("followed %d times, open %v; want all closed", s.follows["web.service"], s.changed != nil)
	}
}

func TestAUnitIsWaitedForUntilItIsKnown(t *testing.T) {
	t.Parallel()
	s := newServices()
	d := producertest.Start(t, process.New().WithUnits(s))
	w := d.Watch(event.Watch{Class: process.Class, Subject: web})
	patient := d.Watch(event.Watch{Class: process.Class, Subject: "unit=db.service", Wait: true})
	d.Quiet(150 * time.Millisecond) // nobody has answered yet
	s.set("web.service", main{})
	end := producertest.NextOf[event.End](d)
	if end.Entry != w.Entry || !errors.Is(end.Err, belfry.ErrNoEvent) || !strings.Contains(end.Err.Error(), "; start it, or wait for it (--wait)") {
		t.Errorf("%+v, want ErrNoEvent", end)
	}
	s.set("db.service", main{err: fmt.Errorf("%w: no such unit", belfry.ErrNoEvent)})
	s.set("db.service", main{err: outage{belfry.ErrUnsupported}})
	d.Quiet(150 * time.Millisecond)
	c := start(t, "/bin/sh", "exit 0")
	s.set("db.service", mainOf(c, 1))
	if a := associated(t, d, c); a.Entry != patient.Entry {
		t.Errorf("%+v, want entry %d", a, patient.Entry)
	}
}

// outage is an error that ends by itself.
type outage struct{ error }

func (o outage) Unwrap() error { return o.error }
func (outage) Temporary() bool { return true }

func TestWithoutSystemdAUnitIsRefused(t *testing.T) {
	t.Parallel()
	s := newServices()
	s.set("web.service", main{err: fmt.Errorf("%w: systemd does not run; write exe=", belfry.ErrUnsupported)})
	d := producertest.Start(t, process.New().WithUnits(s))
	d.Watch(event.Watch{Class: process.Class, Subject: web, Wait: true})
	if end := producertest.NextOf[event.End](d); !errors.Is(end.Err, belfry.ErrUnsupported) {
		t.Errorf("%+v, want ErrUnsupported", end)
	}
}

func TestConformanceByUnit(t *testing.T) { // not parallel: it counts goroutines
	s := newServices()
	var worker *child
	started := uint64(0)
	again := func() {
		worker = start(t, "/bin/sh", "exit 0")
		started++
		s.set("web.service", mainOf(worker, started))
	}
	dead := func() {
		worker.kill(syscall.SIGKILL)
		<-worker.reaped
	}
	again()
	s.set("none.service", main{err: fmt.Errorf("%w: no unit none.service; wait for it", belfry.ErrNoEvent)})
	producertest.Run(t, process.New().WithUnits(s), producertest.Fixture{
		Class:   process.Class,
		Subject: web,
		Cause:   dead,
		Undo: func() {
			select {
			case <-worker.reaped:
				again()
			default:
			}
		},
		Replace:   func() { dead(); again() }, // its exit may be told after its successor is known
		Absent:    "unit=none.service",
		Malformed: "unit=web",
		Rounds:    1000,
	})
}

package unit

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// A Main is the main process of a service.
type Main struct {
	PID     int    // 0: it has none
	Started uint64 // µs after boot (CLOCK_MONOTONIC): tells it from another one with the same number
}

// Mains follows the main processes of services from Open to Close, and takes no
// connection while it is asked for none. Safe for concurrent use.
type Mains struct {
	changed func()
	cancel  context.CancelFunc
	done    chan struct{}
	wake    chan struct{} // capacity 1: names changed

	mu      sync.Mutex
	names   map[string]bool
	answers map[string]answer // of names
}

type answer struct {
	main Main
	err  error
}

// Open begins to follow. Changed is called when an answer of Main is another one
// than before; it must not wait.
func (s *Systemd) Open(changed func()) *Mains {
	ctx, cancel := context.WithCancel(context.Background())
	m := &Mains{
		changed: changed, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		names: map[string]bool{}, answers: map[string]answer{},
	}
	go func() {
		defer close(m.done)
		m.run(ctx, s)
	}()
	return m
}

// Close ends it and waits until nothing of it is open.
func (m *Mains) Close() {
	m.cancel()
	<-m.done
}

// Follow begins to follow a service, or another alias of it.
func (m *Mains) Follow(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names[name] = true
	m.ring()
}

// Unfollow ends that.
func (m *Mains) Unfollow(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.names, name)
	delete(m.answers, name)
	m.ring()
}

func (m *Mains) ring() {
	select {
	case m.wake <- struct{}{}:
	default: // it is awake already
	}
}

// Main is the main process of a service that is followed, from memory. Not known
// is what systemd has yet to say. ErrNoEvent: there is no such unit;
// ErrUnsupported: systemd can not be asked, for the time being if the error is
// Temporary.
func (m *Mains) Main(name string) (pid int, started uint64, known bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, known := m.answers[name]
	return a.main.PID, a.main.Started, known, a.err
}

// run asks systemd, in a goroutine of its own: who asks for a main process does
// not wait for it.
func (m *Mains) run(ctx context.Context, systemd *Systemd) {
	t := newTracker(systemd, m)
	defer t.leave()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Stop()
		if t.feed == nil && len(m.exact()) > 0 && !t.retry.IsZero() {
			timer.Reset(time.Until(t.retry))
		}
		var asked map[string]bool
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			asked = m.follow(ctx, t)
		case <-t.bell():
			_ = t.hear(ctx, time.Now()) // fails only by the listener, which does not
		case <-timer.C:
			_ = t.connect(ctx, time.Now())
		}
		if ctx.Err() != nil {
			return
		}
		m.publish(t, asked)
	}
}

// follow asks for what is new, and answers what that is.
func (m *Mains) follow(ctx context.Context, t *tracker) map[string]bool {
	names := m.exact()
	if len(names) == 0 {
		t.leave()
	}
	t.prune()
	asked := map[string]bool{}
	for _, name := range names {
		if _, _, known, _ := m.Main(name); !known {
			_ = t.want(ctx, time.Now(), name)
			asked[name] = true
		}
	}
	return asked
}

// publish gives the answers that there are now. Asked are names that have had
// none; others without one are about to be asked for.
func (m *Mains) publish(t *tracker, asked map[string]bool) {
	m.mu.Lock()
	news := false
	for name := range m.names {
		if _, known := m.answers[name]; !known && !asked[name] {
			continue
		}
		a := answer{}
		if u := t.byName[name]; u != nil {
			a.main = u.main
		} else {
			a.err = t.absent(name)
		}
		before, known := m.answers[name]
		news = news || !known || before.main != a.main || (before.err == nil) != (a.err == nil)
		m.answers[name] = a
	}
	m.mu.Unlock()
	if news {
		m.changed()
	}
}

func (m *Mains) exact() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.names))
}

func (m *Mains) asked(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names[name]
}

func (m *Mains) meant(string) bool                   { return false }
func (m *Mains) appear(time.Time, *unit) error       { return nil }
func (m *Mains) change(time.Time, unit, *unit) error { return nil }
func (m *Mains) vanish(time.Time, *unit) error       { return nil }

package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
)

// A starter runs a command for where a resource is, and for the next place when that
// is no more.
type starter struct {
	mu      sync.Mutex
	target  string
	usable  []string
	changed chan struct{} // closed when it is otherwise
}

func newStarter() *starter { return &starter{changed: make(chan struct{})} }

// use is for follower.
func (s *starter) use(target string, usable []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target, s.usable = target, usable
	close(s.changed)
	s.changed = make(chan struct{})
}

// move is for follower.
func (s *starter) move(target string, _ <-chan struct{}) { s.use(target, []string{target}) }

func (s *starter) now() (target string, usable []string, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.target, s.usable, s.changed
}

// errElsewhere ends a command that is started again.
var errElsewhere = errors.New("the resource is elsewhere")

// run waits for a place, up to hold for the first one, and runs the command; with
// again, once for each place.
func (s *starter) run(ctx context.Context, hold time.Duration, again bool, run func(ctx context.Context, address string) error) error {
	timer := time.NewTimer(hold)
	defer timer.Stop()
	for {
		target, _, changed := s.now()
		if target == "" {
			select {
			case <-changed:
				continue
			case <-timer.C:
				return failf(belfry.ErrNotFound, "the resource can be used nowhere for %s; belfry witness list -o wide says why", hold)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		timer.Stop() // from now on it waits as long as it takes
		running, end := context.WithCancelCause(ctx)
		if again {
			go s.watch(running, target, end)
		}
		err := run(running, target)
		ended := errors.Is(context.Cause(running), errElsewhere)
		end(nil)
		if !ended || ctx.Err() != nil {
			return err
		}
	}
}

// watch ends what runs for a target when that is not used any more.
func (s *starter) watch(ctx context.Context, target string, end context.CancelCauseFunc) {
	for {
		now, usable, changed := s.now()
		if now != target && !slices.Contains(usable, target) {
			end(errElsewhere)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

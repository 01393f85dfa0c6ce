package producer

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
)

// RunnerOptions are what a Runner depends on.
type RunnerOptions struct {
	// Producers are all that this agent has. No two serve the same class.
	Producers []Producer

	// Send hands messages to the event machine's driver, in order. It may wait
	// until ctx ends, and then answers its error. Safe for concurrent use.
	Send func(ctx context.Context, messages ...event.Message) error

	// Failed is told each time a producer returned an error, panicked or
	// stopped by itself, and how often it has been started again by now, this
	// time included. It must not wait. Nil: nobody is told.
	Failed func(producer, reason string, restarts uint64)

	// Logger gets one line a failure. Nil: none.
	Logger *slog.Logger
}

// A Runner starts a producer when the first watch of one of its classes is
// asked for, cancels it after the last has ended, and starts it again with
// back-off when it fails. It is safe for concurrent use.
type Runner struct {
	opts    RunnerOptions
	group   sync.WaitGroup
	all     []*supervised // in the order of the options
	byClass map[belfry.Class]*supervised
	custom  []custom
}

// A custom class ends in ".*" in ClassInfo: below its prefix users choose names.
type custom struct {
	prefix string // "user."
	by     *supervised
}

// NewRunner makes a Runner that runs nothing yet.
func NewRunner(opts RunnerOptions) *Runner {
	if opts.Failed == nil {
		opts.Failed = func(string, string, uint64) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Runner{opts: opts, byClass: map[belfry.Class]*supervised{}}
	for _, p := range opts.Producers {
		s := newSupervised(r, p)
		r.all = append(r.all, s)
		for _, c := range p.Classes() {
			if c.Custom {
				r.custom = append(r.custom, custom{strings.TrimSuffix(string(c.Class), "*"), s})
				continue
			}
			r.byClass[c.Class] = s
		}
	}
	return r
}

// Watch begins or changes watches, in order. It never waits for a producer.
// It answers those whose class no producer serves: nobody will reply to them.
func (r *Runner) Watch(watches []event.Watch) (unserved []event.Watch) {
	for _, w := range watches {
		if s := r.route(w.Class); s != nil {
			s.watch(w)
		} else {
			unserved = append(unserved, w)
		}
	}
	return unserved
}

// Unwatch ends watches. It never waits for a producer, which may send a few
// more messages for an entry that it has not yet heard is gone.
func (r *Runner) Unwatch(unwatches []event.Unwatch) {
	for _, u := range unwatches {
		if s := r.route(u.Class); s != nil {
			s.unwatch(u.ID)
		}
	}
}

func (r *Runner) route(class belfry.Class) *supervised {
	if s := r.byClass[class]; s != nil {
		return s
	}
	for _, c := range r.custom {
		if strings.HasPrefix(string(class), c.prefix) {
			return c.by
		}
	}
	return nil
}

// Stop cancels all producers and waits until each has closed what it opened.
// Later calls of Watch have no effect.
func (r *Runner) Stop() {
	for _, s := range r.all {
		s.close()
	}
	r.group.Wait()
}

// Status says how one producer is.
type Status struct {
	Name     string
	Up       bool     // it runs now; false also while nobody watches
	Watches  int      // that stand
	Restarts uint64   // after failures, since the Runner was made
	Trouble  *Trouble // nil: it works, or nobody watches
}

// Running is the status of every producer, in the order of the options.
func (r *Runner) Running() []Status {
	all := make([]Status, 0, len(r.all))
	for _, s := range r.all {
		all = append(all, s.status())
	}
	return all
}

// Classes are the classes of all producers, sorted by name.
func (r *Runner) Classes() []belfry.ClassInfo {
	var all []belfry.ClassInfo
	for _, s := range r.all {
		all = append(all, s.producer.Classes()...)
	}
	slices.SortFunc(all, func(a, b belfry.ClassInfo) int { return strings.Compare(string(a.Class), string(b.Class)) })
	return all
}

// Bounds of the back-off after a failure: it doubles from the first to the
// second, plus up to a quarter of itself so that nodes that fail for the same
// reason do not come back in step. A run that lasted longer than the greatest
// back-off starts it over.
const (
	firstBackOff    = 100 * time.Millisecond
	greatestBackOff = 30 * time.Second
)

package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
)

// Defaults of a handler (events.md 10).
const (
	DefaultAttempts = 5
	workers         = 4
	retryFirst      = time.Second
	retryMost       = time.Minute
)

// Options say what a Runner runs.
type Options struct {
	Handler  string
	Cluster  string
	Sink     Sink
	Source   Source
	Store    *Store
	Attempts int  // before a dead letter; at least 1
	NoGaps   bool // gaps are acknowledged and not delivered
	Share    Share
	Log      *slog.Logger
	Observe  func(*Run) // after each run, for metrics; may be nil
}

// A Share says which nodes run a handler that is on several of them. A nil
// Share: this node runs everything that it gets.
type Share interface {
	// Await returns when it is known that this node is to run n, or that another
	// node is done with some of it. It gives up with ctx.
	Await(ctx context.Context, handler string, n *belfry.Notification) (Turn, error)
}

// A Turn says which node runs a notification.
type Turn struct {
	Mine    bool
	Done    uint64 // by another node, if not Mine; at least the first number
	Begun   int    // attempts that other nodes have begun, or may have
	Release func() // if Mine: to be called when all is written down
}

// A Runner takes the notifications of one handler to its sink. Notifications
// of one event follow each other; different events do not wait for each other
// but for a worker.
type Runner struct {
	Options
	slots chan struct{} // one for each that works
	group sync.WaitGroup

	mu      sync.Mutex
	open    int                     // notifications taken and not done with
	working map[Event]chan struct{} // closed at the end of the last run that has a ticket
}

// NewRunner makes a Runner; Run starts it.
func NewRunner(o Options) *Runner {
	if o.Attempts < 1 {
		o.Attempts = DefaultAttempts
	}
	if o.Observe == nil {
		o.Observe = func(*Run) {}
	}
	return &Runner{Options: o, slots: make(chan struct{}, workers), working: map[Event]chan struct{}{}}
}

// Open is how many notifications are being worked on.
func (r *Runner) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// Run delivers until ctx ends or the source does. What was begun is given up
// when ctx ends, and begun again by the next Runner with the same store and
// source.
func (r *Runner) Run(ctx context.Context) error {
	defer r.group.Wait()
	if !r.endAllLeft(ctx) {
		return nil
	}
	for {
		number, n, err := r.Source.Next(ctx)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("handler %s: %w", r.Handler, err)
		}
		r.count(1)
		t := r.ticket(EventOf(&n))
		r.group.Go(func() {
			defer r.count(-1)
			defer t.end()
			if t.wait(ctx) && r.handle(ctx, &n) {
				r.Source.Done(number)
			}
		})
	}
}

func (r *Runner) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open += n
}

// handle brings one notification to its end; false: ctx ended first.
func (r *Runner) handle(ctx context.Context, n *belfry.Notification) bool {
	attempt, skip, ok := r.resume(ctx, n)
	if skip || !ok {
		return ok
	}
	if r.Share != nil {
		turn, ok := r.await(ctx, n)
		if !ok || !turn.Mine {
			return ok
		}
		defer turn.Release()
		attempt = max(attempt, turn.Begun+1)
	}
	for ; ; attempt++ {
		run, ok := r.attempt(ctx, n, attempt)
		switch {
		case !ok:
			return false
		case run.Result != ResultRetry:
			return true
		case !pause(ctx, backoff(attempt)):
			return false
		}
	}
}

// A ticket is a place in the line of those that run for one event: what happened
// under a former agent of its node may meet what happens now, and a dead letter
// that an operator tries again the next notification.
type ticket struct {
	r            *Runner
	event        Event
	before, over chan struct{} // before: nil for the first
}

func (r *Runner) ticket(e Event) *ticket {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &ticket{r: r, event: e, before: r.working[e], over: make(chan struct{})}
	r.working[e] = t.over
	return t
}

// wait returns when all before it have ended; false: ctx ended first.
func (t *ticket) wait(ctx context.Context) bool {
	if t.before != nil {
		select {
		case <-t.before:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// end lets the next one go, but not before those that this one did not wait for.
func (t *ticket) end() {
	if t.before != nil {
		select {
		case <-t.before:
		default:
			go func() { <-t.before; t.pass() }() // ends with them
			return
		}
	}
	t.pass()
}

func (t *ticket) pass() {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	if t.r.working[t.event] == t.over {
		delete(t.r.working, t.event)
	}
	close(t.over)
}

// resume looks up what an earlier runner did with the event: what is done
// falls away, and what a run that was cut off had is attempted anew, in
// whatever pieces it comes now.
func (r *Runner) resume(ctx context.Context, n *belfry.Notification) (attempt int, skip, ok bool) {
	if !deliverable(n) || n.Kind == belfry.KindGap && r.NoGaps {
		return 0, true, true
	}
	var c cursor
	if !r.stored(ctx, "read", func() (err error) { c, err = r.Store.cursor(r.Handler, KeyOf(n)); return err }) {
		return 0, false, false
	}
	if !counted(n) {
		return 1, false, true
	}
	if !trim(n, c.Done) {
		return 0, true, true
	}
	return c.begun(n.First) + 1, false, true
}

// endAllLeft makes sure that nothing goes on of runs that an agent began which was
// killed, or the next ones of their events would overlap them: those wait until it
// is over, and others do not. false: ctx ended first.
func (r *Runner) endAllLeft(ctx context.Context) bool {
	var left []left
	if !r.stored(ctx, "read", func() (err error) { left, err = r.Store.left(r.Handler); return err }) {
		return false
	}
	for _, l := range left {
		t := r.ticket(l.Event)
		r.group.Go(func() {
			defer t.end()
			if t.wait(ctx) && r.endLeft(ctx, l.Begun) {
				r.stored(ctx, "write", func() error { return r.Store.unmark(&l.Begun) })
			}
		})
	}
	return true
}

func (r *Runner) endLeft(ctx context.Context, run Begun) bool {
	sink, may := r.Sink.(Leaver)
	if !may {
		return true
	}
	err := sink.EndLeft(ctx, run)
	if err != nil && ctx.Err() == nil {
		r.Log.Error("what a run left can not be looked for; the next one may overlap it", "handler", r.Handler, "err", err)
	}
	return ctx.Err() == nil
}

// deliverable leaves out what is about the registration and not the event.
func deliverable(n *belfry.Notification) bool { return n.Kind != belfry.KindCoverage }

// counted tells whether the numbers of a notification are its own: a state is
// told again under the number of the occurrence that led to it.
func counted(n *belfry.Notification) bool {
	return n.Kind == belfry.KindOccurrence || n.Kind == belfry.KindGap && n.Event.Class != ""
}

// trim takes the numbers up to done off a notification; false: nothing is left.
func trim(n *belfry.Notification, done uint64) bool {
	if n.Last <= done {
		return false
	}
	if n.First <= done {
		had := done - n.First + 1
		n.First = done + 1
		n.Count -= min(n.Count-min(n.Count, 1), had) // at least the newest is left
		n.Skipped = min(n.Skipped, n.Last-n.First+1-min(n.Count, n.Last-n.First+1))
		if n.Gap != nil {
			gap := *n.Gap
			gap.Total -= min(gap.Total, had)
			n.Gap = &gap
		}
	}
	return true
}

// await leaves a notification to the node whose turn it is.
func (r *Runner) await(ctx context.Context, n *belfry.Notification) (turn Turn, ok bool) {
	for {
		turn, err := r.Share.Await(ctx, r.Handler, n)
		if err != nil || turn.Mine {
			return turn, err == nil
		}
		whole := *n
		if counted(n) && trim(n, turn.Done) {
			whole.Last = turn.Done
			if !r.finish(ctx, &Run{Handler: r.Handler, Notification: whole, Result: ResultOther}, 0) {
				return turn, false
			}
			continue // the rest is another run
		}
		return turn, r.finish(ctx, &Run{Handler: r.Handler, Notification: whole, Result: ResultOther}, 0)
	}
}

// attempt is one run; false: ctx ended first, and the run does not count.
func (r *Runner) attempt(ctx context.Context, n *belfry.Notification, attempt int) (*Run, bool) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, false
	}
	if !r.stored(ctx, "write", func() error { return r.Store.begin(r.Handler, n, attempt, time.Now()) }) {
		return nil, false
	}
	run := r.deliver(ctx, n, attempt)
	if ctx.Err() != nil && run.Result != ResultDone {
		return nil, false // it was cut off, and is attempted anew
	}
	return run, r.finish(ctx, run, 0)
}

// deliver is one attempt; the last one that fails makes a dead letter.
func (r *Runner) deliver(ctx context.Context, n *belfry.Notification, attempt int) *Run {
	run := Try(ctx, r.Sink, Delivery{Handler: r.Handler, Cluster: r.Cluster, Attempt: attempt, Notification: *n})
	if run.Result == ResultRetry && attempt >= r.Attempts {
		run.Result = ResultDead
	}
	return run
}

// Try calls a sink once and says what came of it; nothing is kept.
func Try(ctx context.Context, s Sink, d Delivery) *Run {
	begun := time.Now()
	err := call(ctx, s, &d)
	run := &Run{
		Handler: d.Handler, Notification: d.Notification, Attempt: d.Attempt, Started: begun, Took: time.Since(begun),
		Exit: d.Exit, Output: d.Output[:min(len(d.Output), MaxOutput)], Result: ResultDone,
	}
	switch {
	case err == nil:
	case IsPermanent(err):
		run.Error, run.Result = err.Error(), ResultDead
	default:
		run.Error, run.Result = err.Error(), ResultRetry
	}
	return run
}

// call keeps a sink that panics from taking the agent with it.
func call(ctx context.Context, s Sink, d *Delivery) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Permanent(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return s.Deliver(ctx, d)
}

// finish keeps a run; letter is the dead letter that it tried again, or 0.
func (r *Runner) finish(ctx context.Context, run *Run, letter uint64) bool {
	dropped := 0
	ok := r.stored(ctx, "write", func() (err error) { dropped, err = r.Store.finish(run, letter, time.Now()); return err })
	if !ok {
		return false
	}
	r.Observe(run)
	n := &run.Notification
	switch run.Result {
	case ResultRetry:
		r.Log.Warn("handler failed", "handler", r.Handler, "class", n.Event.Class, "subject", n.Event.Subject, "sequence", n.Last, "attempt", run.Attempt, "err", run.Error)
	case ResultDead:
		r.Log.Error("handler gave up", "handler", r.Handler, "class", n.Event.Class, "subject", n.Event.Subject, "sequence", n.Last, "run", run.ID, "attempt", run.Attempt, "err", run.Error, "dead_letters_dropped", dropped)
	}
	return true
}

// stored tries until the store can be read or written: without it nobody
// could say what has run. Meanwhile the queue coalesces.
func (r *Runner) stored(ctx context.Context, what string, do func() error) bool {
	for n := 1; ; n++ {
		err := do()
		if err == nil {
			return true
		}
		r.Log.Error("handler waits for its state file", "handler", r.Handler, "to", what, "err", err)
		if !pause(ctx, backoff(n)) {
			return false
		}
	}
}

// Retry delivers a dead letter once more, beside the order of events but never
// at the same time as another run of its event. The letter goes if that
// succeeds.
func (r *Runner) Retry(ctx context.Context, letter Run) (*Run, error) {
	n := &letter.Notification
	t := r.ticket(EventOf(n))
	defer t.end()
	if !t.wait(ctx) || !r.stored(ctx, "write", func() error { return r.Store.mark(r.Handler, n, r.Attempts) }) {
		return nil, ctx.Err()
	}
	run := r.deliver(ctx, n, r.Attempts) // it has no other
	if !r.finish(ctx, run, letter.ID) {
		return nil, ctx.Err()
	}
	return run, nil
}

// Again delivers a notification once more, never at the same time as another
// run of its event. Nothing is kept of it.
func (r *Runner) Again(ctx context.Context, n belfry.Notification) (*Run, error) {
	t := r.ticket(EventOf(&n))
	defer t.end()
	if !t.wait(ctx) {
		return nil, ctx.Err()
	}
	return Try(ctx, r.Sink, Delivery{Handler: r.Handler, Cluster: r.Cluster, Attempt: 1, Notification: n}), nil
}

// backoff is how long to wait after an attempt: doubling, with a quarter of
// jitter either way.
func backoff(attempt int) time.Duration {
	d := retryFirst << min(attempt-1, 16)
	d = min(d, retryMost)
	return d*3/4 + time.Duration(rand.Int64N(int64(d/2)))
}

// pause waits; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

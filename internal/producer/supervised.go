package producer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry/internal/event"
)

// A supervised producer and what it has been asked for. The caller's side
// (watch, unwatch) only changes maps under a mutex; one goroutine, which lives
// while a watch stands, does the rest.
type supervised struct {
	runner   *Runner
	producer Producer
	log      *slog.Logger

	mu       sync.Mutex
	standing map[event.WatchID]event.Watch
	pending  requests
	alive    bool               // its goroutine runs
	up       bool               // Run has been called and has not returned
	stop     context.CancelFunc // ends the goroutine; nil: there is none
	idle     context.CancelFunc // ends the present call of Run; nil: there is none
	wake     chan struct{}      // capacity 1: pending or standing changed
	restarts uint64
	closed   bool
	began    time.Time // the present or last call of Run
	failures failures

	instances instances
}

func newSupervised(r *Runner, p Producer) *supervised {
	return &supervised{
		runner:    r,
		producer:  p,
		log:       r.opts.Logger.With("producer", p.Name()),
		standing:  map[event.WatchID]event.Watch{},
		wake:      make(chan struct{}, 1),
		instances: instances{present: map[event.EntryID]string{}, doubtful: map[event.EntryID]bool{}},
	}
}

func (s *supervised) watch(w event.Watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.standing[w.ID] = w
	s.pending.watch(w)
	if !s.alive {
		ctx, cancel := context.WithCancel(context.Background())
		s.alive, s.stop = true, cancel
		s.runner.group.Go(func() { s.supervise(ctx) })
	}
	s.signal()
}

func (s *supervised) unwatch(id event.WatchID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.standing[id]
	if !ok {
		return
	}
	delete(s.standing, id)
	s.pending.unwatch(id)
	s.instances.forget(w.Entry)
	if len(s.standing) == 0 && s.idle != nil {
		s.idle()
	}
	s.signal()
}

func (s *supervised) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	clear(s.standing)
	if s.stop != nil {
		s.stop()
	}
}

func (s *supervised) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Name: s.producer.Name(), Up: s.up, Watches: len(s.standing), Restarts: s.restarts, Trouble: s.trouble(time.Now())}
}

func (s *supervised) signal() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already
	}
}

// supervise calls Run until nobody watches any more.
func (s *supervised) supervise(ctx context.Context) {
	backOff := firstBackOff
	for s.begin() {
		asked, err := s.run(ctx)
		if asked { // to stop: what it says about that does not matter
			continue
		}
		if err == nil {
			err = errors.New("it stopped by itself")
		}
		if time.Since(s.began) > greatestBackOff { // only this goroutine writes it
			backOff = firstBackOff
		}
		pause := backOff + rand.N(backOff/4+1)
		s.failed(ctx, err, pause)
		s.pause(ctx, pause)
		backOff = min(2*backOff, greatestBackOff)
	}
}

// begin prepares one call of Run: it is asked for everything that stands. It
// answers false, and the goroutine must end, when that is nothing.
func (s *supervised) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.standing) == 0 { // nobody watches, or the Runner stops
		s.stop()
		s.alive, s.stop, s.failures = false, nil, failures{}
		return false
	}
	s.pending = requests{by: map[event.WatchID]Request{}, told: map[event.WatchID]event.EntryID{}}
	for _, id := range slices.Sorted(maps.Keys(s.standing)) { // the order they were made in
		s.pending.watch(s.standing[id])
	}
	return true
}

// run is one call of the producer's Run, with the goroutine that feeds it. It
// tells whether the producer was asked to end.
func (s *supervised) run(ctx context.Context) (asked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.idle, s.up, s.began = cancel, true, time.Now()
	if len(s.standing) == 0 { // the last watch ended since begin
		cancel()
	}
	s.mu.Unlock()
	feed := make(chan Request)
	var feeder sync.WaitGroup
	feeder.Go(func() { s.feed(ctx, feed) })
	err = s.protect(ctx, feed)
	asked = ctx.Err() != nil
	cancel()
	feeder.Wait()
	s.mu.Lock()
	s.idle, s.up = nil, false
	s.failures.ended(time.Since(s.began))
	s.mu.Unlock()
	return asked, err
}

// protect calls Run and turns a panic into an error: a broken producer must
// not end the agent.
func (s *supervised) protect(ctx context.Context, feed <-chan Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("producer panicked", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return s.producer.Run(ctx, feed, func(messages ...event.Message) error { return s.send(ctx, messages) })
}

// feed hands over the requests one by one. Those that a slow producer has not
// taken yet replace each other, so they are never more than the watches.
func (s *supervised) feed(ctx context.Context, to chan<- Request) {
	for {
		s.mu.Lock()
		next, ok := s.pending.first()
		s.mu.Unlock()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-s.wake:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case to <- next:
			s.mu.Lock()
			s.instances.forget(s.pending.taken(next))
			s.mu.Unlock()
		case <-s.wake: // next may have changed
		}
	}
}

func (s *supervised) send(ctx context.Context, messages []event.Message) error {
	s.mu.Lock()
	for i, m := range messages {
		if marked, ok := s.instances.passing(m); ok {
			messages[i] = marked
		}
	}
	s.mu.Unlock()
	return s.runner.opts.Send(ctx, messages...)
}

// failed takes the identifiers away that the producer had given: nobody
// watches them now, and what they name may change until it runs again.
func (s *supervised) failed(ctx context.Context, err error, pause time.Duration) {
	s.mu.Lock()
	s.failures.note(time.Now(), err.Error(), pause)
	s.restarts++
	restarts := s.restarts
	messages := s.instances.lose()
	s.mu.Unlock()
	s.log.Warn("producer failed", "err", err, "restarts", restarts)
	s.runner.opts.Failed(s.producer.Name(), err.Error(), restarts)
	if len(messages) > 0 {
		_ = s.runner.opts.Send(ctx, messages...) // fails only when the agent stops
	}
}

// pause waits for d, or until there is nothing to start again for.
func (s *supervised) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-s.wake:
			s.mu.Lock()
			nobody := len(s.standing) == 0
			s.mu.Unlock()
			if nobody {
				return
			}
		}
	}
}

// requests are what the producer has not been told yet, in the order in which
// they came, at most one a watch.
type requests struct {
	order []event.WatchID // a superset of the keys of by
	by    map[event.WatchID]Request
	told  map[event.WatchID]event.EntryID // watches that this call of Run knows
}

func (q *requests) watch(w event.Watch) {
	if q.by != nil { // else the goroutine has yet to begin: it asks for all that stands
		q.put(w.ID, Request{Watch: &w})
	}
}

func (q *requests) unwatch(id event.WatchID) {
	if _, ok := q.told[id]; ok {
		q.put(id, Request{Unwatch: id})
	} else { // it never knew: nothing to say
		delete(q.by, id)
	}
}

func (q *requests) put(id event.WatchID, r Request) {
	if _, ok := q.by[id]; !ok {
		q.order = append(q.order, id)
	}
	q.by[id] = r
}

func (q *requests) first() (Request, bool) {
	for len(q.order) > 0 {
		if r, ok := q.by[q.order[0]]; ok {
			return r, true
		}
		q.order = q.order[1:]
	}
	return Request{}, false
}

// taken notes that the producer has r. What replaced r meanwhile stays. It
// answers the entry that the producer no longer knows; zero: none.
func (q *requests) taken(r Request) (gone event.EntryID) {
	id := r.Unwatch
	if r.Watch != nil {
		id = r.Watch.ID
		q.told[id] = r.Watch.Entry
	} else {
		gone = q.told[id]
		delete(q.told, id)
	}
	switch now, ok := q.by[id]; {
	case ok && now == r:
		delete(q.by, id)
	case !ok && r.Watch != nil: // ended while it was being handed over
		q.put(id, Request{Unwatch: id})
	}
	return gone
}

// instances remembers which identifiers a producer has given, so that they
// can be taken away in its place when it fails.
type instances struct {
	present  map[event.EntryID]string
	doubtful map[event.EntryID]bool // nobody watched for a while: occurrences may be missing
}

// passing notes one message on its way to the machine. It marks the first
// occurrence after a failure, and then answers true: some before it may never
// have been seen.
func (i *instances) passing(m event.Message) (event.Message, bool) {
	switch m := m.(type) {
	case event.Associate:
		i.present[m.Entry] = m.Instance
	case event.Invalidate:
		delete(i.present, m.Entry)
	case event.End:
		i.forget(m.Entry)
	case event.Post:
		if i.doubtful[m.Entry] {
			delete(i.doubtful, m.Entry)
			m.Occurrence.LowerBound = true
			return m, true
		}
	}
	return nil, false
}

func (i *instances) forget(entry event.EntryID) {
	delete(i.present, entry)
	delete(i.doubtful, entry)
}

func (i *instances) lose() []event.Message {
	messages := make([]event.Message, 0, len(i.present))
	for _, entry := range slices.Sorted(maps.Keys(i.present)) {
		messages = append(messages, event.Invalidate{Entry: entry, Instance: i.present[entry]})
		i.doubtful[entry] = true
	}
	clear(i.present)
	return messages
}

package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/sink"
)

const (
	// ofPast marks the numbers of what comes from the journal; consumers count
	// their batches from 1.
	ofPast = 1 << 63
	// placeEvery is how often a handler's place is written while it moves.
	placeEvery = 5 * time.Second
	// placeWait bounds that at the end.
	placeWait = time.Second
)

// A handlerSource gives a runner what the handler has not done of the past,
// then what its consumer gets. As the consumer does, it has at most one
// notification of an event under way, and a bounded number in all.
type handlerSource struct {
	api.Consumer
	agent *Agent
	one   *handler
	store *sink.Store

	skips api.Skips // of the past, for the runner's goroutine

	past *past // nil: all of it has been taken
	left context.CancelFunc
	done chan struct{} // closed when the place is not written any more

	mu      sync.Mutex
	open    map[uint64]sink.Key // of the past
	next    uint64
	changed chan struct{} // has a value when open may have changed
	reading bool          // the past
	place   belfry.Cursor // as it was written
}

// newSource is called when the registrations are in force, so that what the
// journal does not have yet comes from the consumer.
func (h *handlers) newSource(ctx context.Context, one *handler, c api.Consumer, wishes []belfry.Registration, place belfry.Cursor, store *sink.Store) *handlerSource {
	ctx, cancel := context.WithCancel(ctx)
	s := &handlerSource{
		Consumer: c, agent: h.agent, one: one, store: store, place: place, left: cancel, done: make(chan struct{}),
		skips: api.Skips{}, open: map[uint64]sink.Key{}, changed: make(chan struct{}, 1),
	}
	var err error
	if s.past, err = s.begin(ctx, wishes, place); err != nil && ctx.Err() == nil {
		one.log.Info("handler begins with what happens now", "handler", one.spec.Name, "reason", err)
	}
	s.reading = s.past != nil
	h.agent.group.Go(func() error {
		defer close(s.done)
		s.keepPlace(ctx)
		return nil
	})
	return s
}

// begin opens the journal behind the handler's place.
func (s *handlerSource) begin(ctx context.Context, wishes []belfry.Registration, place belfry.Cursor) (*past, error) {
	if place.IsZero() {
		return nil, nil
	}
	upTo, err := s.agent.journal.flush(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.agent.journal.past(wishes, belfry.Since{Cursor: place}, upTo)
	if err != nil {
		return nil, err
	}
	p.quiet = true
	return p, nil
}

// Next is for the runner's one goroutine.
func (s *handlerSource) Next(ctx context.Context) (uint64, belfry.Notification, error) {
	for s.past != nil {
		n, _, err := s.past.Next()
		if err == nil {
			number, err := s.hand(ctx, &n)
			return number, n, err
		}
		if !errors.Is(err, io.EOF) {
			s.one.log.Error("the rest of the journal can not be read", "handler", s.one.spec.Name, "err", err)
		}
		s.skips.Add(0, s.past.Skipped())
		s.past.Close()
		s.past = nil
		s.mu.Lock()
		s.reading = false
		s.mu.Unlock()
	}
	b, err := s.Consumer.Next(ctx)
	if err != nil {
		return 0, belfry.Notification{}, err
	}
	n := b.Notifications[0] // OnePerEvent: there is one
	s.skips.Into(0, b.Number, &n)
	return b.Number, n, nil
}

// hand gives a notification of the past its number, when its event is free.
func (s *handlerSource) hand(ctx context.Context, n *belfry.Notification) (uint64, error) {
	key := sink.KeyOf(n)
	for {
		s.mu.Lock()
		free := len(s.open) < handlerWindow
		for _, busy := range s.open {
			free = free && busy != key
		}
		if free {
			s.next++
			number := ofPast | s.next
			s.open[number] = key
			s.mu.Unlock()
			return number, nil
		}
		s.mu.Unlock()
		select {
		case <-s.changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Done lets the next one of the same event come.
func (s *handlerSource) Done(number uint64) {
	if number&ofPast == 0 {
		s.Ack(number)
		return
	}
	s.mu.Lock()
	delete(s.open, number)
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// keepPlace writes the handler's place now and then, until ctx ends.
func (s *handlerSource) keepPlace(ctx context.Context) {
	ticker := time.NewTicker(placeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.writePlace(ctx)
		}
	}
}

// writePlace moves the place on, if nothing that was recorded up to there is
// still to be done. While something is, the handler's numbers say what is done.
func (s *handlerSource) writePlace(ctx context.Context) {
	to := journalView{s.agent.journal}.Durable()
	s.mu.Lock()
	busy, was := s.reading || len(s.open) > 0, s.place
	s.mu.Unlock()
	c, ok := s.Consumer.(*consumer)
	if busy || !ok || to == was {
		return
	}
	drained := false
	if err := s.agent.events.call(ctx, func(m *event.Machine) { drained, _ = m.Drained(c.id) }); err != nil || !drained {
		return
	}
	if err := s.store.SetPlace(s.one.spec.Name, to); err != nil {
		s.one.log.Error("place not written; a restart looks at more of the journal", "handler", s.one.spec.Name, "err", err)
		return
	}
	s.mu.Lock()
	s.place = to
	s.mu.Unlock()
}

// leave is called when the runner has ended.
func (s *handlerSource) leave() {
	s.left()
	<-s.done
	if s.past != nil {
		s.past.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), placeWait)
	defer cancel()
	s.writePlace(ctx)
}

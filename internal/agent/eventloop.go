package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
	"github.com/belfry-ha/belfry/internal/transport"
)

// An eventLoop owns the event machine: one goroutine receives everything,
// advances, and hands on what comes out. It never waits for whoever takes: a
// consumer gets its next batch only after it said that it is free, and
// meanwhile its queue coalesces in the machine.
type eventLoop struct {
	cfg     event.Config
	log     *slog.Logger
	in      chan input
	calls   chan func(*event.Machine)
	stopped chan struct{}

	requests  atomic.Uint64
	consumers atomic.Uint64

	watch   func([]event.Watch)
	unwatch func([]event.Unwatch)
	peer    func(belfry.NodeID, event.Frame)
	sources map[belfry.Class]producer.Sourced
}

// An input is what one wake-up of the loop takes as a whole.
type input struct {
	messages []event.Message
	open     *consumer           // of an Open among messages
	request  event.RequestID     // of the one message that wants an answer
	reply    chan<- event.Answer // with room for it
	frame    event.Frame         // among messages; nobody else has it
}

// inputs is how many inputs may wait. It bounds memory; a producer that posts
// faster than the loop works waits, and nobody else.
const inputs = 4096

var errStopped = fmt.Errorf("%w: the agent is stopping", belfry.ErrNoAgent)

func newEventLoop(cfg event.Config, log *slog.Logger) *eventLoop {
	return &eventLoop{
		cfg:     cfg,
		log:     log,
		in:      make(chan input, inputs),
		calls:   make(chan func(*event.Machine)),
		stopped: make(chan struct{}),
	}
}

// loopState is what only the loop's goroutine touches.
type loopState struct {
	machine   *event.Machine
	consumers map[event.ConsumerID]*consumer
	waiting   map[event.RequestID]chan<- event.Answer
}

// run ends when ctx does.
func (l *eventLoop) run(ctx context.Context) error {
	defer close(l.stopped)
	s := &loopState{
		machine:   event.New(l.cfg, time.Now(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))),
		consumers: map[event.ConsumerID]*consumer{},
		waiting:   map[event.RequestID]chan<- event.Answer{},
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // consumers see it by stopped: their registrations have not ended
		case in := <-l.in:
			s.receive(in)
		case call := <-l.calls:
			call(s.machine)
		case <-timer.C:
		}
		for range len(l.in) { // what has already arrived is one wake-up
			s.receive(<-l.in)
		}
		s.machine.Advance(time.Now())
		l.hand(s, s.machine.Take())
		if next := s.machine.NextTimeout(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

func (s *loopState) receive(in input) {
	if in.open != nil {
		s.consumers[in.open.id] = in.open
	}
	if in.request != 0 {
		s.waiting[in.request] = in.reply
	}
	now := time.Now()
	for _, m := range in.messages {
		s.machine.Receive(now, m)
		switch m := m.(type) {
		case event.Lost: // what waits here unsent is sent again after Resume
			if c := s.consumers[m.Consumer]; c != nil {
				c.drain()
			}
		case event.Close:
			if c := s.consumers[m.Consumer]; c != nil {
				c.end()
				delete(s.consumers, m.Consumer)
			}
		}
	}
	if in.frame != nil {
		transport.Release(in.frame)
	}
}

// hand gives away what the machine put out. Nothing here blocks. Goroutines run
// in turn but for the one that was woken last, which is next: streams are served
// last, so that whoever waits for an event goes before what is put in order.
func (l *eventLoop) hand(s *loopState, out event.Output) {
	if len(out.Watch) > 0 {
		l.watch(out.Watch)
	}
	if len(out.Unwatch) > 0 {
		l.unwatch(out.Unwatch)
	}
	for _, f := range out.Peers {
		l.peer(f.Node, f.Frame)
	}
	for _, a := range out.Answers {
		if reply, ok := s.waiting[a.Request]; ok {
			reply <- a // has room
			delete(s.waiting, a.Request)
		}
	}
	for _, stream := range []bool{false, true} {
		for _, b := range out.Batches {
			if c := s.consumers[b.Consumer]; c != nil && (c.kind == event.ConsumerStream) == stream {
				c.batches <- b // has room: the machine answers one Ready with one batch
			}
		}
	}
	for _, id := range out.Closed {
		if c := s.consumers[id]; c != nil {
			c.end()
			delete(s.consumers, id)
		}
	}
	for _, r := range out.Refused {
		l.log.Debug("input refused", "entry", r.Entry, "node", r.Node, "err", r.Err)
	}
}

// send is for producers and peers: it waits while the loop's input is full.
func (l *eventLoop) send(ctx context.Context, messages ...event.Message) error {
	return l.put(ctx, input{messages: messages})
}

func (l *eventLoop) put(ctx context.Context, in input) error {
	select {
	case l.in <- in:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.stopped:
		return errStopped
	}
}

// ask sends a message that carries request and waits for its answer.
func (l *eventLoop) ask(ctx context.Context, request event.RequestID, m event.Message) (event.Answer, error) {
	reply := make(chan event.Answer, 1)
	if err := l.put(ctx, input{messages: []event.Message{m}, request: request, reply: reply}); err != nil {
		return event.Answer{}, err
	}
	select {
	case a := <-reply:
		return a, a.Err
	case <-ctx.Done():
		return event.Answer{}, ctx.Err()
	case <-l.stopped:
		return event.Answer{}, errStopped
	}
}

// call runs f on the machine between two wake-ups.
func (l *eventLoop) call(ctx context.Context, f func(*event.Machine)) error {
	done := make(chan struct{})
	select {
	case l.calls <- func(m *event.Machine) { f(m); close(done) }:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.stopped:
		return errStopped
	}
}

// The methods below are api.Events.

var _ api.Events = (*eventLoop)(nil)

// Open makes a consumer.
func (l *eventLoop) Open(kind event.ConsumerKind, name string, limits event.Limits) api.Consumer {
	c := &consumer{
		loop:    l,
		id:      event.ConsumerID(l.consumers.Add(1)),
		kind:    kind,
		batches: make(chan event.Batch, 1),
		ended:   make(chan struct{}),
	}
	open := event.Open{Consumer: c.id, Kind: kind, Name: name, Limits: limits}
	if l.put(context.Background(), input{messages: []event.Message{open}, open: c}) != nil {
		c.end()
	}
	return c
}

// openNumbered is for parts of the agent that register without waiting for the
// answer: they send the messages themselves.
func (l *eventLoop) openNumbered(name string) (api.Consumer, event.ConsumerID) {
	c := l.Open(event.ConsumerStream, name, event.Limits{})
	if own, ok := c.(*consumer); ok {
		return c, own.id
	}
	return c, 0 // Open makes no other
}

// Send posts events that users name.
func (l *eventLoop) Send(ctx context.Context, events []event.Named, room []event.Sent) ([]event.Sent, error) {
	request := event.RequestID(l.requests.Add(1))
	a, err := l.ask(ctx, request, event.Send{Request: request, Events: events, Room: room})
	return a.Sent, err
}

// Status is the listing of registrations.
func (l *eventLoop) Status(ctx context.Context) (status event.Status, err error) {
	err = l.call(ctx, func(m *event.Machine) { status = m.Status() })
	return status, err
}

// Classes is the catalogue, with how each finds out now.
func (l *eventLoop) Classes() []belfry.ClassInfo {
	classes := slices.Clone(l.cfg.Classes)
	for i, c := range classes {
		if p := l.sources[c.Class]; p != nil {
			classes[i].Source = p.Source()
		}
	}
	return classes
}

// A consumer is the loop's end of one stream. Next and Ack are for one
// goroutine, the sender; the rest may be called by any.
type consumer struct {
	loop    *eventLoop
	id      event.ConsumerID
	kind    event.ConsumerKind
	batches chan event.Batch
	ended   chan struct{}
	once    sync.Once
	asked   atomic.Bool // Ready was said and no batch taken since
}

func (c *consumer) Register(ctx context.Context, number uint32, r belfry.Registration) (event.Answer, error) {
	request := event.RequestID(c.loop.requests.Add(1))
	a, err := c.loop.ask(ctx, request, event.Register{Request: request, Consumer: c.id, Number: number, Registration: r})
	if ctx.Err() != nil { // nobody would know of it
		c.Unregister(number)
	}
	return a, err
}

func (c *consumer) Unregister(number uint32) {
	c.tell(event.Unregister{Consumer: c.id, Number: number})
}

func (c *consumer) Next(ctx context.Context) (event.Batch, error) {
	if c.asked.CompareAndSwap(false, true) {
		c.tell(event.Ready{Consumer: c.id})
	}
	select {
	case b := <-c.batches:
		c.asked.Store(false)
		return b, nil
	case <-c.ended:
		select { // the last batch before the end still counts
		case b := <-c.batches:
			return b, nil
		default:
			return event.Batch{}, errConsumerEnded
		}
	case <-c.loop.stopped:
		return event.Batch{}, errStopped
	case <-ctx.Done():
		return event.Batch{}, ctx.Err()
	}
}

var errConsumerEnded = fmt.Errorf("every registration of this consumer has ended: %w", io.EOF) // as api.Consumer says

func (c *consumer) Ack(batch uint64) { c.tell(event.Ack{Consumer: c.id, Batch: batch}) }

func (c *consumer) Lost() { c.tell(event.Lost{Consumer: c.id}) }

func (c *consumer) Resume(batch uint64) { c.tell(event.Resume{Consumer: c.id, Batch: batch}) }

func (c *consumer) Close() { c.tell(event.Close{Consumer: c.id}) }

func (c *consumer) tell(m event.Message) { _ = c.loop.send(context.Background(), m) }

// drain and end are the loop's.
func (c *consumer) drain() {
	select {
	case <-c.batches:
	default:
	}
	c.asked.Store(false)
}

func (c *consumer) end() { c.once.Do(func() { close(c.ended) }) }

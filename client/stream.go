package client

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A StreamOption changes how a stream is made.
type StreamOption func(*streamOptions)

type streamOptions struct {
	window uint32
	name   string
}

// Window is the most notifications that are under way or in this process at
// one time; 0 to 1,024, and 0 means four batches of the agent's choice. While
// they are not acknowledged the rest coalesces at the agent: a slow program
// with a window of 1 gets the newest state, and how often it changed, when it
// is ready for it.
func Window(n int) StreamOption {
	return func(o *streamOptions) { o.window = uint32(max(0, min(n, 1024))) }
}

// Name is what listings call this consumer; at most 63 bytes of it are used.
func Name(s string) StreamOption {
	return func(o *streamOptions) { o.name = s }
}

// A Stream carries registrations and their notifications. It outlives its
// connection: when that breaks it comes back by itself, and Next returns each
// occurrence exactly once, or a gap that says what can not be known.
//
// Next is for one caller at a time; the other methods are safe for concurrent
// use.
type Stream struct {
	cancel context.CancelFunc
	ready  chan struct{} // closed at the first welcome
	done   chan struct{} // closed when the stream is over; err is set before
	wake   chan struct{} // has a value when queue or done may have changed

	sendMu sync.Mutex // one sender at a time

	mu      sync.Mutex
	link    link // nil while there is no connection
	wishes  map[uint32]*wish
	ruled   map[uint32]*wish // those of them whose rules refuse or hold back
	number  uint32           // of the newest registration
	cluster string           // names that the newest welcome gave
	node    string
	life    uint64 // of the consumer at the agent; acknowledgements count within it
	acked   uint64 // batch
	arrived uint64 // batch
	queue   []*arrival
	closing bool
	err     error

	origin belfry.Cursor // of the agent's journal, without a position
	got    belfry.Cursor // everything live up to it has arrived

	current  *arrival // from here on Next's own
	position int
	seen     *seen
	counted  counted       // of the one that calls Next
	told     belfry.Cursor // of the last batch that was passed and said how far it goes
	cursor   belfry.Cursor // guarded by mu
}

// A wish is a registration from Register to Unregister.
type wish struct {
	registration belfry.Registration
	answer       chan answer // nil once it has been answered
	coverage     []Coverage  // as far as the program was told

	replaying bool          // its past has not arrived yet
	telling   bool          // its past has not been returned yet
	resuming  bool          // it was registered again, from a cursor
	got       belfry.Cursor // everything of it up to here has arrived; zero: the agent can not say
}

type answer struct {
	registered Registered
	position   uint64 // in the agent's journal; 0: there is none
	err        error
}

// An arrival is what Next works through: a batch of the agent, or what the
// stream itself has to say.
type arrival struct {
	life   uint64
	number uint64 // 0: nothing to acknowledge
	batch  *belfryv1.Batch
	table  *table
	own    []belfry.Notification
	origin belfry.Cursor // of the journal that the batch's position is of
}

// done lets the batch be read over.
func (a *arrival) done() {
	if a.table.used {
		used.Put(a.batch)
	}
	a.batch = nil
}

// Subscribe opens a stream without registrations. ctx bounds the opening
// only; Close ends the stream.
func (c *Client) Subscribe(ctx context.Context, opts ...StreamOption) (*Stream, error) {
	return newStream(ctx, c.open, c.errorOf, opts...)
}

// Register opens a stream with one registration, whose number is 1. The error
// is the one of Subscribe or of [Stream.Register].
func (c *Client) Register(ctx context.Context, r belfry.Registration, opts ...StreamOption) (*Stream, error) {
	s, err := c.Subscribe(ctx, opts...)
	if err != nil {
		return nil, err
	}
	if _, err := s.Register(ctx, r); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// newStream waits for the first welcome.
func newStream(ctx context.Context, open opener, errorOf func(error) error, opts ...StreamOption) (*Stream, error) {
	var o streamOptions
	for _, opt := range opts {
		opt(&o)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Stream{
		cancel: cancel, ready: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
		wishes: map[uint32]*wish{}, ruled: map[uint32]*wish{}, seen: newSeen(), counted: counted{},
	}
	k := &keeper{Stream: s, open: open, errorOf: errorOf, opts: o}
	go k.run(running)
	select {
	case <-s.ready:
		return s, nil
	case <-s.done:
		return nil, s.err
	case <-ctx.Done():
		cancel()
		<-s.done
		return nil, ctx.Err()
	}
}

// Home is where the stream ends: the names of the cluster and of the node whose
// agent it is. Who may observe anything is told them.
func (s *Stream) Home() (cluster, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cluster, s.node
}

// Register adds a registration and waits until it is in force or refused. The
// error wraps the sentinel of the refusal; the stream goes on either way.
func (s *Stream) Register(ctx context.Context, r belfry.Registration) (Registered, error) {
	if err := sendable(r); err != nil {
		return Registered{}, err
	}
	past := !r.Since.IsZero()
	w := &wish{registration: r, answer: make(chan answer, 1), replaying: past, telling: past}
	answered := w.answer
	s.mu.Lock()
	s.number++
	number := s.number
	s.wishes[number] = w
	if ruled(r) {
		s.ruled[number] = w
	}
	l := s.link
	s.mu.Unlock()
	s.send(l, registerRequest(number, r))
	select {
	case a := <-answered:
		return a.registered, a.err
	case <-s.done:
		return Registered{}, s.err
	case <-ctx.Done():
		s.Unregister(number)
		return Registered{}, ctx.Err()
	}
}

// Unregister ends a registration. What has already arrived of it is still
// returned. An unknown number is ignored.
func (s *Stream) Unregister(number uint32) {
	s.mu.Lock()
	s.forget(number)
	l := s.link
	s.mu.Unlock()
	s.send(l, unregisterRequest(number))
}

// forget is called with the lock held.
func (s *Stream) forget(number uint32) {
	delete(s.wishes, number)
	delete(s.ruled, number)
}

func registerRequest(number uint32, r belfry.Registration) *belfryv1.SubscribeRequest {
	return &belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Register{
		Register: &belfryv1.Register{Number: number, Registration: registrationOf(r)},
	}}
}

// send needs no error: a link that is broken or nil is replaced, and the new
// one begins with all that the agent has to know.
func (s *Stream) send(l link, m *belfryv1.SubscribeRequest) {
	if l == nil {
		return
	}
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	_ = l.Send(m)
}

// Next waits for a notification. A batch of the agent is acknowledged when
// Next is called after its last one, so what a program has not come back from
// handling counts as not delivered.
//
// io.EOF: every registration has ended. net.ErrClosed after Close. Any other
// error of the stream is final too, except that of ctx.
func (s *Stream) Next(ctx context.Context) (belfry.Notification, error) {
	for {
		if s.current != nil {
			n, ok, err := s.step()
			if ok || err != nil {
				return n, err
			}
			s.acknowledge(s.current)
			s.pass(s.current)
			s.current = nil
		}
		if err := s.take(ctx); err != nil {
			return belfry.Notification{}, err
		}
	}
}

// step returns the next notification of the current arrival that says
// something new; not ok at its end.
func (s *Stream) step() (belfry.Notification, bool, error) {
	a := s.current
	for s.position < len(a.own) {
		n := a.own[s.position]
		s.position++
		if n.Kind == belfry.KindCoverage && !s.learn(&n) {
			continue // as it was before
		}
		return n, true, nil
	}
	for all := a.batch.GetNotifications(); s.position-len(a.own) < len(all); {
		p := all[s.position-len(a.own)]
		n, err := a.table.notification(p)
		s.position++
		if err != nil {
			s.fail(err)
			return n, false, err
		}
		if n.Kind == belfry.KindCoverage {
			s.learn(&n)
		}
		if s.admit(a, p.GetEntry(), &n) {
			if p.GetJournalPosition() > 0 {
				s.reach(a, p.GetJournalPosition())
			} else if s.position == len(a.own)+len(all) {
				s.reach(a, a.batch.GetJournalPosition())
			}
			return n, true, nil
		}
	}
	return belfry.Notification{}, false, nil
}

// take waits for the next arrival and makes it the current one.
func (s *Stream) take(ctx context.Context) error {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			a := s.queue[0]
			s.queue[0] = nil
			s.queue = s.queue[1:]
			s.mu.Unlock()
			s.current, s.position = a, 0
			if err := a.table.introduce(a.batch.GetEntries()); err != nil {
				s.fail(err)
				return err
			}
			return nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-s.wake:
		case <-s.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Stream) acknowledge(a *arrival) {
	s.mu.Lock()
	stale := a.number <= s.acked || a.life != s.life
	if !stale {
		s.acked = a.number
	}
	l := s.link
	s.mu.Unlock()
	if !stale {
		s.send(l, ackRequest(a.number))
	}
}

func ackRequest(batch uint64) *belfryv1.SubscribeRequest {
	return &belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Ack{Ack: &belfryv1.Ack{Batch: batch}}}
}

// fail ends the stream from inside: its first error stands.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.cancel()
}

// Close ends the stream and its registrations at the agent. It waits a second
// at most for the agent to have heard of it.
func (s *Stream) Close() {
	s.mu.Lock()
	s.closing = true
	if s.err == nil {
		s.err = net.ErrClosed
	}
	l := s.link
	s.mu.Unlock()
	if l != nil {
		s.sendMu.Lock()
		_ = l.CloseSend()
		s.sendMu.Unlock()
		timer := time.NewTimer(time.Second)
		defer timer.Stop()
		select {
		case <-s.done:
		case <-timer.C:
		}
	}
	s.cancel()
	<-s.done
}

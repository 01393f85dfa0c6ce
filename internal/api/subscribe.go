package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"google.golang.org/grpc"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

const (
	maxName    = 63   // bytes of a consumer's name
	maxWindow  = 1024 // notifications in one batch
	maxWaiting = 256  // registrations read ahead of the one that waits for its answer
)

type eventService struct {
	belfryv1.UnimplementedEventServiceServer
	s *Server
}

type subscribeStream = grpc.BidiStreamingServer[belfryv1.SubscribeRequest, belfryv1.SubscribeResponse]

// A subscription is one stream of Subscribe. Its handler's goroutine sends
// batches; one reads; one, from the first registration on, waits for answers,
// so that an event that takes long to find holds up no acknowledgement.
type subscription struct {
	s       *Server
	stream  subscribeStream
	subject Subject
	hello   chan *belfryv1.Hello
	ready   chan struct{} // closed when held is set
	end     context.CancelCauseFunc

	held   *held
	orders chan *belfryv1.SubscribeRequest // register and unregister, in order; nil before the first

	sendMu sync.Mutex // grpc allows one sender at a time

	live    sync.Mutex // of encoder; held over a replay, so that what comes live follows it
	encoder *encoder
	reached uint64 // place in the journal up to which everything has been sent; 0: not known
	gaps    uint64 // over several events, that were sent
	covered uint64 // so many of them are of what the journal has up to edge
	edge    uint64
	looks   bool // a goroutine finds that out
}

// errGoodbye is the cause of the end when the client closed its side.
var errGoodbye = errors.New("the client closed the stream")

// Subscribe serves one consumer process.
func (e *eventService) Subscribe(stream subscribeStream) error {
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	sub := &subscription{
		s: e.s, stream: stream, subject: subjectFrom(ctx),
		hello: make(chan *belfryv1.Hello, 1), encoder: newEncoder(), ready: make(chan struct{}), end: end,
	}
	e.s.group.Go(func() { end(sub.read(ctx)) })

	hello, err := sub.waitHello(ctx)
	if err != nil {
		return err
	}
	welcome, err := sub.attach(ctx, hello)
	if err != nil {
		return err
	}
	broken := true
	defer func() { e.s.consumers.release(sub.held, broken && !errors.Is(context.Cause(ctx), errGoodbye)) }()
	if err := sub.send(&belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	close(sub.ready)
	err = sub.deliver(ctx)
	if errors.Is(err, io.EOF) { // every registration has ended
		broken = false
		return nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, errGoodbye) {
		return nil
	} else if cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

func (sub *subscription) waitHello(ctx context.Context) (*belfryv1.Hello, error) {
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	select {
	case hello := <-sub.hello:
		return hello, nil
	case <-timer.C:
		return nil, &belfry.Error{Op: "Subscribe", Err: fmt.Errorf("%w: no hello within %s; send it first", belfry.ErrUsage, helloTimeout)}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// attach finds the consumer of the token, or makes one.
func (sub *subscription) attach(ctx context.Context, hello *belfryv1.Hello) (*belfryv1.Welcome, error) {
	view := sub.s.opts.Cluster.View()
	welcome := &belfryv1.Welcome{
		NodeId: view.Self.String(), NodeName: nodeName(view, view.Self), Incarnation: uint32(view.Incarnation),
		ClusterName: view.Name, ClusterId: view.ID.String(),
	}
	if len(hello.GetResumeToken()) == len(token{}) {
		sub.held = sub.s.consumers.take(ctx, token(hello.GetResumeToken()), sub.subject, sub.end)
	}
	if sub.held != nil {
		welcome.Resumed = true
		sub.held.Resume(hello.GetBatch())
	} else {
		limits := event.Limits{Reuse: true} // a batch is encoded before the next is asked for
		if w := hello.GetWindow(); w > 0 {
			limits.Window, limits.BatchNotifications = 1, int(min(w, maxWindow))
		}
		open := func() Consumer {
			return sub.s.opts.Events.Open(event.ConsumerStream, consumerName(sub.subject, hello.GetName()), limits)
		}
		var err error
		if sub.held, err = sub.s.consumers.add(open, sub.subject, sub.end); err != nil {
			sub.s.limited.Add(1)
			return nil, &belfry.Error{Op: "Subscribe", Err: err}
		}
	}
	if welcome.GetResumed() { // an earlier stream may have had gaps
		sub.live.Lock()
		defer sub.live.Unlock()
		sub.gaps++
		sub.findEdge()
	}
	welcome.Token = sub.held.token[:]
	return welcome, nil
}

// errTaken ends a stream whose consumer went on to a newer one.
var errTaken = fmt.Errorf("%w: another stream has resumed this consumer", belfry.ErrConflict)

// deliver sends batch after batch until the stream ends.
func (sub *subscription) deliver(ctx context.Context) error {
	for {
		// What is on the disk by now is in the batch that empties the queue, or was
		// in an earlier one.
		before := sub.s.opts.Journal.Durable().Position
		b, err := sub.held.Next(ctx)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil { // whoever ended it did so before this was known
			return err
		}
		if err := sub.sendBatch(b, before); err != nil {
			return err
		}
	}
}

func (sub *subscription) sendBatch(b event.Batch, before uint64) error {
	sub.live.Lock()
	defer sub.live.Unlock()
	if slices.ContainsFunc(b.Notifications, overSeveral) {
		sub.gaps++
		sub.findEdge()
	}
	if b.Drained && sub.covered == sub.gaps && before >= sub.edge {
		sub.reached = max(sub.reached, before)
	}
	b.Notifications = sub.held.skips.intoAll(b.Number, b.Notifications)
	m := sub.encoder.encode(b)
	m.GetBatch().JournalPosition, m.GetBatch().Replay = sub.reached, nil
	return sub.send(m)
}

func overSeveral(n belfry.Notification) bool { return n.Kind == belfry.KindGap && n.Entry == 0 }

// findEdge looks for a place in the journal by which all has happened that the
// gaps so far stand for. A client whose agent is restarted is told again what follows the
// place that it reached: the whole of a gap over several events, or nothing, so
// that it can leave out as many as the gap counted. It is called with live held.
func (sub *subscription) findEdge() {
	if sub.looks {
		return
	}
	sub.looks = true
	gaps := sub.gaps
	sub.s.group.Go(func() {
		at, whole := sub.s.flushed(sub.stream.Context())
		sub.live.Lock()
		defer sub.live.Unlock()
		sub.looks = false
		if !whole {
			return // the next gap looks again; until then a client is told more again than it must
		}
		if sub.covered, sub.edge = gaps, at.Position; sub.covered != sub.gaps {
			sub.findEdge()
		}
	})
}

func (sub *subscription) send(m *belfryv1.SubscribeResponse) error {
	sub.sendMu.Lock()
	defer sub.sendMu.Unlock()
	return sub.stream.Send(m)
}

// read takes what the client sends; its result is why the stream ends.
func (sub *subscription) read(ctx context.Context) error {
	first, err := sub.stream.Recv()
	if err != nil {
		return endOf(err)
	}
	hello := first.GetHello()
	if hello == nil {
		return &belfry.Error{Op: "Subscribe", Err: fmt.Errorf("%w: the first message is not a hello; send it first", belfry.ErrUsage)}
	}
	sub.hello <- hello
	select {
	case <-sub.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		m, err := sub.stream.Recv()
		if err != nil {
			return endOf(err)
		}
		switch kind := m.GetKind().(type) {
		case *belfryv1.SubscribeRequest_Ack:
			sub.held.Ack(kind.Ack.GetBatch())
		case *belfryv1.SubscribeRequest_Register, *belfryv1.SubscribeRequest_Unregister:
			if err := sub.order(ctx, m); err != nil {
				return err
			}
		default:
			return &belfry.Error{Op: "Subscribe", Err: fmt.Errorf("%w: a message that is neither register, unregister nor ack; client and agent differ in version", belfry.ErrUnsupported)}
		}
	}
}

// endOf tells a goodbye from a broken stream.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return errGoodbye
	}
	return err
}

// order hands a registration to the goroutine that waits for answers.
func (sub *subscription) order(ctx context.Context, m *belfryv1.SubscribeRequest) error {
	if sub.orders == nil {
		sub.orders = make(chan *belfryv1.SubscribeRequest, maxWaiting)
		sub.s.group.Go(func() { sub.register(ctx) })
	}
	select {
	case sub.orders <- m:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// register carries out registrations in their order.
func (sub *subscription) register(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-sub.orders:
			if u := m.GetUnregister(); u != nil {
				sub.held.Unregister(u.GetNumber())
				sub.live.Lock()
				sub.held.skips.forget(u.GetNumber())
				sub.live.Unlock()
				continue
			}
			if err := sub.registerOne(ctx, m.GetRegister()); err != nil {
				sub.end(err)
				return
			}
		}
	}
}

// registerOne answers with registered or refused. What lies in the past
// follows at once, before anything else.
func (sub *subscription) registerOne(ctx context.Context, m *belfryv1.Register) error {
	since := m.GetRegistration().GetSince() != nil
	if since {
		sub.live.Lock()
		defer sub.live.Unlock()
	}
	before := sub.s.opts.Journal.Durable().Position
	r, answer, err := sub.s.tryRegister(ctx, sub.held, sub.subject, m.GetNumber(), m.GetRegistration())
	if err != nil {
		return sub.send(&belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Refused{
			Refused: &belfryv1.Refused{Number: m.GetNumber(), Refusal: refusalOf(err)},
		}})
	}
	registered := &belfryv1.Registered{Number: m.GetNumber()}
	if len(answer.Coverage) > 0 {
		registered.Coverage = coverageOf(sub.s.opts.Cluster.View(), answer.Coverage)
	}
	if sub.s.resumable(sub.subject, r) {
		registered.JournalPosition = before
	}
	err = sub.send(&belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Registered{Registered: registered}})
	if err == nil && since {
		err = sub.replay(ctx, m.GetNumber(), r)
	}
	return err
}

func (s *Server) tryRegister(ctx context.Context, h *held, subject Subject, number uint32, p *belfryv1.Registration) (belfry.Registration, event.Answer, error) {
	r, err := s.registration(p)
	if err != nil {
		return r, event.Answer{}, err
	}
	judge := s.judgeClass
	if !r.Since.IsZero() {
		judge = s.judgePast
		if err := s.readable(&r); err != nil {
			return r, event.Answer{}, err
		}
		r.Snapshot = r.Snapshot || Timed(r) // the states follow what was counted
	}
	own := func() bool { return s.ownOnly(subject, r) }
	answer, err := h.register(ctx, number, r, own, func() error { return judge(subject, r) })
	return r, answer, err
}

// consumerName is what listings show: the process, then what it calls itself.
func consumerName(s Subject, name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, name)
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "")
	}
	who := s.String()
	if s.Client == "" {
		who = fmt.Sprintf("pid %d", s.PID)
	}
	return strings.TrimSpace(who + " " + name)
}

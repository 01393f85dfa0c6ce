package client

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A link is one gRPC stream. Send and Recv may run at the same time.
type link interface {
	Send(*belfryv1.SubscribeRequest) error
	Recv() (*belfryv1.SubscribeResponse, error)
	CloseSend() error
}

// An opener makes a link that ends with ctx.
type opener func(ctx context.Context) (link, error)

// A keeper keeps a Stream connected. It is the stream's only goroutine.
type keeper struct {
	*Stream
	open    opener
	errorOf func(error) error
	opts    streamOptions

	token   []byte    // of the consumer at the agent; nil before the first welcome
	lost    time.Time // when the connection broke
	welcome bool      // since the last break
}

// maxRefused is how often an agent must refuse the certificate, or show one that
// the client can not judge, until a stream gives up: one that has just started may
// not know yet that the client joined.
const maxRefused = 5 // within about 3 s

// run connects again and again until the stream is closed or the agent says
// something that another attempt would not change.
func (k *keeper) run(ctx context.Context) {
	defer close(k.done)
	wait, refused := backoffMin, 0
	for {
		err := k.session(ctx)
		k.mu.Lock()
		k.link = nil
		over := k.err != nil
		k.mu.Unlock()
		if over {
			return
		}
		reason := k.errorOf(err)
		if errors.As(reason, new(refusedCertificate)) || errors.As(reason, new(unknownAuthority)) {
			refused++
		}
		if k.welcome {
			k.welcome, wait, refused, k.lost = false, backoffMin, 0, time.Now()
		}
		if k.token == nil || ctx.Err() != nil || final(err) || refused >= maxRefused {
			k.fail(reason)
			return
		}
		// Half to all of it, so that the clients of one agent do not come back in step.
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			k.fail(ctx.Err())
			return
		}
		wait = min(2*wait, backoffMax)
	}
}

// final tells errors that stay from those that pass.
func final(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, belfry.ErrUnsupported) {
		return true
	}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.Unimplemented:
		return true
	}
	return false
}

// session is one link from its opening to its end.
func (k *keeper) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := k.open(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	acked := k.acked
	k.mu.Unlock()
	hello := &belfryv1.Hello{ResumeToken: k.token, Batch: acked, Window: k.opts.window, Name: k.opts.name}
	if err := l.Send(&belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
		return err // io.EOF: Recv knows why
	}
	first, err := l.Recv()
	if err != nil {
		return err
	}
	if first.GetWelcome() == nil {
		return &remote{text: "the agent's first message is not a welcome; client and agent differ in version", sentinel: belfry.ErrUnsupported}
	}
	for _, m := range k.begin(l, first.GetWelcome(), acked) {
		k.send(l, m)
	}
	entries := &table{}
	_, entries.used = l.(eventLink)
	for {
		m, err := l.Recv()
		if err != nil {
			return err
		}
		k.receive(m, entries)
	}
}

// begin takes a welcome and returns what the agent has to be told: all wishes
// if it does not know this stream, else those that it may not have heard of,
// and what was acknowledged after hello had said how far that was.
func (k *keeper) begin(l link, w *belfryv1.Welcome, acked uint64) []*belfryv1.SubscribeRequest {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := k.token == nil
	k.token, k.link, k.welcome = w.GetToken(), l, true
	k.cluster, k.node = w.GetClusterName(), w.GetNodeName()
	k.origin = belfry.Cursor{Incarnation: belfry.Incarnation(w.GetIncarnation())}
	k.origin.Node, _ = belfry.ParseNodeID(w.GetNodeId()) // zero where it is not one
	if first {
		close(k.ready)
	}
	var tell []*belfryv1.SubscribeRequest
	if !w.GetResumed() {
		k.life, k.acked, k.arrived = k.life+1, 0, 0
	} else if k.acked > acked {
		tell = append(tell, ackRequest(k.acked))
	}
	now := time.Now()
	for _, number := range slices.Sorted(maps.Keys(k.wishes)) {
		wish := k.wishes[number]
		r := wish.registration
		switch {
		case wish.answer == nil && w.GetResumed() && !wish.replaying: // in force
			continue
		case wish.answer == nil && (wish.replaying || !k.from(wish).IsZero()):
			// The journal has what it missed, or the rest of its past.
			if c := k.from(wish); !c.IsZero() {
				r.Since = belfry.Since{Cursor: c}
			}
			r.Wait = r.Wait || !r.NoFollow
			wish.replaying, wish.resuming = true, true
			if w.GetResumed() {
				tell = append(tell, unregisterRequest(number))
			}
		case wish.answer == nil:
			// It was in force, so it may wait for its event as it would have done.
			k.enqueue(&arrival{own: []belfry.Notification{wish.gap(number, k.lost, now)}, table: &table{}})
			r.Wait = r.Wait || !r.NoFollow
		case w.GetResumed(): // perhaps in force, perhaps never heard of
			tell = append(tell, unregisterRequest(number))
		}
		tell = append(tell, registerRequest(number, r))
	}
	return tell
}

// gap stands for what nobody counted while the agent was away. It is of the node
// whose events were asked for, if that is one.
func (w *wish) gap(number uint32, from, to time.Time) belfry.Notification {
	r := &w.registration
	n := belfry.Notification{
		Kind: belfry.KindGap, Registration: number, Event: belfry.EventID{Class: belfry.Class(r.Class), Subject: r.Subject},
		FirstTime: from, Time: to,
		Gap: &belfry.Gap{Resync: r.Snapshot, Reason: belfry.GapLink, From: from, To: to},
	}
	if len(r.Nodes) == 1 {
		n.Node = r.Nodes[0]
		if i := slices.IndexFunc(w.coverage, func(c Coverage) bool { return c.Node == n.Node }); i >= 0 {
			n.NodeName = w.coverage[i].NodeName
		}
	}
	return n
}

// enqueue is called with the lock held.
func (k *keeper) enqueue(a *arrival) {
	k.queue = append(k.queue, a)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) receive(m *belfryv1.SubscribeResponse, entries *table) {
	switch kind := m.GetKind().(type) {
	case *belfryv1.SubscribeResponse_Batch:
		k.batch(kind.Batch, entries)
	case *belfryv1.SubscribeResponse_Registered:
		k.answer(kind.Registered.GetNumber(), answer{registered: registeredOf(kind.Registered), position: kind.Registered.GetJournalPosition()})
	case *belfryv1.SubscribeResponse_Refused:
		k.answer(kind.Refused.GetNumber(), answer{err: refusal(kind.Refused.GetRefusal())})
	}
}

// batch queues a batch for Next. Of one that has arrived before, over a link
// that broke, only the introductions count: they are new on this link.
func (k *keeper) batch(b *belfryv1.Batch, entries *table) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := &arrival{life: k.life, number: b.GetNumber(), batch: b, table: entries, origin: k.origin}
	if b.GetReplay() != nil || b.GetNumber() > k.arrived {
		k.arrivedUpTo(b)
	}
	if b.GetReplay() != nil {
		k.enqueue(a)
		return
	}
	if b.GetNumber() <= k.arrived {
		b.Notifications, a.number = nil, 0
	} else {
		k.arrived = b.GetNumber()
	}
	k.enqueue(a)
}

// answer settles a wish. One that was in force before the agent restarted and
// is refused now has ended, or else the stream can not keep its promise.
func (k *keeper) answer(number uint32, a answer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.wishes[number]
	if w == nil { // unregistered meanwhile
		return
	}
	if p := a.position; a.err == nil && p > 0 && w.registration.Since.IsZero() && !w.resuming {
		w.got = at(k.origin, p)
	}
	if w.answer != nil {
		w.coverage = slices.Clone(a.registered.Coverage)
		w.answer <- a
		w.answer = nil
		if a.err != nil {
			k.forget(number)
		}
		return
	}
	if a.err == nil {
		if again := coverageAgain(number, w.registration, a.registered.Coverage, time.Now()); len(again) > 0 {
			k.enqueue(&arrival{own: again, table: &table{}})
		}
		return
	}
	if w.resuming && !errors.Is(a.err, belfry.ErrNoEvent) {
		k.resumeWithout(number, w)
		return
	}
	k.forget(number)
	if errors.Is(a.err, belfry.ErrNoEvent) {
		now := time.Now()
		k.enqueue(&arrival{table: &table{}, own: []belfry.Notification{{
			Kind: belfry.KindEnded, Registration: number, FirstTime: now, Time: now,
			Event: belfry.EventID{Class: belfry.Class(w.registration.Class), Subject: w.registration.Subject},
		}}})
		return
	}
	if k.err == nil {
		k.err = a.err
	}
	k.cancel()
}

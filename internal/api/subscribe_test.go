package api

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func next(t *testing.T, s *client.Stream) belfry.Notification {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n, err := s.Next(ctx)
	if err != nil {
		t.Fatalf("next: %v", err)
	}
	return n
}

var utc = cmp.Transformer("utc", func(t time.Time) int64 { return t.UnixNano() })

func TestNotificationsArriveAsTheyWere(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit", Subject: "exe=/bin/x"}, client.Name("test"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := <-a.events.opened
	if c.name != "pid 4711 test" {
		t.Errorf("listings would call the consumer %q; want \"pid 4711 test\"", c.name)
	}
	restarted := exit(1, 3, 3)
	restarted.Event.Instance = "4730@8900000"
	filtered := exit(1, 4, 20)
	filtered.Count, filtered.Skipped = 2, 15
	all := []belfry.Notification{
		{Kind: belfry.KindState, Registration: 1, Node: nodeA, NodeName: "a", Incarnation: 2, Entry: 1, Event: belfry.EventID{Class: "node.state", Subject: "b"}, First: 1, Last: 1, FirstTime: now, Time: now, Data: []byte{1, 2}},
		exit(1, 1, 2), restarted, filtered,
		{Kind: belfry.KindGap, Registration: 1, FirstTime: now, Time: now, Gap: &belfry.Gap{Total: 3, Known: true, Resync: true, Reason: belfry.GapOverflow, From: now, To: now.Add(1)}},
		{Kind: belfry.KindAlready, Registration: 1, Node: nodeA, NodeName: "a", Incarnation: 2, Entry: 2, Event: belfry.EventID{Class: "filesystem.usage", Subject: "/"}, FirstTime: now, Time: now, Value: 91.5, LowerBound: true},
		{Kind: belfry.KindCoverage, Registration: 1, Node: nodeA, NodeName: "a", Incarnation: 2, Event: belfry.EventID{Class: "timer.fire", Subject: "at=1"}, FirstTime: now, Time: now, Code: 2, Edge: belfry.EdgeFailing, Reason: "at=1 has passed"},
	}
	c.post(all[:2]...)
	c.post(all[2:]...)
	var got []belfry.Notification
	for range all {
		got = append(got, next(t, s))
	}
	if diff := cmp.Diff(all, got, utc, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	c.expect(t, "register 1 process.exit:exe=/bin/x", "ack 1")
}

func TestABatchIsAcknowledgedWhenNextIsCalledAfterItsLast(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit"}, client.Window(1))
	if err != nil {
		t.Fatal(err)
	}
	c := <-a.events.opened
	if c.limits.Window != 1 || c.limits.BatchNotifications != 1 {
		t.Errorf("limits %+v; want a window of one batch of one notification", c.limits)
	}
	c.expect(t, "register 1 process.exit")
	c.post(exit(1, 1, 1))
	c.post(exit(1, 2, 2))
	next(t, s)
	if len(c.calls) != 0 {
		t.Fatalf("told %q while the first notification is being handled", <-c.calls)
	}
	next(t, s)
	c.expect(t, "ack 1")
	s.Close()
	c.expect(t, "close")
	if _, err := s.Next(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("next after close: %v; want net.ErrClosed", err)
	}
}

func TestAStreamEndsWhenItsRegistrationsHave(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit"})
	if err != nil {
		t.Fatal(err)
	}
	c := <-a.events.opened
	c.post(exit(1, 1, 1))
	c.finish()
	next(t, s)
	if _, err := s.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("next: %v; want io.EOF", err)
	}
	for call := ""; call != "close"; { // the acknowledgement may come too late to be heard
		select {
		case call = <-c.calls:
		case <-time.After(10 * time.Second):
			t.Fatal("the consumer was not closed")
		}
	}
}

// TestAStreamOfAnAgentThatStopsIsNoEnd: its registrations have not ended, so
// the client comes back.
func TestAStreamOfAnAgentThatStopsIsNoEnd(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := <-a.events.opened
	c.stopping()
	c.expect(t, "register 1 process.exit", "lost", "resume 0")
	c.post(exit(1, 1, 1))
	next(t, s)

	stream, err := a.raw(t).Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Hello{Hello: &belfryv1.Hello{}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // the welcome
		t.Fatal(err)
	}
	(<-a.events.opened).stopping()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("recv: %v; want Unavailable", err)
	}
}

func TestARefusedRegistrationLeavesTheStreamAlone(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Register(t.Context(), belfry.Registration{Class: "process.exit", Subject: "none"})
	if !errors.Is(err, belfry.ErrNoEvent) {
		t.Fatalf("register: %v; want ErrNoEvent", err)
	}
	const want = "register: process.exit:none: no such event: no process none; --wait waits for one"
	if err.Error() != want {
		t.Errorf("error %q; want %q", err, want)
	}
	got, err := s.Register(t.Context(), belfry.Registration{Class: "node.state", Scope: belfry.ScopeCluster})
	if err != nil {
		t.Fatal(err)
	}
	wantCoverage := client.Registered{Number: 2, Coverage: []client.Coverage{
		{Node: nodeA, NodeName: "a", State: client.CoverageInstalled},
		{Node: nodeB, NodeName: "b", State: client.CoverageRefused, Err: belfry.ErrUnsupported},
	}}
	if diff := cmp.Diff(wantCoverage, got, cmpopts.EquateErrors()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestARegistrationThatHangsHoldsUpNothingElse(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := <-a.events.opened
	ctx, cancel := context.WithCancel(t.Context())
	hung := make(chan error, 1)
	go func() {
		_, err := s.Register(ctx, belfry.Registration{Class: "process.exit", Subject: "hang"})
		hung <- err
	}()
	c.expect(t, "register 1 process.exit", "register 2 process.exit:hang")
	for i := range uint64(20) { // more than the window: acknowledgements must pass
		c.post(exit(1, i+1, i+1))
	}
	for range 20 {
		next(t, s)
	}
	cancel()
	if err := <-hung; !errors.Is(err, context.Canceled) {
		t.Errorf("register: %v; want canceled", err)
	}
}

func TestAStreamThatBreaksGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	dialed := a.dial(t)
	s, err := dialed.Register(t.Context(), belfry.Registration{Class: "process.exit"})
	if err != nil {
		t.Fatal(err)
	}
	c := <-a.events.opened
	c.expect(t, "register 1 process.exit")
	c.post(exit(1, 1, 1))
	c.post(exit(1, 2, 2))
	next(t, s)
	next(t, s)
	c.expect(t, "ack 1")
	a.breakStreams()
	c.expect(t, "lost", "resume 1")
	c.post(exit(1, 3, 3))
	if got := next(t, s).Last; got != 3 {
		t.Errorf("after the break the next number is %d; want 3: 2 was returned before", got)
	}
	c.expect(t, "ack 2")
	s.Close()
	c.expect(t, "close")
	if len(a.events.opened) != 0 {
		t.Error("a second consumer was made; want the first one resumed")
	}
}

// breakStreams ends all streams as a broken connection would.
func (a *agent) breakStreams() {
	a.consumers.mu.Lock()
	defer a.consumers.mu.Unlock()
	for _, h := range a.consumers.byToken {
		if h.cancel != nil {
			h.cancel(context.Canceled)
		}
	}
}

func TestAnAgentThatForgotIsToldAgain(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit", Subject: "exe=/bin/x", Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := <-a.events.opened
	before.post(exit(1, 1, 7))
	next(t, s)
	stop(t, a.Server)
	a.start(t)
	after := <-a.events.opened
	after.expect(t, "register 1 process.exit:exe=/bin/x")
	gap := next(t, s)
	if gap.Kind != belfry.KindGap || gap.Registration != 1 || gap.Gap == nil || gap.Gap.Known || !gap.Gap.Resync || gap.Gap.Reason != belfry.GapLink || !gap.Gap.From.Before(gap.Gap.To) {
		t.Errorf("after the restart came %+v; want a gap of unknown size with its times", gap)
	}
	fresh := exit(1, 1, 1)
	fresh.Incarnation = 6
	after.post(fresh)
	if got := next(t, s); got.Incarnation != 6 || got.Count != 1 {
		t.Errorf("got %+v; want the first occurrence of the new incarnation", got)
	}
}

func TestATokenWorksForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	<-a.events.opened
	var stolen token
	a.consumers.mu.Lock()
	for stolen = range a.consumers.byToken {
	}
	a.consumers.mu.Unlock()
	if h := a.consumers.take(t.Context(), stolen, Subject{UID: 1000, Role: belfry.RoleAdmin}, func(error) {}); h != nil {
		t.Error("another uid took the consumer with its token")
	}
	if h := a.consumers.take(t.Context(), token{1}, admin, func(error) {}); h != nil {
		t.Error("a token that nobody was given named a consumer")
	}
}

func TestAConsumerIsClosedWhenNobodyComesBack(t *testing.T) {
	t.Parallel()
	c := newConsumers(time.Millisecond)
	f := newFakeEvents()
	h, err := c.add(f.open, admin, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	c.release(h, true)
	consumer := <-f.opened
	consumer.expect(t, "lost", "close")
	if again := c.take(t.Context(), h.token, admin, func(error) {}); again != nil {
		t.Error("the token still names a consumer")
	}
}

func TestAWatchIsOneOfTheUsersConsumers(t *testing.T) {
	t.Parallel()
	a := startAgent(t, operator)
	open := func() Consumer { return &fakeConsumer{} }
	var last *held
	for range maxConsumersPerOne {
		h, err := a.consumers.add(open, operator, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		last = h
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	watch := func() grpc.ServerStreamingClient[belfryv1.WatchResponse] {
		t.Helper()
		stream, err := a.raw(t).Watch(ctx, &belfryv1.WatchRequest{Registration: &belfryv1.Registration{Class: "process.exit"}})
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	if _, err := watch().Recv(); !errors.Is(asClient(err), belfry.ErrLimit) || len(a.events.opened) != 0 {
		t.Errorf("one more: %v, made: %d; want ErrLimit and nothing made", err, len(a.events.opened))
	}
	if got := a.Counters().Limited; got != 1 {
		t.Errorf("%d counted; want 1", got)
	}
	a.consumers.release(last, false)
	stream := watch()
	c := <-a.events.opened
	c.post(exit(1, 1, 1))
	if _, err := stream.Recv(); err != nil {
		t.Fatalf("after one was closed: %v", err)
	}
	c.finish()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("recv: %v; want io.EOF", err)
	}
	c.expect(t, "register 1 process.exit", "ack 1", "close")
	if _, err := a.consumers.add(open, operator, func(error) {}); err != nil {
		t.Errorf("after the watch has ended: %v", err)
	}
}

// TestATimerThatIsLateForgetsNobody: it fired before a stream took the
// consumer, and waited for the lock meanwhile.
func TestATimerThatIsLateForgetsNobody(t *testing.T) {
	t.Parallel()
	c := newConsumers(time.Hour)
	defer c.closeAll()
	f := newFakeEvents()
	h, err := c.add(f.open, admin, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	late := h.owner
	c.release(h, true)
	if c.take(t.Context(), h.token, admin, func(error) {}) == nil {
		t.Fatal("the consumer can not be resumed")
	}
	c.expire(h, late)
	if len(c.byToken) != 1 {
		t.Fatal("the consumer was removed while a stream has it")
	}
	c.release(h, true)
	c.expire(h, late)
	if len(c.byToken) != 1 {
		t.Fatal("the consumer was removed by the timer of an earlier break")
	}
	c.expire(h, h.owner)
	if len(c.byToken) != 0 {
		t.Error("the consumer is still there after its time")
	}
}

func TestTheFirstMessageMustBeAHello(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	stream, err := a.raw(t).Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Ack{Ack: &belfryv1.Ack{Batch: 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); belfry.Code(asClient(err)) != "USAGE" {
		t.Errorf("recv: %v; want wrong use", err)
	}
	if len(a.events.opened) != 0 {
		t.Error("a consumer was made for a stream without hello")
	}
}

func TestConsumersOfOneUserAreLimited(t *testing.T) {
	t.Parallel()
	c := newConsumers(time.Hour)
	open := func() Consumer { return &fakeConsumer{} }
	var last *held
	for i := range maxConsumersPerOne {
		h, err := c.add(open, reader, func(error) {})
		if err != nil {
			t.Fatalf("consumer %d: %v", i, err)
		}
		c.release(h, true) // broken off: it counts until it is forgotten
		last = h
	}
	opened := false
	if _, err := c.add(func() Consumer { opened = true; return &fakeConsumer{} }, reader, func(error) {}); !errors.Is(err, belfry.ErrLimit) || opened {
		t.Errorf("one more: %v, made: %t; want ErrLimit and nothing made", err, opened)
	}
	for _, other := range []Subject{operator, admin} {
		if _, err := c.add(open, other, func(error) {}); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
	if c.take(t.Context(), last.token, reader, func(error) {}) == nil {
		t.Fatal("the newest can not be resumed")
	}
	c.release(last, false)
	if _, err := c.add(open, reader, func(error) {}); err != nil {
		t.Errorf("after one was closed: %v", err)
	}
	c.closeAll()
}

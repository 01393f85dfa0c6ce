package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/security"
)

// grant makes a policy that gives uid 65534, who has no role, these rights.
func grant(t *testing.T, allow ...string) *security.Policy {
	t.Helper()
	var rows []security.Grant
	if len(allow) > 0 {
		rows = []security.Grant{{Subjects: []string{"uid:65534"}, Allow: allow}}
	}
	p, err := security.NewPolicy(rows, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEachEventOfARequestIsJudged(t *testing.T) {
	t.Parallel()
	a := startAgent(t, nobody)
	a.policy.Store(grant(t, "emit:user.backup"))
	stream, err := a.raw(t).SendEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&belfryv1.SendEventsRequest{Events: []*belfryv1.SendEventRequest{{Class: "user.backup"}, {Class: "user.other"}, {Class: "user.backup"}}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "PERMISSION", ""} {
		if got := resp.GetResults()[i].GetRefusal().GetCode(); got != want {
			t.Errorf("event %d: %q; want %q", i, got, want)
		}
	}
	if n := len(a.events.sent); n != 2 {
		t.Errorf("%d events sent; want 2", n)
	}
	if err := send(t.Context(), a.dial(t)); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("an event that is not granted: %v; want ErrPermission", err)
	}
}

// TestAStreamEndsWithTheRightToIt and is not resumed; who keeps the right
// notices nothing.
func TestAStreamEndsWithTheRightToIt(t *testing.T) {
	t.Parallel()
	a := startAgent(t, nobody)
	a.policy.Store(grant(t, "observe:unit.*", "observe:process.exit"))
	both, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit", Subject: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer both.Close()
	one, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "unit.state", Subject: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if _, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "socket.state", Subject: "x"}); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("what is not granted: %v; want ErrPermission", err)
	}

	a.Rejudge()
	if n := len(a.consumers.all()); n != 2 {
		t.Errorf("%d consumers after nothing changed; want 2", n)
	}
	a.policy.Store(grant(t, "observe:unit.*"))
	a.Rejudge()
	if _, err := nextSoon(t, both); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a stream whose right was taken away: %v; want ErrPermission", err)
	}
	waitConsumers(t, a, 1)
	a.policy.Store(grant(t))
	a.Rejudge()
	if _, err := nextSoon(t, one); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a stream of somebody who has no right any more: %v; want ErrPermission", err)
	}
	waitConsumers(t, a, 0)
}

// nextSoon does not wait for ever for a stream that should have ended.
func nextSoon(t *testing.T, s *client.Stream) (belfry.Notification, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return s.Next(ctx)
}

// waitConsumers waits until so many are left.
func waitConsumers(t *testing.T, a *agent, want int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); len(a.consumers.all()) != want; {
		if time.Now().After(deadline) {
			t.Fatalf("%d consumers; want %d", len(a.consumers.all()), want)
		}
		if _, err := a.dial(t).Status(t.Context()); err == nil {
			t.Fatal("somebody without a role has seen the status")
		}
	}
}

// TestABrokenStreamIsNotKeptForWhoLostTheRight because it could be resumed.
func TestABrokenStreamIsNotKeptForWhoLostTheRight(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	c := newConsumers(time.Hour)
	a.consumers = c
	h, err := c.add(func() Consumer { return &fakeConsumer{} }, nobody, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	a.policy.Store(grant(t, "observe:unit.*"))
	h.parts.put(1, belfry.Registration{Class: "unit.state"})
	c.release(h, true)
	a.Rejudge()
	if n := len(c.all()); n != 1 {
		t.Fatalf("%d kept; want the one that may be resumed", n)
	}
	a.policy.Store(grant(t, "observe:unit.other"))
	a.Rejudge()
	if c.take(t.Context(), h.token, nobody, func(error) {}) != nil {
		t.Error("it was resumed")
	}
}

// TestAStreamOfNothingEndsToo when its owner has no right at all any more.
func TestAStreamOfNothingEndsToo(t *testing.T) {
	t.Parallel()
	a := startAgent(t, nobody)
	ended := make(chan error, 1)
	h, err := a.consumers.add(func() Consumer { return &fakeConsumer{} }, nobody, func(err error) { ended <- err })
	if err != nil {
		t.Fatal(err)
	}
	a.policy.Store(grant(t, "observe:unit.*"))
	a.Rejudge()
	select {
	case err := <-ended:
		t.Fatalf("ended with %v though it has a right", err)
	default:
	}
	a.policy.Store(grant(t, "emit:user.*"))
	a.Rejudge()
	select {
	case err := <-ended:
		if !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("ended with %v; want ErrPermission", err)
		}
	default:
		t.Error("the stream goes on")
	}
	a.consumers.release(h, true)
	if n := len(a.consumers.all()); n != 0 {
		t.Errorf("%d consumers kept; want none", n)
	}
}

// TestARightThatIsLostWhileItIsJudgedIsFound because the registration is noted
// before it is judged.
func TestARightThatIsLostWhileItIsJudgedIsFound(t *testing.T) {
	t.Parallel()
	a := startAgent(t, nobody)
	a.policy.Store(grant(t, "observe:unit.*"))
	var ended error
	f := newFakeEvents()
	h, err := a.consumers.add(func() Consumer { return f.Open(event.ConsumerStream, "x", event.Limits{}) }, nobody, func(err error) { ended = err })
	if err != nil {
		t.Fatal(err)
	}
	r := belfry.Registration{Class: "unit.state", Subject: "x"}
	_, err = h.register(t.Context(), 1, r, never, func() error {
		err := a.judgeClass(nobody, r)
		a.policy.Store(grant(t, "observe:socket.*"))
		a.Rejudge()
		return err
	})
	if err != nil || !errors.Is(ended, belfry.ErrPermission) {
		t.Errorf("registered: %v, ended: %v; want the stream ended with ErrPermission", err, ended)
	}
	// One that is refused leaves nothing behind, nor does one that has ended.
	if _, err := h.register(t.Context(), 2, r, never, func() error { return belfry.ErrPermission }); err == nil || len(h.parts.all()) != 1 {
		t.Errorf("%v, %d noted; want a refusal and one", err, len(h.parts.all()))
	}
	h.Unregister(1)
	if n := len(h.parts.all()); n != 0 {
		t.Errorf("%d noted; want none", n)
	}
}

func never() bool { return false }

// TestAnyOtherStreamEndsWithTheRightToo though it registers for nothing.
func TestAnyOtherStreamEndsWithTheRightToo(t *testing.T) {
	t.Parallel()
	a := startAgent(t, nobody)
	a.policy.Store(policyOfRole(t, "reader"))
	a.cluster.change(1)
	states := 0
	var ended error
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, err := range a.dial(t).WatchLinks(ctx, client.LinkFilter{}, 0, 0) {
		if err != nil {
			ended = err
			break
		}
		states++
		a.policy.Store(policyOfRole(t, "witness"))
		a.Rejudge()
	}
	if states != 1 || !errors.Is(ended, belfry.ErrPermission) {
		t.Errorf("%d states, then %v; want 1, then ErrPermission", states, ended)
	}
}

// policyOfRole gives the role to uid 65534.
func policyOfRole(t *testing.T, role string) *security.Policy {
	t.Helper()
	p, err := security.NewPolicy([]security.Grant{{Subjects: []string{"uid:65534"}, Role: role}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

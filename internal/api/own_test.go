package api

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/event"
)

func TestAReaderMayObserveWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	a.ours.Store("mine", true)
	c := a.dial(t)
	for _, test := range []struct {
		name string
		r    belfry.Registration
		want error
	}{
		{"its own", belfry.Registration{Class: "process.exit", Subject: "mine"}, nil},
		{"of somebody", belfry.Registration{Class: "process.exit", Subject: "another"}, belfry.ErrPermission},
		{"its own, on all nodes", belfry.Registration{Class: "process.exit", Subject: "mine", Scope: belfry.ScopeCluster}, belfry.ErrPermission},
		{"a class that is not for readers", belfry.Registration{Class: "security.certificate", Subject: "mine"}, belfry.ErrPermission},
		{"all classes", belfry.Registration{Class: "*", Subject: "mine"}, belfry.ErrPermission},
	} {
		s, err := c.Register(t.Context(), test.r)
		if !errors.Is(err, test.want) || err == nil != (test.want == nil) {
			t.Errorf("%s: %v; want %v", test.name, err, test.want)
		}
		if err == nil {
			s.Close()
		}
	}
}

// TestAStreamEndsWhenTheEventIsNotItsOwnAnyMore and no other does.
func TestAStreamEndsWhenTheEventIsNotItsOwnAnyMore(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	a.ours.Store("mine", true)
	a.ours.Store("other", true)
	register := func(subject string) *client.Stream {
		t.Helper()
		s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit", Subject: subject})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	mine := register("mine")
	register("other")
	a.RejudgeEvent("process.exit", "mine")
	if n := len(a.consumers.all()); n != 2 {
		t.Fatalf("%d consumers while all is its own; want 2", n)
	}
	a.ours.Clear()
	a.RejudgeEvent("process.start", "mine")
	a.RejudgeEvent("process.exit", "mine")
	if _, err := nextSoon(t, mine); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a stream of what is somebody else's now: %v; want ErrPermission", err)
	}
	if n := len(a.consumers.own.of(ownKey{"process.exit", "other"})); n != 1 {
		t.Errorf("%d registrations of another event; want 1", n)
	}
}

// TestARegistrationThatBecameOneOfItsOwnIsJudgedAgain though it was made under
// a right to all.
func TestARegistrationThatBecameOneOfItsOwnIsJudgedAgain(t *testing.T) {
	t.Parallel()
	a := startAgent(t, nobody)
	a.policy.Store(grant(t, "observe:process.*"))
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit", Subject: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a.RejudgeEvent("process.exit", "mine")
	a.ours.Store("mine", true)
	a.policy.Store(grant(t, "observe:process.*@own"))
	a.Rejudge()
	if n := len(a.consumers.all()); n != 1 {
		t.Fatalf("%d consumers; want the one whose own it is", n)
	}
	a.ours.Clear()
	a.RejudgeEvent("process.exit", "mine")
	if _, err := nextSoon(t, s); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("%v; want ErrPermission", err)
	}
}

// TestAnIdentifierThatChangesWhileItIsJudgedIsNotMissed because the
// registration is noted before it is judged; and what has ended is not noted.
func TestAnIdentifierThatChangesWhileItIsJudgedIsNotMissed(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	a.ours.Store("mine", true)
	var ended error
	f := newFakeEvents()
	h, err := a.consumers.add(func() Consumer { return f.Open(event.ConsumerStream, "x", event.Limits{}) }, reader, func(err error) { ended = err })
	if err != nil {
		t.Fatal(err)
	}
	r := belfry.Registration{Class: "process.exit", Subject: "mine"}
	own := func() bool { return a.ownOnly(reader, r) }
	key := ownKey{r.Class, r.Subject}
	_, err = h.register(t.Context(), 1, r, own, func() error {
		err := a.judgeClass(reader, r)
		a.ours.Clear()
		a.RejudgeEvent(r.Class, r.Subject)
		return err
	})
	if err != nil || !errors.Is(ended, belfry.ErrPermission) {
		t.Errorf("registered: %v, ended: %v; want the stream ended with ErrPermission", err, ended)
	}
	if _, err := h.register(t.Context(), 2, r, own, func() error { return belfry.ErrPermission }); err == nil || len(a.consumers.own.of(key)) != 1 {
		t.Errorf("%v, %d noted; want a refusal and one", err, len(a.consumers.own.of(key)))
	}
	h.Unregister(1)
	if n := len(a.consumers.own.by); n != 0 {
		t.Errorf("%d noted after it was ended; want none", n)
	}
	if _, err := h.register(t.Context(), 3, r, own, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	a.consumers.release(h, false)
	if n := len(a.consumers.own.by); n != 0 {
		t.Errorf("%d noted after the consumer was closed; want none", n)
	}
}

// TestNothingIsSentOnAStreamThatLostItsRight though a batch is ready.
func TestNothingIsSentOnAStreamThatLostItsRight(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(belfry.ErrPermission)
	sub := &subscription{s: New(Options{}), encoder: newEncoder(), held: &held{Consumer: &readyConsumer{}}}
	if err := sub.deliver(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want the end of the stream", err)
	}
}

// readyConsumer has one batch, whatever its context says.
type readyConsumer struct {
	fakeConsumer
	taken bool
}

func (c *readyConsumer) Next(context.Context) (event.Batch, error) {
	if c.taken {
		return event.Batch{}, io.EOF
	}
	c.taken = true
	return event.Batch{}, nil
}

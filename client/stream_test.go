package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func same(err error) error { return err }

// start opens a stream with one registration, at a link that has answered.
func start(t *testing.T, a *fakeAgent, r belfry.Registration) (*Stream, *fakeLink) {
	t.Helper()
	opened := make(chan *fakeLink, 1)
	go func() {
		l := <-a.links
		l.welcome("one", false)
		opened <- l
	}()
	s, err := newStream(t.Context(), a.open, same)
	if err != nil {
		t.Fatal(err)
	}
	l, done := <-opened, make(chan error, 1)
	go func() {
		_, err := s.Register(t.Context(), r)
		done <- err
	}()
	expect(t, l, "hello batch 0", "register 1 user.x")
	l.registered(1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s, l
}

// expect checks what the agent was told, in order.
func expect(t *testing.T, l *fakeLink, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for len(l.up) > 0 {
		switch m := (<-l.up).GetKind().(type) {
		case *belfryv1.SubscribeRequest_Hello:
			got = append(got, fmt.Sprintf("hello%s batch %d", prefixed(" ", m.Hello.GetResumeToken()), m.Hello.GetBatch()))
		case *belfryv1.SubscribeRequest_Register:
			text := fmt.Sprintf("register %d %s", m.Register.GetNumber(), m.Register.GetRegistration().GetClass())
			if m.Register.GetRegistration().GetWait() {
				text += " wait"
			}
			if since := m.Register.GetRegistration().GetSince(); since != nil {
				c, err := belfry.ParseCursor(since.GetCursor())
				if err != nil {
					t.Fatal(err)
				}
				text += fmt.Sprintf(" since %d/%d", c.Incarnation, c.Position)
			}
			got = append(got, text)
		case *belfryv1.SubscribeRequest_Unregister:
			got = append(got, fmt.Sprintf("unregister %d", m.Unregister.GetNumber()))
		case *belfryv1.SubscribeRequest_Ack:
			got = append(got, fmt.Sprintf("ack %d", m.Ack.GetBatch()))
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the agent was told %q; want %q", got, want)
	}
}

func prefixed(prefix string, token []byte) string {
	if len(token) == 0 {
		return ""
	}
	return prefix + string(token)
}

// nextRange is the range of the next notification.
func nextRange(t *testing.T, s *Stream) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := s.Next(ctx)
	if err != nil {
		return err.Error()
	}
	if n.Kind != belfry.KindOccurrence {
		return n.Kind.String()
	}
	return fmt.Sprintf("%d-%d x%d", n.First, n.Last, n.Count)
}

func TestReconnectingDoublesFrom100MillisecondsTo5Seconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, l := start(t, a, belfry.Registration{Class: "user.x"})
		defer s.Close()
		a.setAway(errBroken)
		last := time.Now()
		l.broken <- errBroken
		for i := range 10 {
			if got := <-a.links; got != nil {
				t.Fatal("opened while the agent is away")
			}
			most := min(backoffMin<<i, backoffMax)
			waited := time.Since(last)
			last = time.Now()
			if waited < most/2 || waited > most {
				t.Errorf("attempt %d came after %s; want between %s and %s", i+1, waited, most/2, most)
			}
		}
	})
}

// TestAStreamGivesUpWhenItsCertificateIsRefused again and again, or it does not
// know who signed the agent's, with the reason; an agent that has just started may
// refuse it for a moment.
func TestAStreamGivesUpWhenItsCertificateIsRefused(t *testing.T) {
	t.Parallel()
	givesUp(t, refusedCertificate{errBroken})
	givesUp(t, unknownAuthority{errBroken})
}

func givesUp(t *testing.T, cause error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, l := start(t, a, belfry.Registration{Class: "user.x"})
		defer s.Close()
		refuse := func(times int) {
			a.setAway(fmt.Errorf("%w: %w", belfry.ErrPermission, cause))
			l.broken <- errBroken
			for i := range times {
				if got := <-a.links; got != nil {
					t.Fatalf("attempt %d was let in", i+1)
				}
			}
		}
		refuse(maxRefused - 1)
		a.setAway(nil)
		l = <-a.links
		l.welcome("one", true)
		expect(t, l, "hello one batch 0")
		refuse(maxRefused)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if n, err := s.Next(ctx); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("%v, %v; want ErrPermission", n, err)
		}
	})
}

func TestAStreamKnowsWhereItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, newFakeAgent(), belfry.Registration{Class: "user.x"})
		defer s.Close()
		if cluster, node := s.Home(); cluster != "dev" || node != "a" {
			t.Errorf("cluster %q, node %q; want dev, a", cluster, node)
		}
	})
}

func TestAResumedStreamReturnsEachOccurrenceOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, l := start(t, a, belfry.Registration{Class: "user.x"})
		defer s.Close()
		l.batch(1, [2]uint64{1, 1}, [2]uint64{2, 5})
		l.state(2)
		if got := []string{nextRange(t, s), nextRange(t, s), nextRange(t, s)}; !slices.Equal(got, []string{"1-1 x1", "2-5 x4", "state"}) {
			t.Fatalf("got %q", got)
		}
		expect(t, l, "ack 1")
		l.broken <- errBroken
		l = <-a.links
		expect(t, l, "hello one batch 1")
		l.welcome("one", true)
		l.state(2)                  // again: it was not acknowledged
		l.batch(3, [2]uint64{4, 8}) // overlaps what was returned
		if got := nextRange(t, s); got != "6-8 x3" {
			t.Errorf("after resuming came %s; want 6-8 x3", got)
		}
		expect(t, l, "ack 2")
	})
}

func TestAnAcknowledgementBetweenHelloAndWelcomeIsRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, l := start(t, a, belfry.Registration{Class: "user.x"})
		defer s.Close()
		l.batch(1, [2]uint64{1, 1})
		nextRange(t, s)
		l.broken <- errBroken
		l = <-a.links
		expect(t, l, "hello one batch 0")
		go nextRange(t, s) // acknowledges 1, to nobody
		synctest.Wait()
		l.welcome("one", true)
		expect(t, l, "ack 1")
		l.batch(2, [2]uint64{2, 2})
		synctest.Wait()
	})
}

func TestAnAgentThatKnowsNothingIsToldAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, l := start(t, a, belfry.Registration{Class: "user.x", Snapshot: true})
		defer s.Close()
		l.batch(1, [2]uint64{1, 3})
		nextRange(t, s)
		broke := time.Now()
		l.broken <- errBroken
		l = <-a.links
		l.welcome("two", false)
		expect(t, l, "hello one batch 0", "register 1 user.x wait")
		l.batch(1, [2]uint64{4, 4}) // numbers of batches begin again
		gap, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := belfry.Gap{Resync: true, Reason: belfry.GapLink, From: broke, To: time.Now()}
		if gap.Kind != belfry.KindGap || gap.Registration != 1 || *gap.Gap != want {
			t.Errorf("came %+v, %+v; want a gap %+v", gap, gap.Gap, want)
		}
		expect(t, l) // the batch of before is not the new agent's to hear of
		if got := nextRange(t, s); got != "4-4 x1" {
			t.Errorf("then came %s; want 4-4 x1", got)
		}
		go nextRange(t, s)
		expect(t, l, "ack 1")
		l.batch(2, [2]uint64{5, 5})
		synctest.Wait()
	})
}

func TestARegistrationThatTheRestartedAgentRefusesHasEnded(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{"NO_EVENT": "ended", "PERMISSION": "refused: PERMISSION"} {
		synctest.Test(t, func(t *testing.T) {
			a := newFakeAgent()
			s, l := start(t, a, belfry.Registration{Class: "user.x"})
			defer s.Close()
			l.broken <- errBroken
			l = <-a.links
			l.welcome("two", false)
			l.refused(1, code)
			synctest.Wait()
			if got := []string{nextRange(t, s), nextRange(t, s)}; !slices.Equal(got, []string{"gap", want}) {
				t.Errorf("%s: got %q; want a gap, then %s", code, got, want)
			}
		})
	}
}

func TestARegistrationOnItsWayWhenTheLinkBreaksIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, resumed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			a := newFakeAgent()
			s, l := start(t, a, belfry.Registration{Class: "user.x"})
			defer s.Close()
			done := make(chan error, 1)
			go func() {
				_, err := s.Register(t.Context(), belfry.Registration{Class: "user.y"})
				done <- err
			}()
			expect(t, l, "register 2 user.y")
			l.broken <- errBroken
			l = <-a.links
			l.welcome("one", resumed)
			if resumed {
				expect(t, l, "hello one batch 0", "unregister 2", "register 2 user.y")
			} else {
				expect(t, l, "hello one batch 0", "register 1 user.x wait", "register 2 user.y")
			}
			l.registered(2)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnErrorThatStaysEndsTheStream(t *testing.T) {
	t.Parallel()
	for _, want := range []error{
		io.EOF, status.Error(codes.PermissionDenied, "no"), status.Error(codes.InvalidArgument, "no"), status.Error(codes.Unimplemented, "no"),
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newFakeAgent()
			s, l := start(t, a, belfry.Registration{Class: "user.x"})
			defer s.Close()
			l.batch(1, [2]uint64{1, 1})
			l.broken <- want
			synctest.Wait()
			if got := nextRange(t, s); got != "1-1 x1" {
				t.Errorf("first came %s; what had arrived must be returned", got)
			}
			if _, err := s.Next(t.Context()); !errors.Is(err, want) {
				t.Errorf("next: %v; want %v", err, want)
			}
			if _, err := s.Register(t.Context(), belfry.Registration{}); !errors.Is(err, want) {
				t.Errorf("register: %v; want %v", err, want)
			}
		})
	}
}

func TestTheFirstConnectionIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		a.setAway(errBroken)
		if _, err := newStream(t.Context(), a.open, same); !errors.Is(err, errBroken) {
			t.Errorf("error %v; want that of the link", err)
		}
		a.setAway(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := newStream(ctx, a.open, same); !errors.Is(err, context.DeadlineExceeded) { // no welcome comes
			t.Errorf("error %v; want that time ran out", err)
		}
	})
}

func TestCloseEndsNextAndRegister(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, newFakeAgent(), belfry.Registration{Class: "user.x"})
		ended := make(chan error, 2)
		go func() { _, err := s.Next(t.Context()); ended <- err }()
		go func() {
			_, err := s.Register(t.Context(), belfry.Registration{})
			ended <- err
		}()
		synctest.Wait()
		s.Close()
		for range 2 {
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("error %v; want net.ErrClosed", err)
			}
		}
		s.Close() // twice does no harm
	})
}

func TestARegistrationGivenUpIsTakenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, l := start(t, newFakeAgent(), belfry.Registration{Class: "user.x"})
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Register(ctx, belfry.Registration{Class: "user.slow"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v; want that time ran out", err)
		}
		expect(t, l, "register 2 user.slow", "unregister 2")
		l.registered(2) // too late, and no harm
		synctest.Wait()
	})
}

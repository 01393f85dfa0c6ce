package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// covered answers a registration with the states of nodes b, c, …; a refusal
// is the text of one.
func (l *fakeLink) covered(number uint32, states ...string) {
	r := &belfryv1.Registered{Number: number}
	for i, state := range states {
		node := belfry.NodeID{15: byte('b' + i)}
		c := &belfryv1.Coverage{NodeId: node.String(), NodeName: string(rune('b' + i))}
		switch state {
		case "pending":
			c.State = belfryv1.CoverageState_COVERAGE_STATE_PENDING
		case "installed":
			c.State = belfryv1.CoverageState_COVERAGE_STATE_INSTALLED
		case "unreachable":
			c.State = belfryv1.CoverageState_COVERAGE_STATE_UNREACHABLE
		default:
			c.State, c.Refusal = belfryv1.CoverageState_COVERAGE_STATE_REFUSED, &belfryv1.Refusal{Code: "UNSUPPORTED", Message: state}
		}
		r.Coverage = append(r.Coverage, c)
	}
	l.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Registered{Registered: r}}
}

// tells says in-band what became of node b.
func (l *fakeLink) tells(batch uint64, state CoverageState, reason string) {
	b := &belfryv1.Batch{Number: batch, Entries: []*belfryv1.Entry{{Id: 9, NodeId: append(make([]byte, 15), 'b'), NodeName: "b", Incarnation: 1, Class: "user.x"}}}
	b.Notifications = []*belfryv1.Notification{{Kind: belfryv1.Kind_KIND_COVERAGE, Registration: 1, Entry: 9, Time: 1, Code: int32(state), Edge: belfryv1.Edge_EDGE_FAILING, Reason: reason}}
	l.down <- &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: b}}
}

func coverageText(list []Coverage) string {
	var texts []string
	for _, c := range list {
		text := c.NodeName + " " + c.State.String()
		if c.Err != nil {
			text += ": " + c.Err.Error()
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// nextCoverage is what Next says of nodes until nothing more is there.
func nextCoverage(t *testing.T, s *Stream) string {
	t.Helper()
	var texts []string
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		n, err := s.Next(ctx)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return strings.Join(texts, ", ")
		case err != nil:
			t.Fatal(err)
		case n.Kind == belfry.KindCoverage:
			text := fmt.Sprintf("%s %s", n.NodeName, CoverageState(n.Code))
			if n.Reason != "" {
				text += ": " + n.Reason
			}
			edge := belfry.EdgeFailing
			if CoverageState(n.Code) == CoverageInstalled {
				edge = belfry.EdgeRecovered
			}
			if n.Event.Class != "user.x" || n.Registration != 1 || n.Time.IsZero() || n.Edge != edge {
				t.Errorf("%+v; want the registration, a time and edge %v", n, edge)
			}
			texts = append(texts, text)
		}
	}
}

func TestCoverageFollowsWhatNextReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, l := startCovered(t, a, "installed", "pending")
		defer s.Close()
		if got := coverageText(s.Coverage(1)); got != "b installed, c pending" {
			t.Errorf("%s; want what the answer said", got)
		}
		l.tells(1, CoverageRefused, "no right; ask for one")
		synctest.Wait()
		if got := coverageText(s.Coverage(1)); got != "b installed, c pending" {
			t.Errorf("%s; want no change before Next has told of it", got)
		}
		if got := nextCoverage(t, s); got != "b refused: no right; ask for one" {
			t.Errorf("told %q", got)
		}
		if got := coverageText(s.Coverage(1)); got != "b refused: no right; ask for one, c pending" {
			t.Errorf("%s; want the refusal with its reason", got)
		}
		if s.Coverage(2) != nil {
			t.Error("a number that is unknown has coverage")
		}
	})
}

// An agent that was restarted says in its answer which nodes refuse, and not
// again in-band: the stream tells what has changed.
func TestWhoRefusesAfterARestartIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeAgent()
		s, l := startCovered(t, a, "installed", "installed", "installed", "no PSI")
		defer s.Close()
		l.tells(1, CoverageUnreachable, "") // not returned yet when the link breaks
		synctest.Wait()
		l.broken <- errBroken
		l = <-a.links
		l.welcome("two", false)
		expect(t, l, "hello one batch 0", "register 1 user.x wait")
		l.covered(1, "installed", "class unknown; upgrade c", "pending", "no PSI")
		if got, want := nextCoverage(t, s), "b unreachable, b installed, c refused: class unknown; upgrade c"; got != want {
			t.Errorf("told %q; want %q", got, want)
		}
		if got, want := coverageText(s.Coverage(1)), "b installed, c refused: class unknown; upgrade c, d installed, e refused: no PSI"; got != want {
			t.Errorf("%q; want %q", got, want)
		}
	})
}

// startCovered opens a stream with one registration whose answer has coverage.
func startCovered(t *testing.T, a *fakeAgent, states ...string) (*Stream, *fakeLink) {
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
		r, err := s.Register(t.Context(), belfry.Registration{Class: "user.x", Scope: belfry.ScopeCluster})
		if len(r.Coverage) != len(states) {
			err = fmt.Errorf("%d nodes in the answer; want %d: %w", len(r.Coverage), len(states), err)
		}
		done <- err
	}()
	expect(t, l, "hello batch 0", "register 1 user.x")
	l.covered(1, states...)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s, l
}

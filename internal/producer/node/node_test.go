package node_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func state(name string, v belfry.Verdict) node.State {
	return node.State{Node: belfry.NodeID{name[0]}, Name: name, Verdict: v, Incarnation: 1, Since: time.Unix(100, 0)}
}

func view(states ...node.State) node.View { return node.View{Nodes: states} }

func change(name string, from, to belfry.Verdict) node.Change {
	return node.Change{State: state(name, to), From: from}
}

// brief writes a message on one line.
func brief(t *testing.T, m event.Message) string {
	t.Helper()
	data := func(o belfry.Occurrence) string {
		var d belfryv1.NodeState
		if err := proto.Unmarshal(o.Data, &d); err != nil {
			t.Fatalf("data of %+v: %v", o, err)
		}
		bound := ""
		if o.LowerBound {
			bound = " at least"
		}
		return fmt.Sprintf("%s %q->%q code %d %v%s", d.Node, d.From, d.To, o.Code, o.Edge, bound)
	}
	switch m := m.(type) {
	case event.Found:
		return "found " + m.Subject
	case event.Associate:
		return fmt.Sprintf("associate %d %s", m.Entry, data(*m.State))
	case event.Post:
		return fmt.Sprintf("post %d %s", m.Entry, data(m.Occurrence))
	case event.Invalidate:
		return fmt.Sprintf("invalidate %d", m.Entry)
	case event.End:
		return fmt.Sprintf("end %d %v", m.Entry, m.Err)
	}
	return fmt.Sprintf("%#v", m)
}

func expect(t *testing.T, d *producertest.Driver, want ...string) {
	t.Helper()
	var got []string
	for range want {
		got = append(got, brief(t, d.Next()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	d.Quiet(time.Second)
}

func TestAWatchBeginsWithThePresentStateAndThenHasEveryChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := node.New()
		p.Update(view(state("a", belfry.VerdictUp), state("b", belfry.VerdictUp)))
		p.Changed(change("b", belfry.VerdictUp, belfry.VerdictStalled)) // nobody listens yet
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: node.Class, Subject: "b"})
		expect(t, d, `associate 1 b ""->"stalled" code 2 failing`)
		p.Changed(
			change("b", belfry.VerdictStalled, belfry.VerdictDown),
			change("a", belfry.VerdictUp, belfry.VerdictLeft),
			change("b", belfry.VerdictDown, belfry.VerdictUp),
		)
		expect(t, d,
			`post 1 b "stalled"->"down" code 4 failing`,
			`post 1 b "down"->"up" code 1 recovered`)
		d.Watch(event.Watch{Class: node.Class, Subject: "a"})
		expect(t, d, `associate 2 a ""->"left" code 5 failing`)
		p.Update(view(state("a", belfry.VerdictLeft), state("b", belfry.VerdictUp))) // nothing new
		d.Quiet(time.Second)
	})
}

func TestAPatternFindsTheNodesThereAreAndThoseThatCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := node.New()
		p.Update(view(state("a", belfry.VerdictUp), state("web-1", belfry.VerdictUp)))
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: node.Class, Subject: "", Entry: producertest.NoEntry})
		expect(t, d, "found a", "found web-1")
		d.Watch(event.Watch{Class: node.Class, Subject: "web-*", Entry: producertest.NoEntry})
		expect(t, d, "found web-1")
		p.Changed(change("web-2", belfry.VerdictJoining, belfry.VerdictUp))
		expect(t, d, "found web-2", "found web-2")
		p.Update(view(state("a", belfry.VerdictUp), state("b", belfry.VerdictJoining)))
		expect(t, d, "found b")
	})
}

func TestAnUnknownNodeIsRefusedWithThoseThereAreUnlessItIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := node.New()
		p.Update(view(state("b", belfry.VerdictUp), state("a", belfry.VerdictUp)))
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: node.Class, Subject: "c"})
		if end := producertest.NextOf[event.End](d); !errors.Is(end.Err, belfry.ErrNoEvent) ||
			end.Err.Error() != `no such event: no node "c"; there are a, b` {
			t.Errorf("error %v", end.Err)
		}
		d.Watch(event.Watch{Class: node.Class, Subject: "c", Wait: true})
		d.Quiet(time.Second)
		p.Update(view(state("a", belfry.VerdictUp), state("c", belfry.VerdictJoining)))
		expect(t, d, `associate 2 c ""->"joining" code 0 -`)
		p.Update(view(state("a", belfry.VerdictUp)))
		expect(t, d, "invalidate 2")
	})
}

func TestAnOverflowOfChangesIsMarked(t *testing.T) {
	t.Parallel()
	p := node.New()
	p.Update(view(state("a", belfry.VerdictUp)))
	d := producertest.Start(t, p)
	d.Watch(event.Watch{Class: node.Class, Subject: "a"})
	producertest.NextOf[event.Associate](d)
	many := make([]node.Change, 10_000)
	for i := range many {
		many[i] = change("a", belfry.VerdictUp, belfry.VerdictDown)
	}
	p.Changed(many...) // holds the lock: the producer sees none before all are there
	bounds, n := 0, 0
	p.Changed(change("a", belfry.VerdictDown, belfry.VerdictUp))
	for _, m := range d.Until(func(m event.Message) bool { return m.(event.Post).Occurrence.Code == int32(belfry.VerdictUp) }) {
		n++
		if m.(event.Post).Occurrence.LowerBound {
			bounds++
		}
	}
	if n > 4096+1 || bounds == 0 {
		t.Errorf("%d occurrences, %d of them marked; want at most 4097, and a mark where some were dropped", n, bounds)
	}
}

func TestTheEvidenceStandsInTheDataAndIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := node.New()
		p.Update(view(state("a", belfry.VerdictUp)))
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: node.Class, Subject: "a"})
		producertest.NextOf[event.Associate](d)
		c := change("a", belfry.VerdictUp, belfry.VerdictDown)
		c.Cause, c.Observers, c.SilentSince = belfry.CauseProcess, 2, time.Unix(99, 5)
		for range 1000 {
			c.Evidence = append(c.Evidence, belfry.Evidence{Time: time.Unix(99, 0), Link: "net1", Text: "dial refused"})
		}
		p.Changed(c)
		post := producertest.NextOf[event.Post](d)
		var got belfryv1.NodeState
		if err := proto.Unmarshal(post.Occurrence.Data, &got); err != nil {
			t.Fatal(err)
		}
		if len(post.Occurrence.Data) > 4096 || len(got.Evidence) != 17 {
			t.Errorf("%d bytes with %d lines, want at most 4096 with 17", len(post.Occurrence.Data), len(got.Evidence))
		}
		first, last := got.Evidence[0], got.Evidence[16]
		if first != "1970-01-01T00:01:39Z net1: dial refused" || last != "and 984 more" {
			t.Errorf("evidence begins with %q and ends with %q", first, last)
		}
		if got.Cause != "process" || got.Observers != 2 || got.SilentSince != 99_000_000_005 {
			t.Errorf("data %v", &got)
		}
		if post.Occurrence.Edge != belfry.EdgeFailing {
			t.Errorf("edge %v, want failing", post.Occurrence.Edge)
		}
	})
}

func TestNothingIsQueuedWhileNobodyWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := node.New()
		p.Update(view(state("a", belfry.VerdictUp)))
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: node.Class, Subject: "a"})
		producertest.NextOf[event.Associate](d)
		d.Stop()
		p.Changed(change("a", belfry.VerdictUp, belfry.VerdictDown))
		d = producertest.Start(t, p)
		d.Watch(event.Watch{Class: node.Class, Subject: "a"})
		expect(t, d, `associate 1 a ""->"down" code 4 failing`)
	})
}

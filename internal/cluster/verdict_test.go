package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// What is said of a process that was replaced does not concern the new one,
// and what was noted before a stream came up is no exit.
func TestExitsAreOfThisStreamAndThisProcess(t *testing.T) {
	t.Parallel()
	const second = time.Second
	reset := func(inc belfry.Incarnation) Message {
		return Stream{Peer: nodeID(2), Incarnation: inc, Event: StreamReset}
	}
	up := Stream{Peer: nodeID(2), Incarnation: 2, Event: StreamUp}
	refused := Refused{Peer: nodeID(2)}
	tests := []struct {
		name  string
		first []Message
		wait  time.Duration
		then  []Message
		want  belfry.Verdict
	}{
		{"reset of this process", []Message{reset(2)}, 0, []Message{refused}, belfry.VerdictDown},
		{"reset of an older process", []Message{reset(1)}, 0, []Message{refused}, belfry.VerdictUp},
		{"reset of a process unknown", []Message{reset(0)}, 0, []Message{refused}, belfry.VerdictDown},
		{"a new stream after the reset", []Message{reset(2), up}, 0, []Message{refused}, belfry.VerdictUp},
		{"a refusal as old as it may be", []Message{refused}, second, []Message{reset(2)}, belfry.VerdictDown},
		{"a refusal too old", []Message{refused}, second + 1, []Message{reset(2)}, belfry.VerdictUp},
	}
	for _, test := range tests {
		net := warm(1, 3)
		net.boot(net.host("b")) // incarnation 2
		net.run(5 * time.Second)
		m := net.host("a").m
		for _, msg := range test.first {
			m.Receive(net.now, msg)
		}
		for _, msg := range test.then {
			m.Receive(net.now.Add(test.wait), msg)
		}
		if got := verdictAt(net.host("a"), net.host("b")); got != test.want {
			t.Errorf("%s: b is %v, want %v", test.name, got, test.want)
		}
	}
}

// A claim on an incarnation that this node has not reached is refuted too: the
// number is taken over, as are turns, or nobody could take the claim back. One
// that it can not have reached is nothing.
func TestANodeRefutesClaimsOnItself(t *testing.T) {
	t.Parallel()
	for inc, want := range map[belfry.Incarnation]held{
		1:         {Incarnation: 1, Turn: 6},
		2:         {Incarnation: 2, Turn: 6},
		50:        {Incarnation: 50, Turn: 6},
		1000:      {Incarnation: 1},
		1<<32 - 1: {Incarnation: 1},
	} {
		net := warm(1, 3)
		a := net.host("a")
		net.deliver(a, Datagram{
			From: nodeID(2), Incarnation: 1, Boot: net.host("b").boot, At: net.now, Proven: true,
			Body: &Claims{Claims: []belfry.Claim{{Subject: 1, Incarnation: inc, Turn: 5, Verdict: belfry.VerdictDown, Cause: belfry.CauseSilent, Origin: 2}}},
		})
		if got := a.m.self.held; got.Verdict != belfry.VerdictUp || got.Incarnation != want.Incarnation || got.Turn != want.Turn {
			t.Errorf("a claim on incarnation %d: a holds itself %v, incarnation %d turn %d, want up, %d and %d",
				inc, got.Verdict, got.Incarnation, got.Turn, want.Incarnation, want.Turn)
		}
		if own := a.m.Nodes(net.now)[0]; !own.Self || own.Incarnation != 1 {
			t.Errorf("a claim on incarnation %d: a shows itself as incarnation %d, want 1", inc, own.Incarnation)
		}
	}
}

// The last turn is the last: claims do not begin anew, nor fall.
func TestTurnsEndAtTheLast(t *testing.T) {
	t.Parallel()
	const last = 65535
	down := held{Incarnation: 1, Turn: last, Verdict: belfry.VerdictDown}
	if got := (held{Incarnation: 1, Verdict: belfry.VerdictUp}).follows(down).Turn; got != last {
		t.Errorf("after turn %d comes %d, want no other", last, got)
	}
	net := warm(1, 3)
	a := net.host("a")
	p := a.m.byID[nodeID(2)]
	a.m.change(net.now, p, down)
	a.m.comeUp(net.now, p, "two-way link")
	if p.held != down {
		t.Errorf("holds %+v, want %+v to stand until a new incarnation", p.held, down)
	}
	a.m.rise(net.now, p, 2)
	a.m.comeUp(net.now, p, "two-way link")
	if p.held.Verdict != belfry.VerdictUp || p.held.Turn != 0 {
		t.Errorf("with a new incarnation holds %+v, want up in turn 0", p.held)
	}
}

func TestALowerClaimChangesNothing(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a := net.host("a")
	p := a.m.byID[nodeID(3)]
	a.m.change(net.now, p, held{Incarnation: 1, Turn: 1, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect, Since: net.now})
	was, why := p.held, a.m.Why(p.ID)
	a.m.Take()
	a.m.consider(net.now, p, held{Incarnation: 1, Verdict: belfry.VerdictDown, Cause: belfry.CauseProcess, Since: net.now}, a.m.byID[nodeID(2)])
	out := a.m.Take()
	if p.held != was || !slices.Equal(a.m.Why(p.ID), why) || len(out.Send) != 0 || len(out.Changes) != 0 {
		t.Errorf("holds %+v, evidence %v, output %+v; want all as it was", p.held, a.m.Why(p.ID), out)
	}
}

// A node that says that it restarts was heard until then. That is no reason to
// answer those who were told, whose claim is some milliseconds older by rounding;
// what is heard of it later is one.
func TestARestartThatWasAnnouncedIsNotRefutedByWhatCameBefore(t *testing.T) {
	t.Parallel()
	for heard, want := range map[time.Duration]uint16{-time.Millisecond: 0, 15 * time.Millisecond: 0, time.Second: 1} {
		net := warm(1, 3)
		a := net.host("a")
		p := a.m.find(nodeID(3))
		since := net.now.Add(-2 * time.Second)
		p.heard = since.Add(heard)
		net.deliver(a, Datagram{
			From: nodeID(2), Incarnation: 1, Boot: net.host("b").boot, At: net.now, Proven: true,
			Body: &Claims{Claims: []belfry.Claim{{
				Subject: 3, Incarnation: 1, Verdict: belfry.VerdictStalled, Cause: belfry.CauseRestarting, Age: 2 * time.Second, Origin: 2,
			}}},
		})
		if p.held.Turn != want {
			t.Errorf("heard %v after the restart was announced: turn %d, want %d", heard, p.held.Turn, want)
		}
	}
}

package cluster

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// drawLateness makes a host late by up to most, again and again. It is on time
// for at least twice as long.
func drawLateness(t *rapid.T, net *network, h *host, most time.Duration) {
	d := time.Duration(rapid.IntRange(51, int(most.Milliseconds())).Draw(t, h.name+" late ms")) * time.Millisecond
	period := 3*d + time.Duration(rapid.IntRange(0, 3000).Draw(t, h.name+" on time ms"))*time.Millisecond
	net.late(h, d, period, net.lateness)
}

// Invariant 6, for pauses that go on and on.
func TestI6AnObserverThatIsAlwaysLateBlamesNobody(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		net := warm(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(2, 5).Draw(t, "nodes"))
		a := net.host("a")
		net.trace = func(h *host, c Change) {
			if c, ok := c.(NodeChange); ok && h == a {
				t.Fatalf("%s; want no verdict of the late node: %v", net.describe(h, c), c.Evidence)
			}
		}
		drawLateness(t, net, a, 2*time.Second)
		net.run(40 * time.Second)
	})
}

// However long the observers have been a little late, a silent node is not up
// for long, and in the end it is down.
func TestObserversThatAreAlwaysLateJudgeInTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "nodes")
		net := warm(rapid.Uint64().Draw(t, "seed"), n)
		victim := net.hosts[n-1]
		for _, h := range net.hosts[:n-1] {
			if rapid.Bool().Draw(t, h.name+" is late") {
				drawLateness(t, net, h, 300*time.Millisecond)
			}
		}
		net.run(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
		stopped := rapid.Bool().Draw(t, "stopped, not dead")
		if victim.frozen = stopped; !stopped {
			victim.dead, victim.running = true, false
		}
		want := map[bool]belfry.Verdict{true: belfry.VerdictStalled, false: belfry.VerdictUnreachable}[stopped]
		net.run(5 * time.Second)
		for _, h := range net.hosts[:n-1] {
			if got := verdictAt(h, victim); got != want && got != belfry.VerdictDown {
				t.Fatalf("after 5s %s holds %s %v, want %v: %v", h.name, victim.name, got, want, h.m.Why(nodeID(victim.number)))
			}
		}
		net.run(45 * time.Second)
		for _, h := range net.hosts[:n-1] {
			if got := verdictAt(h, victim); got != belfry.VerdictDown {
				t.Fatalf("after 50s %s holds %s %v, want down: %v", h.name, victim.name, got, h.m.Why(nodeID(victim.number)))
			}
		}
	})
}

// A link that is beginning expects nothing yet, so it misses nothing either.
func TestANodeOnlyOnALinkThatNeverComesUpIsVerified(t *testing.T) {
	t.Parallel()
	net := warm(1, 2)
	a, b := net.host("a"), net.host("b")
	r := a.m.byID[nodeID(b.number)].rows[0]
	a.m.setLink(net.now, r, belfry.LinkInit, "heard again")
	r.due = time.Time{}
	b.dead, b.running = true, false
	net.run(8 * time.Second)
	if got := verdictAt(a, b); got == belfry.VerdictUp {
		t.Errorf("b is %v on a link that is %v, want it judged", got, r.state)
	}
}

// The allowance does not run while this node sleeps: told, or noticed by it.
func TestAnAllowanceMovesByTheOwnPause(t *testing.T) {
	t.Parallel()
	const pause = 1500 * time.Millisecond
	for _, told := range []bool{true, false} {
		net := warm(1, 2)
		a, b := net.host("a"), net.host("b")
		b.dead, b.running = true, false
		net.run(2 * time.Second)
		was := a.m.byID[nodeID(b.number)].held
		a.dead = true
		net.run(pause)
		if told {
			net.wake(a, pause)
		} else {
			a.dead = false
			net.drive(a)
		}
		now := a.m.byID[nodeID(b.number)].held
		moved := now.Since.Sub(was.Since)
		if was.Verdict != belfry.VerdictUnreachable || now.Verdict != was.Verdict || moved > pause || moved < pause-2*burstTick {
			t.Errorf("told %v: %v since %v became %v since %v, want unreachable and %v later",
				told, was.Verdict, net.elapsed(was.Since), now.Verdict, net.elapsed(now.Since), pause)
		}
	}
}

// One observer answered once and fell silent: the other does not wait for it.
func TestAnObserverThatFellSilentIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a := net.host("a")
	p := a.m.byID[nodeID(3)]
	a.m.verify(net.now, p, net.now, net.now, false)
	p.burst.unanswered, p.burst.worth = 60, 1_000_000
	p.burst.results = []result{{from: a.m.byID[nodeID(2)], at: net.now}}
	for after, want := range map[time.Duration]bool{relayTime - 1: false, relayTime: true} {
		if enough, _ := a.m.evidence(net.now.Add(after), p); enough != want {
			t.Errorf("%v after its only result: enough %v, want %v", after, enough, want)
		}
	}
}

func TestANodeInIllHealthNeedsMore(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		age           time.Duration
		own, other    int // unanswered; other -1: no other observer answered
		sick, healthy bool
	}{
		{"another one misses it too", 0, 60, 4, true, true},
		{"another one hardly misses it", 0, 60, 3, false, true},
		{"another one misses nothing", 10 * time.Second, 60, 0, false, false},
		{"alone, a short burst", deafBurst - 1, 60, -1, false, true},
		{"alone, a long burst", deafBurst, 60, -1, true, true},
		{"alone, a long burst of few", deafBurst, 2*enoughUnanswered - 1, -1, false, true},
	}
	for _, test := range tests {
		for score, want := range map[uint8]bool{healthMax: test.sick, 0: test.healthy} {
			net := warm(1, 3)
			a := net.host("a")
			p := a.m.byID[nodeID(3)]
			a.m.verify(net.now, p, net.now, net.now.Add(-test.age), false)
			p.burst.unanswered, p.burst.worth = test.own, int64(test.own)*10_000
			if test.other >= 0 {
				p.burst.results = []result{{from: a.m.byID[nodeID(2)], at: net.now, unanswered: test.other}}
			}
			a.m.health.score = score
			if enough, observers := a.m.evidence(net.now, p); enough != want {
				t.Errorf("%s, score %d: enough %v with %d observers, want %v", test.name, score, enough, observers, want)
			}
		}
	}
}

// Mail that was lost may have been the answers.
func TestDroppedMailVoidsTheBurst(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a := net.host("a")
	p := a.m.byID[nodeID(3)]
	a.m.verify(net.now, p, net.now, net.now, false)
	a.m.Receive(net.now, Dropped{})
	if p.burst != nil || p.doubt.IsZero() {
		t.Errorf("burst %v, doubt %v; want none, and one to begin again", p.burst, p.doubt)
	}
}

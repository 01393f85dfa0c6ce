package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// heldDown counts the verdicts of down that consumers were told, by observer.
func heldDown(net *network) map[string]int {
	told := map[string]int{}
	net.trace = func(h *host, c Change) {
		if c, ok := c.(NodeChange); ok && c.To == belfry.VerdictDown {
			told[h.name]++
		}
	}
	return told
}

// A process end is known to all, watchers or not, within the time that its
// subject has to answer and one dissemination.
func TestAKilledProcessIsKnownToAllAtOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20 / seedsPart) {
		net := warm(seed, 24)
		told := heldDown(net)
		net.end(net.host("c"), StreamReset)
		net.run(250 * time.Millisecond)
		if len(told) != 23 {
			t.Errorf("seed %d: %d of 23 nodes know it after 250 ms", seed, len(told))
		}
	}
}

// While the subject has time to answer, the claim is on its way to others.
func TestAClaimThatWaitsIsPassedOn(t *testing.T) {
	t.Parallel()
	net := warm(1, 24)
	a := net.host("a")
	m := a.m
	var subject belfry.NodeNumber
	for _, h := range net.hosts[2:] {
		if len(m.find(nodeID(h.number)).rows) == 0 {
			subject = h.number
		}
	}
	m.Receive(net.now, Datagram{
		From: nodeID(2), Incarnation: 1, Boot: net.host("b").boot, At: net.now, Proven: true,
		Body: &Claims{Claims: []belfry.Claim{{Subject: subject, Incarnation: 1, Verdict: belfry.VerdictDown, Cause: belfry.CauseProcess, Origin: 2}}},
	})
	m.Advance(net.now)
	passed := 0
	for _, s := range m.Take().Send {
		if body, ok := s.Body.(*Claims); ok && len(body.Claims) == 1 && body.Claims[0].Verdict == belfry.VerdictDown {
			passed++
		}
	}
	if want := m.cfg.FanOut + 1; passed != want { // and the subject
		t.Errorf("passed on to %d nodes, want %d", passed, want)
	}
	if got := m.find(nodeID(subject)).held.Verdict; got != belfry.VerdictUp {
		t.Errorf("holds it %v meanwhile, want up", got)
	}
}

// What a node said that is down by now is not believed before its subject was
// asked; nor is it passed on.
func TestAClaimOfADeadOriginWaitsForItsSubject(t *testing.T) {
	t.Parallel()
	net := warm(1, 8)
	net.end(net.host("h"), StreamReset)
	net.run(time.Second)
	told := heldDown(net)
	m := net.host("a").m
	net.deliver(net.host("a"), Datagram{
		From: nodeID(2), Incarnation: 1, Boot: net.host("b").boot, At: net.now, Proven: true,
		Body: &Claims{Claims: []belfry.Claim{{Subject: 3, Incarnation: 1, Turn: 3, Verdict: belfry.VerdictUnreachable, Cause: belfry.CauseSilent, Origin: 8}}},
	})
	if k := m.find(nodeID(3)).parked; k == nil || k.passed {
		t.Fatalf("parked %+v, want the claim parked and not passed on", k)
	} else if wait := k.until.Sub(net.now); wait != parkDoubted {
		t.Errorf("parked for %v, want %v", wait, parkDoubted)
	}
	net.run(20 * time.Millisecond)
	if m.find(nodeID(3)).parked != nil {
		t.Error("the claim is still parked although its subject was asked 20 ms ago")
	}
	net.run(3 * time.Second)
	if len(told) != 0 || verdictAt(net.host("a"), net.host("c")) != belfry.VerdictUp {
		t.Errorf("told %v, a holds c %v; want nothing and up", told, verdictAt(net.host("a"), net.host("c")))
	}
}

// Down and left by the word of one wait as long as this node would itself, from
// when it first knew of the silence; an exit does until the kernel has spoken.
func TestDownByTheWordOfOneWaitsAsLongAsAnOwnVerdict(t *testing.T) {
	t.Parallel()
	const allowance, stallMax = 2500 * time.Millisecond, 30 * time.Second
	for name, c := range map[string]struct {
		verdict belfry.Verdict
		cause   belfry.Cause
		known   time.Duration // unreachable here since; 0: it is up
		result  DialResult    // of the dial that an exit makes
		want    time.Duration // to wait; 0: held at once, or settled by the dial
		holds   belfry.Verdict
	}{
		"silent":                      {belfry.VerdictDown, belfry.CauseSilent, 0, 0, allowance, belfry.VerdictUp},
		"silent, known for a second":  {belfry.VerdictDown, belfry.CauseSilent, time.Second, 0, allowance - time.Second - parkSooner, belfry.VerdictUnreachable},
		"silent, known for three":     {belfry.VerdictDown, belfry.CauseSilent, 3 * time.Second, 0, 0, belfry.VerdictDown},
		"stalled":                     {belfry.VerdictDown, belfry.CauseStalled, 3 * time.Second, 0, stallMax - 3*time.Second - parkSooner, belfry.VerdictUnreachable},
		"process, not answered":       {belfry.VerdictDown, belfry.CauseProcess, 0, DialTimeout, allowance, belfry.VerdictUp},
		"process, refused":            {belfry.VerdictDown, belfry.CauseProcess, 0, DialRefused, 0, belfry.VerdictDown},
		"process, accepted: it lives": {belfry.VerdictDown, belfry.CauseProcess, 0, DialAccepted, 0, belfry.VerdictUp},
		"left, accepted: not yet":     {belfry.VerdictLeft, belfry.CauseLeft, 0, DialAccepted, allowance, belfry.VerdictUp},
		"left, refused":               {belfry.VerdictLeft, belfry.CauseLeft, 0, DialRefused, 0, belfry.VerdictLeft},
	} {
		net := warm(1, 12)
		m, now := net.host("a").m, net.now
		p := m.find(nodeID(6))
		if p.rows != nil {
			t.Fatalf("%s: the subject is watched; the test is about who does not watch", name)
		}
		if c.known > 0 {
			m.change(now, p, held{Incarnation: 1, Verdict: belfry.VerdictUnreachable, Cause: belfry.CauseSilent, Since: now.Add(-c.known), Origin: 4})
			p.news = now.Add(-c.known)
		}
		p.heard = time.Time{} // what it was heard of when it joined would answer
		m.heardClaims(now, now, m.find(nodeID(2)), []belfry.Claim{{
			Subject: 6, Incarnation: 1, Verdict: c.verdict, Cause: c.cause, Age: time.Hour, Origin: 2,
		}})
		if dials := len(m.Take().Dial); dials > 0 {
			m.dialed(now, Dialed{Peer: p.ID, Result: c.result})
		} else if c.result != 0 {
			t.Errorf("%s: the kernel was not asked", name)
		}
		wait := time.Duration(0)
		if p.parked != nil {
			wait = p.parked.until.Sub(now)
		}
		if wait != c.want || p.held.Verdict != c.holds {
			t.Errorf("%s: waits %v and holds %v; want %v and %v", name, wait, p.held.Verdict, c.want, c.holds)
		}
	}
}

// A new node is known to all two seconds after its start, whatever the size of
// the cluster was that it met.
func TestAJoinIsKnownToAll(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		net := newNetwork(seed, names24()...)
		for _, h := range net.hosts {
			net.boot(h)
		}
		net.run(2 * time.Second)
		for _, h := range net.hosts {
			for _, n := range h.m.Nodes(net.now) {
				if n.Verdict != belfry.VerdictUp {
					t.Errorf("seed %d: %s holds %s %v after 2 s, want up", seed, h.name, n.Name, n.Verdict)
				}
			}
		}
	}
}

// Two halves that held each other down meet again. What each side held of the
// other goes around for a while, and nobody is told of another death.
func TestAHealReplaysNobodysDeath(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10 / seedsPart) {
		net := warm(seed, 24)
		for _, a := range net.hosts {
			for _, b := range net.hosts {
				net.path(a, b).loss = 30
			}
		}
		split := func(is bool) {
			for i, a := range net.hosts {
				for j, b := range net.hosts {
					if i < 12 != (j < 12) {
						net.path(a, b).cut = is
					}
				}
			}
		}
		split(true)
		net.run(10 * time.Second)
		told := heldDown(net)
		split(false)
		net.run(20 * time.Second)
		if len(told) != 0 || !net.agree() {
			t.Errorf("seed %d: after the heal deaths are told at %v, agreed %v", seed, told, net.agree())
		}
		for _, h := range net.hosts {
			for _, n := range h.m.Nodes(net.now) {
				if n.Verdict != belfry.VerdictUp {
					t.Errorf("seed %d: %s holds %s %v, want up", seed, h.name, n.Name, n.Verdict)
				}
			}
		}
	}
}

// An isolated node keeps for itself what it holds: no datagram of it says that
// another one is silent.
func TestAnIsolatedNodeClaimsNothing(t *testing.T) {
	t.Parallel()
	net := warm(1, 8)
	a := net.host("a")
	for _, h := range net.hosts {
		net.path(h, a).cut = true // it hears nobody; all hear it
	}
	net.watch = func(from *host, s Send) {
		var claims []belfry.Claim
		switch body := s.Body.(type) {
		case *Heartbeat:
			claims = body.Claims
		case *Claims:
			claims = body.Claims
		}
		if i := slices.IndexFunc(claims, func(c belfry.Claim) bool { return doubtful(c.Verdict) }); from == a && i >= 0 {
			t.Errorf("a says %+v", claims[i])
		}
	}
	net.run(10 * time.Second)
	if !a.m.suspicion.isolated || len(a.m.doubted) == 0 {
		t.Errorf("isolated %v, %d in doubt; want it isolated and its peers in doubt", a.m.suspicion.isolated, len(a.m.doubted))
	}
}

// US8433760: after "node alive" the claimant may claim again only with the one
// who answered.
func TestWhoAnsweredHasToAgree(t *testing.T) {
	t.Parallel()
	net := warm(1, 4)
	m := net.host("a").m
	p, by := m.find(nodeID(3)), m.find(nodeID(2))
	m.conclude(net.now, p, belfry.VerdictUnreachable, belfry.CauseSilent, net.now, 2)
	m.heardClaims(net.now, net.now, by, []belfry.Claim{{Subject: 3, Incarnation: 1, Turn: 1, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect, Origin: 2}})
	if p.held.Verdict != belfry.VerdictUp {
		t.Fatalf("holds %v after the answer, want up", p.held)
	}
	m.verify(net.now, p, net.now, net.now, false)
	p.burst.unanswered, p.burst.worth = 60, 1_000_000
	p.burst.results = []result{{from: m.find(nodeID(4)), at: net.now, unanswered: 60, loss: 25}}
	if enough, _ := m.evidence(net.now, p); enough {
		t.Error("enough without the one who answered, want not")
	}
	p.burst.results = append(p.burst.results, result{from: by, at: net.now, unanswered: 1})
	if enough, observers := m.evidence(net.now, p); !enough || observers != 3 {
		t.Errorf("enough %v with %d observers, want true with 3", enough, observers)
	}
	const needed = 10 * time.Second
	if p.answerer(net.now.Add(needed-1)) != by || p.answerer(net.now.Add(needed)) != nil {
		t.Errorf("who answered is not needed for %v, or for longer", needed)
	}
}

func TestThreeAnsweredClaimsCostTheVote(t *testing.T) {
	t.Parallel()
	net := warm(1, 5)
	m := net.host("a").m
	p, by := m.find(nodeID(3)), m.find(nodeID(2))
	for range 3 {
		m.conclude(net.now, p, belfry.VerdictUnreachable, belfry.CauseSilent, net.now, 2)
		m.heardClaims(net.now, net.now, by, []belfry.Claim{{Subject: 3, Incarnation: 1, Turn: p.held.Turn + 1, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect, Origin: 2}})
	}
	m.verify(net.now, p, net.now, net.now, false)
	p.burst.unanswered, p.burst.worth = 60, 1_000_000
	p.burst.results = []result{{from: by, at: net.now, unanswered: 9, loss: 25}}
	if _, observers := m.evidence(net.now, p); observers != 1 {
		t.Errorf("%d observers with one other, want the other alone", observers)
	}
	p.burst.results = append(p.burst.results, result{from: m.find(nodeID(4)), at: net.now, unanswered: 9, loss: 25})
	if _, observers := m.evidence(net.now, p); observers != 3 {
		t.Errorf("%d observers with two others, want the own vote back", observers)
	}
	if m.evidence(net.now.Add(answerTime), p); p.mistrusted(net.now.Add(answerTime)) {
		t.Error("mistrusted after a minute, want not")
	}
}

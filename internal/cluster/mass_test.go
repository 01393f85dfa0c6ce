package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// A rack is one change, not as many as it has nodes: every survivor posts all
// of them in one moment under one number.
func TestARackIsOneChange(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10 / seedsPart) {
		net := warm(seed, 24)
		net.run(20 * time.Second)
		type change struct {
			view uint64
			at   time.Time
		}
		posted := map[string][]change{} // by survivor
		down := map[string][]string{}
		net.trace = func(h *host, c Change) {
			if c, ok := c.(NodeChange); ok && c.To == belfry.VerdictDown {
				if now := (change{c.View, net.now}); !slices.Contains(posted[h.name], now) {
					posted[h.name] = append(posted[h.name], now)
				}
				down[h.name] = append(down[h.name], c.Name)
			}
		}
		rack := []string{"c", "h", "m", "r"}
		for _, name := range rack {
			net.host(name).dead, net.host(name).running = true, false
		}
		net.run(5 * time.Second)
		for _, h := range net.hosts {
			if slices.Contains(rack, h.name) {
				continue
			}
			slices.Sort(down[h.name])
			if !slices.Equal(down[h.name], rack) || len(posted[h.name]) > 2 {
				t.Errorf("seed %d: %s posted %v in %d changes, want %v in one, or two where they died far apart", seed, h.name, down[h.name], len(posted[h.name]), rack)
			}
		}
		if one := len(slices.DeleteFunc(net.survivors(), func(h *host) bool { return len(posted[h.name]) != 1 })); one < 15 {
			t.Errorf("seed %d: one change at %d of 20 survivors, want at most at least", seed, one)
		}
	}
}

// survivors are the hosts whose process runs.
func (n *network) survivors() []*host {
	return slices.DeleteFunc(slices.Clone(n.hosts), func(h *host) bool { return !h.running })
}

// The pair that does not reach each other is told once by each side and by who
// sees both, with the largest set that is connected; nobody goes down.
func TestANonTransitivePartitionIsReported(t *testing.T) {
	t.Parallel()
	net := warm(1, 5)
	var told []string
	net.trace = func(h *host, c Change) {
		switch c := c.(type) {
		case NonTransitive:
			_, text, _ := strings.Cut(net.describe(h, c), " ")
			told = append(told, text)
		case NodeChange:
			told = append(told, fmt.Sprintf("%s: %s %v", h.name, c.Name, c.To))
		}
	}
	cut := func(is bool) {
		net.path(net.host("b"), net.host("d")).cut, net.path(net.host("d"), net.host("b")).cut = is, is
	}
	cut(true)
	net.run(60 * time.Second)
	var want []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		want = append(want, name+": pairs b|d, connected a b c e")
	}
	slices.Sort(told)
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("after the cut (-want +got):\n%s", diff)
	}
	told = nil
	cut(false)
	net.run(60 * time.Second)
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		want[i] = name + ": pairs, connected"
	}
	slices.Sort(told)
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("after the heal (-want +got):\n%s", diff)
	}
}

// The longest pause that a node survived is handed out to be kept, and a
// machine that begins with it waits longer.
func TestPausesAreKeptOverARestart(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	var kept []Pause
	net.keep = func(h *host, p Pause) {
		if h.name == "a" && p.Node == nodeID(3) {
			kept = append(kept, p)
		}
	}
	c := net.host("c")
	c.frozen = true
	net.run(6 * time.Second)
	net.thaw(c)
	net.run(5 * time.Second)
	if len(kept) == 0 || kept[len(kept)-1].D < 5*time.Second || kept[len(kept)-1].D > 7*time.Second {
		t.Fatalf("kept %+v, want the pause of 6 s", kept)
	}
	cfg := testConfig()
	cfg.Pauses = kept[len(kept)-1:]
	m := New(cfg, net.now, net.rng)
	m.Receive(net.now, net.members())
	p := m.find(nodeID(3))
	p.held.Since = net.now
	if got, want := m.downAt(net.now, p).Sub(net.now), kept[len(kept)-1].D*5/4; got != want {
		t.Errorf("allowance %v after the restart, want 1.25 times the pause: %v", got, want)
	}
}

// What an isolated node held for itself ends with the word of the first one
// that it reaches again, also about those that it still does not reach.
func TestWhatAnIsolatedNodeHeldEndsWithAWitness(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10 / seedsPart) {
		net := warm(seed, 3)
		a, b, c := net.host("a"), net.host("b"), net.host("c")
		cut := func(p, q *host, is bool) { net.path(p, q).cut, net.path(q, p).cut = is, is }
		cut(a, b, true)
		net.run(10 * time.Second)
		cut(a, c, true)
		net.run(10 * time.Second)
		if !a.m.suspicion.isolated || verdictAt(a, b) != belfry.VerdictUnreachable || verdictAt(a, c) != belfry.VerdictUnreachable {
			t.Fatalf("seed %d: isolated %v, b %v, c %v; want it isolated and both unreachable", seed, a.m.suspicion.isolated, verdictAt(a, b), verdictAt(a, c))
		}
		cut(a, c, false)
		net.run(10 * time.Second)
		if held := a.m.find(nodeID(2)).held; held.Verdict != belfry.VerdictUp || held.Cause != belfry.CauseIndirect || !net.agree() {
			t.Errorf("seed %d: a holds b %v (%v), agreed %v; want up (indirect) by the word of c", seed, held.Verdict, held.Cause, net.agree())
		}
	}
}

// A node that the configuration has stopped hears nobody, so it may say nothing
// of anybody, however long it takes.
func TestAStoppedNodeJudgesNobody(t *testing.T) {
	t.Parallel()
	net := warm(1, 5)
	net.stopped["a"] = true
	net.generation++
	for _, h := range net.hosts {
		net.deliver(h, net.members())
	}
	net.trace = func(h *host, c Change) {
		if c, ok := c.(NodeChange); ok && h.name == "a" {
			t.Errorf("a posts %v", net.describe(h, c))
		}
	}
	net.host("c").dead, net.host("c").running = true, false
	net.run(60 * time.Second)
}

// A kernel that answers proves that this node is not cut off, though no agent
// says a word: two peers that are stopped are stalled, and nobody is isolated.
func TestAKernelThatAnswersAllaysTheSuspicion(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10 / seedsPart) {
		net := warm(seed, 3)
		a, b, c := net.host("a"), net.host("b"), net.host("c")
		net.trace = func(h *host, c Change) {
			if c, ok := c.(Isolated); ok && h == a {
				t.Errorf("seed %d: a posts isolated %v", seed, c.On)
			}
		}
		b.frozen, c.frozen = true, true
		net.run(5 * time.Second)
		if verdictAt(a, b) != belfry.VerdictStalled || verdictAt(a, c) != belfry.VerdictStalled {
			t.Errorf("seed %d: b %v and c %v, want both stalled", seed, verdictAt(a, b), verdictAt(a, c))
		}
	}
}

// A death waits while some observers agree and not yet most: from two votes to
// three quarters of those that look. Who is no longer up does not look.
func TestADeathWaitsBetweenTheWatermarks(t *testing.T) {
	t.Parallel()
	const few, many = strongVote - 1, strongVote
	for _, test := range []struct {
		name   string
		own    int
		others []int // unanswered at each
		dead   int   // how many of the last are down
		want   bool
	}{
		{"nobody else looks", many, nil, 0, false},
		{"one of four", many, []int{few, few, few}, 0, false},
		{"two of four", many, []int{many, few, few}, 0, true},
		{"two others of four", few, []int{many, many, few}, 0, true},
		{"three of four", many, []int{many, many, few}, 0, false},
		{"two of two", many, []int{many}, 0, false},
		{"the dead do not lack", many, []int{many, few, few}, 2, false},
		{"the dead do not vote", many, []int{few, few, many}, 1, false},
	} {
		net := warm(1, 5)
		m := net.host("a").m
		p := m.find(nodeID(2))
		p.burst = &burst{unanswered: test.own}
		for i, unanswered := range test.others {
			from := m.find(nodeID(belfry.NodeNumber(3 + i)))
			if i >= len(test.others)-test.dead {
				from.held.Verdict = belfry.VerdictDown
			}
			p.burst.results = append(p.burst.results, result{from: from, unanswered: unanswered})
		}
		if got := m.votesMissing(p); got != test.want {
			t.Errorf("%s: waits %v, want %v", test.name, got, test.want)
		}
	}
}

// Before a node gives up on itself it asks three others, for as long as four
// round trips of the slowest path take.
func TestASuspectAsksThreeForFourRounds(t *testing.T) {
	t.Parallel()
	net := warm(1, 8)
	net.delay = 100 * time.Millisecond
	net.run(60 * time.Second)
	m := net.host("a").m
	for _, p := range m.peers[:3] { // of four
		p.burst = &burst{own: true, began: net.now}
	}
	m.suspect(net.now)
	if got, want := m.suspicion.until.Sub(net.now), 4*m.slowestRound(); got != want || got <= suspectTime {
		t.Errorf("others are asked for %v, want %v", got, want)
	}
	m.Take()
	m.advanceSuspicion(net.now)
	asked := map[belfry.NodeID]bool{}
	for _, s := range m.Take().Send {
		asked[s.To] = true
	}
	if len(asked) != suspectProbes {
		t.Errorf("%d others are asked, want %d", len(asked), suspectProbes)
	}
}

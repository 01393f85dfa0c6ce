package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// ringOf is the machine of each of n nodes, with K watchers.
func ringOf(n, k int) []*Machine {
	var rows []Member
	for i := 1; i <= n; i++ {
		rows = append(rows, Member{ID: nodeID(belfry.NodeNumber(i)), Number: belfry.NodeNumber(i)})
	}
	table := NewTable(belfry.ClusterID{1}, 1, rows)
	var all []*Machine
	for _, row := range rows {
		cfg := testConfig()
		cfg.Self, cfg.Number, cfg.Cluster, cfg.Watchers = row.ID, row.Number, belfry.ClusterID{1}, k
		m := New(cfg, time.Time{}, rand.New(rand.NewPCG(1, 1)))
		m.Receive(time.Time{}, Members{Table: table})
		all = append(all, m)
	}
	return all
}

// neighboursOf are the numbers of the nodes that n watches, as m sees it.
func neighboursOf(m *Machine, n belfry.NodeNumber) (numbers []belfry.NodeNumber) {
	for _, p := range m.neighbours(m.numbered(n)) {
		numbers = append(numbers, p.Number)
	}
	return numbers
}

// Z8: K distinct watchers, and whom I watch watches me.
func TestNeighboursAreDistinctAndMutual(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		k := 2 * rapid.IntRange(1, 4).Draw(t, "k/2")
		all := ringOf(n, k)
		for _, m := range all {
			peers := neighboursOf(m, m.cfg.Number)
			if want := min(k, n-1); len(peers) != want {
				t.Fatalf("%d nodes, k %d: %d neighbours, want %d", n, k, len(peers), want)
			}
			for i, q := range peers {
				if q == m.cfg.Number || slices.Contains(peers[:i], q) {
					t.Fatalf("%d nodes, k %d: a neighbour twice, or the node itself", n, k)
				}
				if !slices.Contains(neighboursOf(all[q-1], q), m.cfg.Number) {
					t.Fatalf("%d nodes, k %d: watched, but does not watch", n, k)
				}
			}
		}
	})
}

func TestAMemberThatGoesMovesOnlyItsNeighbours(t *testing.T) {
	t.Parallel()
	m := ringOf(20, 4)[0]
	gone := belfry.NodeNumber(8)
	before := map[belfry.NodeNumber][]belfry.NodeNumber{}
	for n := range belfry.NodeNumber(21) {
		if n != 0 && n != gone {
			before[n] = neighboursOf(m, n)
		}
	}
	m.conclude(time.Time{}, m.numbered(gone), belfry.VerdictDown, belfry.CauseSilent, time.Time{}, 2)
	for n, was := range before {
		now := neighboursOf(m, n)
		if slices.Equal(was, now) == slices.Contains(was, gone) {
			t.Errorf("node %d: watchers changed = %v, want %v", n, !slices.Equal(was, now), slices.Contains(was, gone))
		}
		if slices.Contains(now, gone) {
			t.Errorf("node %d still watches the one that is down", n)
		}
	}
}

func TestTheRingIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	// SHA-256 of 01, fifteen zero bytes, 00 01, thirteen zero bytes, 01.
	if got, want := ringKey(belfry.ClusterID{1}, nodeID(1)), uint64(0x5700c405c60e25d6); got != want {
		t.Errorf("ringKey = %#x, want %#x", got, want)
	}
}

// TestAMemberThatIsStoppedFromTheStartIsOutsideTheRing: so a node finds it
// that starts while another one is stopped.
func TestAMemberThatIsStoppedFromTheStartIsOutsideTheRing(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.Self, cfg.Number, cfg.Cluster = nodeID(1), 1, belfry.ClusterID{1}
	members := func(stopped bool) []Member {
		return []Member{{ID: nodeID(1), Number: 1}, {ID: nodeID(2), Number: 2}, {ID: nodeID(3), Number: 3, Stopped: stopped}}
	}
	m := New(cfg, time.Time{}, rand.New(rand.NewPCG(1, 1)))
	m.Receive(time.Time{}, Members{Table: NewTable(cfg.Cluster, 1, members(true))})
	if got, want := neighboursOf(m, 1), []belfry.NodeNumber{2}; !slices.Equal(got, want) {
		t.Errorf("1 watches %v while 3 is stopped; want %v", got, want)
	}
	if got := m.find(nodeID(3)).held; got.Verdict != belfry.VerdictLeft || got.Cause != belfry.CauseStopped {
		t.Errorf("3 is held %v (%v); want left (stopped)", got.Verdict, got.Cause)
	}
	m.Receive(time.Time{}, Members{Table: NewTable(cfg.Cluster, 2, members(false))})
	got := neighboursOf(m, 1)
	slices.Sort(got)
	if want := []belfry.NodeNumber{2, 3}; !slices.Equal(got, want) {
		t.Errorf("1 watches %v after the start of 3; want %v", got, want)
	}
}

// TestMembersThatHaveNotStartedTakeNoPlaceOnTheRing however many are admitted
// before their agents run: who runs is watched by as many that run as before.
func TestMembersThatHaveNotStartedTakeNoPlaceOnTheRing(t *testing.T) {
	t.Parallel()
	const k = 4
	var members []Member
	for n := range belfry.NodeNumber(68) {
		row := Member{ID: nodeID(n + 1), Number: n + 1}
		if n%8 == 0 { // nine run
			row.Up = 1
		}
		members = append(members, row)
	}
	watched := map[belfry.NodeNumber][]belfry.NodeNumber{}
	for _, row := range members {
		cfg := testConfig()
		cfg.Self, cfg.Number, cfg.Cluster, cfg.Watchers = row.ID, row.Number, belfry.ClusterID{1}, k
		m := New(cfg, time.Time{}, rand.New(rand.NewPCG(1, 1)))
		m.Receive(time.Time{}, Members{Table: NewTable(cfg.Cluster, 1, members)})
		starting := 0
		for _, p := range m.neighbours(m.self) {
			if p.held.Verdict == belfry.VerdictJoining {
				starting++
			} else {
				watched[row.Number] = append(watched[row.Number], p.Number)
			}
		}
		if starting > k {
			t.Errorf("node %d watches %d that have not started, want %d at most", row.Number, starting, k)
		}
		if row.Up != 0 && (len(watched[row.Number]) != k || m.keff() != k) {
			t.Errorf("node %d watches %v of those that run, and paces for %d; want %d", row.Number, watched[row.Number], m.keff(), k)
		}
	}
	for n, peers := range watched {
		for _, p := range peers {
			if members[n-1].Up != 0 && !slices.Contains(watched[p], n) {
				t.Errorf("node %d watches %d, which does not watch it", n, p)
			}
		}
	}
}

// TestADeathIsNoticedAmongMembersThatHaveNotStarted, and one of them that starts
// is up soon, though all its neighbours on the ring are no more than names.
func TestADeathIsNoticedAmongMembersThatHaveNotStarted(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("n%02d", i))
	}
	net := newNetwork(1, names...)
	for _, name := range names[:4] {
		net.boot(net.host(name))
	}
	net.run(10 * time.Second)
	a := net.host("n00")
	verdict := func(name string) belfry.Verdict { return a.m.find(nodeID(net.host(name).number)).held.Verdict }
	for _, name := range names[1:4] {
		if v := verdict(name); v != belfry.VerdictUp {
			t.Fatalf("%s is %v, want up", name, v)
		}
	}
	net.host("n03").dead = true
	net.run(10 * time.Second)
	if v := verdict("n03"); v != belfry.VerdictDown {
		t.Errorf("n03 is %v 10 s after it fell silent, want down", v)
	}
	net.boot(net.host("n30"))
	net.run(10 * time.Second)
	if v := verdict("n30"); v != belfry.VerdictUp {
		t.Errorf("n30 is %v 10 s after its start, want up", v)
	}
}

package cluster

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// Each of the down members is probed, one a second, in turn.
func TestTheDownAreProbedInTurn(t *testing.T) {
	t.Parallel()
	m := largeMachine(5, largeTable(20))
	now := m.start
	for _, n := range []belfry.NodeNumber{10, 11, 12} {
		m.conclude(now, m.find(nodeID(n)), belfry.VerdictDown, belfry.CauseSilent, now, 2)
	}
	m.Take()
	m.heal = now
	probed := map[belfry.NodeID]int{}
	for range 6 {
		m.advanceHeal(now)
		for _, s := range m.Take().Send {
			probed[s.To]++
		}
		now = now.Add(healEvery)
	}
	want := map[belfry.NodeID]int{nodeID(10): 2, nodeID(11): 2, nodeID(12): 2}
	if diff := cmp.Diff(want, probed); diff != "" {
		t.Errorf("probes in 6 s (-want +got):\n%s", diff)
	}
}

// A link that nothing was heard on is probed every 200 ms.
func TestANewLinkIsProbedFiveTimesASecond(t *testing.T) {
	t.Parallel()
	net := newNetwork(1, "a", "b")
	var sent []time.Duration
	net.watch = func(_ *host, s Send) {
		if hb, ok := s.Body.(*Heartbeat); ok && hb.Probe {
			sent = append(sent, net.now.Sub(net.start))
		}
	}
	net.host("b").dead = true
	net.boot(net.host("a"))
	net.run(500 * time.Millisecond)
	want := []time.Duration{0, 200 * time.Millisecond, 400 * time.Millisecond}
	if diff := cmp.Diff(want, sent); diff != "" {
		t.Errorf("probes (-want +got):\n%s", diff)
	}
}

package cluster

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

func ringOf(n int) []*member {
	var all []*member
	for i := 1; i <= n; i++ {
		id := nodeID(belfry.NodeNumber(i))
		all = append(all, &member{Member: Member{ID: id}, place: ringKey(belfry.ClusterID{1}, id)})
	}
	return ringOrder(all)
}

// Z8: K distinct watchers, and whom I watch watches me.
func TestNeighboursAreDistinctAndMutual(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		k := 2 * rapid.IntRange(1, 4).Draw(t, "k/2")
		ring := ringOf(n)
		for _, p := range ring {
			peers := neighbours(ring, p, k)
			if want := min(k, n-1); len(peers) != want {
				t.Fatalf("%d nodes, k %d: %d neighbours, want %d", n, k, len(peers), want)
			}
			for i, q := range peers {
				if q == p || slices.Contains(peers[:i], q) {
					t.Fatalf("%d nodes, k %d: a neighbour twice, or the node itself", n, k)
				}
				if !slices.Contains(neighbours(ring, q, k), p) {
					t.Fatalf("%d nodes, k %d: watched, but does not watch", n, k)
				}
			}
		}
	})
}

func TestAMemberThatGoesMovesOnlyItsNeighbours(t *testing.T) {
	t.Parallel()
	ring := ringOf(20)
	gone := ring[7]
	without := slices.Delete(slices.Clone(ring), 7, 8)
	for _, p := range without {
		before, after := neighbours(ring, p, 4), neighbours(without, p, 4)
		if slices.Equal(before, after) == slices.Contains(before, gone) {
			t.Errorf("watchers changed = %v, want %v", !slices.Equal(before, after), slices.Contains(before, gone))
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

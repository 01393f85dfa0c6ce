package cluster

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

func drawClaim(t *rapid.T, label string) held {
	return held{
		Incarnation: belfry.Incarnation(rapid.Uint32Range(0, 3).Draw(t, label+" incarnation")),
		Turn:        uint16(rapid.IntRange(0, 3).Draw(t, label+" turn")),
		Verdict:     belfry.Verdict(rapid.IntRange(0, 5).Draw(t, label+" verdict")),
	}
}

func TestClaimOrder(t *testing.T) {
	t.Parallel()
	ascending := []held{
		{},
		{Incarnation: 1, Verdict: belfry.VerdictUp},
		{Incarnation: 1, Verdict: belfry.VerdictStalled},
		{Incarnation: 1, Verdict: belfry.VerdictUnreachable},
		{Incarnation: 1, Verdict: belfry.VerdictDown},
		{Incarnation: 1, Verdict: belfry.VerdictLeft},
		{Incarnation: 1, Turn: 1, Verdict: belfry.VerdictUp},
		{Incarnation: 1, Turn: 1, Verdict: belfry.VerdictDown},
		{Incarnation: 2, Verdict: belfry.VerdictJoining},
		{Incarnation: 2, Verdict: belfry.VerdictUp},
	}
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := a.compare(b), compareInts(i, j); got != want {
				t.Errorf("compare(%v, %v) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func compareInts(a, b int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Every node keeps the greatest claim, so the order in which claims come does
// not matter.
func TestClaimsMergeInAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawClaim(t, "a"), drawClaim(t, "b"), drawClaim(t, "c")
		merge := func(claims ...held) held {
			greatest := held{}
			for _, x := range claims {
				if x.compare(greatest) > 0 {
					greatest = x
				}
			}
			return greatest
		}
		if merge(a, b, c) != merge(c, b, a) || merge(a, b, c) != merge(b, a, c, a) {
			t.Fatal("the result depends on the order, want it not to")
		}
	})
}

func TestAFollowingClaimStands(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		old, next := drawClaim(t, "old"), drawClaim(t, "next")
		next.Incarnation = max(next.Incarnation, old.Incarnation)
		if next = next.follows(old); next.compare(old) <= 0 {
			t.Fatalf("%v follows %v, want it to be greater", next, old)
		}
	})
}

func TestTheViewHashTellsClaimsApart(t *testing.T) {
	t.Parallel()
	seen := map[uint32]held{}
	for inc := range belfry.Incarnation(4) {
		for turn := range uint16(4) {
			for v := belfry.VerdictJoining; v <= belfry.VerdictLeft; v++ {
				c := held{Incarnation: inc, Turn: turn, Verdict: v}
				if other, ok := seen[c.hash(7)]; ok {
					t.Errorf("%v and %v have one hash, want two", c, other)
				}
				seen[c.hash(7)] = c
			}
		}
	}
}

// Z10: how often a claim is sent on depends on nothing that this node knew of
// the cluster before it: three rounds of four from the first claim on.
func TestAClaimIsSentOnInThreeRounds(t *testing.T) {
	t.Parallel()
	m := largeMachine(5, largeTable(1000))
	now := m.start
	m.adopt(now, m.find(nodeID(900)), held{Incarnation: 2, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect, Since: now, Origin: 900})
	for _, want := range []int{4, 4, 4, 0} {
		m.advanceRumours(now)
		if got := len(m.Take().Send); got != want {
			t.Errorf("after %v sent to %d members, want %d", now.Sub(m.start), got, want)
		}
		now = now.Add(spreadEvery)
	}
}

package api

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// TestAStreamThatGoesOnCountsEachOnce plays a stream that is told occurrences of a
// few events, some of them in gaps over several, and then all of it again from the
// journal, to a client that shows the id of the last: each number is accounted for once.
func TestAStreamThatGoesOnCountsEachOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var m memory
		var journal []belfry.Notification // in their order, merged as they may be
		next, counted := map[uint64]uint64{}, map[uint64]uint64{}
		var claimed uint64
		happens := func() belfry.Notification {
			entry := rapid.Uint64Range(1, 4).Draw(t, "entry")
			n := exit(0, next[entry]+1, next[entry]+rapid.Uint64Range(1, 4).Draw(t, "count"))
			n.Registration, n.Entry = 1, entry
			next[entry] = n.Last
			journal = append(journal, n)
			return n
		}
		for range rapid.IntRange(1, 20).Draw(t, "live") {
			if rapid.IntRange(0, 3).Draw(t, "kind") > 0 {
				n := happens()
				m.note(&n)
				counted[n.Entry] += n.Count
				continue
			}
			gap := belfry.Notification{Kind: belfry.KindGap, Registration: 1, Gap: &belfry.Gap{Known: true}}
			for range rapid.IntRange(1, 3).Draw(t, "lost") {
				n := happens()
				gap.Gap.Total += n.Count
			}
			m.note(&gap)
			claimed += gap.Gap.Total
		}
		_, at, err := parseEventID(string(appendEventID(nil, token{1}, position{cursor: belfry.Cursor{Node: nodeA, Incarnation: 1, Position: 1}, memory: m})))
		if err != nil {
			t.Fatal(err)
		}
		m = at.memory
		for range rapid.IntRange(0, 5).Draw(t, "missed") {
			happens()
		}
		total, told := claimed, map[uint64]uint64{}
		for _, n := range journal {
			if !m.again(&n) {
				continue
			}
			if n.First <= told[n.Entry] || n.Count == 0 || n.Count > n.Last-n.First+1 {
				t.Fatalf("%d to %d of %d, %d times; told up to %d", n.First, n.Last, n.Entry, n.Count, told[n.Entry])
			}
			told[n.Entry] = n.Last
			counted[n.Entry] += n.Count
		}
		want := uint64(0)
		for entry, last := range next {
			total, want = total+counted[entry], want+last
		}
		if total != want {
			t.Fatalf("%d accounted for; want %d", total, want)
		}
	})
}

// TestAnIDHasABound: the least recently told falls out.
func TestAnIDHasABound(t *testing.T) {
	t.Parallel()
	var m memory
	for i := range uint64(maxTold + 1) {
		for _, entry := range []uint64{i + 2, 1} {
			n := exit(0, i+1, i+1)
			n.Entry = entry
			m.note(&n)
		}
	}
	has := func(entry uint64) bool {
		return slices.ContainsFunc(m.told, func(t telling) bool { return t.entry == entry })
	}
	if len(m.told) != maxTold || !has(1) || has(2) || !has(maxTold+2) {
		t.Errorf("%d events, %v %v %v; want %d, without the oldest", len(m.told), has(1), has(2), has(maxTold+2), maxTold)
	}
}

package client

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

func occurrence(first, last, count uint64) belfry.Notification {
	return belfry.Notification{Registration: 1, Entry: 1, First: first, Last: last, Count: count}
}

func TestOverlapsAreCutAndRepeatsDropped(t *testing.T) {
	t.Parallel()
	gap := occurrence(7, 12, 0)
	gap.Kind, gap.Gap = belfry.KindGap, &belfry.Gap{Total: 6, Known: true}
	over := belfry.Notification{Registration: 1, Kind: belfry.KindGap, Gap: &belfry.Gap{Total: 3}}
	state := belfry.Notification{Registration: 1, Entry: 1, Kind: belfry.KindState, First: 2, Last: 2}
	other := occurrence(1, 3, 3)
	other.Registration = 2
	tests := []struct {
		in   belfry.Notification
		want string
	}{
		{occurrence(1, 3, 3), "1-3 x3"},
		{occurrence(1, 3, 3), "dropped"},
		{occurrence(2, 2, 1), "dropped"},
		{occurrence(2, 5, 4), "4-5 x2"},
		{occurrence(5, 9, 2), "5-9 x2"}, // filtered: nobody can say which of the two are new
		{gap, "10-12 x0 gap 3"},
		{over, "0-0 x0 gap 3"},
		{over, "0-0 x0 gap 3"},
		{state, "2-2 x0"},
		{other, "1-3 x3"}, // another registration has its own
	}
	s := newSeen()
	for i, tt := range tests {
		got := "dropped"
		if s.admit(&tt.in) {
			got = fmt.Sprintf("%d-%d x%d", tt.in.First, tt.in.Last, tt.in.Count)
			if tt.in.Gap != nil {
				got += fmt.Sprintf(" gap %d", tt.in.Gap.Total)
			}
		}
		if got != tt.want {
			t.Errorf("%d: %s; want %s", i, got, tt.want)
		}
	}
}

// TestWhatRulesRefusedCountsOnce: a gap in which something was refused is cut by its
// sum, and what was silenced while an event flapped is told as often as that is.
func TestWhatRulesRefusedCountsOnce(t *testing.T) {
	t.Parallel()
	of := func(kind belfry.Kind, first, last, skipped, total uint64) belfry.Notification {
		n := occurrence(first, last, 0)
		n.Kind, n.Skipped = kind, skipped
		if kind == belfry.KindGap {
			n.Gap = &belfry.Gap{Total: total, Known: true}
		}
		return n
	}
	s, sum := newSeen(), uint64(0)
	for i, tt := range []struct {
		in    belfry.Notification
		up    uint64 // to this number all are accounted for
		first uint64
	}{
		{of(belfry.KindFlapping, 3, 3, 3, 0), 3, 3},
		{of(belfry.KindFlapping, 3, 3, 3, 0), 3, 3}, // again
		{of(belfry.KindGap, 2, 8, 2, 5), 8, 4},
		{of(belfry.KindGap, 1, 9, 9, 0), 9, 9},
		{of(belfry.KindSettled, 12, 12, 5, 0), 12, 12},
		{of(belfry.KindGap, 10, 14, 1, 4), 14, 13},
	} {
		if !s.admit(&tt.in) {
			t.Errorf("%d is not admitted", i)
		}
		if sum += total(&tt.in); sum != tt.up || tt.in.First != tt.first {
			t.Errorf("%d: %d accounted for, from %d; want %d, from %d", i, sum, tt.in.First, tt.up, tt.first)
		}
	}
}

// TestEachOccurrenceIsReturnedOnce cuts one history of occurrences into any
// ranges, repeated and overlapping as a stream that breaks may repeat them.
func TestEachOccurrenceIsReturnedOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSeen()
		var sent, returned uint64
		for range rapid.IntRange(1, 50).Draw(t, "ranges") {
			first := rapid.Uint64Range(1, sent+1).Draw(t, "first")
			last := rapid.Uint64Range(first, max(first, sent)+5).Draw(t, "last")
			n := occurrence(first, last, last-first+1)
			sent = max(sent, last)
			if !s.admit(&n) {
				continue
			}
			if n.First != returned+1 || n.Count != n.Last-n.First+1 || n.Count == 0 {
				t.Fatalf("returned up to %d, then %d-%d x%d", returned, n.First, n.Last, n.Count)
			}
			returned = n.Last
		}
		if returned != sent {
			t.Fatalf("returned up to %d of %d", returned, sent)
		}
	})
}

func TestTheLeastRecentlyHeardOfIsForgotten(t *testing.T) {
	t.Parallel()
	s := newSeen()
	admit := func(entry uint64) bool {
		n := occurrence(1, 1, 1)
		n.Entry = entry
		return s.admit(&n)
	}
	for entry := range uint64(maxSeen) {
		admit(entry + 1)
	}
	if admit(1) { // known, and now the newest
		t.Fatal("forgotten too early")
	}
	admit(maxSeen + 1) // pushes 2 out
	if admit(1) || admit(3) {
		t.Error("forgot what it should know")
	}
	if !admit(2) || len(s.byKey) != maxSeen {
		t.Errorf("remembers %d; want %d, without the oldest", len(s.byKey), maxSeen)
	}
}

// Where an event was found last is a hint and no more: with places that are
// another's, each occurrence is admitted as without.
func TestAPlaceIsOnlyAHint(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		with, without := newSeen(), newSeen()
		var places [2]*seenEntry
		for range rapid.IntRange(1, 50).Draw(t, "notifications") {
			first := rapid.Uint64Range(1, 20).Draw(t, "first")
			n := occurrence(first, first+rapid.Uint64Range(0, 3).Draw(t, "more"), 0)
			n.Entry = rapid.Uint64Range(1, 4).Draw(t, "entry")
			n.Count = n.Last - n.First + 1
			m := n
			got := with.admitAt(&places[rapid.IntRange(0, 1).Draw(t, "place")], &n)
			if want := without.admit(&m); got != want || n.First != m.First || n.Count != m.Count {
				t.Fatalf("admitted %t %d to %d, want %t %d to %d", got, n.First, n.Last, want, m.First, m.Last)
			}
		}
	})
}

package cluster

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSlotsShareTheCycle(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	want := []time.Duration{2000, 2250, 2500, 1750}
	for k := range 4 {
		s := slot{peer: k, peers: 4, links: 1}
		got := s.following(start, start.Add(1400*time.Millisecond), time.Second, time.Second).Sub(start)
		if got != want[k]*time.Millisecond {
			t.Errorf("slot %d sends at %v, want %v", k, got, want[k]*time.Millisecond)
		}
	}
}

func TestALongerIntervalIsAPowerOfTwoOfTheCycle(t *testing.T) {
	t.Parallel()
	for interval, want := range map[time.Duration]time.Duration{
		500 * time.Millisecond:  500 * time.Millisecond,
		999 * time.Millisecond:  500 * time.Millisecond,
		time.Second:             time.Second,
		3999 * time.Millisecond: 2 * time.Second,
	} {
		if got := stretched(500*time.Millisecond, interval); got != want {
			t.Errorf("stretched(500ms, %v) = %v, want %v", interval, got, want)
		}
	}
}

func TestTheNextHeartbeatIsAQuarterToOneAndAQuarterIntervalsAway(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		peers := rapid.IntRange(1, 8).Draw(t, "peers")
		links := rapid.IntRange(1, 4).Draw(t, "links")
		s := slot{
			peer: rapid.IntRange(0, peers-1).Draw(t, "peer"), peers: peers,
			link: rapid.IntRange(0, links-1).Draw(t, "link"), links: links,
		}
		cycle := time.Duration(rapid.IntRange(20, 60_000).Draw(t, "cycle")) * time.Millisecond
		interval := time.Duration(rapid.IntRange(int(cycle/time.Millisecond), 60_000).Draw(t, "interval")) * time.Millisecond
		now := start.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "now")))
		every := stretched(cycle, interval)
		wait := s.following(start, now, cycle, interval).Sub(now)
		if wait < every/4 || wait > every*5/4 {
			t.Fatalf("the next heartbeat is %v away, want %v to %v", wait, every/4, every*5/4)
		}
	})
}

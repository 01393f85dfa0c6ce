package cluster

import (
	"testing"
	"time"
)

// Windows that come too fast to be kept have had their shortest round trip.
func TestTheShortestRoundTripIsOfAllWindows(t *testing.T) {
	t.Parallel()
	var u usual
	shortest := func(at, trip time.Duration) time.Duration {
		s := spell{at: at, trip: trip, shortest: trip}
		u.learn(s)
		return u.shortest(s)
	}
	for _, row := range []struct{ at, trip, want time.Duration }{
		{0, 9 * time.Millisecond, 9 * time.Millisecond},
		{time.Second, 4 * time.Millisecond, 4 * time.Millisecond},
		{2 * time.Second, 9 * time.Millisecond, 4 * time.Millisecond},
		{usualFor / 2, 6 * time.Millisecond, 4 * time.Millisecond},
		{usualFor, 9 * time.Millisecond, 4 * time.Millisecond},
		{usualFor + time.Second, 9 * time.Millisecond, 6 * time.Millisecond},
		{2*usualFor + time.Second, 9 * time.Millisecond, 9 * time.Millisecond},
	} {
		if got := shortest(row.at, row.trip); got != row.want {
			t.Errorf("at %v the shortest is %v, want %v", row.at, got, row.want)
		}
	}
}

// What is usual is the middle of ten minutes, of round trips and delays each by
// itself, and known of three windows on.
func TestUsualIsTheMedianOfTenMinutes(t *testing.T) {
	t.Parallel()
	var u usual
	for i, row := range []struct {
		trip, delay time.Duration
		want        spell
		known       bool
	}{
		{time.Millisecond, 3 * time.Millisecond, spell{}, false},
		{2 * time.Millisecond, 2 * time.Millisecond, spell{}, false},
		{9 * time.Millisecond, 9 * time.Millisecond, spell{trip: 2 * time.Millisecond, delay: 3 * time.Millisecond}, true},
	} {
		at := time.Duration(i) * usualEvery
		u.learn(spell{at: at, trip: row.trip, delay: row.delay})
		if got, known := u.median(at); got.trip != row.want.trip || got.delay != row.want.delay || known != row.known {
			t.Errorf("after %d windows %v %v is usual (%v), want %v %v (%v)", i+1, got.trip, got.delay, known, row.want.trip, row.want.delay, row.known)
		}
	}
	if _, known := u.median(usualFor + 2*usualEvery); known {
		t.Error("after ten minutes without a window something is usual, want nothing")
	}
}

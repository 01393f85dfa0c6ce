package filesystem

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// Bounds of the time between two samples (events.md 8).
const (
	slowest = 10 * time.Second
	fastest = 250 * time.Millisecond
	// beyond is the slowest past a threshold: only the nearest one of all
	// registrations is known here, and another may come next.
	beyond = time.Second
)

// What a file system can be filled or emptied with in a second, at the
// fastest. A small one is full between two slow samples.
const (
	burstBytes  = 1 << 30
	burstInodes = 100_000
)

// A sample is one measurement.
type sample struct {
	at    time.Time
	value float64 // percent
}

// pace is how long to wait after the newer of two samples: half the time in
// which the nearest threshold can be reached, at the present rate or at the
// burst rate (both in percent a second), whichever is greater.
func pace(old, now sample, burst float64, t belfry.Threshold) time.Duration {
	rate := burst
	if elapsed := now.at.Sub(old.at).Seconds(); elapsed > 0 {
		rate = max(rate, abs(now.value-old.value)/elapsed)
	}
	limit, distance := slowest, 100.0
	if t.HasHi {
		distance = min(distance, abs(t.Hi-now.value), abs(t.Hi-t.Hysteresis-now.value))
	}
	if t.HasLo {
		distance = min(distance, abs(t.Lo-now.value), abs(t.Lo+t.Hysteresis-now.value))
	}
	if t.HasHi && now.value >= t.Hi || t.HasLo && now.value <= t.Lo {
		limit = beyond
	}
	if rate <= 0 {
		return limit
	}
	half := distance / rate / 2
	if half >= limit.Seconds() {
		return limit
	}
	return max(time.Duration(half*float64(time.Second)), fastest)
}

func abs(x float64) float64 { return max(x, -x) }

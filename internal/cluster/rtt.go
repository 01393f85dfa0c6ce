package cluster

import (
	"slices"
	"time"
)

// unknownPath stands for MRT and D before the first sample (cluster.md 4).
const unknownPath = 200 * time.Millisecond

// staleSamples is how many samples in a row may be older than the maximum
// wait before they count as the path's new regime.
const staleSamples = 3

// roundTrip holds the mean round trip and its deviation of one link, by the
// formulas of US9219621 claim 1. The claim's |MRT| − T_MEAS can go negative;
// it is read as |MRT − T_MEAS| with the MRT before the update.
//
// The weights of D are the reverse of TCP's (RFC 6298): D follows the newest
// error almost at once. Integer division makes the results equal everywhere.
type roundTrip struct {
	mrt, d   time.Duration
	measured time.Duration // T_MEAS of the newest sample that was taken
	known    bool
	stale    int             // samples in a row that were too old
	recent   []time.Duration // the newest samples that were taken, oldest first
}

// recentMax is how many samples are kept for people.
const recentMax = 16

// sample takes one measured round trip. A sample above limit is most likely a
// queued answer that a pause released; it is left out unless it is the third
// in a row.
func (r *roundTrip) sample(measured, limit time.Duration) {
	measured = max(measured, 0)
	if r.known && measured > limit {
		if r.stale++; r.stale < staleSamples {
			return
		}
	}
	r.stale, r.measured = 0, measured
	if len(r.recent) == recentMax {
		r.recent = slices.Delete(r.recent, 0, 1)
	}
	r.recent = append(r.recent, measured)
	if !r.known {
		r.known, r.mrt, r.d = true, measured, measured/2
		return
	}
	errorNow := (r.mrt - measured).Abs()
	r.mrt = (7*r.mrt + measured) / 8
	r.d = (r.d + 7*errorNow) / 8
}

// MRT is the mean round trip, or the value assumed before the first sample.
func (r *roundTrip) MRT() time.Duration {
	if !r.known {
		return unknownPath
	}
	return r.mrt
}

// D is the deviation of the round trip, or the value assumed before the first
// sample.
func (r *roundTrip) D() time.Duration {
	if !r.known {
		return unknownPath
	}
	return r.d
}

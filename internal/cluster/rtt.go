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

// released is how close to each other datagrams arrive that a queue held until
// the way was free: the kernel's for an address that is not resolved, above all
// after an interface was down for a moment.
const released = 20 * time.Millisecond

// roundTrip holds the mean round trip and its deviation of one link, by the
// formulas of US9219621 claim 1. The claim's |MRT| − T_MEAS can go negative;
// it is read as |MRT − T_MEAS| with the MRT before the update.
//
// The weights of D are the reverse of TCP's (RFC 6298): D follows the newest
// error almost at once. Integer division makes the results equal everywhere.
type roundTrip struct {
	estimate
	before estimate        // the newest sample
	at     time.Time       // of the newest sample that was taken
	stale  int             // samples in a row that were too old
	recent []time.Duration // the newest samples that were taken, oldest first
}

// An estimate is what the samples so far have shown.
type estimate struct {
	mrt, d   time.Duration
	measured time.Duration // T_MEAS of the newest sample that was taken
	known    bool
}

// recentMax is how many samples are kept for people.
const recentMax = 16

// sample takes one measured round trip. A sample above limit is most likely a
// queued answer that a pause released; it is left out unless it is the third
// in a row.
func (r *roundTrip) sample(at time.Time, measured, limit time.Duration) {
	measured = max(measured, 0)
	r.compare(at, measured)
	if r.known && measured > limit {
		if r.stale++; r.stale < staleSamples {
			return
		}
	}
	r.before, r.at = r.estimate, at
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

// compare takes the newest sample back if another datagram came at almost the
// same time and had been on its way for less: both were held back.
func (r *roundTrip) compare(at time.Time, measured time.Duration) {
	if r.known && at.Sub(r.at) <= released && r.measured-measured > released {
		r.estimate, r.recent, r.at = r.before, r.recent[:len(r.recent)-1], time.Time{}
	}
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

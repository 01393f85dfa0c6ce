package cluster

import "time"

// The send clock counts 4 µs units and wraps after 2^24 of them, 67 s.
const (
	clockUnit = 4 * time.Microsecond
	clockMask = 1<<24 - 1
	clockWrap = (clockMask + 1) * clockUnit
	// holdMax is the oldest reception that is still echoed: beyond it the clock
	// may have wrapped.
	holdMax = time.Minute
)

// clockAt is the send clock of a machine that started at start.
func clockAt(start, t time.Time) uint32 {
	return uint32(t.Sub(start)/clockUnit) & clockMask
}

// clockSince is the time from one reading of a send clock to a later one; up
// to 67 s. A reading that lies up to 7 s ahead counts as zero: the clocks of
// kernel and machine differ by a little.
func clockSince(later, earlier uint32) time.Duration {
	d := time.Duration((later-earlier)&clockMask) * clockUnit
	if d > holdMax {
		return 0
	}
	return d
}

// arrival follows when datagrams arrive against when they were sent. Their
// difference x contains the unknown offset of two clocks, which is constant;
// only its movement counts (cluster.md 4).
type arrival struct {
	mean    time.Duration // m, within one wrap of the clock
	jitter  time.Duration // J
	started bool
}

// take records one arrival. It returns by how much the datagram was earlier
// than the mean, 0 if it was later: its successor is due by the mean.
func (a *arrival) take(received, sent uint32) (early time.Duration) {
	x := time.Duration((received-sent)&clockMask) * clockUnit
	if !a.started {
		a.started, a.mean = true, x
		return 0
	}
	moved := wrapped(x - a.mean)
	a.mean = wrapped(a.mean + moved/16)
	a.jitter += (moved.Abs() - a.jitter) / 16
	return max(0, wrapped(a.mean-x))
}

// wrapped brings d into half a wrap around zero.
func wrapped(d time.Duration) time.Duration {
	d %= clockWrap
	switch {
	case d >= clockWrap/2:
		return d - clockWrap
	case d < -clockWrap/2:
		return d + clockWrap
	}
	return d
}

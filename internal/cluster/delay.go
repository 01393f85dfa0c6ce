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

// offset is x: how far the receiver's clock was ahead of what the sender's
// said at the send; 0 to 67 s.
func offset(received, sent uint32) time.Duration {
	return time.Duration((received-sent)&clockMask) * clockUnit
}

// take records one arrival. It returns by how much the datagram was earlier
// than the mean, 0 if it was later: its successor is due by the mean.
func (a *arrival) take(received, sent uint32) (early time.Duration) {
	x := offset(received, sent)
	if !a.started {
		a.started, a.mean = true, x
		return 0
	}
	moved := wrapped(x - a.mean)
	a.mean = wrapped(a.mean + moved/16)
	a.jitter += (moved.Abs() - a.jitter) / 16
	return max(0, wrapped(a.mean-x))
}

// oneWay tells how much longer than the least a datagram was on its way here.
// x alone can not: it moves with either clock too, at once when a machine was
// suspended, slowly when they drift or one is being corrected. But both clocks
// tell the same of a round trip, and what one direction takes more the round
// trip takes more at least. So where x moved further than the round trip, that
// was a clock; what is left is the way, to within how far the clocks drift
// apart between a datagram and its echo.
type oneWay struct {
	least   time.Duration // x of the fastest way, as the clocks are now; within one wrap
	started bool
}

// take is the delay of one datagram above the least, at most spare: that by
// which the round trip that it ended exceeds the shortest.
func (o *oneWay) take(x, spare time.Duration) (above time.Duration) {
	if o.started {
		above = min(max(wrapped(x-o.least), 0), spare)
	}
	o.started, o.least = true, wrapped(x-above)
	return above
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

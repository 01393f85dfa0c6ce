package cluster

import (
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// What others say of a node is in a turn and an incarnation that can have been
	// reached since this node heard of it: some at once, as for one who was cut off
	// meanwhile, and then no more than one each turnTime and startTime. Both are
	// finite, and one who lies must not use them up: whoever says something in the
	// last one can not be answered any more.
	turnsAtOnce, turnTime   = 256, 250 * time.Millisecond
	startsAtOnce, startTime = 64, time.Second
	// turnsKnown is the highest turn that an incarnation may be in when this node
	// hears of it first, and startsKnown the highest incarnation of a node of which
	// nothing is known. That it is up may be said in a higher turn, and of a known
	// incarnation too: it is the answer to such a claim.
	turnsKnown, startsKnown = 1 << 14, 1 << 31
)

// A reach is how far claims on one member can have come.
type reach struct {
	credit time.Duration // for turns, at the time at
	at     time.Time
	first  belfry.Incarnation // that was known at the time since
	since  time.Time
}

// turnsLeft is what is left for turns now.
func (r *reach) turnsLeft(now time.Time) time.Duration {
	return min(r.credit+now.Sub(r.at), turnsAtOnce*turnTime)
}

// reached tells whether a claim may be where it says.
func (r *reach) reached(now time.Time, known, c held) bool {
	switch {
	case c.compare(known) <= 0:
		return true // it changes nothing
	case c.Verdict == belfry.VerdictUp && c.Turn <= turnsKnown+turnsAtOnce && c.Incarnation == known.Incarnation:
		return true
	case c.Incarnation == known.Incarnation:
		return time.Duration(c.Turn-known.Turn)*turnTime <= r.turnsLeft(now)
	case c.Turn > turnsKnown && (c.Verdict != belfry.VerdictUp || c.Turn > turnsKnown+turnsAtOnce):
		return false
	case r.first == 0:
		return c.Incarnation <= startsKnown
	}
	return int64(c.Incarnation) <= int64(r.first)+startsAtOnce+int64(now.Sub(r.since)/startTime)
}

// moved notes that another claim is held.
func (r *reach) moved(now time.Time, from, to held) {
	left := r.turnsLeft(now)
	switch {
	case to.Incarnation != from.Incarnation:
		left = turnsAtOnce * turnTime
		if r.first == 0 {
			r.first, r.since = to.Incarnation, now
		}
	case to.Turn > from.Turn:
		left = max(0, left-time.Duration(to.Turn-from.Turn)*turnTime)
	}
	r.credit, r.at = left, now
}

// proved notes an incarnation that the member itself showed.
func (r *reach) proved(now time.Time, inc belfry.Incarnation) { r.first, r.since = inc, now }

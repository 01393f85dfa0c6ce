package event

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// offer puts an occurrence to the rules of one registration: what they
// refuse is counted and comes with the next notification. sampled says that
// the thresholds have been judged. All registrations are offered the same
// item, one after the other; what is queued is a copy.
func (a *attachment) offer(now time.Time, it *item, sampled bool) {
	if it.mixed && a.blindTo(it) {
		newest := a.part(it)
		it = &newest
	}
	edge := it.edge
	if sampled && len(a.levels) > 0 {
		if !a.hit {
			a.refuse(it)
			return
		}
		edge = a.hitEdge
	}
	shared, marked := it.edge, it.lowerBound
	it.on, it.edge = a, edge
	switch {
	case a.gate != nil:
		a.gate.take(now, it)
	case a.admits(it):
		a.reg.queue.put(a, it)
	default:
		a.refuse(it)
	}
	it.edge, it.lowerBound = shared, marked
}

// refuse counts an occurrence that goes out with the number of the next one.
func (a *attachment) refuse(it *item) {
	a.skipped += it.count
	a.marked = a.marked || it.lowerBound
}

// account puts what was refused until now to an item that goes out.
func (a *attachment) account(it *item) {
	it.skipped += a.skipped
	it.lowerBound = it.lowerBound || a.marked
	a.skipped, a.marked = 0, false
}

// admits asks the rules that look at an occurrence alone.
func (a *attachment) admits(it *item) bool {
	r := a.reg
	return r.wantsEdge(it.edge) && (r.filter == nil || r.passes(it))
}

func (r *registration) wantsEdge(e belfry.Edge) bool {
	switch r.spec.Edge {
	case belfry.EdgeOnlyFailing:
		return e == belfry.EdgeFailing
	case belfry.EdgeOnlyRecovered:
		return e == belfry.EdgeRecovered
	}
	return true
}

func (r *registration) passes(it *item) bool {
	n := it.notification(r)
	return r.admits(&n)
}

// admits asks the filter. An expression that fails is reported once and
// refuses, as one that says no.
func (r *registration) admits(n *belfry.Notification) bool {
	if r.filter == nil {
		return true
	}
	ok, err := r.filter(n)
	if err != nil && !r.filterBad {
		r.filterBad = true
		r.consumer.machine.refuse(EntryID(n.Entry), belfry.NodeID{}, err)
	}
	return ok && err == nil
}

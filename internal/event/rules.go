package event

import "github.com/belfry-ha/belfry"

// offer puts an occurrence to the rules of one registration: what they
// refuse is counted and comes with the next notification. sampled says that
// the thresholds have been judged. All registrations are offered the same
// item, one after the other; what is queued is a copy.
func (a *attachment) offer(it *item, sampled bool) {
	r := a.reg
	edge := it.edge
	if sampled && len(a.levels) > 0 {
		if !a.hit {
			a.skipped += it.count
			return
		}
		edge = a.hitEdge
	}
	if !r.wantsEdge(edge) {
		a.skipped += it.count
		return
	}
	shared := it.edge
	it.on, it.edge = a, edge
	if r.filter != nil && !r.passes(it) {
		a.skipped += it.count
	} else {
		r.queue.put(a, it)
	}
	it.edge = shared
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

package event

import (
	"slices"

	"github.com/belfry-ha/belfry"
)

// snapshot makes a plain registration begin with a state. The state is shared
// and never written, so that nothing that happens before it is taken gets
// ahead of it: state first, then changes.
func (r *registration) snapshot(s *state) {
	r.snap = s
	r.wake()
}

// begun makes a registration with a queue begin an event with its state, if
// it asked for that.
func (a *attachment) begun(s *state) {
	switch {
	case a.reg.spec.Snapshot:
		a.show(s)
	case a.gate != nil:
		a.gate.learn(s)
	}
}

// show lets a state record go out after everything queued before and before
// anything queued later. A later state
// replaces one that has not been taken: it is a present state, not a history.
func (a *attachment) show(s *state) {
	r := a.reg
	if a.gate != nil {
		a.gate.tell(s)
	}
	if a.snap != nil && a.last > a.snapAt { // not before what is older than it
		r.snapshots = without(r.snapshots, a)
		a.snap = nil
	}
	if a.snap == nil {
		r.snapshots = append(r.snapshots, a)
		a.snapAt = r.queue.tail
	}
	a.snap, a.behind, a.after = s, false, nil
	r.wake()
}

// takeSnapshots gives the states that became known up to a position.
func (r *registration) takeSnapshots(b *basket, at uint64) {
	i := 0
	for ; i < len(r.snapshots) && r.snapshots[i].snapAt <= at && !b.full(); i++ {
		a := r.snapshots[i]
		r.takeState(b, a, a.snap)
		a.snap = nil
	}
	if i > 0 {
		r.snapshots = slices.Delete(r.snapshots, 0, i)
	}
}

func (r *registration) takeState(b *basket, a *attachment, s *state) {
	n := s.notification(&a.feed.source, r)
	r.mark(&n, a.entry != nil && a.entry.locals == 0)
	if r.wantsEdge(n.Edge) && r.admits(&n) {
		b.add(n)
	}
}

// takeBehind gives the present state of each event of which something was
// dropped and nothing follows in the queue: without it the consumer would
// believe an old state for ever.
func (r *registration) takeBehind(b *basket) {
	q := r.queue
	for len(q.behind) > 0 && q.gap == nil && !b.full() {
		a := q.behind[0]
		q.behind = q.behind[1:]
		r.takeOneOf(b, a)
	}
}

// takeOneOf gives the present state of one event that is behind, unless
// something newer has made it needless.
func (r *registration) takeOneOf(b *basket, a *attachment) {
	switch {
	case !a.behind || a.inFeed < 0:
	case a.after == nil:
		r.takeState(b, a, a.feed.present)
	case a.after.kind != belfry.KindState: // about flapping: no rule refuses it
		b.add(a.after.notification(&a.feed.source, r))
	default:
		r.takeState(b, a, a.after)
	}
	a.behind, a.inBehind, a.after = false, false, nil
}

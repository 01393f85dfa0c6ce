package event

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// What a peer wants only where it is monitored (R4) it gets while a consumer of
// this node is on the event. Whether one was stands with each occurrence, because
// other interests of the same peer may want them all: those of the time between
// are marked on their way, and left out where nobody else there wants them. Either
// way they are counted as skipped, by the peer or here.

// mark says in a notification for another node, or for the journal, that nobody was on the event.
func (r *registration) mark(n *belfry.Notification, alone bool) {
	if alone && (r.consumer.remote() || r.consumer.kind == ConsumerJournal) {
		n.Unmonitored = true
	}
}

// inForce tells whether an interest counts on an entry now.
func (i *interest) inForce(e *entry) bool { return !i.OnlyWhereMonitored || e.locals > 0 }

// joins tells whether an interest is put on an entry: it counts there, or goes on.
func (i *interest) joins(e *entry) bool {
	if i.inForce(e) {
		return true
	}
	_, placed := i.peer.placeOf(e)
	return placed
}

// localJoined lets those look on who only want what is monitored here anyway.
func (m *Machine) localJoined(now time.Time, e *entry) {
	e.locals++
	if e.locals > 1 {
		return
	}
	for _, r := range e.remotes {
		if m.adjustRemote(e, r); r.wantsMonitored() {
			r.tellPresent(e)
		}
	}
	m.joinInterests(now, e)
}

func (m *Machine) localLeft(e *entry) {
	e.locals--
	if e.locals > 0 || e.state == belfry.EntryEnded {
		return
	}
	for _, r := range e.remotes {
		m.adjustRemote(e, r)
	}
}

func (r *registration) wantsMonitored() bool {
	return slices.ContainsFunc(r.interests, func(i *interest) bool { return i.OnlyWhereMonitored })
}

// adjustRemote follows a change of a peer's interests in an entry, or of those who
// monitor it.
func (m *Machine) adjustRemote(e *entry, r *registration) {
	r.sparse = !slices.ContainsFunc(r.interests, func(i *interest) bool { return !i.OnlyWhereMonitored })
	switch rests := r.sparse && e.locals == 0; {
	case e.info.Kind == belfry.Value:
		m.adjustLevels(e, r)
	case r.queue != nil: // what is not for the peer is refused
		r.adjustDetail()
	case rests && !r.dirty:
		r.snap, r.resting, r.dirty = nil, true, true
		e.swap(int(r.slot), e.cleanOnes-1)
		e.cleanOnes--
	case !rests && r.resting:
		if e.sequence > r.taken {
			r.pass(r.taken+1, e.sequence, e.ring.lowerBound(r.taken, len(e.ring.runs)))
		}
		r.resting = false
		e.clean(r)
	}
}

// adjustLevels judges a value by the thresholds of the interests that count.
func (m *Machine) adjustLevels(e *entry, r *registration) {
	a, fresh := r.attachments[0], false
	a.levels = slices.DeleteFunc(a.levels, func(l level) bool {
		return !slices.ContainsFunc(r.interests, func(i *interest) bool { return i.inForce(e) && i.Threshold == l.threshold })
	})
	for _, i := range r.interests {
		if !i.inForce(e) || i.Threshold.IsZero() || slices.ContainsFunc(a.levels, func(l level) bool { return l.threshold == i.Threshold }) {
			continue
		}
		a.levels, fresh = append(a.levels, level{threshold: i.Threshold}), true
	}
	if fresh {
		a.begin(&e.feed)
	}
	m.tuneWatch(e)
}

// tellPresent lets a peer know how things are: they are monitored from now on.
func (r *registration) tellPresent(e *entry) {
	switch {
	case r.queue == nil && e.present != nil && r.spec.Snapshot:
		r.snapshot(e.present)
	case r.queue != nil && e.present != nil:
		r.attachments[0].begun(e.present)
	case r.queue == nil || e.sampled == nil:
	case slices.ContainsFunc(r.attachments[0].levels, func(l level) bool { return l.side != 0 }):
		r.attachments[0].already(&e.feed)
	default:
		r.attachments[0].recovered(&e.feed)
	}
}

// spares tells whether something of a peer's event is not for a registration:
// nobody at its node is on it.
func (a *attachment) spares(alone bool) bool {
	return alone && a.reg.spec.OnlyWhereMonitored
}

// spare counts an occurrence that is not for the registration.
func (a *attachment) spare(it *item) {
	a.off = true
	if own, fresh := a.isNew(it); fresh {
		a.refuse(&own)
		if a.gate != nil && a.gate.flapping { // the last word on that has its number
			a.gate.newest.last = own.last
		}
	}
}

// begins tells whether a registration may begin with what is known of a mirror.
func (v *mirror) begins(r *registration) bool {
	return !r.spec.OnlyWhereMonitored || !v.alone && r.want.takes(v.peer)
}

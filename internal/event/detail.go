package event

import (
	"slices"

	"github.com/belfry-ha/belfry"
)

// A filter may look at data or values, in which occurrences differ that merge
// otherwise. Here it is asked before anything merges. Elsewhere, at another node and
// in the journal, what differs is kept apart as far as there is room; beyond that it
// merges, for the sake of those without such a filter, and says so (run.mixed). Of
// that the filter can judge the newest only, and the others are a gap.

// detailedLimit is how much waits for a peer that asks for detail, in notifications
// of one event.
const detailedLimit = 4096

// mayMerge tells whether an occurrence may become one with the last of its event that
// is queued, where what differs is kept apart.
func (q *queue) mayMerge(c *consumer, l, it *item) bool {
	switch {
	case it.unmonitored != l.unmonitored:
		return false
	case it.skipped > 0: // between them: a peer must find that before what it is told
		return false
	case q.len() > q.room || c.payload > c.limits.Payload/2:
		return true
	}
	return !l.mixed && !it.mixed && l.same(it.body)
}

// blindTo tells whether a filter would have to look at data that is not known any more.
func (a *attachment) blindTo(it *item) bool {
	return it.mixed && it.count > 1 && a.reg.detailed && a.reg.wantsEdge(it.edge)
}

// part is what a filter that looks at data is given of a merged run: a gap, and the
// newest, which is known.
func (a *attachment) part(it *item) (newest item) {
	others := it.count - 1
	a.reg.consumer.machine.counters.Lost[belfry.GapMerged] += others
	a.lose(item{kind: belfry.KindGap, run: run{
		first: it.first, last: it.last - 1, firstTime: it.firstTime, time: it.time, lowerBound: it.lowerBound,
		body: &body{instance: it.instance, gap: &belfry.Gap{
			Total: others, Known: true, Reason: belfry.GapMerged, From: unix(it.firstTime), To: unix(it.time),
		}},
	}})
	newest = *it
	newest.first, newest.firstTime, newest.count, newest.mixed = it.last, it.time, 1, false
	return newest
}

// adjustDetail lets all merge again when nobody at the peer looks at data any more.
func (r *registration) adjustDetail() {
	r.queue.room = 0
	if slices.ContainsFunc(r.interests, func(i *interest) bool { return i.Detailed }) {
		r.queue.keepApart()
	}
}

// giveDetail lets a peer take from a queue that keeps apart what differs.
func (r *registration) giveDetail(e *entry) *attachment {
	r.spec.Limit = detailedLimit
	a := r.giveQueue(e)
	r.queue.keepApart()
	return a
}

// keepApart leaves half of the queue to what does not merge otherwise.
func (q *queue) keepApart() { q.detail, q.room = true, q.limit/2 }

// giveQueue lets a peer's registration take from a queue instead of the ring.
func (r *registration) giveQueue(e *entry) *attachment {
	r.queue = newQueue(&r.spec)
	a := &attachment{reg: r, feed: &e.feed, entry: e, inFeed: len(e.private)}
	e.private = append(e.private, a)
	r.attachments = append(r.attachments, a)
	return a
}

// detail gives a peer's place in the ring up for a queue, with what is left to take.
func (m *Machine) detail(e *entry, r *registration) {
	e.removePlain(r)
	a := r.giveDetail(e)
	a.skipped, a.marked, r.skipped, r.marked = r.skipped, r.marked, 0, false
	begin := r.snap
	if begin != nil && begin.sequence <= r.taken {
		a.begun(begin)
		begin = nil
	}
	switch {
	case r.resting:
		a.skipped += e.sequence - r.taken
		a.marked = a.marked || e.ring.lowerBound(r.taken, len(e.ring.runs))
	case r.dirty:
		e.refill(a, r.taken, r.since)
	}
	if begin != nil {
		a.begun(e.present)
	}
	r.entry, r.snap, r.dirty, r.resting = nil, nil, false, false
}

// refill puts what the ring has after a number into the queue of a peer. since is
// when the first of that happened.
func (e *entry) refill(a *attachment, taken uint64, since int64) {
	marked := e.ring.lowerBound(taken, 0)
	for _, v := range e.ring.runs {
		if v.last <= taken {
			continue
		}
		if v.first > taken+1 {
			e.loseBefore(a, taken, v.first-1, since, v.firstTime, marked)
			taken = v.first - 1
		}
		if v.first <= taken {
			v.first, v.firstTime = taken+1, since
		}
		it := item{kind: belfry.KindOccurrence, count: v.last - taken, run: v}
		if v.unmonitored && a.reg.sparse {
			a.refuse(&it)
		} else {
			a.reg.queue.put(a, &it)
		}
		taken = v.last
	}
	if taken < e.sequence {
		e.loseBefore(a, taken, e.sequence, since, since, marked)
	}
}

// loseBefore is takeHole for a queue.
func (e *entry) loseBefore(a *attachment, taken, last uint64, since, until int64, lowerBound bool) {
	until = max(since, until)
	gap := &belfry.Gap{Total: last - taken, Known: true, Resync: true, Reason: belfry.GapSlow, From: unix(since), To: unix(until)}
	if taken < a.reg.behind { // the peer was away
		gap.Reason = belfry.GapLink
	}
	e.machine.counters.Lost[gap.Reason] += gap.Total
	a.lose(item{kind: belfry.KindGap, run: run{
		first: taken + 1, last: last, firstTime: since, time: until, lowerBound: lowerBound, body: &body{gap: gap},
	}})
}

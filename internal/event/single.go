package event

import (
	"slices"

	"github.com/belfry-ha/belfry"
)

// A consumer with OnePerEvent works on its notifications one by one: of each
// event at most one is unacknowledged, and what happens meanwhile coalesces
// behind it (events.md 10). Take passes over events that have one.

// eventOf names the event of a notification; a gap over several events is an
// event of its own.
type eventOf struct {
	node        belfry.NodeID
	incarnation belfry.Incarnation
	entry       uint64
}

func eventOfNotification(n *belfry.Notification) eventOf {
	return eventOf{n.Node, n.Incarnation, n.Entry}
}

func eventOfSource(s *source) eventOf {
	if s == nil {
		return eventOf{}
	}
	return eventOf{s.node, s.incarnation, uint64(s.entry)}
}

// ackOne forgets one batch of one notification; batches before it stay.
func (c *consumer) ackOne(batch uint64) {
	i := slices.IndexFunc(c.sent, func(b sentBatch) bool { return b.Number == batch })
	if i < 0 || i >= len(c.sent)-c.unsent {
		return
	}
	e := eventOfNotification(&c.sent[i].Notifications[0])
	if c.busy[e]--; c.busy[e] == 0 {
		delete(c.busy, e)
	}
	c.sent = slices.Delete(c.sent, i, i+1)
	waiting := c.blocked
	c.blocked = nil
	for _, r := range waiting {
		r.blocked = false
		r.wake()
	}
}

// block sets a registration aside that has notifications of busy events only.
func (c *consumer) block(r *registration) {
	if !r.blocked {
		r.blocked = true
		c.blocked = append(c.blocked, r)
	}
}

// takeOne gives the first notification whose event is free, in the order of
// takeQueue: a present state not before what is older than it, a gap before
// all that was queued after it.
func (r *registration) takeOne(b *basket) {
	q := r.queue
	if q.gap != nil {
		r.takeOneState(b, q.gap.at)
		switch {
		case b.full():
		case b.free(q.gap.src):
			q.takeGap(r, b)
		case q.gap.src == nil: // it may be about any of what follows
			return
		}
	} else {
		r.takeOneBehind(b)
		r.takeOneState(b, q.head)
	}
	for p := q.head; p < q.tail && !b.full(); p++ {
		it := q.at(p)
		if !b.free(&it.on.feed.source) {
			continue
		}
		if r.takeOneState(b, p); b.full() { // one that stands before it
			return
		}
		n := it.notification(r)
		q.cut(r, p)
		if n.Kind == belfry.KindGap {
			r.gaps++
		}
		b.add(n)
	}
	r.takeOneState(b, q.tail)
}

// takeOneState gives the first state of a free event that became known up to
// a position, if nothing older of that event is queued.
func (r *registration) takeOneState(b *basket, at uint64) {
	for i := 0; i < len(r.snapshots) && !b.full(); {
		a := r.snapshots[i]
		if a.snapAt > at || !b.free(&a.feed.source) || r.queue.older(a) {
			i++
			continue
		}
		r.takeState(b, a, a.snap)
		a.snap = nil
		r.snapshots = slices.Delete(r.snapshots, i, i+1)
	}
}

// older tells whether something of an event is queued before its state.
func (q *queue) older(a *attachment) bool {
	for p := q.head; p < min(a.snapAt, q.tail); p++ {
		if q.at(p).on == a {
			return true
		}
	}
	return false
}

func (r *registration) takeOneBehind(b *basket) {
	q := r.queue
	for i := 0; i < len(q.behind) && !b.full(); {
		a := q.behind[i]
		if a.behind && a.inFeed >= 0 && !b.free(&a.feed.source) {
			i++
			continue
		}
		q.behind = slices.Delete(q.behind, i, i+1)
		r.takeOneOf(b, a)
	}
}

// cut takes one item out of the queue: those before it move up by one.
func (q *queue) cut(r *registration, p uint64) {
	it := q.at(p)
	q.weigh(r.consumer, -len(it.data))
	if it.on.last == p+1 {
		it.on.last = 0
	}
	for _, a := range r.snapshots {
		if a.snapAt <= p {
			a.snapAt++
		}
	}
	for ; p > q.head; p-- {
		it := q.at(p - 1)
		if it.on.last == p {
			it.on.last = p + 1
		}
		*q.at(p) = *it
	}
	*q.at(q.head) = item{}
	q.head++
}

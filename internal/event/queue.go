package event

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// An item is one queued notification.
type item struct {
	run
	on      *attachment
	kind    belfry.Kind
	count   uint64 // occurrences it stands for
	skipped uint64 // refused by the registration's rules before and between them
}

func (it *item) notification(r *registration) (n belfry.Notification) {
	it.write(&n, r)
	return n
}

// write does the same with a zero notification where it lies.
func (it *item) write(n *belfry.Notification, r *registration) {
	it.on.feed.begin(n, it.kind, r)
	it.fill(n)
	r.mark(n, it.unmonitored)
	n.Count, n.Skipped = it.count, it.skipped
	if it.kind == belfry.KindGap {
		gap := *it.gap
		n.Count, n.Data, n.Gap = 0, nil, &gap
	}
}

// A queue is the bounded queue of one registration that gets more than one
// event or has rules. Positions count up for ever; an attachment remembers
// the position of its last notification, so a duplicate finds it at once.
type queue struct {
	items  []item // a circle
	head   uint64 // position of the oldest
	tail   uint64 // position after the newest
	limit  int
	never  bool          // coalesce never
	each   bool          // gaps are by event
	detail bool          // what differs is kept apart while there is room
	room   int           // how much that is, in notifications
	losers []*attachment // whose gaps go out first, if each
	gap    *gapRecord
	weight int // bytes of data queued

	behind []*attachment // their states follow the gap; each at most once
}

// A gapRecord stands for all that was dropped; it goes out first.
type gapRecord struct {
	gap         belfry.Gap
	src         *source // nil: several events
	first, last uint64  // of one event
	from, to    int64
	skipped     uint64
	lowerBound  bool
	at          uint64 // position of the first
}

func newQueue(spec *belfry.Registration) *queue {
	limit := spec.Limit
	if limit == 0 {
		limit = defaultLimit
	}
	return &queue{limit: limit, never: spec.Coalesce == belfry.CoalesceNever}
}

func (q *queue) len() int          { return int(q.tail - q.head) }
func (q *queue) at(p uint64) *item { return &q.items[p&uint64(len(q.items)-1)] }
func (q *queue) empty() bool {
	return q.head == q.tail && q.gap == nil && len(q.behind) == 0 && len(q.losers) == 0
}

func (it *item) merges(o *item) bool {
	return it.kind == belfry.KindOccurrence && o.kind == belfry.KindOccurrence &&
		it.code == o.code && it.edge == o.edge && it.instance == o.instance
}

// put appends an occurrence of one event, or extends the last one of that
// event if the payload class is the same.
func (q *queue) put(a *attachment, it *item) {
	r := a.reg
	it.on, it.skipped = a, 0
	a.account(it)
	// What was merged before it came here, on another node or while the entry
	// was blocked, stays so: its parts are not known.
	if q.never && it.count > 1 && it.firstTime == it.time && it.on.entry != nil {
		q.putSingly(a, *it)
		return
	}
	if a.last > q.head && !q.never {
		if l := q.at(a.last - 1); l.merges(it) && (!q.detail || q.mayMerge(r.consumer, l, it)) {
			q.extend(r.consumer, l, it)
			return
		}
	}
	q.append(a, *it)
}

func (q *queue) extend(c *consumer, l, it *item) {
	it.on.feed.tally.coalesced += it.count
	q.weigh(c, len(it.data)-len(l.data))
	if l.body != it.body { // what is mixed has one of its own
		l.mixed = l.mixed || it.mixed || !l.same(it.body)
	}
	l.last, l.time, l.body = it.last, it.time, it.body
	l.lowerBound = l.lowerBound || it.lowerBound
	l.count += it.count
	l.skipped += it.skipped
	q.shrink(c)
}

// putSingly appends each of several occurrences by itself. Those that would
// fall off again go straight into the gap.
func (q *queue) putSingly(a *attachment, it item) {
	for it.count > 0 {
		one := it
		one.count = 1
		if it.count > uint64(q.limit) {
			for q.len() > 0 {
				q.drop(a.reg.consumer)
			}
			one.count = it.count - uint64(q.limit)
		}
		one.last = it.first + one.count - 1
		q.append(a, one)
		if one.count > 1 {
			q.drop(a.reg.consumer)
		}
		it.first, it.count, it.skipped = one.last+1, it.count-one.count, 0
	}
}

// append puts an item at the end; a full queue drops its oldest into the gap.
func (q *queue) append(a *attachment, it item) {
	r := a.reg
	if q.len() == q.limit {
		q.drop(r.consumer)
	}
	if q.len() == len(q.items) {
		q.grow()
	}
	if it.kind == belfry.KindOccurrence {
		a.behind = false
	}
	*q.at(q.tail) = it
	q.tail++
	a.last = q.tail
	q.weigh(r.consumer, len(it.data))
	q.shrink(r.consumer)
	r.wake()
}

// grow doubles the circle; its length is a power of two.
func (q *queue) grow() {
	items := make([]item, max(4, 2*len(q.items)))
	for p := q.head; p < q.tail; p++ {
		items[p&uint64(len(items)-1)] = *q.at(p)
	}
	q.items = items
}

// weigh counts the bytes of queued data of the consumer.
func (q *queue) weigh(c *consumer, bytes int) {
	q.weight += bytes
	c.payload += bytes
}

// shrink holds the consumer's limit of queued data.
func (q *queue) shrink(c *consumer) {
	for c.payload > c.limits.Payload && q.len() > 1 {
		q.drop(c)
	}
}

// drop takes the oldest item into the gap record: nothing is lost silently.
func (q *queue) drop(c *consumer) {
	it := q.at(q.head)
	q.head++
	q.weigh(c, -len(it.data))
	q.lose(c, it)
	if a := it.on; !q.each && a.last == q.head && a.inFeed >= 0 && it.kind != belfry.KindEnded {
		q.fallBehind(a, it) // nothing of it is queued any more
	}
	*it = item{}
}

// fallBehind lets the state of an event follow the gap. It takes the place of
// a state that is older than what was dropped.
func (q *queue) fallBehind(a *attachment, it *item) {
	r := a.reg
	outdated := a.snap != nil && a.snapAt < q.head
	switch {
	case it.kind == belfry.KindFlapping || it.kind == belfry.KindSettled:
		a.after = it.state(it.kind)
	case a.feed.present != nil:
		a.after = nil
	case !outdated || it.kind != belfry.KindOccurrence:
		return
	default: // of a value class: the last crossing says where the value is
		a.after = it.state(belfry.KindState)
	}
	if outdated {
		a.snap = nil
		r.snapshots = without(r.snapshots, a)
	}
	if a.snap != nil {
		return // a newer state is on its way
	}
	a.behind = true
	if !a.inBehind {
		a.inBehind = true
		q.behind = append(q.behind, a)
	}
}

// lose adds an item to the gap record. What stands for nothing leaves no gap:
// the last word on flapping comes again (fallBehind).
func (q *queue) lose(c *consumer, it *item) {
	if (it.kind == belfry.KindFlapping || it.kind == belfry.KindSettled) && it.skipped == 0 {
		return
	}
	total, known := it.count, true
	if it.kind == belfry.KindGap {
		total, known = it.gap.Total, it.gap.Known
	} else {
		c.machine.counters.Lost[belfry.GapOverflow] += total
	}
	if q.each {
		q.loseOf(it.on, it, total, known)
		return
	}
	g := q.gap
	if g == nil {
		g = &gapRecord{gap: belfry.Gap{Known: true, Resync: true, Reason: belfry.GapOverflow}, src: &it.on.feed.source, first: it.first, from: it.firstTime, at: q.head - 1}
		q.gap = g
	}
	if g.src != &it.on.feed.source {
		g.src = nil
	}
	g.gap.Total += total
	g.gap.Known = g.gap.Known && known
	g.last, g.to = it.last, it.time
	g.skipped += it.skipped
	g.lowerBound = g.lowerBound || it.lowerBound
}

// takeGap gives the gap record; states of what is behind follow.
func (q *queue) takeGap(r *registration, b *basket) {
	q.addGap(q.gap, r, b)
	q.gap = nil
}

func (q *queue) addGap(g *gapRecord, r *registration, b *basket) {
	n := belfry.Notification{Kind: belfry.KindGap, Registration: r.number}
	if g.src != nil {
		n = g.src.notification(belfry.KindGap, r)
		n.First, n.Last = g.first, g.last
	}
	n.Skipped, n.LowerBound = g.skipped, g.lowerBound
	n.FirstTime, n.Time = unix(g.from), unix(g.to)
	gap := g.gap
	gap.From, gap.To = n.FirstTime, n.Time
	n.Gap = &gap
	b.add(n)
	r.gaps++
}

// takeQueue gives what is queued: the gap, the states that are behind it, then
// the notifications in order. A present state comes where it became known: it
// never overtakes what happened before it.
func (r *registration) takeQueue(b *basket) {
	q := r.queue
	q.takeLost(r, b)
	if q.gap != nil {
		r.takeSnapshots(b, q.gap.at)
		if b.full() {
			return
		}
		q.takeGap(r, b)
	}
	r.takeBehind(b)
	for r.takeSnapshots(b, q.head); q.head < q.tail && !b.full(); r.takeSnapshots(b, q.head) {
		it := q.at(q.head)
		q.head++
		q.weigh(r.consumer, -len(it.data))
		n := b.next()
		it.write(n, r)
		b.weigh(n)
		if n.Kind == belfry.KindGap {
			r.gaps++
		}
		*it = item{}
	}
}

// discard forgets everything that is queued.
func (q *queue) discard(c *consumer) {
	q.weigh(c, -q.weight)
	q.items, q.head, q.tail, q.gap, q.behind, q.losers = nil, 0, 0, nil, nil, nil
}

// lose puts a gap of one event into the queue, in its place among the
// event's notifications.
func (a *attachment) lose(it item) {
	q := a.reg.queue
	if a.gate != nil {
		a.gate.lose()
	}
	it.on = a
	a.account(&it)
	if a.last > q.head {
		if l := q.at(a.last - 1); l.kind == belfry.KindGap && l.gap.Reason == it.gap.Reason && l.gap.Known && it.gap.Known {
			merged := *l.gap
			merged.Total += it.gap.Total
			merged.To = it.gap.To
			l.body = &body{instance: it.instance, gap: &merged}
			l.last, l.time = it.last, it.time
			l.skipped += it.skipped
			l.lowerBound = l.lowerBound || it.lowerBound
			return
		}
	}
	q.append(a, it)
}

// tellEnded puts the last notification of one event into the queue of a
// registration that goes on for others.
func (r *registration) tellEnded(e *entry, now time.Time) {
	for _, a := range r.attachments {
		if a.entry == e {
			a.tellEnded(now)
			return
		}
	}
}

func (a *attachment) tellEnded(now time.Time) {
	at := now.UnixNano()
	if a.gate != nil {
		a.gate.finish()
	}
	it := item{
		kind: belfry.KindEnded, on: a,
		run: run{first: a.feed.sequence, last: a.feed.sequence, firstTime: at, time: at, body: &body{}},
	}
	a.account(&it)
	a.reg.queue.append(a, it)
}

package event

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/numbered"
)

// A consumer is a stream of the API, a handler or another node. What it gets
// waits in its registrations until its sender is free, so nothing here is
// ever in anybody's way.
type consumer struct {
	machine *Machine
	id      ConsumerID
	kind    ConsumerKind
	name    string
	limits  Limits
	peer    *peer // of a remote consumer
	regs    numbered.Table[*registration]

	pending []*registration         // have something, in the order they got it
	popped  int                     // of pending
	ready   bool                    // the sender is free
	lost    bool                    // the stream is broken
	waking  bool                    // in machine.wake
	closing bool                    // every registration has ended
	number  uint64                  // of the last batch made
	sent    []sentBatch             // not acknowledged, as they were sent
	acked   [][]belfry.Notification // have arrived, but the sender may still look at them
	unsent  int                     // how many of sent, counted from its end, are to be sent again
	payload int                     // bytes of data in its queues

	// of one that takes one notification of an event at a time
	busy    map[eventOf]int // unacknowledged notifications
	blocked []*registration
}

// A sentBatch may be sent again.
type sentBatch struct {
	Batch
	own bool // no other consumer has its slice
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Registrations, 10_000)
	set(&l.Payload, 1<<20)
	set(&l.Window, 4)
	set(&l.BatchNotifications, 1024)
	if l.OnePerEvent {
		l.BatchNotifications = 1
	}
	set(&l.BatchBytes, 256<<10)
	return l
}

// registration is nil for a number that the consumer has not given.
func (c *consumer) registration(number uint32) *registration {
	r, _ := c.regs.Get(uint64(number))
	return r
}

// registrations are in the order of their numbers.
func (c *consumer) registrations() []*registration {
	list := make([]*registration, 0, c.regs.Len())
	for _, r := range c.regs.All() {
		list = append(list, r)
	}
	return list
}

func (c *consumer) remote() bool { return c.peer != nil }

func (m *Machine) open(msg Open) {
	if m.consumers[msg.Consumer] != nil || msg.Consumer == 0 {
		m.refuse(0, belfry.NodeID{}, refusal(belfry.ErrExist, "consumer %d is open; choose another number", msg.Consumer))
		return
	}
	m.consumers[msg.Consumer] = &consumer{
		machine: m, id: msg.Consumer, kind: msg.Kind, name: msg.Name, limits: msg.Limits.withDefaults(),
	}
	if msg.Limits.OnePerEvent {
		m.consumers[msg.Consumer].busy = map[eventOf]int{}
	}
}

func (m *Machine) close(now time.Time, id ConsumerID) {
	c := m.consumers[id]
	if c == nil {
		return
	}
	for _, r := range c.registrations() {
		m.reject(now, r, refusal(belfry.ErrNotFound, "the consumer was closed before the registration was in force; open it again"))
	}
	c.ready = false
	delete(m.consumers, id)
}

// push puts a registration at the end of the list of those that have something.
func (c *consumer) push(r *registration) {
	if c.popped > 0 && len(c.pending) == cap(c.pending) { // reuse what was popped
		n := copy(c.pending, c.pending[c.popped:])
		clear(c.pending[n:])
		c.pending, c.popped = c.pending[:n], 0
	}
	c.pending = append(c.pending, r)
	c.arouse()
}

// arouse lets Take look at the consumer if it could send something.
func (c *consumer) arouse() {
	if c.ready && !c.waking {
		c.waking = true
		c.machine.wake = append(c.machine.wake, c)
	}
}

func (c *consumer) beReady() {
	if !c.lost {
		c.ready = true
		c.reuse()
		c.arouse()
	}
}

// ack forgets what has arrived.
func (c *consumer) ack(batch uint64) {
	if c.busy != nil {
		c.ackOne(batch)
	}
	n := 0
	for c.busy == nil && n < len(c.sent)-c.unsent && c.sent[n].Number <= batch {
		if c.sent[n].own {
			c.acked = append(c.acked, c.sent[n].Notifications)
		}
		n++
	}
	c.sent = slices.Delete(c.sent, 0, n)
	if c.ready {
		c.reuse()
	}
	if len(c.sent) == 0 && c.closing {
		c.machine.finishConsumer(c)
		return
	}
	c.arouse()
}

// lose keeps everything for a consumer that may come back.
func (c *consumer) lose() { c.lost, c.ready = true, false }

// resume sends again what has not arrived, under the old numbers.
func (c *consumer) resume(batch uint64) {
	c.lost, c.ready = false, false
	c.unsent = 0
	c.ack(batch)
	c.unsent = len(c.sent)
	for i := range c.sent { // more may have been queued since
		c.sent[i].Drained = false
	}
}

// unsend takes an entry out of what may be sent again: whoever asked for it
// has taken that back, and what comes after the acknowledgement of a new
// interest must belong to that one.
func (c *consumer) unsend(e EntryID) {
	for i := range c.sent {
		kept := make([]belfry.Notification, 0, len(c.sent[i].Notifications))
		for _, n := range c.sent[i].Notifications {
			if n.Entry != uint64(e) {
				kept = append(kept, n)
			}
		}
		c.sent[i].Notifications = kept // the old slice was given away
	}
}

// send makes one batch, if there is something and the window is open.
func (c *consumer) send() {
	c.waking = false
	if !c.ready {
		return
	}
	if c.unsent > 0 {
		c.give(c.sent[len(c.sent)-c.unsent].Batch)
		c.unsent--
		return
	}
	if len(c.sent) >= c.limits.Window {
		return
	}
	m := c.machine
	most := c.limits.BatchNotifications
	b := basket{machine: m, notifications: m.slot(), room: c.waitingAbout(most), most: most, mostBytes: c.limits.BatchBytes, busy: c.busy}
	c.fill(&b)
	if len(b.notifications) == 0 {
		return
	}
	if b.written || &b.notifications[0] == &m.slots[0] { // the written batch may have begun in it
		m.slots = m.slots[1:]
	} else { // it has outgrown it
		m.slots[0] = belfry.Notification{}
	}
	c.number++
	if c.busy != nil {
		c.busy[eventOfNotification(&b.notifications[0])]++
	}
	batch := Batch{Consumer: c.id, Number: c.number, Notifications: b.notifications, Drained: len(c.pending) == 0 && len(c.blocked) == 0}
	own := (c.limits.Reuse || c.remote()) && b.shared == 0 && !b.written && cap(b.notifications) > 1
	c.sent = append(c.sent, sentBatch{batch, own})
	c.give(batch)
}

func (c *consumer) give(b Batch) {
	c.ready = false
	if c.peer != nil {
		c.machine.tellPeer(c.peer, PeerBatch{Batch: b})
		return
	}
	c.machine.out.Batches = append(c.machine.out.Batches, b)
}

// waitingAbout is how many notifications wait, about, and limit at most: a batch
// that grows while it is filled is copied again and again.
func (c *consumer) waitingAbout(limit int) (n int) {
	for _, r := range c.pending[c.popped:] {
		switch n++; {
		case r.queue != nil:
			n += max(0, r.queue.len()-1)
		case r.entry != nil:
			n += max(0, r.entry.ring.since(r.taken)-1)
		}
		if n >= limit {
			return limit
		}
	}
	return n
}

// fill takes from the registrations in turn until the basket is full.
func (c *consumer) fill(b *basket) {
	for c.popped < len(c.pending) && !b.full() {
		r := c.pending[c.popped]
		c.pending[c.popped] = nil
		c.popped++
		r.pending = false
		if r.removed {
			continue
		}
		r.take(b)
		switch {
		case r.removed || r.empty():
		case b.full() && (len(r.rest()) > 0 || r.ended != nil): // before anything of an entry that follows
			c.popped--
			c.pending[c.popped], r.pending = r, true
		case c.busy != nil && len(b.notifications) == 0:
			c.block(r)
		default:
			r.wake()
		}
	}
	if c.popped == len(c.pending) {
		c.pending, c.popped = c.pending[:0], 0
	}
}

// take gives what a registration has: coverage first, because it says how to
// read the rest; its end last.
func (r *registration) take(b *basket) {
	r.takeCoverage(b)
	switch {
	case len(r.rest()) > 0 || r.queue == nil && r.left:
		n := min(len(r.rest()), max(0, b.most-len(b.notifications)))
		for _, rest := range r.rest()[:n] {
			b.add(rest)
		}
		if r.over != nil {
			r.over.notifications = r.over.notifications[n:]
		}
	case r.queue == nil:
		r.takePlain(b)
	case r.consumer.busy != nil:
		r.takeOne(b)
	default:
		r.takeQueue(b)
	}
	if r.ended != nil && r.drained() && !b.full() && b.free(r.ended.src) {
		m := r.consumer.machine
		b.add(r.ended.notification(r))
		m.remove(r.ended.at, r)
		if r.consumer.regs.Len() == 0 && !r.consumer.remote() {
			r.consumer.closing = true // once the last batch has arrived
		}
	}
}

func (e *ending) notification(r *registration) belfry.Notification {
	n := e.src.notification(belfry.KindEnded, r)
	n.First, n.Last, n.Skipped, n.LowerBound = e.last, e.last, e.skipped, e.marked
	n.FirstTime, n.Time = e.at.UTC(), e.at.UTC()
	r.mark(&n, e.alone)
	return n
}

// drained tells whether everything but the end has been taken.
func (r *registration) drained() bool {
	switch {
	case r.coverageNews() || len(r.rest()) > 0:
		return false
	case r.queue != nil:
		return r.queue.empty() && len(r.snapshots) == 0
	}
	return r.left || r.resting || !r.dirty && r.snap == nil
}

func (r *registration) empty() bool { return r.ended == nil && r.drained() }

// finishConsumer closes a consumer that can get nothing more.
func (m *Machine) finishConsumer(c *consumer) {
	if c.regs.Len() > 0 {
		c.closing = false // it has registered again meanwhile
		return
	}
	delete(m.consumers, c.id)
	m.out.Closed = append(m.out.Closed, c.id)
}

// slotChunk is how many batches of one notification share an allocation. A
// batch that is kept keeps the others' memory, so it is small.
const slotChunk = 16

// slot is room for the one notification that most batches have.
func (m *Machine) slot() []belfry.Notification {
	if len(m.slots) == 0 {
		m.slots = make([]belfry.Notification, slotChunk)
	}
	return m.slots[:0:1]
}

// maxSpare is how many notifications lie ready to be written over, in all.
const maxSpare = 16384

// reuse takes back the batches that have arrived and that the sender does not look
// at any more: it is free. To make a thousand notifications anew for each batch, and
// collect them as garbage, costs more than to fill them.
func (c *consumer) reuse() {
	for i, all := range c.acked {
		c.acked[i] = nil
		c.machine.spare(all)
	}
	c.acked = c.acked[:0]
}

func (m *Machine) spare(all []belfry.Notification) {
	if m.spared += cap(all); m.spared > maxSpare {
		m.spared -= cap(all)
		return
	}
	all = all[:cap(all)]
	clear(all) // what they name may go
	m.spares = append(m.spares, all[:0])
}

// spareFor is room for n notifications.
func (m *Machine) spareFor(n int) []belfry.Notification {
	if m == nil {
		return make([]belfry.Notification, 0, n)
	}
	for i := len(m.spares) - 1; i >= 0; i-- {
		if all := m.spares[i]; cap(all) >= n {
			m.spares = slices.Delete(m.spares, i, i+1)
			m.spared -= cap(all)
			return all
		}
	}
	return make([]belfry.Notification, 0, n)
}

// A basket collects one batch.
type basket struct {
	machine         *Machine // nil: it has no room to give
	notifications   []belfry.Notification
	room            int // for how many to make it when it outgrows what it has
	most, mostBytes int
	bytes           int
	busy            map[eventOf]int // events to pass over

	shared  int  // parts that are from the machine's written batch
	writes  bool // its content is the written batch
	written bool // some of it is
}

// free tells whether the basket takes notifications of an event.
func (b *basket) free(s *source) bool {
	return len(b.busy) == 0 || b.busy[eventOfSource(s)] == 0
}

// notificationBytes is what a notification takes on the wire without its
// texts and data, about (events.md 5).
const notificationBytes = 60

func (b *basket) full() bool {
	return len(b.notifications) >= b.most || b.bytes >= b.mostBytes
}

func (b *basket) add(n belfry.Notification) {
	*b.next() = n
	b.weigh(&n)
}

// next makes room for one more, to be filled in and weighed. All is zero in it.
func (b *basket) next() *belfry.Notification {
	n := len(b.notifications)
	switch have := cap(b.notifications); {
	case n < have:
		b.notifications = b.notifications[:n+1]
		return &b.notifications[n]
	case have < b.room:
		b.notifications = append(b.machine.spareFor(b.room), b.notifications...)
	}
	b.notifications = append(b.notifications, belfry.Notification{})
	return &b.notifications[n]
}

func (b *basket) weigh(n *belfry.Notification) {
	b.bytes += notificationBytes + len(n.Data) + len(n.Event.Subject) + len(n.Event.Instance)
}

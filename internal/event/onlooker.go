package event

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A registration that looks on (events.md 7) counts as nobody's consumer where
// that decides something, and is not listed. That for "*" takes what others had
// started, on this node and of its peers, and user events, which nothing has to
// be started for; it keeps no producer running.
//
// All registrations of the journal have their gaps by event: a full queue
// costs each event an exact range of numbers, never a sum over several.

func (r *registration) looksOn() bool { return r.onlooker }

// lookLater lets somebody look on at an event once something happens: of a hundred
// thousand events nothing happens, and each attachment would take as much as the
// rest of the event.
func (m *Machine) lookLater(r *registration, e *entry) {
	e.unseen = true
	if !r.passive(e.info) {
		e.holds++
	}
}

// see attaches those who look on: something is about to happen for the first time.
func (m *Machine) see(now time.Time, e *entry) {
	e.unseen = false
	for _, r := range m.globs {
		if r.looksOn() && r.matchesLocal(e.class, e.subject) {
			holds := !r.passive(e.info)
			m.attach(now, r, &e.feed, e, holds)
			if holds { // as it did already
				e.holds--
			}
		}
	}
}

// lookAway takes somebody who looks on off the events of which nothing has happened.
func (m *Machine) lookAway(now time.Time, r *registration) {
	if !r.looksOn() {
		return
	}
	for _, e := range m.sortedEntries() {
		if e.unseen && r.matchesLocal(e.class, e.subject) && !r.passive(e.info) {
			e.holds--
			m.release(now, e)
		}
	}
}

// overlooks tells what who looks on leaves out.
func (r *registration) overlooks(class belfry.Class) bool {
	if !r.looksOn() {
		return false
	}
	info := r.consumer.machine.classes.find(class)
	return info != nil && info.Volatile
}

// lookOn puts those who look on onto a mirror that somebody wants.
func (m *Machine) lookOn(v *mirror) {
	for _, r := range m.globs {
		if r.looksOn() && r.matchesLocal(v.class, v.subject) {
			m.joinMirror(r, v)
		}
	}
}

// onlyLookedAt tells whether nobody is on a mirror who wants it.
func (v *mirror) onlyLookedAt() bool {
	return !slices.ContainsFunc(v.private, func(a *attachment) bool { return !a.reg.looksOn() })
}

// onlyLookedAt likewise.
func (e *entry) onlyLookedAt() bool {
	return e.locals == 0 && !slices.ContainsFunc(e.remotes, func(r *registration) bool { return !r.sparse })
}

// wanted is how many registrations get what happens, without the journal's.
func (e *entry) wanted() int {
	n := len(e.plain) + len(e.private)
	for _, a := range e.private {
		if a.reg.consumer.kind == ConsumerJournal {
			n--
		}
	}
	for _, r := range e.remotes {
		if r.sparse && e.locals == 0 {
			n--
		}
	}
	return n
}

// loseOf adds an item that a full queue drops to the gap of its event. The
// oldest of the queue goes first, so what the gap stands for is older than all
// that is queued of the event.
func (q *queue) loseOf(a *attachment, it *item, total uint64, known bool) {
	g := a.lost
	if g == nil {
		g = &gapRecord{gap: belfry.Gap{Known: true, Reason: belfry.GapOverflow}, src: &a.feed.source, first: it.first, from: it.firstTime}
		a.lost = g
		q.losers = append(q.losers, a)
	}
	g.gap.Total += total
	g.gap.Known = g.gap.Known && known
	g.last, g.to = max(g.last, it.last), max(g.to, it.time)
	g.skipped += it.skipped
	g.lowerBound = g.lowerBound || it.lowerBound
}

// takeLost gives the gaps by event, before anything that is queued.
func (q *queue) takeLost(r *registration, b *basket) {
	for len(q.losers) > 0 && !b.full() {
		a := q.losers[0]
		q.losers[0] = nil
		q.losers = q.losers[1:]
		q.addGap(a.lost, r, b)
		a.lost = nil
	}
}

// forJournal makes the gaps of the journal's queues exact. Filters of those who read
// it may look at data, so that is kept as far as there is room.
func (q *queue) forJournal(c *consumer) *queue {
	if q.each = c.kind == ConsumerJournal; q.each {
		q.keepApart()
	}
	return q
}

// Drained tells whether a consumer has nothing queued and nothing
// unacknowledged, and the number of its last batch; false for one that is not open.
func (m *Machine) Drained(id ConsumerID) (drained bool, batch uint64) {
	c := m.consumers[id]
	if c == nil {
		return false, 0
	}
	return m.QueueLength(id) == 0 && len(c.sent) == 0, c.number
}

// leaveMirror forgets a mirror that nobody wants.
func (m *Machine) leaveMirror(now time.Time, v *mirror) {
	if !v.onlyLookedAt() {
		return
	}
	if len(v.private) > 0 {
		m.detach(now, v.private[len(v.private)-1]) // comes back here
		return
	}
	p := v.peer
	if v.isNewest() {
		p.mirrors.Delete(uint64(v.entry))
	}
	if k := (key{v.class, v.subject}); p.events[k] == v {
		delete(p.events, k)
	}
}

package event

import (
	"bytes"
	"time"

	"github.com/belfry-ha/belfry"
)

// exclusiveKey is what at most one entry may hold (events.md 3, rule 3).
type exclusiveKey struct {
	class          belfry.Class
	kind, instance string
}

func (e *entry) exclusiveKey() exclusiveKey {
	return exclusiveKey{e.class, subjectKind(e.subject), e.instance}
}

// holding keeps posts under identifiers that are not associated yet: the
// producer may see the new object before it has said so.
type holding struct {
	posts []heldPost
	lost  map[string]lostPosts // what fell off, by instance
}

// lostPosts are known by their number only.
type lostPosts struct {
	count      uint64
	lowerBound bool
}

// A heldPost has no sequence numbers yet: they are given at release, so posts
// that are refused leave no hole.
type heldPost struct {
	occurrence  belfry.Occurrence // of the newest
	first, time int64
	count       uint64
	mixed       bool // they differ in data or value
}

// add keeps a post; equal neighbours merge, and the oldest falls off.
func (h *holding) add(o *belfry.Occurrence, at int64, count uint64) {
	if n := len(h.posts); n > 0 {
		p := &h.posts[n-1]
		l := &p.occurrence
		if l.Code == o.Code && l.Edge == o.Edge && l.Event.Instance == o.Event.Instance {
			p.count += count
			p.mixed = p.mixed || l.Value != o.Value || !bytes.Equal(l.Data, o.Data)
			lower := l.LowerBound || o.LowerBound
			p.occurrence, p.time = *o, at
			p.occurrence.LowerBound = lower
			return
		}
	}
	if len(h.posts) == maxHeld {
		if h.lost == nil {
			h.lost = map[string]lostPosts{}
		}
		oldest := &h.posts[0]
		instance := oldest.occurrence.Event.Instance
		if l, known := h.lost[instance]; known || len(h.lost) < maxHeld {
			h.lost[instance] = lostPosts{l.count + oldest.count, l.lowerBound || oldest.occurrence.LowerBound}
		}
		copy(h.posts, h.posts[1:])
		h.posts = h.posts[:maxHeld-1]
	}
	h.posts = append(h.posts, heldPost{occurrence: *o, first: at, time: at, count: count})
}

// post takes an occurrence of a producer.
func (m *Machine) post(now time.Time, msg *Post) {
	e := m.last
	if e == nil || e.entry != msg.Entry {
		if e = m.entry(msg.Entry); e == nil {
			m.stale(msg.Entry, "entry %d has ended", msg.Entry)
			return
		}
		m.last = e
	}
	if msg.Repeat > maxRepeat {
		m.refuse(e.entry, belfry.NodeID{}, refusal(belfry.ErrLimit, "%s: repeat %d; at most %d times are possible", label(e.class, e.subject), msg.Repeat, maxRepeat))
		return
	}
	o := &msg.Occurrence
	if len(o.Data) > maxData {
		m.refuse(e.entry, belfry.NodeID{}, refusal(belfry.ErrLimit, "%s: %d bytes of data; at most %d: delivered without", label(e.class, e.subject), len(o.Data), maxData))
		cut := *o
		cut.Data = nil
		o = &cut
	}
	count, at := max(msg.Repeat, 1), stamp(now, o.Time)
	switch {
	case e.state == belfry.EntryActive && o.Event.Instance == e.instance:
		e.happened(now, o, at, at, count, ofPost)
	case e.state == belfry.EntryActive:
		m.stale(e.entry, "%s: post under identifier %q; it is %q now", label(e.class, e.subject), short(o.Event.Instance), short(e.instance))
	case e.gone && o.Event.Instance == e.previous:
		m.stale(e.entry, "%s: post under identifier %q, which was dissociated", label(e.class, e.subject), short(o.Event.Instance))
	default:
		e.own().held.add(o, at, count)
	}
}

// stale refuses a message that came too late, and counts it.
func (m *Machine) stale(e EntryID, format string, args ...any) {
	m.counters.Stale++
	if len(m.out.Refused) < maxRefused {
		m.refuse(e, belfry.NodeID{}, refusal(belfry.ErrStale, format, args...))
	}
}

// associate gives an entry its identifier (US8984119, the third message).
func (m *Machine) associate(now time.Time, msg *Associate) {
	e := m.entry(msg.Entry)
	if e == nil {
		m.stale(msg.Entry, "entry %d has ended", msg.Entry)
		return
	}
	if e.state == belfry.EntryActive {
		if msg.Instance != e.instance {
			m.refuse(e.entry, belfry.NodeID{}, refusal(belfry.ErrNotBlocked,
				"%s: associate %q while %q is in force; invalidate that first", label(e.class, e.subject), short(msg.Instance), short(e.instance)))
		}
		return
	}
	if msg.Exclusive {
		k := exclusiveKey{e.class, subjectKind(e.subject), msg.Instance}
		if other := m.exclusive[k]; other != nil && other != e {
			m.refuse(e.entry, belfry.NodeID{}, refusal(belfry.ErrExist,
				"%s: identifier %q belongs to %s; invalidate it there first", label(e.class, e.subject), short(msg.Instance), label(other.class, other.subject)))
			return
		}
		m.exclusive[k] = e
	}
	e.instance, e.ever = msg.Instance, true
	e.setState(now, belfry.EntryActive)
	if msg.State != nil {
		e.setPresent(now, msg.State)
	}
	m.startedAll(e)
	e.releaseHeld(now, m)
}

// setPresent learns the present state; it moves no number. Those who asked to
// begin with it are told.
func (e *entry) setPresent(now time.Time, o *belfry.Occurrence) {
	o.Event.Instance = e.instance
	e.present = &state{
		kind: belfry.KindState, sequence: e.sequence, time: stamp(now, o.Time),
		code: o.Code, edge: o.Edge, body: newBody(o),
	}
	if e.sequence == 0 { // else they have begun already
		for _, r := range e.plain {
			if r.spec.Snapshot {
				r.snapshot(e.present)
			}
		}
		for _, a := range e.private {
			a.begun(e.present)
		}
	}
}

// releaseHeld gives the held posts of the new identifier their numbers, in
// order. What fell off takes its numbers, too, and so shows as a gap with the
// exact count; posts of other identifiers are refused.
func (e *entry) releaseHeld(now time.Time, m *Machine) {
	held := e.held
	if len(held.posts) == 0 && len(held.lost) == 0 {
		return
	}
	e.held = holding{}
	if lost := held.lost[e.instance]; lost.count > 0 {
		e.tally.posted += lost.count
		e.skipNumbers(lost, held.posts[0].first)
	}
	for i := range held.posts {
		p := &held.posts[i]
		if p.occurrence.Event.Instance != e.instance {
			m.stale(e.entry, "%s: held post under identifier %q; it became %q", label(e.class, e.subject), short(p.occurrence.Event.Instance), short(e.instance))
			m.counters.Stale += p.count - 1
			continue
		}
		how := ofPost
		if p.mixed {
			how = ofMerged
		}
		e.happened(now, &p.occurrence, p.first, p.time, p.count, how)
	}
}

// skipNumbers lets occurrences be known by their number only.
func (e *entry) skipNumbers(lost lostPosts, at int64) {
	if e.unseen {
		e.machine.see(unix(at), e)
	}
	first := e.sequence + 1
	e.sequence += lost.count
	if lost.lowerBound {
		e.ring.marked = e.sequence
	}
	e.tellPlain(at) // they see the hole in the ring
	for _, a := range e.private {
		if a.reg.sparse && e.locals == 0 {
			a.skipped += lost.count
			a.marked = a.marked || lost.lowerBound
			continue
		}
		a.lose(item{kind: belfry.KindGap, run: run{
			first: first, last: e.sequence, firstTime: at, time: at, lowerBound: lost.lowerBound,
			body: &body{instance: e.instance, gap: &belfry.Gap{Total: lost.count, Known: true, Resync: true, Reason: belfry.GapSlow}},
		}})
	}
}

// invalidate takes the identifier away: notification is blocked (US8984119,
// the first two messages). Its cost does not depend on the registrations.
func (m *Machine) invalidate(now time.Time, msg Invalidate) {
	e := m.entry(msg.Entry)
	switch {
	case e == nil:
		m.stale(msg.Entry, "entry %d has ended", msg.Entry)
	case e.state != belfry.EntryActive:
	case e.instance != msg.Instance: // late: it must not block the new object
		m.stale(e.entry, "%s: invalidate %q; it is %q now", label(e.class, e.subject), short(msg.Instance), short(e.instance))
	default:
		m.freeInstance(e)
		own := e.own()
		own.previous, own.gone, e.instance = e.instance, true, ""
		e.setState(now, belfry.EntryBlocked)
		if e.unfollowed > 0 {
			m.endUnfollowed(now, e)
		}
	}
}

func (m *Machine) freeInstance(e *entry) {
	if k := e.exclusiveKey(); m.exclusive[k] == e {
		delete(m.exclusive, k)
	}
}

// endUnfollowed ends the registrations that do not follow to another identifier.
func (m *Machine) endUnfollowed(now time.Time, e *entry) {
	for _, r := range e.registrations() {
		if r.spec.NoFollow && r.home == e {
			e.unfollowed--
			m.finish(now, r, &e.source, e.sequence)
		}
	}
}

// end says that the event is gone, or never was.
func (m *Machine) end(now time.Time, msg End) {
	if w := m.watches[msg.Watch]; msg.Watch != 0 {
		if w.pattern != nil {
			m.endPattern(now, w.pattern, msg.Err)
		}
		return
	}
	e := m.entry(msg.Entry)
	if e == nil {
		return // it went while the message was on its way
	}
	if msg.Err != nil {
		m.refuse(e.entry, belfry.NodeID{}, msg.Err)
	}
	if !e.ever && m.rejectStarting(now, e, msg.Err) {
		return
	}
	m.endEntry(now, e, msg.Err)
}

// endEntry gives everybody the last notification and drops the entry.
func (m *Machine) endEntry(now time.Time, e *entry, err error) {
	e.holds++ // drop it once, below
	for _, r := range e.registrations() {
		switch {
		case r.consumer.remote():
			m.endRemote(now, e, r, err)
		case r.home == e && r.request != 0 && err != nil:
			m.reject(now, r, err)
		case r.home == e && r.want == nil:
			m.finish(now, r, &e.source, e.sequence)
		default:
			r.tellEnded(e, now)
		}
	}
	for len(e.private) > 0 {
		m.detach(now, e.private[len(e.private)-1])
	}
	e.holds = 0
	m.drop(now, e)
}

// registrations lists everybody on the entry.
func (e *entry) registrations() []*registration {
	list := make([]*registration, 0, len(e.plain)+len(e.private))
	list = append(list, e.plain...)
	for _, a := range e.private {
		list = append(list, a.reg)
	}
	return list
}

// finish takes a registration off its events; it closes when it is drained.
func (m *Machine) finish(now time.Time, r *registration, src *source, last uint64) {
	if r.ended != nil || r.removed {
		return
	}
	if r.queue == nil {
		r.drain()
	}
	r.ended = &ending{src: src, at: now, last: last}
	for _, a := range r.attachments {
		if a.gate != nil {
			a.gate.finish()
		}
		r.ended.skipped += a.skipped
		r.ended.marked = r.ended.marked || a.marked
	}
	m.leave(now, r)
	r.wake()
}

package event

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A mirror stands for an entry of another node. It has registrations of this
// node's consumers only: remote consumers take a *[entry], so what comes from
// a peer can not be sent on to another (the loop rule of events.md 6).
//
// feed.sequence is the last number that has arrived.
type mirror struct {
	feed
	peer   *peer
	newest *body  // of the last occurrence
	alone  bool   // nobody at the peer was on it, by its last word
	begun  uint64 // feed.sequence when it was made
	former uint64 // numbers up to this happened before this node's present life asked
}

// peerBatch takes notifications of a peer's entries. It says that they have
// arrived even when it had them before, or the peer would keep them for ever.
func (m *Machine) peerBatch(now time.Time, p *peer, b *Batch) {
	if b.Number > p.lastBatch {
		p.lastBatch = b.Number
		for i := range b.Notifications {
			m.reported(now, p, &b.Notifications[i])
		}
	}
	m.tellPeer(p, PeerAck{Batch: b.Number})
}

// reported takes one notification of a peer.
func (m *Machine) reported(now time.Time, p *peer, n *belfry.Notification) {
	if n.Node != p.node || n.Incarnation != p.incarnation {
		m.refuse(EntryID(n.Entry), p.node, refusal(belfry.ErrUsage, "%s reports an event of another node; nodes report their own only", p.name))
		return
	}
	if stands := n.Kind == belfry.KindOccurrence || n.Kind == belfry.KindGap; stands &&
		(n.First == 0 || n.Last < n.First || (n.Kind == belfry.KindGap) != (n.Gap != nil)) {
		m.refuse(EntryID(n.Entry), p.node, refusal(belfry.ErrUsage, "%s reports numbers %d to %d as %s; that can not be", p.name, n.First, n.Last, n.Kind))
		return
	}
	v, _ := p.mirrors.Get(n.Entry)
	if v == nil {
		if v = m.newMirror(now, p, n); v == nil {
			return // nobody wants it any more
		}
	}
	v.alone = n.Unmonitored
	switch n.Kind {
	case belfry.KindState, belfry.KindAlready:
		if v.info != nil && v.info.Kind == belfry.Value {
			v.measured(n)
		} else {
			v.learn(n)
		}
	case belfry.KindEnded:
		m.endMirror(now, v, n)
	case belfry.KindOccurrence, belfry.KindGap:
		m.occurred(now, v, n)
	}
}

// newMirror makes the mirror of an entry seen for the first time. If another
// entry stood for the same event, nobody watched between the two.
func (m *Machine) newMirror(now time.Time, p *peer, n *belfry.Notification) *mirror {
	k := key{n.Event.Class, n.Event.Subject}
	if n.Kind == belfry.KindEnded {
		return nil
	}
	o := p.origin
	v := &mirror{peer: p, alone: n.Unmonitored, feed: feed{
		source: source{origin: &o, entry: EntryID(n.Entry), class: k.class, subject: k.subject},
		info:   m.classes.find(k.class), sequence: n.Last, tally: m.tallyOf(k.class),
	}}
	if n.Kind == belfry.KindOccurrence || n.Kind == belfry.KindGap {
		v.sequence = n.First - 1 - min(n.Skipped, n.First-1)
	}
	at, placed := v.goOn()
	for _, r := range m.cluster.exact[k] {
		if r.want.takes(p) {
			m.joinMirror(r, v)
		}
	}
	for _, r := range m.cluster.globs {
		if r.matchesLocal(k.class, k.subject) && r.want.takes(p) {
			m.joinMirror(r, v)
		}
	}
	if len(v.private) == 0 {
		return nil
	}
	m.lookOn(v)
	old := p.events[k]
	p.mirrors.Set(uint64(v.entry), v)
	p.events[k] = v
	if old != nil {
		m.replaceMirror(now, old, v)
	} else {
		m.missedBefore(now, v, at, placed)
	}
	return v
}

// replaceMirror tells those who were on the old entry that nobody knows what
// happened in between, before the state that follows if there is one.
func (m *Machine) replaceMirror(now time.Time, old, v *mirror) {
	from := old.peer.lost
	if from.IsZero() { // its entry went while the stream stood
		from = now
	}
	gap := &belfry.Gap{Resync: true, Reason: belfry.GapNotMonitored, From: from.UTC(), To: now.UTC()}
	it := item{kind: belfry.KindGap, run: run{firstTime: from.UnixNano(), time: now.UnixNano(), body: &body{gap: gap}}}
	for _, a := range v.private {
		i := slices.IndexFunc(old.private, func(o *attachment) bool { return o.reg == a.reg })
		if i < 0 {
			continue
		}
		was := old.private[i]
		if len(a.levels) > 0 {
			a.levels[0] = was.levels[0]
		}
		if a.gate != nil {
			was.gate.end()
			a.gate.follow(was.gate)
		}
		a.skipped, a.marked = was.skipped, was.marked
		a.lose(it)
	}
	for len(old.private) > 0 {
		m.detach(now, old.private[len(old.private)-1])
	}
}

// joinMirrors puts a cluster registration on what is known of a peer already.
func (m *Machine) joinMirrors(r *registration, p *peer) {
	if r.wish.exact {
		if v := p.events[key{belfry.Class(r.spec.Class), r.wish.subject}]; v != nil && v.isNewest() && !r.isOn(v) {
			m.joinMirror(r, v)
		}
		return
	}
	for _, v := range p.mirrors.All() {
		if r.matchesLocal(v.class, v.subject) && !r.isOn(v) {
			m.joinMirror(r, v)
		}
	}
}

// isNewest tells whether the peer reports under this mirror's number.
func (v *mirror) isNewest() bool {
	at, _ := v.peer.mirrors.Get(uint64(v.entry))
	return at == v
}

func (p *peer) hasMirror(id EntryID) bool {
	_, has := p.mirrors.Get(uint64(id))
	return has
}

func (r *registration) isOn(v *mirror) bool {
	return slices.ContainsFunc(v.private, func(a *attachment) bool { return a.reg == r })
}

func (m *Machine) joinMirror(r *registration, v *mirror) {
	if len(r.spec.Nodes) > 0 && !slices.Contains(r.spec.Nodes, v.node) {
		return
	}
	a := &attachment{reg: r, feed: &v.feed, mirror: v, inFeed: len(v.private), inReg: len(r.attachments)}
	if v.info != nil && v.info.Kind == belfry.Value && !r.spec.Threshold.IsZero() {
		a.levels = []level{{threshold: r.spec.Threshold, known: true}}
		if v.begins(r) {
			a.likeSibling()
		}
	}
	a.gate = m.newGate(a)
	a.joinLate()
	v.private = append(v.private, a)
	r.attachments = append(r.attachments, a)
	a.off = !v.begins(r)
	if v.present != nil && v.peer.live && a.from <= v.sequence && !a.off {
		a.begun(v.present)
	}
}

// likeSibling takes the position of another registration with the same
// threshold: the value known here is as old as the last crossing that was
// asked for, so it says nothing about other thresholds. The origin tells those.
func (a *attachment) likeSibling() {
	for _, o := range a.feed.private {
		if len(o.levels) > 0 && o.levels[0].threshold == a.levels[0].threshold && !o.off {
			a.levels[0] = o.levels[0]
			if a.levels[0].side != 0 {
				a.already(a.feed)
			}
			return
		}
	}
}

// endMirror tells everybody that the event has ended, and what was refused of it. One
// that may come again at any time is only forgotten: one that users name, and one
// that nobody monitors.
func (m *Machine) endMirror(now time.Time, v *mirror, n *belfry.Notification) {
	forgotten := n.Unmonitored || v.info != nil && v.info.Custom
	skipped := min(n.Skipped, n.Last-min(n.Last, v.sequence))
	v.sequence = max(v.sequence, n.Last)
	for len(v.private) > 0 {
		a := v.private[len(v.private)-1]
		if n.Last > a.from {
			a.skipped += min(skipped, n.Last-a.from)
			a.marked = a.marked || skipped > 0 && n.LowerBound
		}
		if a.gate != nil {
			a.gate.finish()
		}
		if a.skipped > 0 || !forgotten {
			a.tellEnded(now)
		}
		m.detach(now, a)
	}
}

// learn takes the present state of a peer's event.
func (v *mirror) learn(n *belfry.Notification) {
	p := v.present
	again := p != nil && p.sequence == n.Last && p.code == n.Code && p.edge == n.Edge // after a reconnect
	if !again {
		v.present = &state{
			kind: belfry.KindState, sequence: n.Last, time: n.Time.UnixNano(), code: n.Code, edge: n.Edge,
			body: &body{instance: n.Event.Instance, value: n.Value, data: n.Data},
		}
	}
	for _, a := range v.private {
		switch {
		case a.spares(v.alone):
			a.off = a.off || !again
		case a.from > v.sequence: // it begins once all of the past is here
		case !again || a.off:
			a.off = false
			a.begun(v.present)
		}
	}
}

// sampled takes the value of a crossing at the origin.
func (v *mirror) sampled(n *belfry.Notification) {
	v.feed.sampled = &sampled{value: n.Value, time: n.Time.UnixNano(), instance: n.Event.Instance, data: n.Data}
}

// measured takes the value at the origin when it was asked for. It is news
// only for those who believe something else.
func (v *mirror) measured(n *belfry.Notification) {
	v.sampled(n)
	for _, a := range v.private {
		if len(a.levels) == 0 || a.spares(v.alone) {
			continue
		}
		a.off = false
		l := &a.levels[0]
		switch side := l.next(n.Value); {
		case side == l.side:
		case side != 0:
			l.side = side
			a.already(&v.feed)
		default: // it came back while the nodes were apart
			l.side = side
			a.recovered(&v.feed)
		}
	}
}

// occurred takes occurrences, or a gap in them. What has arrived before falls
// away; a hole that nothing explains becomes a gap and is counted.
func (m *Machine) occurred(now time.Time, v *mirror, n *belfry.Notification) {
	if n.Last <= v.sequence {
		return
	}
	first, skipped, total := n.First, n.Skipped, n.Count
	if n.Kind == belfry.KindGap {
		total = n.Gap.Total
	}
	if n.First <= v.sequence { // the others had arrived
		first = v.sequence + 1
	}
	fresh := n.Last - v.sequence
	total = min(total, n.Last-first+1)
	skipped = min(skipped, fresh-total)
	if hole := fresh - total - skipped; hole > 0 {
		m.counters.Unexplained += hole
		v.missed(v.sequence+1, v.sequence+hole, n, belfry.Gap{Total: hole, Known: true, Resync: true, Reason: belfry.GapLink})
	}
	before := v.sequence
	v.sequence = n.Last
	for _, a := range v.private {
		if first > a.from {
			a.skipped += min(skipped, n.Last-a.from-total)
		}
	}
	if n.Kind == belfry.KindGap {
		gap := *n.Gap
		gap.Total = total
		v.missed(first, n.Last, n, gap)
	} else {
		v.happened(now, n, first, total)
	}
	if before < v.former && v.sequence == v.former {
		v.caughtUp()
	}
}

// missed puts a gap into everybody's queue.
func (v *mirror) missed(first, last uint64, n *belfry.Notification, gap belfry.Gap) {
	gap.From, gap.To = n.FirstTime, n.Time
	it := item{kind: belfry.KindGap, run: run{
		first: first, last: last, firstTime: n.FirstTime.UnixNano(), time: n.Time.UnixNano(),
		lowerBound: n.LowerBound && n.Kind == belfry.KindGap, body: &body{gap: &gap},
	}}
	for _, a := range v.private {
		if own, fresh := a.isNew(&it); fresh {
			a.lose(own)
		}
	}
}

func (v *mirror) happened(now time.Time, n *belfry.Notification, first, count uint64) {
	if b := v.newest; b == nil || n.Mixed || len(n.Data)+len(b.data) > 0 || n.Value != b.value || n.Event.Instance != b.instance {
		v.newest = &body{instance: n.Event.Instance, value: n.Value, data: n.Data}
	}
	it := item{kind: belfry.KindOccurrence, count: count, run: run{
		first: first, last: n.Last, firstTime: n.FirstTime.UnixNano(), time: n.Time.UnixNano(),
		code: n.Code, edge: n.Edge, lowerBound: n.LowerBound, mixed: n.Mixed, unmonitored: n.Unmonitored, body: v.newest,
	}}
	sampled := v.info != nil && v.info.Kind == belfry.Value && n.Code == 0
	if sampled {
		v.sampled(n)
		for _, a := range v.private {
			if !a.spares(v.alone) {
				a.judge(&v.feed, n.Value)
			}
		}
	}
	if v.info != nil && v.info.Kind == belfry.State || v.present != nil {
		v.present = &state{kind: belfry.KindState, sequence: n.Last, time: it.time, code: n.Code, edge: n.Edge, body: it.body}
	}
	for _, a := range v.private {
		if a.spares(v.alone) {
			a.spare(&it)
			continue
		}
		a.off = false
		if it.first > a.from {
			a.offer(now, &it, sampled)
		} else if own, fresh := a.isNew(&it); fresh {
			a.offer(now, &own, sampled)
		}
	}
}

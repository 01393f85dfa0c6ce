package event

import (
	"maps"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// An interest is one wish of a peer in this node's events. It implies Wait:
// the subject may appear later.
type interest struct {
	Interest
	peer     *peer
	wish     wish
	patterns []*pattern
	regs     []*registration // one for each entry it is on
}

func (i *interest) matches(k key) bool {
	return matchClass(i.Class, k.class) && i.wish.matchSubject(k.subject)
}

// holdsEntry tells whether the listener registers with the producer for it.
func (i *interest) holdsEntry(info *belfry.ClassInfo) bool {
	return !i.OnlyWhereMonitored && !i.passive(info)
}

func (i *interest) passive(info *belfry.ClassInfo) bool {
	r := newRegistration(nil, &belfry.Registration{Class: i.Class, Threshold: i.Threshold})
	r.wish = i.wish
	return r.passive(info)
}

func (m *Machine) remoteConsumer(p *peer) *consumer {
	if p.consumer == nil {
		p.consumer = &consumer{machine: m, name: p.name, peer: p, number: p.number, limits: Limits{}.withDefaults()}
	}
	return p.consumer
}

// dropRemote ends everything a peer wants of this node.
func (m *Machine) dropRemote(now time.Time, p *peer) {
	for _, number := range slices.Sorted(maps.Keys(p.held)) {
		m.removeInterest(now, p.held[number])
	}
	if p.consumer != nil {
		p.number = p.consumer.number
		p.consumer.lose()
		p.consumer = nil
	}
	p.version = 0
}

// interests takes what a peer wants: the whole set, or a difference.
func (m *Machine) interests(now time.Time, p *peer, f *Interests) {
	if !f.Full && f.Base != p.version {
		m.tellPeer(p, InterestsAck{Version: p.version, Full: true})
		return
	}
	m.remoteConsumer(p)
	p.placing = nil
	if f.Full {
		keep := make(map[uint32]bool, len(f.Add))
		for _, i := range f.Add {
			held := p.held[i.Number]
			keep[i.Number] = held != nil && held.Interest == i
		}
		for _, number := range slices.Sorted(maps.Keys(p.held)) {
			if !keep[number] {
				m.removeInterest(now, p.held[number])
			}
		}
	}
	for _, number := range f.Remove {
		if i := p.held[number]; i != nil {
			m.removeInterest(now, i)
		}
	}
	ack := InterestsAck{Version: f.Version}
	for _, i := range f.Add {
		if p.held[i.Number] != nil {
			continue
		}
		if err := m.addInterest(now, p, i); err != nil {
			ack.Refused = append(ack.Refused, InterestRefused{Number: i.Number, Err: err})
		}
	}
	for len(ack.Refused) > refusedChunk { // before the version, which puts the rest in force
		m.tellPeer(p, InterestsAck{Version: p.version, Refused: ack.Refused[:refusedChunk:refusedChunk]})
		ack.Refused = ack.Refused[refusedChunk:]
	}
	for len(p.placing) > placedChunk {
		m.tellPeer(p, InterestsAck{Version: p.version, Placed: p.placing[:placedChunk:placedChunk]})
		p.placing = p.placing[placedChunk:]
	}
	ack.Placed = p.placing
	p.version, p.places, p.placing = f.Version, nil, nil
	m.tellPeer(p, ack)
}

// addInterest puts one interest in force.
func (m *Machine) addInterest(now time.Time, p *peer, wanted Interest) error {
	if len(p.held) >= maxInterests {
		return refusal(belfry.ErrLimit, "%d interests of one node; no more are allowed, a pattern may stand for many", len(p.held))
	}
	w, err := m.wishOf(wanted.Class, wanted.Subject)
	if err != nil {
		return err
	}
	spec := belfry.Registration{Class: wanted.Class, Subject: wanted.Subject, Scope: belfry.ScopeCluster, Threshold: wanted.Threshold}
	if err := checkThreshold(&w, &spec); err != nil {
		return err
	}
	if err := checkScope(&w, &spec); err != nil {
		return err
	}
	w.infos = slices.DeleteFunc(w.infos, func(i *belfry.ClassInfo) bool { return !i.Remote })
	i := &interest{Interest: wanted, peer: p, wish: w}
	p.held[i.Number] = i
	if w.exact {
		k := key{belfry.Class(i.Class), w.subject}
		p.exact[k] = append(p.exact[k], i)
		m.startInterest(now, i, w.infos[0], k)
		return nil
	}
	p.globs = append(p.globs, i)
	for _, info := range w.infos {
		switch {
		case !i.holdsEntry(info) || info.Custom:
		case w.glob:
			pat := m.patternFor(info, w.subject)
			pat.remote = append(pat.remote, i)
			i.patterns = append(i.patterns, pat)
		default:
			m.startInterest(now, i, info, key{info.Class, w.subject})
		}
	}
	for _, e := range m.sortedEntries() {
		if i.matches(key{e.class, e.subject}) {
			m.joinInterest(now, e, i)
		}
	}
	return nil
}

// startInterest makes the listener stand in where nobody holds the event yet.
func (m *Machine) startInterest(now time.Time, i *interest, info *belfry.ClassInfo, k key) {
	e := m.index.find(k)
	if e == nil && i.holdsEntry(info) {
		e = m.entryFor(now, info, k, true)
		m.joinOpen(now, e)
	}
	if e != nil {
		m.joinInterest(now, e, i)
	}
}

// joinInterests puts all matching interests on an entry.
func (m *Machine) joinInterests(now time.Time, e *entry) {
	for _, p := range m.peers {
		m.joinInterestsOf(now, e, p)
	}
}

func (m *Machine) joinInterestsOf(now time.Time, e *entry, p *peer) {
	k := key{e.class, e.subject}
	for _, i := range p.exact[k] {
		m.joinInterest(now, e, i)
	}
	for _, i := range p.globs {
		if i.matches(k) {
			m.joinInterest(now, e, i)
		}
	}
}

// joinInterest puts an interest on an entry: all interests of a peer share
// one registration there, so several applications cost one notification.
func (m *Machine) joinInterest(now time.Time, e *entry, i *interest) {
	r := e.remoteOf(i.peer)
	known := r != nil
	switch {
	case !e.info.Remote || known && slices.Contains(r.interests, i):
		return
	case !known && !i.joins(e):
		return
	case !known:
		r = m.newRemote(e, i)
	case i.Detailed && r.queue == nil:
		m.detail(e, r)
	}
	r.interests = append(r.interests, i)
	i.regs = append(i.regs, r)
	if i.holdsEntry(e.info) {
		e.holds++
	}
	m.adjustRemote(e, r)
	switch {
	case !known: // those that did not count alone go on with it when it leaves
		m.joinInterestsOf(now, e, i.peer)
	case i.OnlyWhereMonitored && e.locals > 0:
		r.tellPresent(e) // what the peer knows may be of others
	}
}

func (e *entry) remoteOf(p *peer) *registration {
	for _, r := range e.remotes {
		if r.consumer.peer == p {
			return r
		}
	}
	return nil
}

// newRemote registers a peer on an entry: a place in the ring, or a queue. For a
// value class nothing merges in that, because the peer judges each crossing by the
// thresholds of its own consumers; for filters that look at data, what differs in it.
func (m *Machine) newRemote(e *entry, i *interest) *registration {
	r := newRegistration(m.remoteConsumer(i.peer), &belfry.Registration{})
	r.home = e
	r.spec.Snapshot = e.info.Kind == belfry.State
	own := e.own()
	own.remotes = append(own.remotes, r)
	switch {
	case e.info.Kind == belfry.Value:
		r.spec.Coalesce = belfry.CoalesceNever
		r.giveQueue(e)
	case i.Detailed:
		r.giveDetail(e)
	default:
		e.addPlain(r)
	}
	e.place(r)
	if r.queue != nil && e.present != nil {
		r.attachments[0].begun(e.present)
	}
	return r
}

// partInterest takes an interest off one entry.
func (m *Machine) partInterest(now time.Time, r *registration, i *interest) {
	e := r.home
	r.interests = without(r.interests, i)
	i.regs = without(i.regs, r)
	if i.holdsEntry(e.info) {
		e.holds--
	}
	if len(r.interests) == 0 {
		m.detachRemote(now, e, r)
		r.removed = true
		if r.queue != nil {
			r.queue.discard(r.consumer)
		}
		r.consumer.unsend(e.entry)
	} else {
		m.adjustRemote(e, r)
	}
	m.release(now, e)
}

// dismissRemote takes a peer off that wanted an entry only where it is monitored,
// and nobody monitors it. What had happened before goes out, and the peer forgets
// the entry: another one may come in its place, and nothing is missing in between.
func (m *Machine) dismissRemote(now time.Time, e *entry, r *registration) {
	if r.queue == nil && r.dirty && !r.resting {
		r.drain()
	}
	if e.sequence > 0 || e.present != nil || e.sampled != nil { // else it knows nothing of it
		r.ended = e.endingOf(now, r)
		r.ended.alone = true
	}
	m.detachRemote(now, e, r)
	r.wake()
}

// endingOf is the last that a peer is told of an entry.
func (e *entry) endingOf(now time.Time, r *registration) *ending {
	last := &ending{src: &e.source, at: now, last: e.sequence, skipped: r.skipped, marked: r.marked}
	for _, a := range r.attachments {
		last.skipped += a.skipped
		last.marked = last.marked || a.marked
	}
	return last
}

// detachRemote takes a peer off an entry.
func (m *Machine) detachRemote(now time.Time, e *entry, r *registration) {
	e.remotes = without(e.remotes, r)
	for _, i := range r.interests {
		i.regs = without(i.regs, r)
		if i.holdsEntry(e.info) {
			e.holds--
		}
	}
	r.interests, r.left = nil, true
	if r.queue == nil {
		e.removePlain(r)
		return
	}
	m.detach(now, r.attachments[0])
}

// removeInterest takes an interest out of force.
func (m *Machine) removeInterest(now time.Time, i *interest) {
	p := i.peer
	delete(p.held, i.Number)
	p.globs = without(p.globs, i)
	if i.wish.exact {
		k := key{belfry.Class(i.Class), i.wish.subject}
		if p.exact[k] = without(p.exact[k], i); len(p.exact[k]) == 0 {
			delete(p.exact, k)
		}
	}
	for len(i.regs) > 0 {
		m.partInterest(now, i.regs[len(i.regs)-1], i)
	}
	held := i.patterns
	i.patterns = nil
	for _, pat := range held {
		pat.remote = without(pat.remote, i)
		m.releasePattern(pat)
	}
}

// refuseInterest says to the peer that its interest can not be in force here
// after all.
func (m *Machine) refuseInterest(now time.Time, i *interest, err error) {
	m.removeInterest(now, i)
	m.tellPeer(i.peer, InterestsAck{Version: i.peer.version, Refused: []InterestRefused{{Number: i.Number, Err: err}}})
}

// endRemote gives a peer the last notification of an entry.
func (m *Machine) endRemote(now time.Time, e *entry, r *registration, err error) {
	if r.sparse && e.locals == 0 && !e.info.Custom { // one that users name is forgotten, so the peer has to be told
		m.dismissRemote(now, e, r)
		return
	}
	if !e.ever && err != nil {
		for _, i := range slices.Clone(r.interests) {
			if i.wish.exact {
				m.refuseInterest(now, i, err)
			}
		}
		if r.left {
			return
		}
	}
	if r.queue == nil {
		r.drain()
	}
	r.ended = e.endingOf(now, r)
	m.detachRemote(now, e, r)
	r.wake()
}

// positions remembers what a peer that has come back has of each entry, until
// its interests say which registrations to place there.
func (m *Machine) positions(p *peer, f *Positions) {
	if f.Incarnation != m.cfg.Incarnation || len(p.places)+len(f.Positions) > maxPositions {
		return
	}
	if p.places == nil { // it may take several frames
		p.places = make(map[EntryID]uint64, len(f.Positions))
	}
	for _, pos := range f.Positions {
		p.places[pos.Entry] = pos.Last
	}
}

// place puts a new registration where its peer stopped: what the peer missed
// comes, or a gap with the exact number.
func (e *entry) place(r *registration) {
	p := r.consumer.peer
	at, known := p.placeOf(e)
	r.began = e.sequence
	if !known || at.From > e.sequence {
		return
	}
	last := at.From
	r.began, r.behind = p.began(e, last), e.sequence
	p.placing = append(p.placing, at)
	switch {
	case e.info.Kind == belfry.Value:
		e.placeQueue(r, last)
		return
	case r.queue != nil:
		e.refill(r.attachments[0], last, e.timeAfter(last))
		return
	}
	if last == e.sequence {
		return
	}
	r.taken, r.since, r.dirty = last, e.timeAfter(last), true
	e.swap(int(r.slot), e.cleanOnes-1)
	e.cleanOnes--
	r.wake()
}

// placeQueue is place for a value class. Its crossings are not kept, but the
// present value says where the peer's thresholds are now.
func (e *entry) placeQueue(r *registration, last uint64) {
	a := r.attachments[0]
	if missed := e.sequence - last; missed > 0 {
		at, to := e.since, e.since
		if s := e.sampled; s != nil {
			to = max(at, s.time)
		}
		gap := &belfry.Gap{Total: missed, Known: true, Resync: true, Reason: belfry.GapLink, From: unix(at), To: unix(to)}
		a.lose(item{kind: belfry.KindGap, run: run{first: last + 1, last: e.sequence, firstTime: at, time: to, body: &body{gap: gap}}})
	}
}

// timeAfter is when the first occurrence after a sequence number happened, as
// far as the ring knows.
func (e *entry) timeAfter(sequence uint64) int64 {
	for i := range e.ring.runs {
		if e.ring.runs[i].last > sequence {
			return e.ring.runs[i].firstTime
		}
	}
	return e.since
}

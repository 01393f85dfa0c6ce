package event

import (
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A node that is started again finds out what it missed of other nodes'
// events, exactly where that can be known. Two memories make it so. The node
// itself has the last numbers that its former life recorded (Config.Former), and
// says them before it asks. The peer, whose numbers go on, remembers where the
// node's interests began, for events of which nothing was recorded. What happened
// in between comes as far as the peer still has it, and the rest is a gap with
// its number. It is for those who were registered before: whoever comes with a
// cursor, and the journal. A registration that is new hears nothing of it.

// comebackKeep is how long a peer's wishes of a former life keep their events
// going: as long as a client's broken stream is kept.
const comebackKeep = 60 * time.Second

// A Former is an event of another node as a former life of this node knew it.
type Former struct {
	Node        belfry.NodeID
	Incarnation belfry.Incarnation
	Entry       EntryID
	Class       belfry.Class
	Subject     string
	Last        uint64    // the last number that is recorded
	Time        time.Time // when the former life ended, about
}

// newer tells whether f is of a later entry for the same event.
func (f *Former) newer(o *Former) bool {
	return f.Incarnation > o.Incarnation || f.Incarnation == o.Incarnation && f.Entry > o.Entry
}

// formerOf sorts what a former life knew by node, with the newest entry of each event.
func formerOf(list []Former) map[belfry.NodeID]map[key]*Former {
	nodes := map[belfry.NodeID]map[key]*Former{}
	for i := range list {
		f := &list[i]
		if nodes[f.Node] == nil {
			nodes[f.Node] = map[key]*Former{}
		}
		k := key{f.Class, f.Subject}
		if o := nodes[f.Node][k]; o == nil || f.newer(o) {
			nodes[f.Node][k] = f
		}
	}
	return nodes
}

// formerPositions is what a former life had of the events that a peer is about
// to be asked for. It comes before the interests, as other positions do.
func (m *Machine) formerPositions(p *peer) (frames []Positions) {
	var list []Position
	for k, f := range m.former[p.node] {
		if f.Incarnation == p.incarnation && !p.hasMirror(f.Entry) && p.isAskedFor(k) {
			list = append(list, Position{Entry: f.Entry, Last: f.Last})
		}
	}
	slices.SortFunc(list, func(a, b Position) int { return cmp.Compare(a.Entry, b.Entry) })
	for chunk := range slices.Chunk(list, positionChunk) {
		frames = append(frames, Positions{Incarnation: p.incarnation, Positions: chunk})
	}
	return frames
}

func (p *peer) isAskedFor(k key) bool {
	return slices.ContainsFunc(p.add, func(w *want) bool {
		return len(w.regs) > 0 && w.regs[0].matchesLocal(k.class, k.subject)
	})
}

// learnPlaced notes where the peer goes on with each event, until its first
// notification comes.
func (p *peer) learnPlaced(list []Placed) {
	for _, at := range list {
		if !p.hasMirror(at.Entry) && len(p.placed) < maxPositions {
			p.placed[at.Entry] = at
		}
	}
}

// goOn lets a new mirror begin where the peer was told to go on.
func (v *mirror) goOn() (at Placed, known bool) {
	if at, known = v.peer.placed[v.entry]; known {
		delete(v.peer.placed, v.entry)
		v.sequence, v.former = at.From, at.Until
	}
	v.begun = v.sequence
	return at, known
}

// resumes tells whether a registration goes on from an earlier one.
func (r *registration) resumes() bool { return r.onlooker || !r.spec.Since.IsZero() }

// restarted tells whether that was in a former life of this node.
func (r *registration) restarted() bool {
	c := r.spec.Since.Cursor
	return !c.IsZero() && c.Incarnation != r.consumer.machine.cfg.Incarnation
}

// missedBefore tells those who go on what is missing before the first
// notification of a mirror. at is where the peer said that it goes on.
func (m *Machine) missedBefore(now time.Time, v *mirror, at Placed, placed bool) {
	k := key{v.class, v.subject}
	f := m.former[v.node][k]
	delete(m.former[v.node], k)
	switch {
	case placed && !at.Lapsed: // nothing is
	case f != nil && f.Incarnation == v.incarnation && f.Entry == v.entry && !at.Lapsed:
		if f.Last < v.sequence {
			v.goneBefore(now, f)
		}
	case f != nil || at.Lapsed:
		from := now
		if f != nil {
			from = f.Time
		}
		v.unknownBefore(from, now, (*registration).resumes)
	case v.sequence > 0:
		v.unknownBefore(v.peer.since, now, (*registration).restarted)
	}
}

// goneBefore is a gap with its number.
func (v *mirror) goneBefore(now time.Time, f *Former) {
	gap := &belfry.Gap{Total: v.sequence - f.Last, Known: true, Resync: true, Reason: belfry.GapLink, From: f.Time.UTC(), To: now.UTC()}
	it := item{kind: belfry.KindGap, run: run{
		first: f.Last + 1, last: v.sequence, firstTime: f.Time.UnixNano(), time: now.UnixNano(), body: &body{gap: gap},
	}}
	for _, a := range v.private {
		if a.reg.resumes() {
			a.lose(it)
		}
	}
}

// unknownBefore is a gap whose number nobody knows.
func (v *mirror) unknownBefore(from, now time.Time, of func(*registration) bool) {
	gap := &belfry.Gap{Resync: true, Reason: belfry.GapNotMonitored, From: from.UTC(), To: now.UTC()}
	it := item{kind: belfry.KindGap, run: run{firstTime: from.UnixNano(), time: now.UnixNano(), body: &body{gap: gap}}}
	for _, a := range v.private {
		if of(a.reg) {
			a.lose(it)
		}
	}
}

// joinLate places a registration on a mirror that is there already. What
// happened before this life began is not for a new one; and one that goes on
// finds in the journal what has come since, unless the class is not recorded: it
// gets that as a gap, of which its client knows what it has had.
func (a *attachment) joinLate() {
	v := a.mirror
	switch {
	case !a.reg.resumes():
		a.from = v.former
	case v.info != nil && v.info.Volatile && !a.reg.onlooker && v.begun < v.sequence:
		at := v.peer.since
		gap := &belfry.Gap{Total: v.sequence - v.begun, Known: true, Resync: true, Reason: belfry.GapLink, From: at.UTC(), To: at.UTC()}
		a.lose(item{kind: belfry.KindGap, run: run{
			first: v.begun + 1, last: v.sequence, firstTime: at.UnixNano(), time: at.UnixNano(), body: &body{gap: gap},
		}})
	}
}

// caughtUp lets those begin with the present state who were registered since the
// peer was asked: until now only what was before that had come. Where that goes on
// in a run of equal occurrences they have been told the rest of the run instead.
func (v *mirror) caughtUp() {
	for _, a := range v.private {
		if a.from == v.sequence && v.present != nil && !a.spares(v.alone) {
			a.off = false
			a.begun(v.present)
		}
	}
}

// isNew tells whether something of an item is for the attachment, and cuts off
// what happened before its registration was made.
func (a *attachment) isNew(it *item) (item, bool) {
	own := *it
	if it.last == 0 || it.first > a.from {
		return own, true
	}
	if it.last <= a.from {
		return own, false
	}
	had := a.from - it.first + 1
	own.first = a.from + 1
	switch whole := it.last - it.first + 1; {
	case it.body != nil && it.gap != nil && it.gap.Total == whole:
		gap, cut := *it.gap, *it.body
		gap.Total -= had
		cut.gap = &gap
		own.body = &cut
	case it.count == whole:
		own.count -= had
	}
	return own, true
}

// A comeback is what is kept of a peer that has gone: where its interests
// began, so that they go on there when it returns.
type comeback struct {
	began  map[key]Position
	newest EntryID  // of the entries there were when it went
	older  bool     // it was a former life of the peer
	kept   []*entry // that would have gone with it
	until  time.Time
}

// remember is called before the interests of a peer are dropped.
func (m *Machine) remember(p *peer) {
	if len(p.held) == 0 {
		return
	}
	if p.comeback == nil {
		p.comeback = &comeback{began: map[key]Position{}, newest: m.nextEntry}
	}
	for _, i := range p.held {
		for _, r := range i.regs {
			p.comeback.began[key{r.home.class, r.home.subject}] = Position{Entry: r.home.entry, Last: r.began}
		}
	}
}

// expect keeps the events going for a while that a peer wanted in a former
// life: it has been started again, and is about to ask.
func (m *Machine) expect(now time.Time, p *peer) {
	m.remember(p)
	b := p.comeback
	if b == nil {
		return
	}
	b.older, b.until = true, now.Add(comebackKeep)
	for _, at := range b.began {
		if e := m.entry(at.Entry); e != nil && !slices.Contains(b.kept, e) {
			e.holds++
			b.kept = append(b.kept, e)
		}
	}
}

// letGo ends that: the peer is taken for down. What it wanted stays known.
func (m *Machine) letGo(now time.Time, p *peer) {
	b := p.comeback
	if b == nil {
		return
	}
	for _, e := range b.kept {
		e.holds--
		m.release(now, e)
	}
	b.kept, b.older, b.until = nil, false, time.Time{}
}

// comebacksDue ends what has been kept long enough.
func (m *Machine) comebacksDue(now time.Time) {
	for _, p := range m.peers {
		if b := p.comeback; b != nil && !b.until.IsZero() && !now.Before(b.until) {
			m.letGo(now, p)
			p.comeback = nil
		}
	}
}

// nextComeback is when the next one ends; zero: none does.
func (m *Machine) nextComeback() (next time.Time) {
	for _, p := range m.peers {
		if b := p.comeback; b != nil && !b.until.IsZero() && (next.IsZero() || b.until.Before(next)) {
			next = b.until
		}
	}
	return next
}

// began is where an interest began that goes on: what has arrived since may not
// have been recorded when its node ends once more.
func (p *peer) began(e *entry, last uint64) uint64 {
	if p.comeback != nil {
		if at := p.comeback.began[key{e.class, e.subject}]; at.Entry == e.entry {
			return min(at.Last, last)
		}
	}
	return last
}

// placeOf is where a registration of a peer on an entry goes on. Its own word
// counts before what is remembered here.
func (p *peer) placeOf(e *entry) (at Placed, known bool) {
	at = Placed{Entry: e.entry, Until: e.sequence}
	if at.From, known = p.places[e.entry]; known || p.comeback == nil {
		return at, known
	}
	b := p.comeback
	began, had := b.began[key{e.class, e.subject}]
	switch {
	case had && began.Entry == e.entry:
		at.From = began.Last
	case had: // nobody watched in between
		at.Lapsed = true
	case e.entry <= b.newest: // it did not want it
		return at, false
	}
	if !b.older {
		at.Until = at.From
	}
	return at, true
}

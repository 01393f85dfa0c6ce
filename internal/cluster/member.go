package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// evidenceMax bounds what is kept of one node's way to its verdict.
const evidenceMax = 64

// A member is what this node holds of one row of the member table, as soon as
// it differs from what the row says by itself.
type member struct {
	*Member       // the row; shared and never written
	at      int32 // its number in the table

	held        held
	private     bool               // held by this node alone, which was isolated: others are not told
	posted      belfry.Verdict     // what consumers were told last
	postAt      time.Time          // when down will be posted; zero: nothing waits
	determined  time.Time          // when the verdict fell that waits
	parked      *parked            // a claim that is not held yet; nil: none
	incarnation belfry.Incarnation // newest that p itself proved; older datagrams are void
	running     belfry.Incarnation // that consumers were told of: proven, or by the word of others
	reach       reach              // how far claims on it can have come
	boot        belfry.Boot        // of the datagrams that count

	heard   time.Time // newest proven reception on any link; zero: never
	vouched time.Time // newest moment at which another node heard it, or its agent answered a dial
	spoke   time.Time // when its agent answered a dial although it was not heard; zero: never
	doubt   time.Time // what the burst that an own pause voided waited for; zero: none, or heard since

	verified time.Time // when this node's own newest burst began: the next one keeps a round's distance
	pause    longestPause

	rows  []*row           // by index of the link; empty: not watched
	spent map[uint8]uint16 // by index of the link: the number last sent there, of rows that ended
	guest bool             // watched because it sends heartbeats, not by ring order
	extra bool             // watched because somebody here asked for it, not by ring order

	wanted  time.Time // when it last said that it watches this node because it was asked to; zero: never
	contact contactState
	burst   *burst
	exit    exit

	oneWays []oneWayWord // its own, of its newest heartbeat
	hearsay []hearsay    // of watched peers, one each: that it hears this node

	answers     []answer                  // to claims of this node's own on p, newest last
	unmentioned map[belfry.NodeNumber]int // heartbeats of p in a row without a word of that node

	evidence []belfry.Evidence
	closed   bool // the list ended with a verdict of up: the next note begins a new one

	news         time.Time // when its claim was adopted
	viewDiffers  int       // heartbeats in a row with another view hash
	viewAgrees   int       // heartbeats in a row with the same
	viewSent     time.Time
	viewAnswered time.Time // its last question that was answered
	helloSent    time.Time // last reply to an unproven datagram
}

// inRing tells whether p takes part in watching.
func (p *member) inRing() bool {
	return !p.Stopped && p.held.Verdict != belfry.VerdictDown && p.held.Verdict != belfry.VerdictLeft
}

// anyHeard tells whether p is heard on some link.
func (p *member) anyHeard() bool { return slices.ContainsFunc(p.rows, (*row).heard) }

func (p *member) row(index uint8) *row {
	for _, r := range p.rows {
		if r.id.Index == index {
			return r
		}
	}
	return nil
}

// shift moves the silence that an allowance counts from by an own pause.
func (p *member) shift(d time.Duration) {
	if p.held.Verdict == belfry.VerdictUnreachable || p.held.Verdict == belfry.VerdictStalled {
		p.held.Since = p.held.Since.Add(d)
	}
}

func (p *member) describe(c held) string {
	return fmt.Sprintf("%s (%s), incarnation %d turn %d", c.Verdict, c.Cause, c.Incarnation, c.Turn)
}

// wrote tells whether a node has a step in p's evidence since then.
func (p *member) wrote(by belfry.NodeID, since time.Time) bool {
	return slices.ContainsFunc(p.evidence, func(e belfry.Evidence) bool { return e.By == by && !e.Time.Before(since) })
}

// note adds one step to p's evidence.
func (m *Machine) note(p *member, now time.Time, by belfry.NodeID, link, text string) {
	if p.closed {
		p.evidence, p.closed = nil, false
	}
	if len(p.evidence) == evidenceMax {
		p.evidence = slices.Delete(p.evidence, evidenceMax/2, evidenceMax/2+1)
	}
	p.evidence = append(p.evidence, belfry.Evidence{Time: now, By: by, Link: link, Text: text})
}

// member is what is held of one row.
func (m *Machine) member(row int32) *member {
	t := &m.table.rows[row]
	p := m.byID[t.ID]
	if p == nil {
		p = &member{Member: t, at: row, held: t.base(), posted: t.base().Verdict, incarnation: t.Up, running: t.Up, reach: reach{first: t.Up, since: m.tableAt}}
		for _, known := range m.cfg.Pauses {
			if known.Node == t.ID {
				p.pause = longestPause{d: known.D, at: known.At}
			}
		}
		p.held.Since = m.tableAt
		m.byID[t.ID] = p
	}
	return p
}

// find is what is held of a member, nil if there is none with this id.
func (m *Machine) find(id belfry.NodeID) *member {
	if p := m.byID[id]; p != nil {
		return p
	}
	if row, ok := m.table.byID[id]; ok {
		return m.member(row)
	}
	return nil
}

// numbered is what is held of a member, nil if there is none with this number.
func (m *Machine) numbered(n belfry.NodeNumber) *member {
	if row, ok := m.table.byNumber[n]; ok {
		return m.member(row)
	}
	return nil
}

// heldOf is the claim that is held of one row.
func (m *Machine) heldOf(row int32) held {
	t := &m.table.rows[row]
	if p := m.byID[t.ID]; p != nil {
		return p.held
	}
	return t.base()
}

// setMembers takes a new member table. A node that is not in the table is no
// member of its cluster any more; its machine keeps the old one.
func (m *Machine) setMembers(now time.Time, table *Table) {
	if table.generation < m.table.generation {
		return
	}
	if _, ok := table.byID[m.cfg.Self]; !ok {
		return
	}
	old := m.table
	for i := range old.rows {
		if _, ok := table.byID[old.rows[i].ID]; !ok {
			m.member(int32(i)) // so that consumers are told that it left
		}
	}
	self := *m.self.Member
	m.table, m.tableAt = table, now
	for _, p := range m.sorted() {
		if _, ok := table.byID[p.ID]; !ok {
			m.removeMember(now, p)
		}
	}
	for i := range table.rows {
		if table.rows[i].Stopped {
			m.member(int32(i)) // something is held of it: it has no place on the ring
		}
	}
	m.view, m.outside = 0, 0
	m.buckets = slices.Clone(table.buckets)
	for _, b := range table.buckets {
		m.view ^= b
	}
	stopped := map[belfry.NodeID]bool{}
	for _, p := range m.sorted() {
		row := table.byID[p.ID]
		stopped[p.ID] = p.Stopped
		changed := !slices.Equal(old.links(&self, p.Member), table.links(&table.rows[table.byID[m.cfg.Self]], &table.rows[row]))
		p.Member, p.at = &table.rows[row], row
		m.count(p, p.base(), p.held)
		if !p.inRing() {
			m.outside++
		}
		if changed && len(p.rows) > 0 {
			m.unwatch(p)
		}
	}
	for i := range table.rows {
		if row := &table.rows[i]; row.Stopped || stopped[row.ID] {
			m.intent(now, m.member(int32(i)), stopped[row.ID])
		}
	}
	m.rewatch(now)
}

// sorted is all members of whom something is held, by NodeID.
func (m *Machine) sorted() []*member {
	return slices.SortedFunc(maps.Values(m.byID), func(a, b *member) int { return a.ID.Compare(b.ID) })
}

// count moves p's share of the view hash from one claim to another.
func (m *Machine) count(p *member, from, to held) {
	d := from.hash(p.Number) ^ to.hash(p.Number)
	m.view ^= d
	m.buckets[bucketOf(p.Number)] ^= d
}

// intent follows what the configuration wants of a node.
func (m *Machine) intent(now time.Time, p *member, wasStopped bool) {
	switch {
	case p.Stopped && p.held.Cause != belfry.CauseStopped:
		m.conclude(now, p, belfry.VerdictLeft, belfry.CauseStopped, now, 0)
	case wasStopped && !p.Stopped:
		again := held{Incarnation: p.held.Incarnation, Verdict: belfry.VerdictJoining, Since: now}
		if p == m.self {
			again.Verdict, again.Cause = belfry.VerdictUp, belfry.CauseDirect
		}
		m.change(now, p, again.follows(p.held))
	}
}

// removeMember ends all there is of a node that is no longer a member.
func (m *Machine) removeMember(now time.Time, p *member) {
	if p.held.Verdict != belfry.VerdictLeft {
		gone := p.held
		gone.Verdict, gone.Cause, gone.Since, gone.Observers = belfry.VerdictLeft, belfry.CauseRemoved, now, 0
		m.tell(now, p, gone)
	}
	m.unwatch(p)
	delete(m.byID, p.ID)
	same := func(q *member) bool { return q == p }
	m.watched = slices.DeleteFunc(slices.Clone(m.watched), same)
	m.fallen = slices.DeleteFunc(slices.Clone(m.fallen), same)
	m.doubted = slices.DeleteFunc(slices.Clone(m.doubted), same)
	m.parked = slices.DeleteFunc(m.parked, same)
	m.unposted = slices.DeleteFunc(m.unposted, same)
	m.news = slices.DeleteFunc(m.news, same)
	m.rumours = slices.DeleteFunc(m.rumours, func(r rumour) bool { return r.about == p })
}

// rewatch draws the ring again and begins or ends to watch.
func (m *Machine) rewatch(now time.Time) {
	m.peers = m.neighbours(m.self)
	m.paced = pacing(m.peers)
	for _, p := range slices.Clone(m.watched) {
		if m.self.Stopped || !slices.Contains(m.peers, p) && p.held.Verdict != belfry.VerdictDown && !p.guest && !p.extra {
			// Rows of a node that went down stay: they show how it went, and it
			// is probed for its return. A node that is stopped itself hears
			// nobody, and may judge nobody.
			m.unwatch(p)
		}
	}
	for _, p := range m.peers {
		p.guest = false
		m.watch(now, p)
	}
	m.watchExtras(now)
	watched := slices.DeleteFunc(slices.Clone(m.watched), func(p *member) bool { return len(p.rows) == 0 })
	for _, p := range slices.Concat(m.peers, m.extras()) {
		if len(p.rows) > 0 && !slices.Contains(watched, p) {
			watched = append(watched, p)
		}
	}
	slices.SortFunc(watched, func(a, b *member) int { return a.ID.Compare(b.ID) })
	m.watched = watched // anew: callers may be ranging over the old one
	for _, p := range m.watched {
		for l, r := range p.rows {
			k := max(slices.Index(m.peers, p), 0)
			r.slot = slot{peer: k, peers: len(m.peers), link: l, links: len(p.rows)}
			if r.nextTx.IsZero() {
				m.plan(now, r)
			}
		}
	}
}

// watch makes the rows of p, if it has none.
func (m *Machine) watch(now time.Time, p *member) {
	if len(p.rows) > 0 {
		return
	}
	for _, l := range m.links(p) {
		r := newRow(now, p.ID, l, m.cfg.LossPrior)
		r.theirs = m.theirIndex(p, l)
		r.txSeq = p.spent[l.Index]
		p.rows = append(p.rows, r)
		if !m.interfaces[r.link.Network].works(now) {
			m.block(now, r)
		}
	}
	if len(p.rows) > 0 && !slices.Contains(m.watched, p) {
		m.watched = append(slices.Clip(m.watched), p)
	}
}

// links are the ways from this node to p.
func (m *Machine) links(p *member) []Link { return m.table.links(m.self.Member, p.Member) }

// unwatch ends it: what this node knows of p is from now on what others say.
// The numbers that were sent stay spent: to the peer, whose row may live on,
// others would be repetitions.
func (m *Machine) unwatch(p *member) {
	for _, r := range p.rows {
		if p.spent == nil {
			p.spent = map[uint8]uint16{}
		}
		p.spent[r.id.Index] = r.txSeq
		m.endRow(p, r)
	}
	p.rows, p.burst, p.guest, p.extra, p.contact = nil, nil, false, false, contactState{}
	p.oneWays, p.hearsay = nil, nil
	if p.held.Cause == belfry.CauseDirect {
		p.held.Cause = belfry.CauseIndirect
	}
}

// NodeStatus is what this node holds of one member, for people.
type NodeStatus struct {
	ID          belfry.NodeID
	Name        string
	Number      belfry.NodeNumber
	Self        bool
	Incarnation belfry.Incarnation // 0: nothing is known of it yet
	Verdict     belfry.Verdict
	Cause       belfry.Cause
	Since       time.Time // when the silence began, or when the proof of life came
	LastHeard   time.Time // by this node or by another one; zero: never
	Turn        uint16
	Observers   int
	PostAt      time.Time // down is determined and will be posted then; zero: posted
	LinksUp     int       // of LinksTotal; 0 of 0 for this node and for those that others watch
	LinksTotal  int
	Interval    time.Duration // at which this node sends to it, smallest over links; 0: not watched
	MaxWait     time.Duration // smallest over links; 0: not watched
}

// Nodes is all members, this node included, by name.
func (m *Machine) Nodes(now time.Time) []NodeStatus {
	all := make([]NodeStatus, 0, m.table.Len())
	for i := range m.table.rows {
		row := &m.table.rows[i]
		p := m.byID[row.ID]
		if p == nil { // nothing is held that the row does not say
			p = &member{Member: row, held: row.base()}
			p.held.Since = m.tableAt
		}
		all = append(all, m.nodeStatus(now, p))
	}
	slices.SortFunc(all, func(a, b NodeStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.ID.Compare(b.ID))
	})
	return all
}

func (m *Machine) nodeStatus(now time.Time, p *member) NodeStatus {
	s := NodeStatus{
		ID: p.ID, Name: p.Name, Number: p.Number, Self: p == m.self,
		Incarnation: p.held.Incarnation, Verdict: p.held.Verdict, Cause: p.held.Cause,
		Since: p.held.Since, LastHeard: maxTime(p.heard, p.vouched),
		Turn: p.held.Turn, Observers: int(p.held.Observers), LinksTotal: len(p.rows),
	}
	if p == m.self {
		s.LastHeard, s.Incarnation = now, p.incarnation // whatever others claim
	}
	if p.held.Verdict == belfry.VerdictDown {
		s.PostAt = p.postAt
	}
	for _, r := range p.rows {
		if r.usable() {
			s.LinksUp++
		}
		s.Interval = smallest(s.Interval, r.pace.interval)
		s.MaxWait = smallest(s.MaxWait, r.maxWait(m.path(r)))
	}
	return s
}

// smallest is the smaller of two durations, of which zero is none.
func smallest(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Proven is the newest incarnation that a node has shown itself, and not what
// others say of it; 0: none.
func (m *Machine) Proven(node belfry.NodeID) belfry.Incarnation {
	if p := m.byID[node]; p != nil {
		return p.incarnation
	}
	return 0
}

// Why is the evidence of a node's verdict, oldest first; nil for a node that
// is not a member.
func (m *Machine) Why(node belfry.NodeID) []belfry.Evidence {
	if p := m.byID[node]; p != nil {
		return slices.Clone(p.evidence)
	}
	return nil
}

// Watched is the nodes that this node has links to, by NodeID.
func (m *Machine) Watched() []belfry.NodeID {
	ids := make([]belfry.NodeID, len(m.watched))
	for i, p := range m.watched {
		ids[i] = p.ID
	}
	return ids
}

// Watches tells whether this node has links to another one.
func (m *Machine) Watches(node belfry.NodeID) bool {
	p := m.byID[node]
	return p != nil && len(p.rows) > 0
}

// Neighbour tells whether another node is a neighbour on the ring: links to
// others, which a difference of views or an interest makes, are extra.
func (m *Machine) Neighbour(node belfry.NodeID) bool {
	p := m.byID[node]
	return p != nil && slices.Contains(m.paced, p)
}

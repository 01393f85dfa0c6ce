package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// evidenceMax bounds what is kept of one node's way to its verdict.
const evidenceMax = 64

// A member is what this node holds of one row of the member table.
type member struct {
	Member
	place uint64 // on the ring

	held        held
	incarnation belfry.Incarnation // newest that was proven or claimed
	boot        belfry.Boot        // of the datagrams that count

	heard   time.Time // newest proven reception on any link; zero: never
	vouched time.Time // newest moment at which another node heard it
	doubt   time.Time // what the burst that an own pause voided waited for; zero: none, or heard since
	pause   longestPause

	rows  []*row           // by index of the link; empty: not watched
	spent map[uint8]uint16 // by index of the link: the number last sent there, of rows that ended
	guest bool             // watched because it sends heartbeats, not by ring order
	burst *burst
	exit  exit

	evidence []belfry.Evidence
	closed   bool // the list ended with a verdict of up: the next note begins a new one

	news        time.Time // when its claim was adopted
	viewDiffers int       // heartbeats in a row with another view hash
	viewSent    time.Time
	helloSent   time.Time // last reply to an unproven datagram
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

// setMembers takes a new member table.
func (m *Machine) setMembers(now time.Time, table Members) {
	if table.Generation < m.generation {
		return
	}
	m.generation = table.Generation
	kept := map[belfry.NodeID]bool{}
	for _, t := range table.Members {
		kept[t.ID] = true
		p := m.byID[t.ID]
		if p == nil {
			p = &member{place: ringKey(m.cfg.Cluster, t.ID), held: held{Verdict: belfry.VerdictJoining, Since: now}}
			p.Member = t
			m.byID[t.ID] = p
			m.members = append(m.members, p)
			m.view ^= p.held.hash(p.Number)
		}
		m.updateMember(now, p, t)
	}
	for _, p := range slices.Clone(m.members) {
		if !kept[p.ID] && p != m.self {
			m.removeMember(now, p)
		}
	}
	slices.SortFunc(m.members, func(a, b *member) int { return a.ID.Compare(b.ID) })
	clear(m.byNumber)
	for _, p := range m.members {
		m.byNumber[p.Number] = p
	}
	m.rewatch(now)
}

func (m *Machine) updateMember(now time.Time, p *member, t Member) {
	m.view ^= p.held.hash(p.Number) ^ p.held.hash(t.Number)
	wasStopped := p.Stopped
	linksChanged := !slices.Equal(p.Links, t.Links)
	p.Member = t
	if linksChanged && len(p.rows) > 0 {
		m.unwatch(p)
	}
	switch {
	case t.Stopped && p.held.Cause != belfry.CauseStopped:
		m.conclude(now, p, belfry.VerdictLeft, belfry.CauseStopped, now, 0)
	case wasStopped && !t.Stopped:
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
		m.change(now, p, gone)
	}
	m.unwatch(p)
	m.view ^= p.held.hash(p.Number)
	delete(m.byID, p.ID)
	same := func(q *member) bool { return q == p }
	m.members = slices.DeleteFunc(m.members, same)
	m.news = slices.DeleteFunc(m.news, same)
	m.rumours = slices.DeleteFunc(m.rumours, func(r rumour) bool { return r.about == p })
}

// rewatch draws the ring again and begins or ends to watch.
func (m *Machine) rewatch(now time.Time) {
	m.ring = ringOrder(m.members)
	m.peers = neighbours(m.ring, m.self, m.cfg.Watchers)
	for _, p := range m.members {
		ring := slices.Contains(m.peers, p)
		switch {
		case p == m.self:
			continue
		case ring:
			p.guest = false
			m.watch(now, p)
		case p.held.Verdict == belfry.VerdictDown || p.guest:
			// Rows of a node that went down stay: they show how it went, and it
			// is probed for its return.
		default:
			m.unwatch(p)
		}
	}
	m.watched, m.fallen = nil, nil // anew: callers may be ranging over the old ones
	for _, p := range m.members {
		if len(p.rows) > 0 {
			m.watched = append(m.watched, p)
		}
		if p.held.Verdict == belfry.VerdictDown {
			m.fallen = append(m.fallen, p)
		}
	}
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
	for _, l := range p.Links {
		r := newRow(now, p.ID, l, m.cfg.LossPrior)
		r.txSeq = p.spent[l.Index]
		p.rows = append(p.rows, r)
	}
}

// unwatch ends it: what this node knows of p is from now on what others say.
// The numbers that were sent stay spent: to the peer, whose row may live on,
// others would be repetitions.
func (m *Machine) unwatch(p *member) {
	for _, r := range p.rows {
		if p.spent == nil {
			p.spent = map[uint8]uint16{}
		}
		p.spent[r.id.Index] = r.txSeq
	}
	p.rows, p.burst, p.guest = nil, nil, false
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
	LinksUp     int // of LinksTotal; 0 of 0 for this node and for those that others watch
	LinksTotal  int
	Interval    time.Duration // at which this node sends to it, smallest over links; 0: not watched
	MaxWait     time.Duration // smallest over links; 0: not watched
}

// Nodes is all members, this node included, by name.
func (m *Machine) Nodes(now time.Time) []NodeStatus {
	all := make([]NodeStatus, 0, len(m.members))
	for _, p := range m.members {
		s := NodeStatus{
			ID: p.ID, Name: p.Name, Number: p.Number, Self: p == m.self,
			Incarnation: p.held.Incarnation, Verdict: p.held.Verdict, Cause: p.held.Cause,
			Since: p.held.Since, LastHeard: maxTime(p.heard, p.vouched),
			Turn: p.held.Turn, Observers: int(p.held.Observers), LinksTotal: len(p.rows),
		}
		if p == m.self {
			s.LastHeard = now
		}
		for _, r := range p.rows {
			if r.usable() {
				s.LinksUp++
			}
			s.Interval = smallest(s.Interval, r.pace.interval)
			s.MaxWait = smallest(s.MaxWait, r.maxWait(m.path(r)))
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b NodeStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.ID.Compare(b.ID))
	})
	return all
}

// smallest is the smaller of two durations, of which zero is none.
func smallest(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Why is the evidence of a node's verdict, oldest first; nil for a node that
// is not a member.
func (m *Machine) Why(node belfry.NodeID) []belfry.Evidence {
	if p := m.byID[node]; p != nil {
		return slices.Clone(p.evidence)
	}
	return nil
}

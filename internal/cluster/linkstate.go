package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A shown is what a row says to people, programs and the peer.
type shown struct {
	state  belfry.LinkState
	since  time.Time
	reason string
	works  bool      // it carries what it should; while unknown, as before
	failed time.Time // when it last ceased to work; zero: never
}

// A Transition is one change of a link that was shown.
type Transition struct {
	At       time.Time
	From, To belfry.LinkState
	Reason   string
}

const (
	// transitionsMax is how many of a link are kept for people.
	transitionsMax = 32
	// changesKept is how many changes back a watcher may resume.
	changesKept = 4096
)

// setLink moves a row to what is heard, and shows what that means.
func (m *Machine) setLink(now time.Time, r *row, state belfry.LinkState, reason string) {
	if r.state == state && r.reason == reason {
		return
	}
	from := r.state
	switch state {
	case belfry.LinkInit:
		r.init(now, reason)
	case belfry.LinkDown:
		r.receptions = 0
		r.seq.interrupted()
		r.quality.interrupted()
	case belfry.LinkOneWayIn:
		r.echoes = 0
	}
	if from != state {
		r.since = now
	}
	r.state, r.reason = state, reason
	p := m.byID[r.id.Peer]
	r.counted(now, p, from)
	m.show(now, p, r)
}

// counted notes that a link went up or down. It is no flapping when the peer
// itself was away, or started again, or when somebody here set the interface
// down: what came and went then is not the link.
func (r *row) counted(now time.Time, p *member, from belfry.LinkState) {
	switch {
	case r.state == belfry.LinkUp && from == belfry.LinkInit:
		r.ups++
		away := p.held.Verdict != belfry.VerdictUp || p.held.Since.After(r.charged)
		switch {
		case r.charged.IsZero():
		case away:
			r.flap.refund(now)
		default:
			r.flap.moved(now)
		}
		r.charged, r.excused = time.Time{}, false
	case r.state == belfry.LinkDown && from != belfry.LinkInit && from != belfry.LinkDown:
		r.downs++
		if !r.excused {
			r.charged = now
			r.flap.moved(now)
		}
	}
}

// meaning is the table of cluster.md 10: the first that holds.
func (m *Machine) meaning(now time.Time, r *row) (belfry.LinkState, string) {
	if i := m.interfaces[r.link.Network]; !i.works(now) {
		return i.state()
	}
	r.flap.fade(now)
	switch {
	case r.state == belfry.LinkUnknown:
		return r.state, r.reason
	case r.flap.on && r.usable():
		return belfry.LinkFlapping, "too many changes; it works now"
	case r.flap.on:
		return belfry.LinkFlapping, "too many changes; it does not work now"
	case r.state == belfry.LinkDown:
		if reason, heard := r.heardThere(now, m.byID[r.id.Peer]); heard {
			return belfry.LinkOneWayOut, reason
		}
	case r.state == belfry.LinkUp && r.quality.degraded:
		return belfry.LinkDegraded, r.quality.why
	}
	return r.state, r.reason
}

// rx tells whether the peer is heard on this link.
func (r *row) rx() bool {
	switch r.state {
	case belfry.LinkUp, belfry.LinkOneWayIn:
		return true
	case belfry.LinkInit:
		return r.receptions > 0
	}
	return false
}

// show brings what a row says up to date and tells what changed. A link that
// flaps says of its single changes only that it works no longer.
func (m *Machine) show(now time.Time, p *member, r *row) {
	state, reason := m.meaning(now, r)
	worked := r.shown.works
	r.shown.works = r.works(now, p, state)
	if worked && !r.shown.works {
		r.shown.failed = now
	}
	if state == r.shown.state && reason == r.shown.reason {
		if r.shown.works != worked {
			m.contact(now, p, reason)
		}
		return
	}
	from := r.shown.state
	r.shown.state, r.shown.reason = state, reason
	m.version++
	r.version = m.version
	if from == state {
		if state == belfry.LinkFlapping && worked && !r.shown.works {
			m.out.Changes = append(m.out.Changes, LinkFailed{Peer: r.id.Peer, Index: r.id.Index, Network: r.link.Network, At: now})
		}
		m.contact(now, p, reason)
		return
	}
	r.shown.since = now
	if len(r.transitions) == transitionsMax {
		r.transitions = slices.Delete(r.transitions, 0, 1)
	}
	r.transitions = append(r.transitions, Transition{At: now, From: from, To: state, Reason: reason})
	m.out.Changes = append(m.out.Changes, LinkChange{
		Peer: r.id.Peer, Index: r.id.Index, Network: r.link.Network, From: from, To: state, Reason: reason, At: now,
		Version: r.version, Loss: r.recentLoss(), Known: r.rtt.known, MRT: r.rtt.MRT(), D: r.rtt.D(), Jitter: r.arrival.jitter,
		PeerState: r.peerState, Rx: r.rx(),
	})
	m.contact(now, p, reason)
}

const (
	// A link that flaps brings back a peer that is heard on no other link at once,
	// but not sooner after the last time than returnFirst, and twice as long with
	// each time, up to returnMost: so the general state does not flap with it.
	returnFirst = time.Second
	returnMost  = 64 * time.Second
	// settledFor is how long it has to be two-way to bring the peer back in any case.
	settledFor = 3 * time.Second
)

// works tells whether a link that is shown in a state carries what it should. A
// link that flaps takes no peer away that is heard on it.
func (r *row) works(now time.Time, p *member, state belfry.LinkState) bool {
	switch state {
	case belfry.LinkUp, belfry.LinkDegraded:
		return true
	case belfry.LinkUnknown:
		return r.shown.works
	case belfry.LinkFlapping:
		return r.usable() && (p.contact.up || !now.Before(r.returns(p)))
	}
	return false
}

// returns is when a link that flaps and is two-way brings its peer back.
func (r *row) returns(p *member) time.Time {
	return minTime(p.contact.cameUp.Add(p.contact.spacing), r.since.Add(settledFor))
}

// returnDue is when the next link that flaps brings p back; the zero time if none
// does by itself.
func (p *member) returnDue() (next time.Time) {
	for _, r := range p.rows {
		if r.shown.state == belfry.LinkFlapping && r.usable() && !p.contact.up {
			next = sooner(next, r.returns(p))
		}
	}
	return next
}

// contact tells when the general state of a peer changes: up while any of its
// links works. It changes only between none and some (cluster.md 10), and is
// not known while no link of a peer that was never heard has been given up.
func (m *Machine) contact(now time.Time, p *member, reason string) {
	up := p.linksUp()
	known := p.contact.known || up > 0 || !slices.ContainsFunc(p.rows, func(r *row) bool { return r.shown.state == belfry.LinkInit })
	if !known || p.contact.known && (up > 0) == p.contact.up {
		return
	}
	first := !p.contact.known
	p.contact.known, p.contact.up, p.contact.since, p.contact.reason = true, up > 0, now, reason
	if up > 0 {
		p.contact.returned(now, p)
	}
	m.out.Changes = append(m.out.Changes, ContactChange{
		Peer: p.ID, Name: p.Name, First: first, Up: up > 0, Reason: reason, LinksUp: up, LinksTotal: len(p.rows), At: now,
	})
}

// linksUp counts the links to p that work.
func (p *member) linksUp() (n int) {
	for _, r := range p.rows {
		if r.shown.works {
			n++
		}
	}
	return n
}

// contactState is the general state of a watched peer.
type contactState struct {
	known  bool // else neither up nor down has been found out yet
	up     bool
	since  time.Time // zero: not known
	reason string

	cameUp  time.Time     // the last time; zero: never
	spacing time.Duration // from then until a link that flaps may bring it up again; 0: at once
}

// returned notes that p came up: by links that flap alone, or by one that does not.
func (c *contactState) returned(now time.Time, p *member) {
	c.cameUp = now
	if slices.ContainsFunc(p.rows, func(r *row) bool { return r.shown.works && r.shown.state != belfry.LinkFlapping }) {
		c.spacing = 0
		return
	}
	c.spacing = min(max(2*c.spacing, returnFirst), returnMost)
}

// A ContactStatus is the general state of a peer with rows.
type ContactStatus struct {
	Peer                belfry.NodeID
	Name                string
	Known               bool // else it is neither up nor down yet
	Up                  bool
	Since               time.Time // zero: not known
	Reason              string
	LinksUp, LinksTotal int
}

// Contacts is all of them, by name.
func (m *Machine) Contacts() []ContactStatus {
	var all []ContactStatus
	for _, p := range m.watched {
		all = append(all, ContactStatus{
			Peer: p.ID, Name: p.Name, Known: p.contact.known, Up: p.contact.up, Since: p.contact.since, Reason: p.contact.reason,
			LinksUp: p.linksUp(), LinksTotal: len(p.rows),
		})
	}
	slices.SortFunc(all, func(a, b ContactStatus) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.Peer.Compare(b.Peer)) })
	return all
}

// LinksVersion counts the changes of state or reason over all rows, and the
// rows that ended.
func (m *Machine) LinksVersion() uint64 { return m.version }

// A RemovedLink is a row that ended: the peer is not watched any longer.
type RemovedLink struct {
	Peer     belfry.NodeID
	PeerName string
	Link
	Version uint64
}

// A LinkDelta is what changed in the link database since a version.
type LinkDelta struct {
	Version uint64 // up to which it goes
	Whole   bool   // Links is all rows: from is 0, of another start, or too long ago
	Links   []LinkStatus
	Removed []RemovedLink // in the order in which they ended
}

// LinksSince is what changed after a version: each row once, as it is now.
func (m *Machine) LinksSince(now time.Time, from uint64) LinkDelta {
	d := LinkDelta{Version: m.version, Links: m.Links(now)}
	if from == 0 || from > m.version || m.version-from > changesKept {
		d.Whole = true
		return d
	}
	d.Links = slices.DeleteFunc(d.Links, func(l LinkStatus) bool { return l.Version <= from })
	for _, r := range m.removedLinks {
		if r.Version > from {
			d.Removed = append(d.Removed, r)
		}
	}
	return d
}

// endRow notes that a row ended.
func (m *Machine) endRow(p *member, r *row) {
	m.version++
	if len(m.removedLinks) > 0 && m.version-m.removedLinks[0].Version > changesKept {
		m.removedLinks = slices.Delete(m.removedLinks, 0, 1)
	}
	m.removedLinks = append(m.removedLinks, RemovedLink{Peer: p.ID, PeerName: p.Name, Link: r.link, Version: m.version})
}

// lostWay is called when a link ceased to be two-way.
func (m *Machine) lostWay(p *member) {
	if p.held.Cause == belfry.CauseDirect && !slices.ContainsFunc(p.rows, (*row).twoWay) {
		p.held.Cause = belfry.CauseIndirect // others vouch for it, or it is about to be verified
	}
}

// othersOf is what this node holds of the other links of a pair, for the peer.
func (p *member) othersOf(r *row, hb *Heartbeat) {
	for _, o := range p.rows {
		if o != r && int(hb.NumOthers) < len(hb.Others) {
			hb.Others[hb.NumOthers] = belfry.LinkView{Link: o.id.Index, State: o.shown.state, Loss: o.seq.loss()}
			hb.NumOthers++
		}
	}
}

// heardOthers takes what the peer holds of the other links of the pair.
func (m *Machine) heardOthers(now, at time.Time, p *member, hb *Heartbeat) {
	for _, v := range hb.Others[:hb.NumOthers] {
		for _, r := range p.rows {
			if r.theirs == v.Link && !at.Before(r.peerAt) {
				r.peerState, r.peerLoss, r.peerAt = v.State, v.Loss, at
				m.show(now, p, r)
			}
		}
	}
}

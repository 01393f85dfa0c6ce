package witness

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A node is what is held of one member, or of one that was.
type node struct {
	Member
	known       bool // it is a member
	verdict     belfry.Verdict
	cause       belfry.Cause
	incarnation belfry.Incarnation

	bad           bool // some link to it does not work well
	cut           bool // none does, and nothing was heard of it since
	heard         bool // its witness has said how it does, in this incarnation
	off, leaving  bool // no client is served there; it is being emptied, as it says
	registrations int  // at its witness, as it said last
	draining      bool // it is to be emptied, as this witness was told
	kept          bool // the configuration says so
	drain         *drain

	instances []*instance // what it holds, oldest first
}

// node finds or makes one; an id may be heard of before its member is.
func (m *Machine) node(id belfry.NodeID) *node {
	n := m.nodes[id]
	if n == nil {
		n = &node{Member: Member{ID: id}}
		if id == m.cfg.Node {
			n.verdict, n.incarnation, n.Name = belfry.VerdictUp, m.cfg.Incarnation, m.cfg.Name
		}
		m.nodes[id] = n
	}
	return n
}

// named finds a member by its name.
func (m *Machine) named(name string) *node {
	for _, n := range m.members {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// at finds the member that a client means, by name or address.
func (m *Machine) at(text string) *node {
	for _, n := range m.members {
		if n.Name == text || slices.Contains(n.Hosts, text) || slices.Contains(n.Addresses, text) {
			return n
		}
	}
	return nil
}

func (m *Machine) setMembers(now time.Time, msg Members) {
	for _, n := range m.members {
		n.known = false
	}
	m.members = m.members[:0]
	for _, member := range msg.Nodes {
		n := m.node(member.ID)
		n.Member, n.known = member, true
		m.members = append(m.members, n)
	}
	slices.SortFunc(m.members, func(a, b *node) int { return a.ID.Compare(b.ID) })
	for _, r := range m.sortedResources() {
		m.place(now, r)
		r.changed(m, now)
	}
}

// setVerdict is where failures come in. What a holder reported before it was
// doubted counts again only when it has spoken, or has had its time to.
func (m *Machine) setVerdict(now time.Time, v Verdict) {
	n := m.node(v.Node)
	if v.Node == m.cfg.Node {
		return // this node is up: it runs
	}
	again := v.Verdict == belfry.VerdictUp && (n.verdict != belfry.VerdictUp || n.incarnation != v.Incarnation)
	anew := n.incarnation != v.Incarnation
	n.verdict, n.cause, n.incarnation = v.Verdict, v.Cause, v.Incarnation
	if anew {
		n.heard, n.off, n.leaving, n.registrations = false, false, false, 0
	}
	n.cut = n.cut && !again
	for _, i := range n.instances {
		if again && (!anew || i.report.Incarnation != v.Incarnation) {
			m.await(now, i)
		}
		m.probe(now, i)
		i.resource.changed(m, now)
	}
}

// setLink takes whether a node can be reached from here. One that others hold up
// and that is cut off from here is no failure, but what it reported is old.
func (m *Machine) setLink(now time.Time, msg Link) {
	n := m.node(msg.Node)
	n.bad = !msg.Good
	if n.cut == msg.Cut {
		return
	}
	n.cut = msg.Cut
	for _, i := range slices.Clone(n.instances) {
		if !n.cut && n.verdict == belfry.VerdictUp {
			m.await(now, i)
		}
		m.probe(now, i)
		i.resource.changed(m, now)
	}
}

// spoken ends the doubt of a cut: what a node reports arrives.
func (m *Machine) spoken(now time.Time, n *node) {
	if !n.cut {
		return
	}
	n.cut = false
	for _, i := range slices.Clone(n.instances) {
		if i.resource.kind != belfry.KindNode {
			i.awaited = later(i.awaited, now.Add(coveredHold))
			m.alarms.set(i, i.awaited)
		}
		i.resource.changed(m, now)
	}
}

// await gives a holder time to say how its resource is.
func (m *Machine) await(now time.Time, i *instance) {
	if i.resource.kind == belfry.KindNode {
		return
	}
	i.awaited = now.Add(firstReport)
	m.alarms.set(i, i.awaited)
}

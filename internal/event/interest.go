package event

import (
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// wanted is what the cluster registrations of this node's own consumers ask
// of other nodes, deduplicated: many applications cost a peer one interest.
type wanted struct {
	byKey  map[wantKey]*want
	list   []*want // by number
	number uint32
	bytes  int  // of all interests in one frame, about
	dirty  bool // some peer has something to be told
}

func newWanted() wanted { return wanted{byKey: map[wantKey]*want{}} }

// wantKey is what makes two registrations the same wish to a peer. Filters,
// edges and limits stay at this node; whether a filter looks at data does not,
// because what differs in that must not merge on its way.
type wantKey struct {
	class, subject     string
	threshold          belfry.Threshold
	onlyWhereMonitored bool
	detailed           bool
	nodes              string
}

// A want is one interest and where it is in force.
type want struct {
	Interest
	key     wantKey
	nodes   []belfry.NodeID // none: all
	regs    []*registration
	at      []coveredBy // in the order the peers appeared
	pending int         // of at
}

// coveredBy is the state of a want at one peer.
type coveredBy struct {
	peer  *peer
	state CoverageState
	err   error
	since time.Time
	ever  bool // it was in force at this incarnation of the peer
}

// word is what a registration can be told of a want at one peer.
type word struct {
	state  CoverageState
	reason string // of CoverageRefused
}

func (c *coveredBy) word() word {
	if c.err == nil {
		return word{state: c.state}
	}
	return word{state: c.state, reason: c.err.Error()}
}

// coverage is what a registration has been told of one element of want.at.
type coverage struct {
	told  word
	known bool
}

// clusterIndex finds the cluster registrations that match a peer's event.
type clusterIndex struct {
	exact map[key][]*registration
	globs []*registration
}

func newClusterIndex() clusterIndex { return clusterIndex{exact: map[key][]*registration{}} }

func (w *want) includes(node belfry.NodeID) bool {
	return len(w.nodes) == 0 || slices.Contains(w.nodes, node)
}

// installCluster makes a registration reach the other nodes.
func (m *Machine) installCluster(now time.Time, r *registration) {
	k, nodes := wantKeyOf(r)
	w := m.wanted.byKey[k]
	if w == nil {
		w = m.newWant(now, r, k, nodes)
	}
	w.regs = append(w.regs, r)
	r.want = w
	if r.wish.exact {
		ek := key{belfry.Class(r.spec.Class), r.wish.subject}
		m.cluster.exact[ek] = append(m.cluster.exact[ek], r)
	} else {
		m.cluster.globs = append(m.cluster.globs, r)
	}
	for _, p := range m.peers {
		m.joinMirrors(r, p)
	}
}

// size is about what the want takes in a frame.
func (k *wantKey) size() int { return interestBytes + len(k.class) + len(k.subject) }

// roomForWant refuses what would make the frame of all interests too large.
func (m *Machine) roomForWant(r *registration) error {
	s := &r.spec
	if s.Scope != belfry.ScopeCluster || m.wanted.bytes+len(s.Class)+len(s.Subject)+interestBytes <= maxAsked {
		return nil
	}
	if k, _ := wantKeyOf(r); m.wanted.byKey[k] != nil {
		return nil
	}
	return refusal(belfry.ErrLimit, "this node asks others for %d events, %d bytes; at most %d bytes are possible, a pattern may stand for many", len(m.wanted.list), m.wanted.bytes, maxAsked)
}

// wantKeyOf also gives the nodes, sorted.
func wantKeyOf(r *registration) (wantKey, []belfry.NodeID) {
	s := &r.spec
	nodes := slices.Clone(s.Nodes)
	slices.SortFunc(nodes, belfry.NodeID.Compare)
	nodes = slices.Compact(nodes)
	var text strings.Builder
	for _, n := range nodes {
		text.Write(n[:])
	}
	return wantKey{s.Class, s.Subject, s.Threshold, s.OnlyWhereMonitored, r.detailed, text.String()}, nodes
}

func (m *Machine) newWant(now time.Time, r *registration, k wantKey, nodes []belfry.NodeID) *want {
	m.wanted.number++
	w := &want{key: k, nodes: nodes, Interest: Interest{
		Number: m.wanted.number, Class: r.spec.Class, Subject: r.spec.Subject,
		Threshold: r.spec.Threshold, OnlyWhereMonitored: r.spec.OnlyWhereMonitored, Detailed: r.detailed,
		Snapshot: slices.ContainsFunc(r.wish.infos, func(i *belfry.ClassInfo) bool { return i.Kind == belfry.State }),
	}}
	m.wanted.byKey[k] = w
	m.wanted.bytes += k.size()
	m.wanted.list = append(m.wanted.list, w)
	for _, p := range m.peers {
		if !w.includes(p.node) {
			continue
		}
		state := CoverageUnreachable
		if p.live {
			state = CoveragePending
			p.add = append(p.add, w)
			m.wanted.dirty = true
		}
		w.set(now, p, state, nil)
	}
	return w
}

// leaveCluster takes a registration back from the other nodes.
func (m *Machine) leaveCluster(r *registration) {
	if r.wish.exact {
		k := key{belfry.Class(r.spec.Class), r.wish.subject}
		if m.cluster.exact[k] = without(m.cluster.exact[k], r); len(m.cluster.exact[k]) == 0 {
			delete(m.cluster.exact, k)
		}
	} else {
		m.cluster.globs = without(m.cluster.globs, r)
	}
	w := r.want
	if w.regs = without(w.regs, r); len(w.regs) > 0 {
		return
	}
	delete(m.wanted.byKey, w.key)
	m.wanted.bytes -= w.key.size()
	m.wanted.list = without(m.wanted.list, w)
	for _, p := range m.peers {
		if !p.live || !w.includes(p.node) {
			continue
		}
		if i := slices.Index(p.add, w); i >= 0 { // not sent yet
			p.add = slices.Delete(p.add, i, i+1)
			continue
		}
		p.waiting = slices.DeleteFunc(p.waiting, func(a asked) bool { return a.want == w })
		p.drop = append(p.drop, w.Number)
		m.wanted.dirty = true
	}
}

func without[T comparable](list []T, v T) []T {
	if i := slices.Index(list, v); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// askAll sends a node that has come up the full set; nothing if there is
// nothing to ask and nothing was.
func (m *Machine) askAll(now time.Time, p *peer) {
	p.add, p.drop, p.waiting = nil, nil, nil
	for _, w := range m.wanted.list {
		if w.includes(p.node) {
			p.add = append(p.add, w)
			w.set(now, p, CoveragePending, nil)
		}
	}
	p.full = len(p.add) > 0 || p.everAsked
	m.wanted.dirty = m.wanted.dirty || p.full
}

// flushInterests sends what has changed since the last time, one frame a peer.
func (m *Machine) flushInterests() {
	if !m.wanted.dirty {
		return
	}
	m.wanted.dirty = false
	for _, p := range m.peers {
		if !p.live || !p.full && len(p.add) == 0 && len(p.drop) == 0 {
			continue
		}
		f := Interests{Base: p.asked, Version: p.asked + 1, Full: p.full, Remove: p.drop}
		if p.full {
			f.Base = 0
		}
		for _, w := range p.add {
			f.Add = append(f.Add, w.Interest)
			p.waiting = append(p.waiting, asked{f.Version, w})
		}
		for _, at := range m.formerPositions(p) {
			m.tellPeer(p, at)
		}
		p.asked, p.everAsked, p.full, p.add, p.drop = f.Version, true, false, nil, nil
		m.tellPeer(p, f)
	}
}

// interestsAck learns where the interests are in force.
func (m *Machine) interestsAck(now time.Time, p *peer, f *InterestsAck) {
	if f.Full {
		m.askAll(now, p)
		p.full = true
		m.wanted.dirty = true
		return
	}
	for _, refused := range f.Refused {
		for _, w := range m.wanted.list {
			if w.Number == refused.Number {
				p.waiting = slices.DeleteFunc(p.waiting, func(a asked) bool { return a.want == w })
				w.set(now, p, CoverageRefused, refused.Err)
				m.coverageChanged(w)
			}
		}
	}
	p.learnPlaced(f.Placed)
	n := 0
	for n < len(p.waiting) && p.waiting[n].version <= f.Version {
		m.installed(now, p, p.waiting[n].want)
		n++
	}
	p.waiting = slices.Delete(p.waiting, 0, n)
}

// installed says that a want is in force at a peer. Only from now on do its
// notifications count for it: one that was on its way before may belong to an
// interest that was taken back, and nobody could tell what follows it.
func (m *Machine) installed(now time.Time, p *peer, w *want) {
	w.set(now, p, CoverageInstalled, nil)
	c := w.atPeer(p)
	if !c.ever {
		c.ever = true
		for _, r := range w.regs {
			m.joinMirrors(r, p)
		}
	}
	m.coverageChanged(w)
}

// atPeer is nil when nothing is known of the want at the peer.
func (w *want) atPeer(p *peer) *coveredBy {
	if i := slices.IndexFunc(w.at, func(c coveredBy) bool { return c.peer == p }); i >= 0 {
		return &w.at[i]
	}
	return nil
}

// takes tells whether what comes of the peer can be meant for the want.
func (w *want) takes(p *peer) bool {
	c := w.atPeer(p)
	return c != nil && c.ever
}

// uncover says that a node's events reach nobody here for now.
func (m *Machine) uncover(now time.Time, p *peer) {
	p.add, p.drop, p.waiting, p.full = nil, nil, nil, false
	for _, w := range m.wanted.list {
		if w.includes(p.node) {
			w.set(now, p, CoverageUnreachable, nil)
			m.coverageChanged(w)
		}
	}
}

// set notes the state of a want at a peer.
func (w *want) set(now time.Time, p *peer, s CoverageState, err error) {
	c := w.atPeer(p)
	if c == nil {
		w.at = append(w.at, coveredBy{peer: p, state: CoverageUnreachable})
		c = &w.at[len(w.at)-1]
	}
	if c.state == CoveragePending {
		w.pending--
	}
	if s == CoveragePending {
		w.pending++
	}
	c.state, c.err, c.since = s, err, now
}

// coverageChanged tells the registrations, and answers those that waited for
// the last peer.
func (m *Machine) coverageChanged(w *want) {
	for _, r := range w.regs {
		switch {
		case r.request == 0:
			r.wake()
		case w.pending == 0:
			m.heard(r, awaitPeers)
		}
	}
}

// coverageOf is the state of a registration at every node it is for.
func (m *Machine) coverageOf(r *registration) (list []Coverage) {
	if len(r.spec.Nodes) == 0 || slices.Contains(r.spec.Nodes, m.cfg.Node) {
		list = append(list, Coverage{Node: m.cfg.Node, State: CoverageInstalled})
	}
	r.coverage = make([]coverage, len(r.want.at))
	for i := range r.want.at {
		r.coverage[i] = coverage{told: r.want.at[i].word(), known: true}
	}
	list = append(list, m.coverageElsewhere(r.want)...)
	slices.SortFunc(list, func(a, b Coverage) int { return a.Node.Compare(b.Node) })
	return list
}

// coverageElsewhere is the state of a want at every other node it is for.
func (m *Machine) coverageElsewhere(w *want) (list []Coverage) {
	for _, c := range w.at {
		if m.peer(c.peer.node) != c.peer { // removed since
			continue
		}
		list = append(list, Coverage{Node: c.peer.node, State: c.state, Since: c.since, Err: c.err})
	}
	for _, node := range w.nodes {
		if node != m.cfg.Node && m.peer(node) == nil {
			list = append(list, Coverage{Node: node, State: CoverageUnreachable})
		}
	}
	slices.SortFunc(list, func(a, b Coverage) int { return a.Node.Compare(b.Node) })
	return list
}

// news tells whether element i of want.at is something to tell. That a node
// is being asked is not: what comes of it follows. Another reason to refuse is,
// because the remedy is another one.
func (r *registration) news(i int) bool {
	c := &r.want.at[i]
	return c.state != CoveragePending && (i >= len(r.coverage) || !r.coverage[i].known || r.coverage[i].told != c.word())
}

func (r *registration) coverageNews() bool {
	if r.want == nil || r.request != 0 || r.left {
		return false
	}
	for i := range r.want.at {
		if r.news(i) {
			return true
		}
	}
	return false
}

// takeCoverage tells which nodes began or ceased to be covered.
func (r *registration) takeCoverage(b *basket) {
	if r.want == nil || r.request != 0 || r.left {
		return
	}
	for i := range r.want.at {
		if b.full() {
			return
		}
		if !r.news(i) {
			continue
		}
		c := &r.want.at[i]
		for i >= len(r.coverage) {
			r.coverage = append(r.coverage, coverage{})
		}
		r.coverage[i] = coverage{told: c.word(), known: true}
		n := belfry.Notification{
			Kind: belfry.KindCoverage, Registration: r.number, Node: c.peer.node, NodeName: c.peer.name,
			Incarnation: c.peer.incarnation, Event: belfry.EventID{Class: belfry.Class(r.spec.Class), Subject: r.spec.Subject},
			FirstTime: c.since.UTC(), Time: c.since.UTC(), Code: int32(c.state), Edge: belfry.EdgeFailing,
			Reason: r.coverage[i].told.reason,
		}
		if c.state == CoverageInstalled {
			n.Edge = belfry.EdgeRecovered
		}
		b.add(n)
	}
}

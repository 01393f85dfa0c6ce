package cluster

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// extraMost is how many peers are watched beside the ring because somebody
	// asked for them, each at extraEvery (cluster.md 2).
	extraMost  = 16
	extraEvery = 2 * time.Second
	// wantedFor is how long a member that watches this node on request is watched
	// in return without saying so again.
	wantedFor = 5 * extraEvery
)

// setInterests takes the peers that somebody here has asked for. Those beyond
// extraMost are not watched: what the cluster says of them has to do.
func (m *Machine) setInterests(now time.Time, peers []belfry.NodeID) {
	m.interests = slices.Compact(slices.SortedFunc(slices.Values(peers), belfry.NodeID.Compare))
	for _, p := range slices.Clone(m.watched) {
		if p.extra && !slices.Contains(m.interests, p.ID) {
			p.extra = false
			for _, r := range p.rows {
				m.sendHeartbeat(now, r, false, false) // which says that it is the last
			}
		}
	}
	m.rewatch(now)
}

// watchExtras begins to watch those that were asked for and are no neighbours.
func (m *Machine) watchExtras(now time.Time) {
	n := 0
	for _, id := range m.interests {
		p := m.find(id)
		if p == nil || p == m.self {
			continue
		}
		p.extra = n < extraMost && !slices.Contains(m.peers, p) && p.inRing() && !m.self.Stopped
		if p.extra {
			n++
			m.watch(now, p)
		}
	}
}

// extras are those that are watched because somebody asked.
func (m *Machine) extras() (all []*member) {
	for _, id := range m.interests {
		if p := m.byID[id]; p != nil && p.extra {
			all = append(all, p)
		}
	}
	return all
}

// theirIndex is the index that the peer gives a link: it counts its own
// networks in its own order.
func (m *Machine) theirIndex(p *member, l Link) uint8 {
	for _, other := range m.table.links(p.Member, m.self.Member) {
		if other.Local == l.Remote && other.Remote == l.Local {
			return other.Index
		}
	}
	return l.Index
}

// onRequest tells whether the pair is watched because a program asked for it,
// here or there.
func (p *member) onRequest(now time.Time) bool {
	return p.extra || p.guest && !p.wanted.IsZero() && now.Sub(p.wanted) <= wantedFor
}

// noWay has the evidence of a link gathered at once: its kernel says that
// there is no way, which may be true for a moment only.
func (m *Machine) noWay(now time.Time, msg Unreachable) {
	p := m.find(msg.Peer)
	if p == nil {
		return
	}
	if r := p.row(msg.Link); r != nil && !r.blocked && r.usable() && len(r.pending) == 0 {
		m.probe(now, r)
	}
}

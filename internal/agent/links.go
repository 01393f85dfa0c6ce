package agent

import (
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/producer/link"
)

// updateProducers gives those of cluster classes what there is now; it is for
// the cluster loop.
func (a *Agent) updateProducers(m *cluster.Machine) {
	a.nodes.Update(nodeStates(m.Nodes(time.Now())))
	a.updateLinks(m)
}

func (a *Agent) updateLinks(m *cluster.Machine) {
	a.links.Update(linkView(m.Links(time.Now()), m.Contacts()))
}

// watchPeers has the cluster machine watch these peers beside its neighbours.
// Names that nobody has are left out: nothing can be heard of them.
func (a *Agent) watchPeers(names []string) {
	table := a.members.Table()
	var peers []belfry.NodeID
	for _, name := range names {
		for _, n := range table.Nodes {
			if n.Name == name && n.ID != a.id.node.ID {
				peers = append(peers, n.ID)
			}
		}
	}
	a.cluster.call(func(m *cluster.Machine) {
		m.Receive(time.Now(), cluster.Interests{Peers: peers})
		a.updateLinks(m)
	})
}

// LinksSince is what changed in the link database after a version, and a
// channel that is closed when more has.
func (a *Agent) LinksSince(version uint64) (delta cluster.LinkDelta, changed <-chan struct{}) {
	changed = a.linkNews.wait() // before looking: a change between the two wakes too early, not too late
	a.cluster.call(func(m *cluster.Machine) { delta = m.LinksSince(time.Now(), version) })
	return delta, changed
}

// A bell wakes all who wait for the next change. The zero bell is ready.
type bell struct {
	mu   sync.Mutex
	next chan struct{} // nil: nobody waits
}

// wait is closed by the next ring.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// share is a loss in parts of 255.
func share(loss uint8) float64 { return float64(loss) / 255 }

// linkState is one change in the words of the link producer, whose readers
// know nodes by name.
func (a *Agent) linkState(c cluster.LinkChange) link.State {
	return link.State{
		Peer: a.nameOf(c.Peer), Network: c.Network, State: c.To, Reason: c.Reason, Since: c.At, Version: c.Version,
		Rx: c.Rx, Loss: share(c.Loss), Known: c.Known, MRT: c.MRT, D: c.D, Jitter: c.Jitter, PeerState: c.PeerState,
	}
}

func contactState(c cluster.ContactChange) link.ContactState {
	return link.ContactState{
		Peer: c.Name, State: contactWord(true, c.Up), Reason: c.Reason, LinksUp: c.LinksUp, LinksTotal: c.LinksTotal, Since: c.At,
	}
}

// contactWord is the general state of a peer.
func contactWord(known, up bool) belfry.LinkState {
	switch {
	case !known:
		return belfry.LinkUnknown
	case up:
		return belfry.LinkUp
	}
	return belfry.LinkDown
}

// linkView is the cluster machine's listings in the words of the link
// producer.
func linkView(rows []cluster.LinkStatus, contacts []cluster.ContactStatus) (v link.View) {
	for i := range rows {
		r := &rows[i]
		v.Links = append(v.Links, link.State{
			Peer: r.PeerName, Network: r.Network, State: r.State, Reason: r.Reason, Since: r.Since, Version: r.Version,
			Rx: r.Rx, Loss: share(r.RecentLoss), Known: r.Known, MRT: r.MRT, D: r.D, Jitter: r.Jitter, PeerState: r.PeerState,
		})
	}
	for _, c := range contacts {
		v.Contacts = append(v.Contacts, link.ContactState{
			Peer: c.Name, State: contactWord(c.Known, c.Up), Reason: c.Reason, LinksUp: c.LinksUp, LinksTotal: c.LinksTotal, Since: c.Since,
		})
	}
	return v
}

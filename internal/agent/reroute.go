package agent

import (
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// reroute takes the stream to a peer off the links that have failed, if another
// one is well. Without it a network that is cut would keep the stream until
// somebody sends, and at the dialling end for good where only the other end
// sends: that one's kernel gives up after TCP_USER_TIMEOUT and can not say so
// across the cut.
func (a *Agent) reroute(peer belfry.NodeID) {
	var links []cluster.LinkStatus
	a.cluster.call(func(m *cluster.Machine) { links = m.Links(time.Now()) })
	for _, l := range failedLinks(links, peer) {
		a.streams.Reroute(peer, l.Local.Addr(), l.Remote.Addr(), l.Since)
	}
}

// failedLinks are those of a peer that carry nothing in one direction at least,
// while another one is well. There are none when the peer itself may be silent:
// the end of its stream is then evidence that must not be thrown away.
func failedLinks(links []cluster.LinkStatus, peer belfry.NodeID) (failed []cluster.LinkStatus) {
	well := false
	for _, l := range links {
		if l.Peer != peer {
			continue
		}
		switch l.State {
		case belfry.LinkUp, belfry.LinkDegraded:
			// A peer that is silent on all links reaches the deviation that is
			// allowed on all of them at about the same time.
			well = well || 2*l.Deviation < l.MaxDeviation
		case belfry.LinkDown, belfry.LinkOneWayIn, belfry.LinkOneWayOut, belfry.LinkAdminDown, belfry.LinkNoCarrier, belfry.LinkFlapping:
			failed = append(failed, l)
		}
	}
	if !well {
		return nil
	}
	return failed
}

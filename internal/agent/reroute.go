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
		since := l.Since
		if l.Failed.After(since) {
			since = l.Failed // one that flaps has failed again
		}
		a.streams.Reroute(peer, l.Local.Addr(), l.Remote.Addr(), since)
	}
}

// failedLinks are those of a peer that carry nothing in one direction at least,
// while another one is well. A link that flaps has failed beside one that does
// not, and is well enough, as long as it works, where there is no other. There
// are none when the peer itself may be silent: the end of its stream is then
// evidence that must not be thrown away.
func failedLinks(links []cluster.LinkStatus, peer belfry.NodeID) (failed []cluster.LinkStatus) {
	var steady, flapping bool // one that is well
	for _, l := range links {
		// A peer that is silent on all links reaches the deviation that is
		// allowed on all of them at about the same time.
		if l.Peer == peer && l.Works && 2*l.Deviation < l.MaxDeviation {
			steady = steady || l.State != belfry.LinkFlapping
			flapping = flapping || l.State == belfry.LinkFlapping
		}
	}
	if !steady && !flapping {
		return nil
	}
	for _, l := range links {
		if l.Peer == peer && hasFailed(l, steady) {
			failed = append(failed, l)
		}
	}
	return failed
}

// hasFailed judges one link, beside one that is well and does not flap, or not.
func hasFailed(l cluster.LinkStatus, steady bool) bool {
	switch l.State {
	case belfry.LinkDown, belfry.LinkOneWayIn, belfry.LinkOneWayOut, belfry.LinkAdminDown, belfry.LinkNoCarrier:
		return true
	case belfry.LinkFlapping:
		return steady || !l.Works
	}
	return false
}

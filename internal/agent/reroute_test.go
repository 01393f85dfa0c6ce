package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

func TestStreamsLeaveAFailedLinkOnlyForOneThatIsWell(t *testing.T) {
	t.Parallel()
	peer, other := belfry.NodeID{1}, belfry.NodeID{2}
	link := func(peer belfry.NodeID, network string, state belfry.LinkState, deviation int) cluster.LinkStatus {
		return cluster.LinkStatus{Peer: peer, Link: cluster.Link{Network: network}, State: state, Deviation: deviation, MaxDeviation: 20, Works: state == belfry.LinkUp || state == belfry.LinkDegraded}
	}
	works := func(l cluster.LinkStatus) cluster.LinkStatus {
		l.Works = true
		return l
	}
	for name, test := range map[string]struct {
		links []cluster.LinkStatus
		want  []string
	}{
		"both are up":                   {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkUp, 0), link(peer, "net2", belfry.LinkUp, 0)}, nil},
		"one is down":                   {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkUp, 1), link(peer, "net2", belfry.LinkDown, 21)}, []string{"net2"}},
		"one does not reach the peer":   {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkOneWayIn, 0), link(peer, "net2", belfry.LinkDegraded, 0)}, []string{"net1"}},
		"the other is about to follow":  {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkDown, 21), link(peer, "net2", belfry.LinkUp, 18)}, nil},
		"the other flaps and works":     {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkDown, 21), works(link(peer, "net2", belfry.LinkFlapping, 0))}, []string{"net1"}},
		"the other flaps and is away":   {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkDown, 21), link(peer, "net2", belfry.LinkFlapping, 21)}, nil},
		"both flap and one works":       {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkFlapping, 21), works(link(peer, "net2", belfry.LinkFlapping, 0))}, []string{"net1"}},
		"one flaps beside a steady one": {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkUp, 0), works(link(peer, "net2", belfry.LinkFlapping, 0))}, []string{"net2"}},
		"the only one is down":          {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkDown, 21)}, nil},
		"another peer's is well":        {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkDown, 21), link(other, "net1", belfry.LinkUp, 0)}, nil},
		"the other is not yet two-way":  {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkDown, 21), link(peer, "net2", belfry.LinkInit, 0)}, nil},
		"what comes up has not failed":  {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkUp, 0), link(peer, "net2", belfry.LinkInit, 0)}, nil},
		"another peer's has failed too": {[]cluster.LinkStatus{link(peer, "net1", belfry.LinkUp, 0), link(other, "net2", belfry.LinkDown, 21)}, nil},
	} {
		var got []string
		for _, l := range failedLinks(test.links, peer) {
			got = append(got, l.Network)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

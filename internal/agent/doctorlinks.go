package agent

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	// linkLate is how long a link to a node that is up may take to work first.
	linkLate = 10 * time.Second
	// peersNamed is how many peers one finding names.
	peersNamed = 5
)

// links judges the links to the nodes that are up: what works over the others is
// silently one network less.
func (d doctor) links() (found findings) {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	links, err := d.ask.Links()
	if err != nil {
		found.add(LevelUnknown, "%v; run belfry doctor links again", err)
		return found
	}
	up := map[string]bool{}
	for _, n := range status.GetNodes() {
		if !n.GetSelf() && n.GetVerdict() == belfry.VerdictUp.String() {
			up[n.GetId()] = true
		}
	}
	type kind struct{ network, state string }
	bad, works := map[kind][]*belfryv1.Link{}, 0
	for _, l := range links {
		switch {
		case !up[l.GetPeerId()]:
		case d.ails(l):
			k := kind{l.GetNetwork(), l.GetState()}
			bad[k] = append(bad[k], l)
		default:
			works++
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(bad), func(a, b kind) int {
		return cmp.Or(strings.Compare(a.network, b.network), strings.Compare(a.state, b.state))
	}) {
		found.add(LevelWarning, "%s", linksText(bad[k]))
	}
	return found.orElse("%d to %d other nodes that are up", works, len(up))
}

// ails tells whether a link to a node that is up is not as it should be.
func (d doctor) ails(l *belfryv1.Link) bool {
	switch l.GetState() {
	case belfry.LinkUp.String(), belfry.LinkUnknown.String():
		return false
	case belfry.LinkInit.String():
		return d.now.Sub(l.GetSince().AsTime()) > linkLate
	}
	return true
}

// linksText names links of one network and state, with the reason of the first.
func linksText(links []*belfryv1.Link) string {
	first := links[0]
	var peers []string
	for _, l := range links[:min(len(links), peersNamed)] {
		peers = append(peers, l.GetPeer())
	}
	named := strings.Join(peers, ", ")
	if more := len(links) - len(peers); more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s to %s: %s (%s); %s", first.GetNetwork(), named, first.GetState(), first.GetReason(), linkRemedy(first))
}

// linkRemedy is what to look at.
func linkRemedy(l *belfryv1.Link) string {
	show := fmt.Sprintf("belfry link show %s/%s has its figures", l.GetPeer(), l.GetNetwork())
	switch l.GetState() {
	case belfry.LinkAdminDown.String():
		if l.GetInterface() == "" {
			return "this machine needs the address that the cluster knows: belfry doctor addresses tells which"
		}
		return fmt.Sprintf("set the interface up: ip link set dev %s up", l.GetInterface())
	case belfry.LinkNoCarrier.String():
		return fmt.Sprintf("see to the cable of %s and the port at its other end", cmp.Or(l.GetInterface(), "the interface"))
	case belfry.LinkOneWayIn.String():
		return "what this node sends does not arrive: compare the packet filters and routes on the way there; " + show
	case belfry.LinkOneWayOut.String():
		return "what the other node sends does not arrive: compare the packet filters and routes on the way here; " + show
	case belfry.LinkDown.String(), belfry.LinkInit.String():
		return fmt.Sprintf("see that the network works (ping -I %s %s), and that no packet filter drops UDP between the two; %s", hostPart(l.GetLocal()), hostPart(l.GetRemote()), show)
	case belfry.LinkFlapping.String():
		return "it comes and goes: look for a bad cable, port or driver; " + show
	}
	return show
}

// hostPart is an address without its port.
func hostPart(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/node"
)

// tableChanged brings a new table into force in every part of this agent. The
// caller holds the lock of a.config.
func (a *Agent) tableChanged(old *Table) {
	table := a.members.Table()
	settings, err := tunablesOf(table.Tunables)
	if err != nil { // it was validated before it was kept
		a.log.Error("settings not taken", "generation", table.Generation, "err", err)
		return
	}
	a.log.Info("configuration", "generation", table.Generation, "by", a.nameOf(table.Origin))
	if err := table.Listed(a.id.node.ID, a.keys.now().Public()); err != nil {
		a.removed(table)
		return
	}
	a.cluster.receive(cluster.Settings{Tunables: settings})
	a.streams.SetGeneration(table.Generation)
	roles := !sameRoles(old, table)
	if roles {
		a.followRoles(table)
		a.server.Rejudge()
	}
	a.followAuthorities(table)
	if roles || !slices.EqualFunc(old.CA, table.CA, slices.Equal[Certificate]) {
		a.streams.Recheck() // after Rejudge: streams are told why they end
	}
	if table.Exposed {
		a.dutyDue() // the authority's key may be known
	}
	a.followEpoch(old, table)
	if !sameNodes(old, table) {
		a.membersChanged(old, table)
	}
	a.witnessTable(table)
	a.cluster.receive(memberTable(table))
	if !sameNodes(old, table) {
		a.refreshNodes()
	}
}

// sameNodes tells whether two tables have the same members at the same places.
func sameNodes(a, b *Table) bool {
	return slices.EqualFunc(a.Nodes, b.Nodes, func(x, y Node) bool {
		return x.ID == y.ID && x.Number == y.Number && x.Name == y.Name && x.Key.equal(y.Key) &&
			x.Streams == y.Streams && slices.Equal(x.Networks, y.Networks)
	})
}

// membersChanged lets those in that came and closes every door to those that
// went.
func (a *Agent) membersChanged(old, table *Table) {
	for _, n := range old.Nodes {
		if _, ok := table.Node(n.ID); !ok {
			a.log.Info("node removed", "peer", n.Name, "generation", table.Generation)
			delete(a.config.admitted, n.ID)
		}
	}
	for _, n := range table.Nodes {
		if _, ok := old.Node(n.ID); !ok {
			a.log.Info("node added", "peer", n.Name, "generation", table.Generation)
			a.config.admitted[n.ID] = time.Now()
		}
	}
	a.agents.follow(table)
	a.tellMembership(old, table)
	if err := a.udp.SetPeers(datagramPeers(table, a.id.node)); err != nil {
		a.log.Error("peers not taken", "generation", table.Generation, "err", err) // the table was validated
	}
	a.streams.SetPeers(streamPeers(table, a.id.node))
	for _, n := range old.Nodes { // when no stream can come to them any more
		if _, ok := table.Node(n.ID); !ok {
			a.tellEvents(event.PeerRemoved{Node: n.ID})
		}
	}
}

// tellMembership posts who came and who went.
func (a *Agent) tellMembership(old, table *Table) {
	now := time.Now()
	tell := func(class belfry.Class, n Node, names []string) {
		a.notices.TellMembership(class, n.Name, names, now, &belfryv1.NodeMembership{
			Node: n.Name, NodeId: n.ID.String(), Generation: table.Generation, By: a.nameOf(table.Origin),
		})
	}
	left := old.clone()
	left.Nodes = slices.DeleteFunc(left.Nodes, func(n Node) bool { _, ok := table.Node(n.ID); return !ok })
	for _, n := range old.Nodes {
		if _, ok := table.Node(n.ID); !ok {
			tell(node.Removed, n, left.nodeNames())
		}
	}
	for _, n := range table.Nodes {
		if _, ok := old.Node(n.ID); !ok {
			tell(node.Added, n, table.nodeNames())
		}
	}
}

// refreshNodes gives the producers the nodes and links that there are,
// after what became of those that went.
func (a *Agent) refreshNodes() {
	a.cluster.call(func(*cluster.Machine) {}) // the turn that took the table tells its changes at its end
	a.cluster.call(a.updateProducers)
}

// errLeft ends an agent that was asked to leave: no failure.
var errLeft = errors.New("left")

// removed ends this agent: it is no member any more. It knows by the table, or
// was told by these members, which do not say with which generation it was.
func (a *Agent) removed(table *Table, told ...string) {
	how := fmt.Sprintf("with generation %d", table.Generation)
	if len(told) > 0 {
		how = fmt.Sprintf("with generation %d or before, say %s", table.Generation, strings.Join(told, " "))
	}
	err := error(&belfry.Error{
		Op: "agent", Subject: a.id.node.Name,
		Err: fmt.Errorf("%w: removed from cluster %s %s; belfry join TOKEN makes it one again", belfry.ErrNotMember, table.Name, how),
	})
	switch {
	case a.leaving.Load():
		err = errLeft
		a.log.Info("this node has left its cluster", "generation", table.Generation)
	case len(told) > 0:
		a.log.Error("this node was removed from its cluster while it did not hear of it", "generation", table.Generation, "told_by", told)
	default:
		a.log.Error("this node was removed from its cluster", "generation", table.Generation, "by", table.Origin)
	}
	a.group.Go(func() error { return err }) // which ends the agent
}

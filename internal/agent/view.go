package agent

import (
	"context"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/transport"
)

// The methods below are api.Cluster: answers from this node's own memory.

var _ api.Cluster = (*Agent)(nil)

// View is what this node holds of the cluster now.
func (a *Agent) View() api.ClusterView {
	table := a.members.Table()
	v := api.ClusterView{
		ID:          table.Cluster,
		Name:        table.Name,
		Self:        a.id.node.ID,
		Incarnation: a.id.incarnation,
		Generation:  table.Generation,
		Time:        time.Now(),
	}
	a.cluster.call(func(m *cluster.Machine) {
		now := time.Now()
		v.Nodes, v.Links, v.LinksVersion = m.Nodes(now), m.Links(now), m.LinksVersion()
	})
	v.Agents, v.Reports, v.Duplicates = a.agents.of(v.Nodes), a.polled.reports(), a.duplicates.seen(v.Time)
	v.Streams = map[belfry.NodeID]api.StreamInfo{}
	for _, n := range v.Nodes {
		if !n.Self {
			s := a.streams.Status(n.ID)
			info := api.StreamInfo{Up: s.Up, Since: s.Since, Error: s.Error, PeerDials: s.PeerDials}
			if !s.Up {
				info.ClockOffset = a.saidClocks.ahead(n.ID, v.Time)
			}
			v.Streams[n.ID] = info
		}
	}
	return v
}

// Why is the evidence of a node's verdict.
func (a *Agent) Why(id belfry.NodeID) (evidence []belfry.Evidence) {
	a.cluster.call(func(m *cluster.Machine) { evidence = m.Why(id) })
	return evidence
}

// PeerEntries asks another node for its registrations.
func (a *Agent) PeerEntries(ctx context.Context, id belfry.NodeID, req *belfryv1.ListEntriesRequest) (*belfryv1.ListEntriesResponse, error) {
	resp := new(belfryv1.ListEntriesResponse)
	return resp, a.ask(ctx, id, belfryv1.EventService_ListEntries_FullMethodName, req, resp)
}

// PeerLinks asks another node for its link database.
func (a *Agent) PeerLinks(ctx context.Context, id belfry.NodeID, req *belfryv1.ListLinksRequest) (*belfryv1.ListLinksResponse, error) {
	resp := new(belfryv1.ListLinksResponse)
	return resp, a.ask(ctx, id, belfryv1.LinkService_ListLinks_FullMethodName, req, resp)
}

// An agentTable is what agents say of themselves when their stream opens.
type agentTable struct {
	mu     sync.Mutex
	agents map[belfry.NodeID]agentEntry
}

type agentEntry struct {
	api.AgentInfo
	incarnation belfry.Incarnation // that said so
}

func newAgentTable(members *Table) *agentTable {
	t := &agentTable{agents: map[belfry.NodeID]agentEntry{}}
	t.follow(members)
	return t
}

// follow takes the members as they are now.
func (t *agentTable) follow(members *Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	agents := map[belfry.NodeID]agentEntry{}
	for _, n := range members.Nodes {
		info := t.agents[n.ID]
		info.Addresses = nil
		for _, network := range n.Networks {
			info.Addresses = append(info.Addresses, network.Heartbeat.String())
		}
		agents[n.ID] = info
	}
	t.agents = agents
}

func (t *agentTable) set(h transport.Hello) {
	t.mu.Lock()
	defer t.mu.Unlock()
	info, ok := t.agents[h.Node]
	if !ok {
		return // removed since
	}
	info.PID, info.Version, info.Started, info.incarnation = h.PID, h.Version, h.Started, h.Incarnation
	t.agents[h.Node] = info
}

// of is what is known of the agents of these nodes. What an older incarnation
// said is left out: heartbeats of a new one may be here before its stream.
func (t *agentTable) of(nodes []cluster.NodeStatus) map[belfry.NodeID]api.AgentInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	agents := map[belfry.NodeID]api.AgentInfo{}
	for _, n := range nodes {
		info := t.agents[n.ID]
		if info.incarnation != n.Incarnation {
			info.AgentInfo = api.AgentInfo{Addresses: info.Addresses}
		}
		agents[n.ID] = info.AgentInfo
	}
	return agents
}

// nodeStates is the cluster machine's listing in the words of the node
// producer.
func nodeStates(all []cluster.NodeStatus) (v node.View) {
	for _, n := range all {
		v.Nodes = append(v.Nodes, node.State{
			Node:        n.ID,
			Name:        n.Name,
			Verdict:     n.Verdict,
			Cause:       n.Cause,
			Incarnation: n.Incarnation,
			Observers:   n.Observers,
			Since:       n.Since,
		})
	}
	return v
}

// nodeChange is one verdict in the words of the node producer, whose readers
// know nodes by name.
func (a *Agent) nodeChange(c cluster.NodeChange) node.Change {
	change := node.Change{
		State: node.State{
			Node:        c.Node,
			Name:        c.Name,
			Verdict:     c.To,
			Cause:       c.Cause,
			Incarnation: c.Incarnation,
			Observers:   c.Observers,
			Since:       c.At,
			Turn:        c.Turn,
		},
		From: c.From,
		View: c.View,
	}
	if c.To != belfry.VerdictUp {
		change.SilentSince = c.Since
	}
	for _, e := range c.Evidence {
		if !e.By.IsZero() {
			e.By, e.Text = belfry.NodeID{}, a.nameOf(e.By)+" "+e.Text
		}
		change.Evidence = append(change.Evidence, e)
	}
	return change
}

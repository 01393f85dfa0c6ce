package agent

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/producer/node"
)

// The methods below are api.Cluster: answers from this node's own memory.

var _ api.Cluster = (*Agent)(nil)

// View is what this node holds of the cluster now.
func (a *Agent) View() api.ClusterView {
	v := api.ClusterView{
		ID:          a.id.table.Cluster,
		Name:        a.id.table.Name,
		Self:        a.id.node.ID,
		Incarnation: a.id.incarnation,
		Generation:  a.id.table.Generation,
		Time:        time.Now(),
		Agents:      a.agents.copy(),
	}
	a.cluster.call(func(m *cluster.Machine) {
		now := time.Now()
		v.Nodes, v.Links = m.Nodes(now), m.Links(now)
	})
	return v
}

// Why is the evidence of a node's verdict.
func (a *Agent) Why(id belfry.NodeID) (evidence []belfry.Evidence) {
	a.cluster.call(func(m *cluster.Machine) { evidence = m.Why(id) })
	return evidence
}

// PeerEntries asks another node for its registrations.
func (a *Agent) PeerEntries(ctx context.Context, id belfry.NodeID, req *belfryv1.ListEntriesRequest) (*belfryv1.ListEntriesResponse, error) {
	return a.streams.ListEntries(ctx, id, req)
}

// An agentTable is what agents say of themselves when their stream opens.
type agentTable struct {
	mu     sync.Mutex
	agents map[belfry.NodeID]api.AgentInfo
}

func newAgentTable(t *Table) *agentTable {
	agents := map[belfry.NodeID]api.AgentInfo{}
	for _, n := range t.Nodes {
		var info api.AgentInfo
		for _, network := range n.Networks {
			info.Addresses = append(info.Addresses, network.Heartbeat.String())
		}
		agents[n.ID] = info
	}
	return &agentTable{agents: agents}
}

func (t *agentTable) set(id belfry.NodeID, pid uint32, version string, started time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	info := t.agents[id]
	info.PID, info.Version, info.Started = pid, version, started
	t.agents[id] = info
}

func (t *agentTable) copy() map[belfry.NodeID]api.AgentInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.agents)
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

// nodeChange is one verdict in the words of the node producer.
func nodeChange(c cluster.NodeChange) node.Change {
	change := node.Change{
		State: node.State{
			Node:        c.Node,
			Name:        c.Name,
			Verdict:     c.To,
			Cause:       c.Cause,
			Incarnation: c.Incarnation,
			Observers:   c.Observers,
			Since:       c.At,
		},
		From:     c.From,
		Evidence: c.Evidence,
	}
	if c.To != belfry.VerdictUp {
		change.SilentSince = c.Since
	}
	return change
}

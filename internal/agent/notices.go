package agent

import (
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/producer/node"
)

// tell posts what the cluster machine says beside verdicts and links.
func (a *Agent) tell(change cluster.Change) {
	self := a.id.node.Name
	switch c := change.(type) {
	case cluster.Restarted:
		a.notices.Tell(node.Restarted, c.Name, c.At, belfry.EdgeNone,
			&belfryv1.NodeRestarted{Node: c.Name, Incarnation: uint32(c.Incarnation)})
	case cluster.WasDown:
		a.log.Warn("others held this node to be gone", "verdict", c.Verdict, "cause", c.Cause, "peer", a.nameOf(c.By))
		a.notices.Tell(node.WasDown, self, c.At, belfry.EdgeFailing, &belfryv1.NodeWasDown{
			Node: self, Verdict: c.Verdict.String(), Cause: c.Cause.String(), Incarnation: uint32(c.Incarnation),
			By: a.nameOf(c.By), SilentSince: nanoseconds(c.Since),
		})
	case cluster.Isolated:
		edge := belfry.EdgeRecovered
		if c.On {
			edge = belfry.EdgeFailing
			a.log.Warn("this node misses most of its peers and reaches nobody else; look at its network", "since", c.Since)
		} else {
			a.log.Info("this node is isolated no longer")
		}
		a.notices.Tell(node.Isolated, self, c.At, edge,
			&belfryv1.NodeIsolated{Node: self, Isolated: c.On, SilentSince: nanoseconds(c.Since)})
	case cluster.NonTransitive:
		data := &belfryv1.ClusterNontransitive{}
		for _, p := range c.Pairs {
			data.Pairs = append(data.Pairs, a.nameOf(p[0])+"|"+a.nameOf(p[1]))
		}
		for _, id := range c.Connected {
			data.Connected = append(data.Connected, a.nameOf(id))
		}
		edge := belfry.EdgeRecovered
		if len(c.Pairs) > 0 {
			edge = belfry.EdgeFailing
			a.log.Warn("nodes that are up do not reach each other", "pairs", data.GetPairs(), "connected", data.GetConnected())
		} else {
			a.log.Info("all nodes that are up reach each other again")
		}
		a.notices.Tell(node.Nontransitive, a.members.Table().Name, c.At, edge, data)
	}
}

// nanoseconds is a time as events carry it; 0: none.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

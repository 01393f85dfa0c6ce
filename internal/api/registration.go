package api

import (
	"fmt"
	"strings"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// registration reads a request; the machine validates the rest. ErrUsage for a
// value that no version knows, ErrNotFound for a node that is no member.
func (s *Server) registration(p *belfryv1.Registration) (belfry.Registration, error) {
	r := belfry.Registration{
		Class: p.GetClass(), Subject: p.GetSubject(),
		OnlyWhereMonitored: p.GetOnlyWhereMonitored(), Wait: p.GetWait(), NoFollow: p.GetNoFollow(), Snapshot: p.GetSnapshot(),
		Filter: p.GetFilter(),
		Threshold: belfry.Threshold{
			Hi: p.GetHi(), HasHi: p != nil && p.Hi != nil, Lo: p.GetLo(), HasLo: p != nil && p.Lo != nil,
			Hysteresis: p.GetHysteresis(),
		},
		Limit: int(p.GetLimit()),
		Hold:  p.GetHold().AsDuration(), MinInterval: p.GetMinInterval().AsDuration(),
		Flap: belfry.Flap{Window: p.GetFlap().GetWindow().AsDuration(), High: int(p.GetFlap().GetHigh()), Low: int(p.GetFlap().GetLow())},
	}
	fail := func(err error) (belfry.Registration, error) {
		return belfry.Registration{}, &belfry.Error{Op: "register", Subject: selector(r), Err: err}
	}
	if err := fit(p); err != nil {
		return r, err
	}
	var err error
	if r.Since, err = sinceOf(p.GetSince()); err != nil {
		return fail(err)
	}
	if r.Class == "" {
		return fail(fmt.Errorf("%w: no class; belfry event types lists them", belfry.ErrUsage))
	}
	switch p.GetScope() {
	case belfryv1.Scope_SCOPE_UNSPECIFIED, belfryv1.Scope_SCOPE_LOCAL:
	case belfryv1.Scope_SCOPE_CLUSTER:
		r.Scope = belfry.ScopeCluster
	default:
		return fail(fmt.Errorf("%w: unknown scope %d; local or cluster", belfry.ErrUsage, p.GetScope()))
	}
	if p.GetEdge() < belfryv1.EdgeFilter_EDGE_FILTER_UNSPECIFIED || p.GetEdge() > belfryv1.EdgeFilter_EDGE_FILTER_RECOVERED {
		return fail(fmt.Errorf("%w: unknown edge filter %d; both, failing or recovered", belfry.ErrUsage, p.GetEdge()))
	}
	r.Edge = belfry.EdgeFilter(p.GetEdge())
	if p.GetCoalesceNever() {
		r.Coalesce = belfry.CoalesceNever
	}
	if len(p.GetNodes()) == 0 {
		return r, nil
	}
	if r.Scope != belfry.ScopeCluster {
		return fail(fmt.Errorf("%w: nodes are given but the scope is local; take scope cluster", belfry.ErrUsage))
	}
	view := s.opts.Cluster.View()
	for _, name := range p.GetNodes() {
		id, err := findNode(view, name)
		if err != nil {
			return fail(err)
		}
		r.Nodes = append(r.Nodes, id)
	}
	return r, nil
}

// selector is CLASS[:SUBJECT], as users write it.
func selector(r belfry.Registration) string {
	if r.Subject == "" {
		return r.Class
	}
	return r.Class + ":" + r.Subject
}

// findNode takes a name or an id.
func findNode(view ClusterView, name string) (belfry.NodeID, error) {
	names := make([]string, 0, len(view.Nodes))
	for _, n := range view.Nodes {
		if n.Name == name || n.ID.String() == strings.ToLower(name) {
			return n.ID, nil
		}
		names = append(names, n.Name)
	}
	return belfry.NodeID{}, fmt.Errorf("%w: no node %q; the members are %s", belfry.ErrNotFound, name, strings.Join(names, " "))
}

// nodeName is the id where the name is unknown.
func nodeName(view ClusterView, id belfry.NodeID) string {
	for _, n := range view.Nodes {
		if n.ID == id {
			return n.Name
		}
	}
	return id.String()
}

// coverageOf tells where a cluster registration is in force.
func coverageOf(view ClusterView, all []event.Coverage) []*belfryv1.Coverage {
	result := make([]*belfryv1.Coverage, len(all))
	for i, c := range all {
		result[i] = &belfryv1.Coverage{
			NodeId: c.Node.String(), NodeName: nodeName(view, c.Node),
			State: belfryv1.CoverageState(c.State) + belfryv1.CoverageState_COVERAGE_STATE_PENDING,
			Since: timestamp(c.Since),
		}
		if c.Err != nil {
			result[i].Refusal = refusalOf(c.Err)
		}
	}
	return result
}

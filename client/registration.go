package client

import (
	"cmp"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// sendable refuses what no message can carry: the agent would never hear of it,
// or end the stream, and with it all other registrations.
func sendable(r belfry.Registration) error {
	err := cmp.Or(unfit("class", r.Class), unfit("subject", r.Subject), unfit("expression", r.Filter))
	if err == nil {
		return nil
	}
	return &belfry.Error{Op: "Register", Err: err}
}

// registrationOf is the wire form of a wish.
func registrationOf(r belfry.Registration) *belfryv1.Registration {
	p := &belfryv1.Registration{
		Class: r.Class, Subject: r.Subject, Scope: belfryv1.Scope_SCOPE_LOCAL,
		OnlyWhereMonitored: r.OnlyWhereMonitored, Wait: r.Wait, NoFollow: r.NoFollow, Snapshot: r.Snapshot,
		Hysteresis: r.Threshold.Hysteresis, Edge: belfryv1.EdgeFilter(r.Edge), Filter: r.Filter,
		CoalesceNever: r.Coalesce == belfry.CoalesceNever, Limit: uint32(max(0, r.Limit)),
	}
	if r.Scope == belfry.ScopeCluster {
		p.Scope = belfryv1.Scope_SCOPE_CLUSTER
	}
	if r.Hold != 0 {
		p.Hold = durationpb.New(r.Hold)
	}
	if r.MinInterval != 0 {
		p.MinInterval = durationpb.New(r.MinInterval)
	}
	if f := r.Flap; !f.IsZero() {
		p.Flap = &belfryv1.Flap{Window: durationpb.New(f.Window), High: uint32(max(0, f.High)), Low: uint32(max(0, f.Low))}
	}
	if r.Threshold.HasHi {
		p.Hi = &r.Threshold.Hi
	}
	if r.Threshold.HasLo {
		p.Lo = &r.Threshold.Lo
	}
	p.Since = sinceOf(r.Since)
	for _, id := range r.Nodes {
		p.Nodes = append(p.Nodes, id.String())
	}
	return p
}

// CoverageState says whether a node's events reach a registration.
type CoverageState uint8

// The states of coverage.
const (
	CoveragePending CoverageState = iota
	CoverageInstalled
	CoverageRefused
	CoverageUnreachable
)

// String is the word that listings use.
func (s CoverageState) String() string {
	switch s {
	case CoveragePending:
		return "pending"
	case CoverageInstalled:
		return "installed"
	case CoverageRefused:
		return "refused"
	default:
		return "unreachable"
	}
}

// Coverage is the state of a cluster registration at one node.
type Coverage struct {
	Node     belfry.NodeID
	NodeName string
	State    CoverageState
	Err      error // of CoverageRefused
}

// Registered is the answer to a registration that is in force.
type Registered struct {
	Number   uint32     // in every notification of it
	Coverage []Coverage // scope cluster only
}

func registeredOf(p *belfryv1.Registered) Registered {
	r := Registered{Number: p.GetNumber()}
	for _, c := range p.GetCoverage() {
		one := Coverage{NodeName: c.GetNodeName()}
		one.Node, _ = belfry.ParseNodeID(c.GetNodeId()) // zero where it is not one
		switch c.GetState() {
		case belfryv1.CoverageState_COVERAGE_STATE_INSTALLED:
			one.State = CoverageInstalled
		case belfryv1.CoverageState_COVERAGE_STATE_REFUSED:
			one.State = CoverageRefused
		case belfryv1.CoverageState_COVERAGE_STATE_UNREACHABLE:
			one.State = CoverageUnreachable
		}
		if c.GetRefusal() != nil {
			one.Err = refusal(c.GetRefusal())
		}
		r.Coverage = append(r.Coverage, one)
	}
	return r
}

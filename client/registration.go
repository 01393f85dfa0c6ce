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

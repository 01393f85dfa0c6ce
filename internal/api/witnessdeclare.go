package api

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Declarations are what the cluster's configuration holds for the witness. It is
// safe for concurrent use; its errors wrap sentinels. What changes it is carried
// out by the leader.
type Declarations interface {
	// Declared is the resources of the cluster, those of this node's settings file,
	// and the drained nodes, in the generation that holds them.
	Declared() (cluster, file []*belfryv1.DeclaredResource, drained []string, generation uint64)
	// Declare writes a resource in the place of the one of its name.
	Declare(ctx context.Context, r repository.Resource, dryRun bool) (Changed, error)
	// Withdraw takes one out. ErrNotFound: there is none of that name.
	Withdraw(ctx context.Context, name string, dryRun bool) (Changed, error)
	// SetDrained keeps whether clients are sent to a node.
	SetDrained(ctx context.Context, node belfry.NodeID, drained, dryRun bool) (Changed, error)
	// SetZone keeps with which others a node fails together.
	SetZone(ctx context.Context, node belfry.NodeID, zone string, dryRun bool) (Changed, error)
}

// noDeclarations is a configuration that holds nothing for the witness.
type noDeclarations struct{}

var errNoDeclarations = fmt.Errorf("%w: this agent has no configuration of the cluster", belfry.ErrUnsupported)

func (noDeclarations) Declared() (cluster, file []*belfryv1.DeclaredResource, drained []string, generation uint64) {
	return nil, nil, nil, 0
}

func (noDeclarations) Declare(context.Context, repository.Resource, bool) (Changed, error) {
	return Changed{}, errNoDeclarations
}

func (noDeclarations) Withdraw(context.Context, string, bool) (Changed, error) {
	return Changed{}, errNoDeclarations
}

func (noDeclarations) SetDrained(context.Context, belfry.NodeID, bool, bool) (Changed, error) {
	return Changed{}, errNoDeclarations
}

func (noDeclarations) SetZone(context.Context, belfry.NodeID, string, bool) (Changed, error) {
	return Changed{}, errNoDeclarations
}

// declaredOf reads a resource as a caller writes it.
func declaredOf(m *belfryv1.DeclaredResource) (r repository.Resource, err error) {
	fail := func(format string, args ...any) (repository.Resource, error) {
		return r, fmt.Errorf("%w: "+format, append([]any{belfry.ErrUsage}, args...)...)
	}
	name, err := belfry.ParseResource(m.GetName())
	switch {
	case err != nil:
		return r, err
	case slices.Contains([]string{belfry.KindNode, belfry.KindEvent}, name.Kind()):
		return fail("%s: a %s is declared by nobody; it is there by itself", name, name.Kind())
	case name.Node() != "":
		return fail("%s: name its node among the holders, without the @", name)
	case len(m.GetHolders()) == 0:
		return fail("%s: no holder; name the nodes that can hold it", name)
	case len(m.GetWatch()) > 1:
		return fail("%s: %d things to watch; name one, the configuration of the cluster has room for one", name, len(m.GetWatch()))
	}
	r = repository.Resource{
		Name: string(name), Holders: m.GetHolders(), Watch: strings.Join(m.GetWatch(), ""), Address: m.GetAddress(), ProbePath: m.GetProbePath(),
	}
	if m.GetProbe() != "" {
		if r.Probe, err = netip.ParseAddrPort(m.GetProbe()); err != nil {
			return fail("probe %q; write IP:PORT, or 0.0.0.0:PORT for the port at each holder", m.GetProbe())
		}
	}
	return r, nil
}

// DeclareResource returns when every node that is up has the resource.
func (w *witnessService) DeclareResource(ctx context.Context, req *belfryv1.DeclareResourceRequest) (*belfryv1.DeclareResourceResponse, error) {
	return led(ctx, w.s, belfryv1.WitnessService_DeclareResource_FullMethodName, req, w.s.declareResource)
}

func (s *Server) declareResource(ctx context.Context, req *belfryv1.DeclareResourceRequest) (*belfryv1.DeclareResourceResponse, error) {
	const op = "DeclareResource"
	var changed Changed
	r, err := declaredOf(req.GetResource())
	if err == nil {
		changed, err = s.opts.Declarations.Declare(ctx, r, req.GetDryRun())
	}
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetResource().GetName(), Err: err}
	}
	if changed.Changed && !req.GetDryRun() {
		s.audit(ctx, op, r.Name, changed.Generation)
	}
	return &belfryv1.DeclareResourceResponse{Changed: changed.Changed, Generation: changed.Generation, Unconfirmed: s.unconfirmed(changed)}, nil
}

// WithdrawResource returns when no node that is up has the resource.
func (w *witnessService) WithdrawResource(ctx context.Context, req *belfryv1.WithdrawResourceRequest) (*belfryv1.WithdrawResourceResponse, error) {
	return led(ctx, w.s, belfryv1.WitnessService_WithdrawResource_FullMethodName, req, w.s.withdrawResource)
}

func (s *Server) withdrawResource(ctx context.Context, req *belfryv1.WithdrawResourceRequest) (*belfryv1.WithdrawResourceResponse, error) {
	const op = "WithdrawResource"
	var changed Changed
	name, err := belfry.ParseResource(req.GetName())
	if err == nil {
		changed, err = s.opts.Declarations.Withdraw(ctx, string(name), req.GetDryRun())
	}
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetName(), Err: err}
	}
	if changed.Changed && !req.GetDryRun() {
		s.audit(ctx, op, string(name), changed.Generation)
	}
	return &belfryv1.WithdrawResourceResponse{Changed: changed.Changed, Generation: changed.Generation, Unconfirmed: s.unconfirmed(changed)}, nil
}

// ListDeclared answers from memory.
func (w *witnessService) ListDeclared(context.Context, *belfryv1.ListDeclaredRequest) (*belfryv1.ListDeclaredResponse, error) {
	cluster, file, drained, generation := w.s.opts.Declarations.Declared()
	all := slices.Concat(cluster, file)
	slices.SortStableFunc(all, func(a, b *belfryv1.DeclaredResource) int { return strings.Compare(a.GetName(), b.GetName()) })
	return &belfryv1.ListDeclaredResponse{Resources: all, Drained: drained, Generation: generation}, nil
}

// SetZone returns when every node that is up knows it.
func (w *witnessService) SetZone(ctx context.Context, req *belfryv1.SetZoneRequest) (*belfryv1.SetZoneResponse, error) {
	return led(ctx, w.s, belfryv1.WitnessService_SetZone_FullMethodName, req, w.s.setZone)
}

func (s *Server) setZone(ctx context.Context, req *belfryv1.SetZoneRequest) (*belfryv1.SetZoneResponse, error) {
	const op = "SetZone"
	var changed Changed
	id, err := findNode(s.opts.Cluster.View(), req.GetNode())
	if err == nil {
		changed, err = s.opts.Declarations.SetZone(ctx, id, req.GetZone(), req.GetDryRun())
	}
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetNode(), Err: err}
	}
	if changed.Changed && !req.GetDryRun() {
		s.audit(ctx, op, req.GetNode(), changed.Generation, "zone", req.GetZone())
	}
	return &belfryv1.SetZoneResponse{Changed: changed.Changed, Generation: changed.Generation, Unconfirmed: s.unconfirmed(changed)}, nil
}

// setDrained is the leader's part of DrainNode: the intent, which outlives the
// agents.
func (s *Server) setDrained(ctx context.Context, req *belfryv1.DrainNodeRequest) (*belfryv1.DrainNodeResponse, error) {
	const op = "DrainNode"
	view := s.opts.Cluster.View()
	id, err := findNode(view, req.GetNode())
	var changed Changed
	if err == nil {
		changed, err = s.opts.Declarations.SetDrained(ctx, id, !req.GetUndo(), req.GetDryRun())
	}
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetNode(), Err: err}
	}
	if changed.Changed && !req.GetDryRun() {
		s.audit(ctx, op, nodeName(view, id), changed.Generation, "undo", req.GetUndo())
	}
	return &belfryv1.DrainNodeResponse{Changed: changed.Changed, Generation: changed.Generation}, nil
}

package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/witness"
)

const (
	// everywhereWait bounds the wait for other nodes: who has not answered by then
	// is named.
	everywhereWait  = 2 * time.Second
	listedDefault   = 1000
	listedMost      = 10_000
	overrideLongest = 7 * 24 * time.Hour
)

// A told is what one node answered.
type told[R proto.Message] struct {
	node string
	resp R
	err  error
}

// everywhere asks all members that are up, this one too, and names the others.
func everywhere[Q, R proto.Message](ctx context.Context, s *Server, method string, req Q, here func(context.Context, Q) (R, error)) []told[R] {
	view := s.opts.Cluster.View()
	all := make([]told[R], len(view.Nodes))
	ctx, cancel := context.WithTimeout(ctx, everywhereWait)
	defer cancel()
	var group sync.WaitGroup
	for i, n := range view.Nodes {
		group.Go(func() {
			t := &all[i]
			t.node = n.Name
			switch {
			case n.ID == view.Self:
				t.resp, t.err = here(ctx, req)
			case n.Verdict != belfry.VerdictUp:
				t.err = fmt.Errorf("%w: it is %s", belfry.ErrNoAgent, n.Verdict)
			default:
				resp, _ := t.resp.ProtoReflect().Type().New().Interface().(R) // of its own type
				t.resp, t.err = resp, s.opts.Witness.PeerWitness(ctx, n.ID, method, req, resp)
			}
		})
	}
	group.Wait()
	slices.SortFunc(all, func(a, b told[R]) int { return strings.Compare(a.node, b.node) })
	return all
}

// LocalWitness answers members: the methods that ask all nodes, for this one. It
// judges nobody.
type LocalWitness struct{ s *Server }

// LocalWitness is this node's part of what is asked of all.
func (s *Server) LocalWitness() LocalWitness { return LocalWitness{s} }

// List is for ListWitness.
func (l LocalWitness) List(ctx context.Context, req *belfryv1.ListWitnessRequest) (*belfryv1.ListWitnessResponse, error) {
	held, err := l.s.opts.Witness.Listing(ctx)
	if err != nil {
		return nil, err
	}
	chosen := witness.Selector{All: true}
	if req.GetSelector() != nil {
		if chosen, err = selectorOf(req.GetSelector()); err != nil {
			return nil, err
		}
	}
	limit := int(req.GetLimit())
	if limit == 0 {
		limit = listedDefault
	}
	node := &belfryv1.WitnessListing{Node: l.s.nodeName(), Draining: held.Draining}
	for i := range held.Registrations {
		if !chosen.Means(&held.Registrations[i]) {
			continue
		}
		if node.Total++; len(node.Registrations) < min(limit, listedMost) {
			node.Registrations = append(node.Registrations, registrationStatus(&held.Registrations[i]))
		}
	}
	for i := range held.Resources {
		node.Resources = append(node.Resources, resourceStatus(&held.Resources[i]))
	}
	return &belfryv1.ListWitnessResponse{Nodes: []*belfryv1.WitnessListing{node}}, nil
}

// ListWitness lists one witness or all.
func (w *witnessService) ListWitness(ctx context.Context, req *belfryv1.ListWitnessRequest) (*belfryv1.ListWitnessResponse, error) {
	const op = "ListWitness"
	local := w.s.LocalWitness()
	if req.GetNode() != "" {
		view := w.s.opts.Cluster.View()
		id, err := findNode(view, req.GetNode())
		resp := &belfryv1.ListWitnessResponse{}
		switch {
		case err != nil:
		case id == view.Self:
			resp, err = local.List(ctx, req)
		default:
			err = w.s.opts.Witness.PeerWitness(ctx, id, belfryv1.WitnessService_ListWitness_FullMethodName, req, resp)
		}
		if err != nil {
			return nil, &belfry.Error{Op: op, Subject: req.GetNode(), Err: err}
		}
		return resp, nil
	}
	if req.GetSelector() != nil {
		if _, err := selectorOf(req.GetSelector()); err != nil {
			return nil, &belfry.Error{Op: op, Err: err}
		}
	}
	resp := &belfryv1.ListWitnessResponse{}
	for _, t := range everywhere(ctx, w.s, belfryv1.WitnessService_ListWitness_FullMethodName, req, local.List) {
		if t.err != nil {
			resp.Nodes = append(resp.Nodes, &belfryv1.WitnessListing{Node: t.node, Error: t.err.Error()})
			continue
		}
		resp.Nodes = append(resp.Nodes, t.resp.GetNodes()...)
	}
	return resp, nil
}

// match is what one node answered to a change.
func (l LocalWitness) match(ctx context.Context, r witness.Request) ([]*belfryv1.WitnessMatch, error) {
	a, err := l.s.opts.Witness.Ask(ctx, r)
	if err != nil {
		return nil, err
	}
	m := &belfryv1.WitnessMatch{Node: l.s.nodeName()}
	for _, k := range a.Matched {
		m.Registrations = append(m.Registrations, k.String())
	}
	return []*belfryv1.WitnessMatch{m}, nil
}

// matchesOf gathers what all nodes answered.
func matchesOf[R interface {
	proto.Message
	GetMatches() []*belfryv1.WitnessMatch
}](all []told[R]) (matches []*belfryv1.WitnessMatch) {
	for _, t := range all {
		if t.err != nil {
			matches = append(matches, &belfryv1.WitnessMatch{Node: t.node, Error: t.err.Error()})
			continue
		}
		matches = append(matches, t.resp.GetMatches()...)
	}
	return matches
}

// Move is for MoveClients.
func (l LocalWitness) Move(ctx context.Context, req *belfryv1.MoveClientsRequest) (*belfryv1.MoveClientsResponse, error) {
	chosen, err := selectorOf(req.GetSelector())
	if err != nil {
		return nil, err
	}
	move := witness.Move{Select: chosen, Move: belfry.Move{ID: req.GetId(), To: req.GetTo()}, DryRun: req.GetDryRun()}
	if req.GetReason() != "" {
		if move.Move.Reason, err = belfry.ParseMoveReason(req.GetReason()); err != nil {
			return nil, err
		}
	}
	matches, err := l.match(ctx, move)
	return &belfryv1.MoveClientsResponse{Id: req.GetId(), Matches: matches}, err
}

// MoveClients moves at all witnesses.
func (w *witnessService) MoveClients(ctx context.Context, req *belfryv1.MoveClientsRequest) (*belfryv1.MoveClientsResponse, error) {
	const op = "MoveClients"
	if _, err := selectorOf(req.GetSelector()); err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	if req.GetId() == "" {
		req.Id = rand.Text()
	}
	local := w.s.LocalWitness()
	resp := &belfryv1.MoveClientsResponse{Id: req.GetId()}
	if req.GetLocal() {
		one, err := local.Move(ctx, req)
		if err != nil {
			return nil, &belfry.Error{Op: op, Err: err}
		}
		resp = one
	} else {
		resp.Matches = matchesOf(everywhere(ctx, w.s, belfryv1.WitnessService_MoveClients_FullMethodName, req, local.Move))
	}
	if !req.GetDryRun() {
		w.s.audit(ctx, op, strings.Join(req.GetTo(), " "), 0, "id", req.GetId())
	}
	return resp, nil
}

// Drain is for DrainNode.
func (l LocalWitness) Drain(ctx context.Context, req *belfryv1.DrainNodeRequest) (*belfryv1.DrainNodeResponse, error) {
	id, err := findNode(l.s.opts.Cluster.View(), req.GetNode())
	if err != nil {
		return nil, err
	}
	matches, err := l.match(ctx, witness.Drain{Node: id, ID: req.GetId(), On: !req.GetUndo(), Rate: int(req.GetRate()), DryRun: req.GetDryRun()})
	return &belfryv1.DrainNodeResponse{Id: req.GetId(), Matches: matches}, err
}

// WitnessDrainHere is the call between members that drains at one witness; the
// method itself is that of the leader, which keeps the intent.
const WitnessDrainHere = belfryv1.WitnessService_DrainNode_FullMethodName + "/here"

// DrainNode keeps the intent, and then drains at all witnesses: one that hears
// nothing of this call begins by itself when it has the configuration.
func (w *witnessService) DrainNode(ctx context.Context, req *belfryv1.DrainNodeRequest) (*belfryv1.DrainNodeResponse, error) {
	const op = "DrainNode"
	if _, err := findNode(w.s.opts.Cluster.View(), req.GetNode()); err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetNode(), Err: err}
	}
	local := w.s.LocalWitness()
	if req.GetLocal() {
		if req.GetId() == "" {
			req.Id = rand.Text()
		}
		one, err := local.Drain(ctx, req)
		if err != nil {
			return nil, &belfry.Error{Op: op, Subject: req.GetNode(), Err: err}
		}
		if !req.GetDryRun() {
			w.s.audit(ctx, op, req.GetNode(), 0, "undo", req.GetUndo(), "local", true)
		}
		return one, nil
	}
	kept, err := led(ctx, w.s, belfryv1.WitnessService_DrainNode_FullMethodName, req, w.s.setDrained)
	if err != nil {
		return nil, err
	}
	if req.GetId() == "" {
		req.Id = witness.DrainID(kept.GetGeneration())
	}
	resp := &belfryv1.DrainNodeResponse{Id: req.GetId(), Changed: kept.GetChanged(), Generation: kept.GetGeneration()}
	resp.Matches = matchesOf(everywhere(ctx, w.s, WitnessDrainHere, req, local.Drain))
	return resp, nil
}

// End is for EndRegistrations.
func (l LocalWitness) End(ctx context.Context, req *belfryv1.EndRegistrationsRequest) (*belfryv1.EndRegistrationsResponse, error) {
	chosen, err := selectorOf(req.GetSelector())
	if err != nil {
		return nil, err
	}
	matches, err := l.match(ctx, witness.Force{Select: chosen, DryRun: req.GetDryRun()})
	return &belfryv1.EndRegistrationsResponse{Matches: matches}, err
}

// EndRegistrations ends at all witnesses.
func (w *witnessService) EndRegistrations(ctx context.Context, req *belfryv1.EndRegistrationsRequest) (*belfryv1.EndRegistrationsResponse, error) {
	const op = "EndRegistrations"
	if _, err := selectorOf(req.GetSelector()); err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	local := w.s.LocalWitness()
	resp := &belfryv1.EndRegistrationsResponse{}
	if req.GetLocal() {
		one, err := local.End(ctx, req)
		if err != nil {
			return nil, &belfry.Error{Op: op, Err: err}
		}
		resp = one
	} else {
		resp.Matches = matchesOf(everywhere(ctx, w.s, belfryv1.WitnessService_EndRegistrations_FullMethodName, req, local.End))
	}
	if !req.GetDryRun() {
		w.s.audit(ctx, op, "registrations", 0)
	}
	return resp, nil
}

// overrideOf reads what a resource is to be held in.
func overrideOf(req *belfryv1.SetResourceRequest) (o witness.Override, err error) {
	if o.Resource, err = belfry.ParseResource(req.GetResource()); err != nil || req.GetState() == "" {
		return o, err
	}
	if o.State, err = belfry.ParseResourceState(req.GetState()); err != nil {
		return o, err
	}
	d := req.GetDuration().AsDuration()
	if d < time.Second || d > overrideLongest {
		return o, fmt.Errorf("%w: for %s; 1s to %s", belfry.ErrUsage, d, overrideLongest)
	}
	o.Until = time.Now().Add(d)
	return o, nil
}

// Set is for SetResource.
func (l LocalWitness) Set(ctx context.Context, req *belfryv1.SetResourceRequest) (*belfryv1.SetResourceResponse, error) {
	o, err := overrideOf(req)
	if err != nil {
		return nil, err
	}
	o.DryRun = req.GetDryRun()
	matches, err := l.match(ctx, o)
	return &belfryv1.SetResourceResponse{Matches: matches}, err
}

// SetResource holds a resource in a state at all witnesses.
func (w *witnessService) SetResource(ctx context.Context, req *belfryv1.SetResourceRequest) (*belfryv1.SetResourceResponse, error) {
	const op = "SetResource"
	if _, err := overrideOf(req); err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	local := w.s.LocalWitness()
	resp := &belfryv1.SetResourceResponse{}
	if req.GetLocal() {
		one, err := local.Set(ctx, req)
		if err != nil {
			return nil, &belfry.Error{Op: op, Subject: req.GetResource(), Err: err}
		}
		resp = one
	} else {
		resp.Matches = matchesOf(everywhere(ctx, w.s, belfryv1.WitnessService_SetResource_FullMethodName, req, local.Set))
	}
	if !req.GetDryRun() {
		w.s.audit(ctx, op, req.GetResource(), 0, "state", req.GetState())
	}
	return resp, nil
}

package api

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A Leader has changes of what all nodes share made by one node. It is safe
// for concurrent use.
type Leader interface {
	// Lead runs here, if this node makes the changes; else the node that does
	// carries out the same method, and its answer is put into response. The error
	// wraps a sentinel.
	Lead(ctx context.Context, method string, request proto.Message, here func(context.Context) error, response proto.Message) error
	// Unconfirmed are the members that were up and did not confirm a generation
	// that this node made lately, each with the reason.
	Unconfirmed(generation uint64) []string
}

// alone makes all changes itself.
type alone struct{}

func (alone) Lead(ctx context.Context, _ string, _ proto.Message, here func(context.Context) error, _ proto.Message) error {
	return here(ctx)
}

func (alone) Unconfirmed(uint64) []string { return nil }

// A Change is a method that the leader carries out for another member, which
// has judged who asked it.
type Change func(ctx context.Context, member string, request []byte) (proto.Message, error)

// Changes are all such methods, by full name.
func (s *Server) Changes() map[string]Change {
	return map[string]Change{
		belfryv1.ConfigService_SetConfig_FullMethodName:       changing(s.setConfig),
		belfryv1.ConfigService_ApplyConfig_FullMethodName:     changing(s.applyConfig),
		belfryv1.ConfigService_ConfirmConfig_FullMethodName:   changing(s.confirmConfig),
		belfryv1.ConfigService_RollbackConfig_FullMethodName:  changing(s.rollbackConfig),
		belfryv1.NodeService_StopNode_FullMethodName:          changing(s.stopNode),
		belfryv1.NodeService_StartNode_FullMethodName:         changing(s.startNode),
		belfryv1.MemberService_CreateToken_FullMethodName:     changing(s.createToken),
		belfryv1.MemberService_RevokeToken_FullMethodName:     changing(s.revokeToken),
		belfryv1.MemberService_RemoveNode_FullMethodName:      changing(s.removeNode),
		belfryv1.MemberService_RotateCA_FullMethodName:        changing(s.rotateCA),
		belfryv1.MemberService_RemoveClient_FullMethodName:    changing(s.removeClient),
		belfryv1.MemberService_SetGrant_FullMethodName:        changing(s.setGrant),
		belfryv1.LicenseService_UnlockLicense_FullMethodName:  changing(s.unlockLicense),
		belfryv1.LicenseService_RemoveLicense_FullMethodName:  changing(s.removeLicense),
		belfryv1.LicenseService_RevokeLicenses_FullMethodName: changing(s.revokeLicenses),
		belfryv1.LicenseService_AddIssuer_FullMethodName:      changing(s.addIssuer),
		belfryv1.LicenseService_RemoveIssuer_FullMethodName:   changing(s.removeIssuer),

		belfryv1.WitnessService_DeclareResource_FullMethodName:  changing(s.declareResource),
		belfryv1.WitnessService_WithdrawResource_FullMethodName: changing(s.withdrawResource),
		belfryv1.WitnessService_SetZone_FullMethodName:          changing(s.setZone),
		belfryv1.WitnessService_DrainNode_FullMethodName:        changing(s.setDrained),
	}
}

// changing reads the request of another member.
func changing[R any, Q interface {
	*R
	proto.Message
}, A proto.Message](f func(context.Context, Q) (A, error)) Change {
	return func(ctx context.Context, member string, request []byte) (proto.Message, error) {
		req := Q(new(R))
		if err := proto.Unmarshal(request, req); err != nil {
			return nil, fmt.Errorf("%w: malformed request: %w", belfry.ErrUsage, err)
		}
		return f(withSubject(ctx, Subject{Member: member, Role: belfry.RoleAdmin}), req)
	}
}

// led has the leader carry out a request of this node's own callers.
func led[R any, Q proto.Message, A interface {
	*R
	proto.Message
}](ctx context.Context, s *Server, method string, req Q, f func(context.Context, Q) (A, error)) (A, error) {
	response, leads := A(new(R)), false
	here := func(ctx context.Context) (err error) {
		leads = true
		response, err = f(ctx, req)
		return err
	}
	if err := s.opts.Leader.Lead(ctx, method, req, here, response); err != nil {
		return nil, err
	}
	if !leads {
		s.auditAsked(ctx, operation(method), req, response)
	}
	return response, nil
}

// auditAsked keeps who asked here for a change that another node has made. The
// leader knows, and keeps, only which member asked it.
func (s *Server) auditAsked(ctx context.Context, op string, req, resp proto.Message) {
	if r, ok := req.(interface{ GetDryRun() bool }); ok && r.GetDryRun() {
		return
	}
	if r, ok := resp.(interface{ GetChanged() bool }); ok && !r.GetChanged() {
		return
	}
	var generation uint64
	if r, ok := resp.(interface{ GetGeneration() uint64 }); ok {
		generation = r.GetGeneration()
	}
	s.audit(ctx, op, targetOf(req, resp), generation)
}

// targetOf is what a change was done to.
func targetOf(req, resp proto.Message) string {
	switch resp := resp.(type) {
	case *belfryv1.StopNodeResponse:
		return resp.GetNodeName()
	case *belfryv1.StartNodeResponse:
		return resp.GetNodeName()
	case *belfryv1.RemoveNodeResponse:
		return resp.GetNodeName()
	case *belfryv1.CreateTokenResponse:
		return resp.GetId()
	case *belfryv1.RotateCAResponse:
		return resp.GetFingerprint()
	case *belfryv1.UnlockLicenseResponse:
		return resp.GetLicenseId()
	case *belfryv1.AddIssuerResponse:
		return resp.GetProduct() + " " + resp.GetKeyId()
	case *belfryv1.RevokeLicensesResponse:
		return fmt.Sprintf("%s %d", resp.GetProduct(), resp.GetSerial())
	}
	return wanted(req)
}

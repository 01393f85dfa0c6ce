package agent

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
)

// A peerCall answers another member. Who that is has been proved by its
// certificate; what it may ask is judged here, not there.
type peerCall func(ctx context.Context, from belfry.NodeID, request []byte) (proto.Message, error)

// peerCalls are the questions that members ask each other, by full method name.
func (a *Agent) peerCalls() map[string]peerCall {
	calls := map[string]peerCall{
		belfryv1.EventService_ListEntries_FullMethodName:     answering(a.server.LocalEntries),
		belfryv1.LinkService_ListLinks_FullMethodName:        answering(a.server.LocalLinks),
		belfryv1.MemberPeerService_TakeTable_FullMethodName:  answeringWho(a.takeTable),
		belfryv1.MemberPeerService_TakeSecret_FullMethodName: answering(a.takeSecret),
		belfryv1.MemberPeerService_GetSecret_FullMethodName:  answering(a.getSecret),
		belfryv1.MemberPeerService_GetMember_FullMethodName:  answering(a.getMember),
		belfryv1.MemberPeerService_Follow_FullMethodName:     answeringWho(a.follow),

		belfryv1.MemberPeerService_IssueCertificate_FullMethodName: answering(a.issueHere),
		belfryv1.MemberPeerService_GetProgress_FullMethodName:      answering(a.getProgress),
		belfryv1.MemberPeerService_GetRepository_FullMethodName:    answering(a.getRepository),
		belfryv1.MemberPeerService_TakeOver_FullMethodName:         answeringWho(a.takeLetter),
	}
	local := a.server.LocalWitness()
	calls[belfryv1.WitnessService_ListWitness_FullMethodName] = answering(local.List)
	calls[belfryv1.WitnessService_MoveClients_FullMethodName] = answering(local.Move)
	calls[api.WitnessDrainHere] = answering(local.Drain)
	calls[api.WitnessDelegated] = answering(local.Delegated)
	calls[belfryv1.WitnessService_EndRegistrations_FullMethodName] = answering(local.End)
	calls[belfryv1.WitnessService_SetResource_FullMethodName] = answering(local.Set)
	calls[belfryv1.JoinService_Join_FullMethodName] = a.leading(func(ctx context.Context, _ string, request []byte) (proto.Message, error) {
		return answering(a.admit)(ctx, belfry.NodeID{}, request)
	})
	for method, change := range a.server.Changes() {
		calls[method] = a.leading(change)
	}
	return calls
}

// answering is for calls that every member may make.
func answering[R any, Q interface {
	*R
	proto.Message
}, A proto.Message](f func(context.Context, Q) (A, error)) peerCall {
	return answeringWho(func(ctx context.Context, _ belfry.NodeID, req Q) (A, error) { return f(ctx, req) })
}

// answeringWho is for calls whose answer depends on the member that asks.
func answeringWho[R any, Q interface {
	*R
	proto.Message
}, A proto.Message](f func(context.Context, belfry.NodeID, Q) (A, error)) peerCall {
	return func(ctx context.Context, from belfry.NodeID, request []byte) (proto.Message, error) {
		req := Q(new(R))
		if err := proto.Unmarshal(request, req); err != nil {
			return nil, fmt.Errorf("%w: malformed request: %w", belfry.ErrUsage, err)
		}
		return f(ctx, from, req)
	}
}

// leading is a member's call of a change that only the leader makes.
func (a *Agent) leading(change api.Change) peerCall {
	return func(ctx context.Context, from belfry.NodeID, request []byte) (proto.Message, error) {
		if a.storage != nil { // it decides who comes first, so that any member can
			a.storage.lookedFor(ctx)
			if err := a.storage.fit(); err != nil {
				return nil, &belfry.Error{Op: opLead, Subject: a.id.node.Name, Err: err}
			}
		} else if !a.leads() {
			return nil, notLeader(a.id.node.Name)
		}
		return change(ctx, a.nameOf(from), request)
	}
}

// serveCall is transport.StreamsConfig.Serve.
func (a *Agent) serveCall(ctx context.Context, from belfry.NodeID, method string, request []byte) ([]byte, error) {
	if _, member := a.members.Table().Node(from); !member { // its stream is about to be closed
		return nil, fmt.Errorf("%w: node %s", belfry.ErrNotMember, from)
	}
	call := a.calls[method]
	if call == nil {
		return nil, fmt.Errorf("%w: no call %q; the agents are of different versions", belfry.ErrUnsupported, method)
	}
	response, err := call(ctx, from, request)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(response)
}

// ask calls another member.
func (a *Agent) ask(ctx context.Context, node belfry.NodeID, method string, request, response proto.Message) error {
	body, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	answer, err := a.streams.Call(ctx, node, method, body)
	if err != nil {
		return err
	}
	return proto.Unmarshal(answer, response)
}

package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// Members is who belongs to the cluster, and who may come. Its changes are
// made on the node that leads. It is safe for concurrent use. Errors wrap a
// sentinel.
type Members interface {
	// CreateToken makes a token; by names who asked for it.
	CreateToken(ctx context.Context, by string, req *belfryv1.CreateTokenRequest) (*belfryv1.CreateTokenResponse, error)
	// Tokens are those that have not ended and were not used.
	Tokens() []*belfryv1.TokenInfo
	// RevokeToken ends one before its time.
	RevokeToken(ctx context.Context, id string) (generation uint64, err error)
	// Leaving says that the removal of this node, which follows, is asked for
	// here; or that it did not come about.
	Leaving(bool)
	// Left tells what a removal came to whose answer was lost: the stream that it
	// would have come by ends with a membership, this node's or the leader's. It
	// waits a moment for the news; false: the node is still a member.
	Left(ctx context.Context, node belfry.NodeID, name string) (*belfryv1.RemoveNodeResponse, bool)
	// RemoveNode ends a membership. With dryRun it only checks. With force it
	// does so though most members are down.
	RemoveNode(ctx context.Context, node belfry.NodeID, dryRun, force bool) (*belfryv1.RemoveNodeResponse, error)
	// RotateCA begins to replace the authority.
	RotateCA(ctx context.Context) (*belfryv1.RotateCAResponse, error)
	// Clients are those that hold a certificate, by name.
	Clients() []*belfryv1.ClientInfo
	// RemoveClient makes every node refuse a client. With dryRun and force it is as
	// RemoveNode.
	RemoveClient(ctx context.Context, name string, dryRun, force bool) (*belfryv1.RemoveClientResponse, error)
	// Grants are the rows of the section roles, and the generation that holds them.
	Grants() (rows []*belfryv1.GrantInfo, generation uint64)
	// SetGrant gives one subject exactly a role and single rights, or nothing.
	SetGrant(ctx context.Context, req *belfryv1.SetGrantRequest) (*belfryv1.SetGrantResponse, error)
	// DefaultRole is what a subject is on this node, whatever it is given.
	DefaultRole(subject string) belfry.Role
	// NothingHere is why a subject gets nothing on this node; empty: it does.
	NothingHere(subject string) string
}

type memberService struct {
	belfryv1.UnimplementedMemberServiceServer
	s *Server
}

// CreateToken answers when every member that is up knows the token.
func (m *memberService) CreateToken(ctx context.Context, req *belfryv1.CreateTokenRequest) (*belfryv1.CreateTokenResponse, error) {
	return led(ctx, m.s, belfryv1.MemberService_CreateToken_FullMethodName, req, m.s.createToken)
}

func (s *Server) createToken(ctx context.Context, req *belfryv1.CreateTokenRequest) (*belfryv1.CreateTokenResponse, error) {
	resp, err := s.opts.Members.CreateToken(ctx, subjectFrom(ctx).String(), req)
	if err != nil {
		return nil, &belfry.Error{Op: "CreateToken", Err: err}
	}
	resp.Unconfirmed = s.opts.Leader.Unconfirmed(resp.GetGeneration())
	s.audit(ctx, "CreateToken", resp.GetId(), resp.GetGeneration(), "role", req.GetRole(), "name", req.GetName(), "expires", resp.GetExpires().AsTime())
	return resp, nil
}

// ListTokens pages through the tokens by the time at which they end.
func (m *memberService) ListTokens(_ context.Context, req *belfryv1.ListTokensRequest) (*belfryv1.ListTokensResponse, error) {
	tokens, next, err := page(m.s.opts.Members.Tokens(), req.GetPageSize(), req.GetPageToken(), func(t **belfryv1.TokenInfo) string {
		return (*t).GetExpires().AsTime().UTC().Format("2006-01-02T15:04:05.000000000") + "\x00" + (*t).GetId()
	})
	if err != nil {
		return nil, &belfry.Error{Op: "ListTokens", Err: err}
	}
	return &belfryv1.ListTokensResponse{Tokens: tokens, NextPageToken: next}, nil
}

// RevokeToken ends a token before its time.
func (m *memberService) RevokeToken(ctx context.Context, req *belfryv1.RevokeTokenRequest) (*belfryv1.RevokeTokenResponse, error) {
	return led(ctx, m.s, belfryv1.MemberService_RevokeToken_FullMethodName, req, m.s.revokeToken)
}

func (s *Server) revokeToken(ctx context.Context, req *belfryv1.RevokeTokenRequest) (*belfryv1.RevokeTokenResponse, error) {
	generation, err := s.opts.Members.RevokeToken(ctx, req.GetId())
	if err != nil {
		return nil, &belfry.Error{Op: "RevokeToken", Subject: req.GetId(), Err: err}
	}
	s.audit(ctx, "RevokeToken", req.GetId(), generation)
	return &belfryv1.RevokeTokenResponse{Generation: generation, Unconfirmed: s.opts.Leader.Unconfirmed(generation)}, nil
}

// RemoveNode answers when every member that is up refuses the node.
func (m *memberService) RemoveNode(ctx context.Context, req *belfryv1.RemoveNodeRequest) (*belfryv1.RemoveNodeResponse, error) {
	view := m.s.opts.Cluster.View()
	self := view.Self
	id, err := findNode(view, cmp.Or(req.GetNode(), self.String()))
	if err != nil {
		return nil, &belfry.Error{Op: "RemoveNode", Subject: req.GetNode(), Err: err}
	}
	leaving := id == self && !req.GetDryRun()
	if leaving {
		m.s.opts.Members.Leaving(true)
	}
	req = &belfryv1.RemoveNodeRequest{Node: id.String(), DryRun: req.GetDryRun(), Force: req.GetForce()} // the leader is another node
	resp, err := led(ctx, m.s, belfryv1.MemberService_RemoveNode_FullMethodName, req, m.s.removeNode)
	if errors.Is(err, belfry.ErrUnknown) && !req.GetDryRun() {
		if left, ok := m.s.opts.Members.Left(ctx, id, nodeName(view, id)); ok {
			return left, nil
		}
	}
	if err != nil && leaving {
		m.s.opts.Members.Leaving(false)
	}
	return resp, err
}

func (s *Server) removeNode(ctx context.Context, req *belfryv1.RemoveNodeRequest) (*belfryv1.RemoveNodeResponse, error) {
	view := s.opts.Cluster.View()
	subject := req.GetNode()
	id, err := findNode(view, subject)
	var resp *belfryv1.RemoveNodeResponse
	if err == nil {
		subject = nodeName(view, id) // the asker's agent gave the id
		resp, err = s.opts.Members.RemoveNode(ctx, id, req.GetDryRun(), req.GetForce())
	}
	if err != nil {
		return nil, &belfry.Error{Op: "RemoveNode", Subject: subject, Err: err}
	}
	if !req.GetDryRun() {
		resp.Unconfirmed = s.opts.Leader.Unconfirmed(resp.GetGeneration())
		s.audit(ctx, "RemoveNode", resp.GetNodeName(), resp.GetGeneration(), "node_id", resp.GetNodeId())
	}
	return resp, nil
}

// RotateCA answers when the new authority counts beside the old one.
func (m *memberService) RotateCA(ctx context.Context, req *belfryv1.RotateCARequest) (*belfryv1.RotateCAResponse, error) {
	return led(ctx, m.s, belfryv1.MemberService_RotateCA_FullMethodName, req, m.s.rotateCA)
}

func (s *Server) rotateCA(ctx context.Context, _ *belfryv1.RotateCARequest) (*belfryv1.RotateCAResponse, error) {
	resp, err := s.opts.Members.RotateCA(ctx)
	if err != nil {
		return nil, &belfry.Error{Op: "RotateCA", Err: err}
	}
	resp.Unconfirmed = s.opts.Leader.Unconfirmed(resp.GetGeneration())
	s.audit(ctx, "RotateCA", resp.GetFingerprint(), resp.GetGeneration())
	return resp, nil
}

// ListClients pages through the clients by name.
func (m *memberService) ListClients(_ context.Context, req *belfryv1.ListClientsRequest) (*belfryv1.ListClientsResponse, error) {
	clients, next, err := page(m.s.opts.Members.Clients(), req.GetPageSize(), req.GetPageToken(),
		func(c **belfryv1.ClientInfo) string { return (*c).GetName() })
	if err != nil {
		return nil, &belfry.Error{Op: "ListClients", Err: err}
	}
	return &belfryv1.ListClientsResponse{Clients: clients, NextPageToken: next}, nil
}

// RemoveClient answers when every member that is up refuses the client.
func (m *memberService) RemoveClient(ctx context.Context, req *belfryv1.RemoveClientRequest) (*belfryv1.RemoveClientResponse, error) {
	return led(ctx, m.s, belfryv1.MemberService_RemoveClient_FullMethodName, req, m.s.removeClient)
}

func (s *Server) removeClient(ctx context.Context, req *belfryv1.RemoveClientRequest) (*belfryv1.RemoveClientResponse, error) {
	resp, err := s.opts.Members.RemoveClient(ctx, req.GetName(), req.GetDryRun(), req.GetForce())
	if err != nil {
		return nil, &belfry.Error{Op: "RemoveClient", Subject: req.GetName(), Err: err}
	}
	if !req.GetDryRun() {
		resp.Unconfirmed = s.opts.Leader.Unconfirmed(resp.GetGeneration())
		s.audit(ctx, "RemoveClient", req.GetName(), resp.GetGeneration(), "role", resp.GetClient().GetRole(), "force", req.GetForce())
	}
	return resp, nil
}

// ListGrants answers from memory.
func (m *memberService) ListGrants(context.Context, *belfryv1.ListGrantsRequest) (*belfryv1.ListGrantsResponse, error) {
	rows, generation := m.s.opts.Members.Grants()
	return &belfryv1.ListGrantsResponse{Grants: rows, Generation: generation}, nil
}

// SetGrant answers when every member that is up has the change. What the subject
// is on this machine is this node's word, not the leader's: agents run as other
// users, and groups differ.
func (m *memberService) SetGrant(ctx context.Context, req *belfryv1.SetGrantRequest) (*belfryv1.SetGrantResponse, error) {
	resp, err := led(ctx, m.s, belfryv1.MemberService_SetGrant_FullMethodName, req, m.s.setGrant)
	if err != nil {
		return nil, err
	}
	if role := m.s.opts.Members.DefaultRole(req.GetSubject()); role != belfry.RoleNone {
		resp.DefaultRole = role.String()
	}
	if req.GetRole() != "" || len(req.GetAllow()) > 0 {
		resp.NothingHere = m.s.opts.Members.NothingHere(req.GetSubject())
	}
	return resp, nil
}

func (s *Server) setGrant(ctx context.Context, req *belfryv1.SetGrantRequest) (*belfryv1.SetGrantResponse, error) {
	resp, err := s.opts.Members.SetGrant(ctx, req)
	if err != nil {
		return nil, &belfry.Error{Op: "SetGrant", Subject: req.GetSubject(), Err: err}
	}
	if resp.GetChanged() && !req.GetDryRun() {
		resp.Unconfirmed = s.opts.Leader.Unconfirmed(resp.GetGeneration())
		s.audit(ctx, "SetGrant", grantText(req), resp.GetGeneration(), "force", req.GetForce())
	}
	return resp, nil
}

// grantText says for the audit who has what from then on.
func grantText(req *belfryv1.SetGrantRequest) string {
	has := slices.Concat([]string{req.GetRole()}, req.GetAllow())
	if has = slices.DeleteFunc(has, func(s string) bool { return s == "" }); len(has) == 0 {
		has = []string{"nothing"}
	}
	return req.GetSubject() + " has " + strings.Join(has, " ")
}

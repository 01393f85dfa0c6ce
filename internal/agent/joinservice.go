package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/security"
)

// A joinDesk is api.Joins: it sees who is there, and the leader does the rest.
type joinDesk struct{ *Agent }

var _ api.Joins = joinDesk{}

// Describe says which cluster this is.
func (j joinDesk) Describe() *belfryv1.DescribeClusterResponse {
	t := j.members.Table()
	return &belfryv1.DescribeClusterResponse{ClusterId: t.Cluster.String(), Generation: t.Generation, Epoch: t.Epoch}
}

// Join has the leader admit whoever proves that it has a token.
func (j joinDesk) Join(ctx context.Context, on tls.ConnectionState, req *belfryv1.JoinRequest) (*belfryv1.JoinResponse, error) {
	if _, err := identityOf(on, req.GetCsr(), req.GetProof()); err != nil {
		return nil, err
	}
	resp := new(belfryv1.JoinResponse)
	here := func(ctx context.Context) (err error) {
		resp, err = j.admit(ctx, req)
		return err
	}
	err := j.Lead(ctx, belfryv1.JoinService_Join_FullMethodName, req, here, resp)
	return resp, err
}

// Renew gives a listed member its next certificate.
func (j joinDesk) Renew(ctx context.Context, on tls.ConnectionState, req *belfryv1.RenewRequest) (*belfryv1.RenewResponse, error) {
	public, err := identityOf(on, req.GetCsr(), req.GetProof())
	if err != nil {
		return nil, err
	}
	table := j.members.Table()
	n, ok := table.holder(public)
	if !ok {
		return nil, fmt.Errorf("%w: no member has this key", belfry.ErrNotMember)
	}
	issued, err := j.issue(ctx, &belfryv1.IssueCertificateRequest{NodeId: n.ID[:], Csr: req.GetCsr()})
	return &belfryv1.RenewResponse{Certificate: issued.GetCertificate(), Ca: table.authorities()}, err
}

// Membership tells a node that has its key whether it is listed or was removed,
// and whether another agent has its identity. One that is known no more shows its
// certificate: it was admitted by a leader whose generation was lost in a cut, or
// was removed so long ago that its key is forgotten.
func (j joinDesk) Membership(on tls.ConnectionState, req *belfryv1.GetMembershipRequest) (*belfryv1.GetMembershipResponse, error) {
	id, err := belfry.ParseNodeID(req.GetNodeId())
	if err != nil {
		return nil, err
	}
	table := j.members.Table()
	_, listed := table.Node(id)
	key, err := j.keyOf(table, id, req.GetCertificate())
	if err != nil {
		return nil, err
	}
	if err := security.CheckProof(on, key, req.GetProof()); err != nil {
		return nil, err
	}
	resp := &belfryv1.GetMembershipResponse{Removed: !listed, Generation: table.Generation, Time: timestamppb.Now()}
	if listed {
		newest, used := j.seen(id, belfry.Incarnation(req.GetIncarnation()), belfry.Boot(req.GetBoot()))
		resp.Incarnation, resp.Used = uint32(newest), used
	}
	return resp, nil
}

// keyOf is the key of a node that is, was, or was to be a member.
func (j joinDesk) keyOf(table *Table, id belfry.NodeID, certificate []byte) (ed25519.PublicKey, error) {
	if n, listed := table.Node(id); listed {
		return n.Key.ed25519(), nil
	}
	if former, known := table.removedNode(id); known {
		return former.Key.ed25519(), nil
	}
	if len(certificate) == 0 {
		return nil, fmt.Errorf("%w: node %s is not listed and was not removed", belfry.ErrNotMember, id)
	}
	return j.keys.now().NodeKey(certificate, id, time.Now())
}

// identityOf is the key of a request whose holder is at the other end of the
// connection.
func identityOf(on tls.ConnectionState, csr, proof []byte) (ed25519.PublicKey, error) {
	public, err := security.CheckRequest(csr)
	if err != nil {
		return nil, err
	}
	return public, security.CheckProof(on, public, proof)
}

// holder finds the member with a key.
func (t *Table) holder(public ed25519.PublicKey) (Node, bool) {
	for _, n := range t.Nodes {
		if n.Key.equal(PublicKey(public)) {
			return n, true
		}
	}
	return Node{}, false
}

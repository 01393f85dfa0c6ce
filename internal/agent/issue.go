package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/security"
)

// signer opens the key of the authority that signs, if it is sealed to this
// node. The key is not kept.
func (a *Agent) signer() (*security.CA, error) {
	table := a.members.Table()
	if len(table.CA) == 0 || a.sealing == nil {
		return nil, fmt.Errorf("%w: this node holds no authority's key", belfry.ErrNotFound)
	}
	ca := table.CA[0].Digest()
	i := slices.IndexFunc(table.CAKeys, func(k SealedKey) bool { return k.Holder == a.id.node.ID && k.CA == ca })
	if i < 0 {
		return nil, fmt.Errorf("%w: this node does not hold the authority's key", belfry.ErrNotFound)
	}
	authorities, err := security.ParseAuthorities(table.authorities())
	if err != nil {
		return nil, err
	}
	return security.OpenCA(authorities[0], table.CAKeys[i].Sealed, a.sealing)
}

// issueHere signs at this node.
func (a *Agent) issueHere(_ context.Context, req *belfryv1.IssueCertificateRequest) (*belfryv1.IssueCertificateResponse, error) {
	ca, err := a.signer()
	if err != nil {
		return nil, err
	}
	public, err := security.CheckRequest(req.GetCsr())
	if err != nil {
		return nil, err
	}
	resp := new(belfryv1.IssueCertificateResponse)
	if len(req.GetNodeId()) == 0 {
		resp.Certificate, err = ca.IssueClient(time.Now(), req.GetClient(), public)
		return resp, err
	}
	if len(req.GetNodeId()) != len(belfry.NodeID{}) {
		return nil, fmt.Errorf("%w: node id of %d bytes", belfry.ErrUsage, len(req.GetNodeId()))
	}
	if resp.Certificate, err = ca.IssueNode(time.Now(), belfry.NodeID(req.GetNodeId()), public); err != nil {
		return nil, err
	}
	if len(req.GetSealing()) > 0 {
		resp.SealedCa, err = security.SealCA(ca, req.GetSealing())
	}
	return resp, err
}

// issue has a holder of the authority's key sign: this node, or one that can
// be reached.
func (a *Agent) issue(ctx context.Context, req *belfryv1.IssueCertificateRequest) (*belfryv1.IssueCertificateResponse, error) {
	resp, err := a.issueHere(ctx, req)
	if !errors.Is(err, belfry.ErrNotFound) {
		return resp, err
	}
	table := a.members.Table()
	errs := []error{err}
	for _, k := range table.CAKeys {
		if k.Holder == a.id.node.ID || k.CA != table.CA[0].Digest() || !a.streams.Connected(k.Holder) {
			continue
		}
		resp := new(belfryv1.IssueCertificateResponse)
		err := a.ask(ctx, k.Holder, belfryv1.MemberPeerService_IssueCertificate_FullMethodName, req, resp)
		if err == nil {
			return resp, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w: no node that holds the authority's key can be reached; start one of %s: %w",
		belfry.ErrUnknown, a.holderNames(table), errors.Join(errs...))
}

// holderNames are for messages.
func (a *Agent) holderNames(t *Table) (names []string) {
	for _, k := range t.CAKeys {
		if n, ok := t.Node(k.Holder); ok && !slices.Contains(names, n.Name) {
			names = append(names, n.Name)
		}
	}
	return names
}

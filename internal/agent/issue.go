package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	opened, err := security.OpenCA(authorities[0], table.CAKeys[i].Sealed, a.sealing)
	if err != nil { // another one can sign
		return nil, fmt.Errorf("%w: %w", belfry.ErrNotFound, err)
	}
	return opened, nil
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
	if table.offline() {
		return a.issueOffline(table, req)
	}
	if len(table.CAKeys) == 0 {
		return nil, fmt.Errorf("%w: the nodes that held the authority's key were removed; another one takes its place once more than half of the members are up and know it", belfry.ErrUnknown)
	}
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

// issueOffline leaves the request for an administrator who has the authority's
// key, and is the answer once it is signed. Until then it is ErrUnknown: asking
// again helps.
func (a *Agent) issueOffline(t *Table, req *belfryv1.IssueCertificateRequest) (*belfryv1.IssueCertificateResponse, error) {
	public, err := security.CheckRequest(req.GetCsr())
	if err != nil {
		return nil, err
	}
	id := security.Identity{Cluster: t.Cluster, Client: req.GetClient()}
	copy(id.Node[:], req.GetNodeId())
	pending, err := security.FindRequest(a.keys.dir, public)
	if err != nil || pending.Identity != id { // an identity that was asked for before keeps its request
		authorities, err := security.ParseAuthorities(t.authorities())
		if err != nil {
			return nil, err
		}
		if pending, err = security.LeaveRequest(a.keys.dir, authorities[0], id, req.GetCsr()); err != nil {
			return nil, err
		}
	}
	certificate, err := pending.Signed()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it waits for a signature: on node %s run belfry ca sign %s --key FILE", belfry.ErrUnknown, a.id.node.Name, pending.File)
	}
	if err != nil {
		return nil, err
	}
	return &belfryv1.IssueCertificateResponse{Certificate: certificate}, pending.Done()
}

// SignRequest makes the certificate that a request file asks for, with the
// authority's key in another file, for where no agent need run. It returns whom
// it is for and where it is.
func SignRequest(file, keyFile string, now time.Time) (who, to string, err error) {
	id, to, err := security.SignRequest(file, keyFile, now)
	return id.String(), to, err
}

// newNodeID draws the id of a node that is to join, or is the one that its
// request for a signature names already.
func (a *Agent) newNodeID(public []byte) belfry.NodeID {
	if pending, err := security.FindRequest(a.keys.dir, public); err == nil && !pending.Identity.Node.IsZero() {
		return pending.Identity.Node
	}
	return belfry.NewNodeID()
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

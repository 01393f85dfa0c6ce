package agent

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/repository/etcd"
	"github.com/belfry-ha/belfry/internal/security"
)

// An applicant is who wants to join, as far as its request says.
type applicant struct {
	node      Node   // without id and number; of a client only name and key
	sealed    []byte // the authority's key for it, if it is to hold one
	token     JoinToken
	csr       []byte
	addresses []netip.Prefix
	size      Capacity
}

// maxAddresses bounds the networks of one node: a link has four bits
// (cluster.md 2).
const maxAddresses = 16

// admit lets in whoever proves that it has a token: the node gets a number,
// and the token is used up, in one generation. This node is the leader.
func (a *Agent) admit(ctx context.Context, req *belfryv1.JoinRequest) (*belfryv1.JoinResponse, error) {
	table := a.members.Table()
	public, err := security.CheckRequest(req.GetCsr())
	if err != nil {
		return nil, err
	}
	if n, ok := table.holder(public); ok { // it was admitted and did not hear of it
		return a.welcome(ctx, n, req.GetCsr())
	}
	resp, err := a.admitAnew(ctx, req, public)
	if n, ok := a.members.Table().holder(public); err != nil && ok { // it asked twice, and the first one was admitted meanwhile
		return a.welcome(ctx, n, req.GetCsr())
	}
	return resp, err
}

// admitAnew admits whoever has a token and is no member.
func (a *Agent) admitAnew(ctx context.Context, req *belfryv1.JoinRequest, public []byte) (*belfryv1.JoinResponse, error) {
	token, err := a.spend(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, err := a.admitHolder(ctx, req, token, public)
	if err != nil {
		return nil, &belfry.Error{Op: api.OpAdmit, Err: err}
	}
	return resp, nil
}

// admitHolder admits whoever has a token that can still be used.
func (a *Agent) admitHolder(ctx context.Context, req *belfryv1.JoinRequest, token JoinToken, public []byte) (*belfryv1.JoinResponse, error) {
	who, err := newApplicant(req, token, public)
	if err != nil {
		return nil, err
	}
	if err := a.majority(); err != nil {
		return nil, err
	}
	if token.Role != roleNode {
		return a.admitClient(ctx, who)
	}
	if err := security.CheckSealingKey(public, req.GetSealing(), req.GetSealingSignature()); err != nil {
		return nil, err
	}
	return a.admitNode(ctx, who)
}

// spend finds the token and compares its secret, in constant time. It is used
// up in the generation that admits its holder, or by too many failures.
func (a *Agent) spend(ctx context.Context, req *belfryv1.JoinRequest) (JoinToken, error) {
	id := hex.EncodeToString(req.GetTokenId())
	token, known := a.members.Table().token(id)
	given := sha256.Sum256(req.GetTokenSecret())
	if subtle.ConstantTimeCompare(given[:], token.Hash[:]) != 1 || !known {
		return JoinToken{}, a.missed(ctx, token, id)
	}
	if now := a.clusterTime(); !now.Before(token.Expires) {
		return JoinToken{}, fmt.Errorf("%w: token %s ended at %s", belfry.ErrStale, id, token.Expires)
	}
	return token, nil
}

// missed counts a wrong secret and says what is wrong, for the log only: who is
// refused is told nothing.
func (a *Agent) missed(ctx context.Context, token JoinToken, id string) error {
	wrong := fmt.Errorf("%w: wrong secret for token %s", belfry.ErrPermission, id)
	if token.ID == "" {
		wrong = fmt.Errorf("%w: no token %s: it was used or revoked, has ended, or is of nobody here", belfry.ErrPermission, id)
	}
	switch {
	case token.Wrong > 0:
		return token.usedUp()
	case token.ID == "" || a.misses.count(id) < tokenFailures:
		return wrong
	}
	if err := a.useUp(ctx, id); err != nil {
		a.log.Warn("token not used up by wrong secrets; it is tried again at the next one", "token", id, "err", err)
		return wrong
	}
	token.Wrong = tokenFailures
	return token.usedUp()
}

// usedUp is the error of whoever brings the token after wrong secrets.
func (k JoinToken) usedUp() error {
	return fmt.Errorf("%w: token %s was used up by %d wrong secrets; make a new one with belfry token create", belfry.ErrPermission, k.ID, k.Wrong)
}

// useUp makes a token worthless, and keeps it until it ends: belfry token list
// shows why it is refused.
func (a *Agent) useUp(ctx context.Context, id string) error {
	if err := a.majority(); err != nil {
		return err
	}
	_, _, err := a.commit(ctx, func(t *Table) error {
		for i, k := range t.Tokens {
			if k.ID == id { // without a hash agents that do not know of Wrong refuse it too
				t.Tokens[i].Hash, t.Tokens[i].Wrong = Digest{}, tokenFailures
			}
		}
		return nil
	})
	return err
}

func newApplicant(req *belfryv1.JoinRequest, token JoinToken, public []byte) (applicant, error) {
	who := applicant{token: token, csr: req.GetCsr(), node: Node{Name: token.Name, Key: public, Sealing: req.GetSealing()}}
	if who.node.Name == "" {
		who.node.Name = req.GetName()
	}
	// Whoever takes a token for the other kind must not use it up: it would leave a
	// member without a state directory, or a client without a key.
	switch asNode := len(req.GetNetworks()) > 0; {
	case token.Role != roleNode && asNode:
		return who, fmt.Errorf("%w: the token is for client %s (%s), not for a node, and is not used up; name the directory for the client's key and certificate with --identity DIR", belfry.ErrUsage, token.Name, token.Role)
	case token.Role != roleNode:
		return who, nil
	case !asNode:
		return who, fmt.Errorf("%w: the token is for a node, not for a client, and is not used up; run belfry join on that machine without --identity, or make a token with --role", belfry.ErrUsage)
	}
	if req.GetNamed() && req.GetName() != who.node.Name {
		return who, fmt.Errorf("%w: the token is for node %s, and node.name says %q on that machine; the token is not used up: set node.name so, or leave it out", belfry.ErrUsage, who.node.Name, req.GetName())
	}
	if !validName(who.node.Name) {
		return who, fmt.Errorf("%w: name %q; 1 to 63 of a-z, 0-9 and -, not first a -", belfry.ErrUsage, who.node.Name)
	}
	who.size = Capacity{min(req.GetCores(), maxCapacity), min(req.GetMemoryBytes(), maxCapacity)}
	if n := len(req.GetNetworks()); n > maxAddresses {
		return who, fmt.Errorf("%w: %d addresses; 1 to %d", belfry.ErrUsage, n, maxAddresses)
	}
	return who, who.readAddresses(req)
}

func (who *applicant) readAddresses(req *belfryv1.JoinRequest) error {
	for _, network := range req.GetNetworks() {
		at, err := netip.ParseAddrPort(network.GetAddress())
		if err != nil {
			return fmt.Errorf("%w: heartbeat address: %w", belfry.ErrUsage, err)
		}
		prefix := netip.PrefixFrom(at.Addr().Unmap(), int(network.GetPrefix()))
		if !prefix.IsValid() || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
			return fmt.Errorf("%w: heartbeat address %s of a network of %d bits; an address of one machine", belfry.ErrUsage, at, network.GetPrefix())
		}
		who.node.Networks = append(who.node.Networks, Network{Heartbeat: netip.AddrPortFrom(prefix.Addr(), at.Port())})
		who.addresses = append(who.addresses, prefix)
	}
	var err error
	if who.node.Streams, err = netip.ParseAddrPort(req.GetStreams()); err != nil {
		return fmt.Errorf("%w: streams address: %w", belfry.ErrUsage, err)
	}
	if req.GetWeb() == "" {
		return nil
	}
	if who.node.Web, err = netip.ParseAddrPort(req.GetWeb()); err != nil {
		return fmt.Errorf("%w: web address: %w", belfry.ErrUsage, err)
	}
	return nil
}

// admitNode has the certificate issued first: a member that has none would be
// one that nobody can reach.
func (a *Agent) admitNode(ctx context.Context, who applicant) (*belfryv1.JoinResponse, error) {
	table := a.members.Table()
	if err := table.place(&who); err != nil { // before somebody signs for it
		return nil, err
	}
	who.node.ID = a.newNodeID([]byte(who.node.Key))
	req := &belfryv1.IssueCertificateRequest{NodeId: who.node.ID[:], Csr: who.csr}
	if table.holders(table.CA[0].Digest()) < caHolders && !table.offline() {
		req.Sealing = who.node.Sealing
	}
	issued, err := a.issue(ctx, req)
	if err != nil {
		return nil, err
	}
	who.sealed = issued.GetSealedCa()
	if a.storage != nil {
		who.node.Certificate, who.node.Capacity = issued.GetCertificate(), who.size
	}
	_, _, err = a.commit(ctx, func(t *Table) error { return t.admit(who, table.CA[0].Digest()) })
	if err != nil {
		return nil, err
	}
	return a.reply(who.node.ID, issued.GetCertificate())
}

// admit is the one change that a token buys.
func (t *Table) admit(who applicant, ca Digest) error {
	if err := t.useToken(who.token); err != nil {
		return err
	}
	if n, taken := t.named(who.node.Name); taken {
		return fmt.Errorf("%w: %s is node %s already; give another name with node.name, or remove that one first", belfry.ErrExist, n.Name, n.ID)
	}
	if n, known := t.holder([]byte(who.node.Key)); known {
		return fmt.Errorf("%w: the key is that of node %s", belfry.ErrExist, n.Name)
	}
	if err := t.place(&who); err != nil {
		return err
	}
	t.add(who.node)
	if who.sealed != nil && t.holders(ca) < caHolders {
		t.CAKeys = append(t.CAKeys, SealedKey{CA: ca, Holder: who.node.ID, Sealed: who.sealed})
	}
	return nil
}

func (t *Table) useToken(token JoinToken) error {
	for i, k := range t.Tokens {
		if k.ID == token.ID && k.Hash == token.Hash {
			t.Tokens = append(t.Tokens[:i:i], t.Tokens[i+1:]...)
			return nil
		}
	}
	return fmt.Errorf("%w: token %s was used or revoked meanwhile", belfry.ErrPermission, token.ID)
}

// admitClient gives the token's name its role, and its holder a certificate.
func (a *Agent) admitClient(ctx context.Context, who applicant) (*belfryv1.JoinResponse, error) {
	issued, err := a.issue(ctx, &belfryv1.IssueCertificateRequest{Client: who.node.Name, Csr: who.csr})
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(issued.GetCertificate())
	if err != nil {
		return nil, fmt.Errorf("certificate of client %s: %w", who.node.Name, err)
	}
	key := newClientKey(certificate)
	key.Joined, key.Token = a.clusterTime().UTC().Truncate(time.Second), who.token.ID
	_, generation, err := a.commit(ctx, func(t *Table) error {
		if err := t.useToken(who.token); err != nil {
			return err
		}
		return t.addClient(who.node.Name, who.token.Role, key)
	})
	if err != nil {
		return nil, err
	}
	table := a.members.Table()
	return &belfryv1.JoinResponse{
		Name: who.node.Name, Role: who.token.Role, Cluster: table.Name, Generation: generation,
		Certificate: issued.GetCertificate(), Ca: table.authorities(),
	}, nil
}

// welcome answers a node that is a member already and has proved that it has
// the listed key: its answer was lost.
func (a *Agent) welcome(ctx context.Context, n Node, csr []byte) (*belfryv1.JoinResponse, error) {
	issued, err := a.issue(ctx, &belfryv1.IssueCertificateRequest{NodeId: n.ID[:], Csr: csr})
	if err != nil {
		return nil, err
	}
	return a.reply(n.ID, issued.GetCertificate())
}

// reply is what a new member starts with.
func (a *Agent) reply(id belfry.NodeID, certificate []byte) (*belfryv1.JoinResponse, error) {
	table := a.members.Table()
	secret, ok := a.keys.secret(table.Epoch, table.Secret)
	if !ok {
		return nil, fmt.Errorf("%w: the group secret of epoch %d is not here yet", belfry.ErrUnknown, table.Epoch)
	}
	n, _ := table.Node(id)
	resp := &belfryv1.JoinResponse{
		NodeId: id.String(), Name: n.Name, Role: roleNode, Cluster: table.Name, Generation: table.Generation,
		Certificate: certificate, Ca: table.authorities(),
		Epoch: table.Epoch, Secret: secret[:],
	}
	if a.storage != nil {
		held := a.storage.held()
		resp.Repository, resp.Digest, resp.Generation = held.Repository[:], held.Digest[:], held.Generation
		resp.RepositoryEpoch = held.Epoch
		if e := held.Document.Repository.Etcd; e != nil {
			resp.Place = etcd.URL(e.Endpoints, e.Prefix)
		}
		return resp, nil
	}
	var err error
	resp.Document, err = table.encode()
	return resp, err
}

// tokenFailures is how many wrong secrets use a token up.
const tokenFailures = 10

// misses counts the wrong secrets of each token. Safe for concurrent use.
type misses struct {
	mu sync.Mutex
	of map[string]int // at most one for each token that is alive
}

func (m *misses) count(token string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil || len(m.of) > maxTokens {
		m.of = map[string]int{}
	}
	m.of[token]++
	return m.of[token]
}

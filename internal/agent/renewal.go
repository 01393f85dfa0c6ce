package agent

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/security"
)

// renewAge is when this start of the agent renews, around the age of
// security.md, so that nodes that were made together do not all ask at once.
func renewAge() time.Duration {
	return security.RenewAfter + time.Duration(rand.Int64N(int64(2*security.RenewSpread))) - security.RenewSpread
}

// certificateAge tells whether a certificate need not be renewed yet, and
// whether others take it now. One that begins later was made while a clock was
// ahead.
func certificateAge(now time.Time, leaf *x509.Certificate, renewAt time.Duration) (young, valid bool) {
	begun := !now.Before(leaf.NotBefore)
	return begun && now.Sub(leaf.NotBefore) < renewAt, begun && !now.After(leaf.NotAfter)
}

// renewIfDue has this node's certificate replaced when it is old enough, or
// under an authority that is on its way out.
func (a *Agent) renewIfDue(ctx context.Context) error {
	table, keys := a.members.Table(), a.keys.now()
	if len(table.CA) == 0 {
		return nil // of a cluster whose authority's key was thrown away
	}
	issuer := keys.Issuer()
	young, valid := certificateAge(time.Now(), keys.Certificate.Leaf, a.renewAt)
	if young && issuer != nil && bytes.Equal(issuer.Raw, table.CA[0]) {
		return nil
	}
	csr, err := keys.Request()
	if err != nil {
		return err
	}
	resp, err := a.issue(ctx, &belfryv1.IssueCertificateRequest{NodeId: a.id.node.ID[:], Csr: csr})
	if err != nil && !valid {
		resp, err = a.renewAsGuest(ctx, csr)
	}
	if err != nil {
		return err
	}
	if err := a.keys.renew(resp.GetCertificate(), table.authorities()); err != nil {
		return err
	}
	a.log.Info("certificate renewed", "ends", a.keys.now().Certificate.Leaf.NotAfter)
	return nil
}

// A certificate that could not be renewed is told of from this long before its
// end on, once in a while.
const (
	certificateNews      = 7 * 24 * time.Hour
	certificateNewsEvery = 24 * time.Hour
)

// tellCertificate posts security.certificate. It is called by the duties only.
func (a *Agent) tellCertificate(now time.Time, err error) {
	ends := a.keys.now().Certificate.Leaf.NotAfter
	if ends.Sub(now) > certificateNews || now.Sub(a.toldCertificate) < certificateNewsEvery {
		return
	}
	a.toldCertificate = now
	a.notices.Tell(node.Certificate, a.id.node.Name, now, belfry.EdgeFailing, &belfryv1.SecurityCertificate{
		Node: a.id.node.Name, Ends: ends.UTC().Format(time.RFC3339), Error: err.Error(),
	})
}

// renewAsGuest asks the members one after the other, without a certificate that
// they would take: this one has ended while the node did not run.
func (a *Agent) renewAsGuest(ctx context.Context, csr []byte) (*belfryv1.IssueCertificateResponse, error) {
	err := fmt.Errorf("%w: no other member", belfry.ErrNotFound)
	for _, n := range a.members.Table().Nodes {
		if n.ID == a.id.node.ID {
			continue
		}
		for _, address := range streamAddresses(n) {
			var resp *belfryv1.RenewResponse
			if resp, err = askRenewal(ctx, address.String(), a.keys.now(), csr); err == nil {
				return &belfryv1.IssueCertificateResponse{Certificate: resp.GetCertificate()}, nil
			}
			a.log.Debug("certificate not renewed by this member", "peer", n.Name, "address", address, "err", err)
		}
	}
	return nil, err
}

// renew puts a certificate and the authorities that count in force.
func (k *keyring) renew(certificate []byte, authorities [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next, err := k.now().Renewed(certificate, authorities)
	if err != nil {
		return err
	}
	if err := security.WriteAuthorities(k.dir, authorities); err != nil {
		return err
	}
	if err := security.WriteCertificate(k.dir, certificate); err != nil {
		return err
	}
	k.hold(next)
	return nil
}

// follow has the authorities of a table count. The node's own certificate may
// still be under one that is gone then: it is renewed next.
func (k *keyring) follow(authorities [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	certs, err := security.ParseAuthorities(authorities)
	if err != nil {
		return err
	}
	if err := security.WriteAuthorities(k.dir, authorities); err != nil {
		return err
	}
	next := *k.now()
	next.CA = certs
	k.hold(&next)
	return nil
}

// followAuthorities has the authorities of a table count here.
func (a *Agent) followAuthorities(t *Table) {
	held := a.keys.now().CA
	same := len(held) == len(t.CA)
	for i := range t.CA {
		same = same && bytes.Equal(held[i].Raw, t.CA[i])
	}
	if same || len(t.CA) == 0 {
		return
	}
	if err := a.keys.follow(t.authorities()); err != nil {
		a.log.Error("authorities not taken", "generation", t.Generation, "err", err) // the table was validated
		return
	}
	a.log.Info("authorities", "generation", t.Generation, "count", len(t.CA))
	a.dutyDue() // the certificate is under the old one
}

// RotateCA begins to replace the authority. Each step waits for all members,
// those that do not run included, so that none refuses a good node: all know the
// new one, then it signs, then all have its certificates, then the old one goes.
func (a *Agent) RotateCA(ctx context.Context) (*belfryv1.RotateCAResponse, error) {
	table := a.members.Table()
	switch {
	case len(table.CA) == 0 || table.offline():
		return nil, fmt.Errorf("%w: the authority's key is not in the cluster; it can not be replaced from here", belfry.ErrUnsupported)
	case len(table.CA) > 1:
		return nil, fmt.Errorf("%w: the authority is being replaced; wait until every node has renewed, belfry doctor tells which has not", belfry.ErrConflict)
	}
	if err := a.majority(); err != nil {
		return nil, err
	}
	ca, err := security.NewCA(table.Cluster, time.Now())
	if err != nil {
		return nil, err
	}
	digest := Certificate(ca.Certificate.Raw).Digest()
	_, generation, err := a.commit(ctx, func(t *Table) error {
		if len(t.CA) != 1 {
			return fmt.Errorf("%w: the authority is being replaced already", belfry.ErrConflict)
		}
		t.CA, t.CANext = []Certificate{t.CA[0], ca.Certificate.Raw}, true
		t.Exposed = false
		return t.sealCA(ca)
	})
	if err != nil {
		return nil, err
	}
	return &belfryv1.RotateCAResponse{Fingerprint: fmt.Sprintf("%x", digest), Generation: generation}, nil
}

// careForCA has the authority replaced when a node that held its key was
// removed, and gives the key to another node when fewer hold it than should.
func (a *Agent) careForCA(ctx context.Context) error {
	table := a.members.Table()
	if len(table.CA) != 1 || table.offline() {
		return nil
	}
	if table.Exposed {
		_, err := a.RotateCA(ctx)
		return err
	}
	ca, err := a.signer()
	if err != nil || !table.wantsHolder() {
		return nil //nolint:nilerr // another node holds the key, and has this duty when it leads
	}
	_, _, err = a.commit(ctx, func(t *Table) error {
		if len(t.CA) != 1 || !t.wantsHolder() {
			return nil
		}
		return t.sealCA(ca)
	})
	return err
}

// wantsHolder tells whether there is a node that could hold the authority's
// key and should.
func (t *Table) wantsHolder() bool {
	if t.holders(t.CA[0].Digest()) >= caHolders {
		return false
	}
	return slices.ContainsFunc(t.Nodes, func(n Node) bool { return len(n.Sealing) > 0 && !t.holds(n.ID, t.CA[0].Digest()) })
}

// carryOnRotation takes the next step of a replacement when all members are
// ready for it. This node has asked them.
func (a *Agent) carryOnRotation(ctx context.Context) error {
	table, states := a.members.Table(), a.polled.get()
	if len(table.CA) < 2 {
		return nil
	}
	first, second := table.CA[0].Digest(), table.CA[1].Digest()
	for _, n := range table.Nodes {
		s := states[n.ID]
		if table.CANext && !slices.Contains(s.knows, second) || !table.CANext && s.ca != first {
			return nil
		}
	}
	_, _, err := a.commit(ctx, func(t *Table) error {
		switch {
		case len(t.CA) != 2 || t.CA[0].Digest() != first || t.CANext != table.CANext:
			return nil // somebody else was faster
		case t.CANext:
			t.CA[0], t.CA[1], t.CANext = t.CA[1], t.CA[0], false
		default:
			t.CA = t.CA[:1]
			t.dropKeys(second)
		}
		return nil
	})
	return err
}

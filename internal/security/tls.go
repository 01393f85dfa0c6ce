package security

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// TLSOptions is what the configurations of a node are made with.
type TLSOptions struct {
	// Keys is asked at each handshake, so that a renewed certificate and a
	// rotated authority count at once. Not nil; safe for concurrent use.
	Keys func() *Keys
	// Listed is asked at each handshake whether the configuration lists the node
	// with that identity. Not nil; safe for concurrent use. Its error ends the
	// handshake.
	Listed func(node belfry.NodeID, public ed25519.PublicKey) error
	// Client is the same for clients of the API, by name and key. Nil: no client
	// is let in.
	Client func(name string, public ed25519.PublicKey) error
	// Guests lets in who has no certificate yet, under the server name for
	// joining. [IsJoin] tells who that is; whoever serves must keep them to the
	// service for joining.
	Guests bool
	// Settled returns when the node's certificate is under the authority that
	// tokens name, the first of Keys, or when ctx ends, or sooner if that may
	// take long: while the authority is replaced it is renewed. Guests wait for
	// it. Nil: they do not. Safe for concurrent use.
	Settled func(ctx context.Context)
	// Now is the clock for the dates of certificates. Nil: time.Now.
	Now func() time.Time
}

func (o TLSOptions) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// NodeServerConfig is for the stream port: other nodes, and clients if
// opts.Client is set. [Peer] tells afterwards who came.
func NodeServerConfig(opts TLSOptions) *tls.Config {
	cfg := baseConfig()
	// The chain is checked in VerifyConnection, against the CA set of the moment.
	cfg.ClientAuth = tls.RequireAnyClientCert
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &opts.Keys().Certificate, nil }
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		_, err := opts.verify(state, x509.ExtKeyUsageClientAuth)
		return refuse(err)
	}
	guests := opts.joinServer()
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if opts.Guests && hello.ServerName == joinPrefix+opts.Keys().Cluster.String() {
			return guests, nil
		}
		return nil, nil //nolint:nilnil // cfg itself
	}
	return cfg
}

// NodeClientConfig is for dialling the stream port of one node. Another node
// at that address is refused, however good its certificate.
func NodeClientConfig(opts TLSOptions, expect belfry.NodeID) *tls.Config {
	cfg := baseConfig()
	cfg.InsecureSkipVerify = true // host names mean nothing here: VerifyConnection checks chain, cluster and node
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &opts.Keys().Certificate, nil
	}
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		id, err := opts.verify(state, x509.ExtKeyUsageServerAuth)
		if err == nil && id.Node != expect {
			err = fmt.Errorf("%w: %s answers where node %s was expected; compare the addresses in the configuration",
				belfry.ErrPermission, id, expect)
		}
		return refuse(err)
	}
	return cfg
}

// ClientOptions is what a client's configuration is made with.
type ClientOptions struct {
	Cluster     belfry.ClusterID    // the cluster it means
	Certificate tls.Certificate     // its own
	CA          []*x509.Certificate // of the cluster
	Now         func() time.Time    // nil: time.Now
}

// ClientConfig is for a client of the API on the stream port of any node.
func ClientConfig(opts ClientOptions) *tls.Config {
	cfg := baseConfig()
	cfg.InsecureSkipVerify = true // host names mean nothing here: VerifyConnection checks chain and cluster
	cfg.Certificates = []tls.Certificate{opts.Certificate}
	now := opts.Now
	if now == nil {
		now = time.Now
	}
	roots := pool(opts.CA)
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		id, err := verifyPeer(state, opts.Cluster, roots, now(), x509.ExtKeyUsageServerAuth)
		switch {
		case err == nil && id.Client != "":
			err = fmt.Errorf("%w: %s answers; a node of the cluster should", belfry.ErrPermission, id)
		case errors.As(err, new(x509.UnknownAuthorityError)):
			err = fmt.Errorf("%w: the node shows a certificate of an authority that this identity does not know: the cluster's was replaced, or it is another cluster; make a token there (belfry token create --role ROLE --name NAME) and join with it once more", belfry.ErrPermission)
		}
		return refuse(err)
	}
	return cfg
}

// baseConfig is the one suite: TLS 1.3 with Go's key exchanges, and no session
// tickets, which would outlive a removal.
func baseConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2"},
	}
}

// verify judges the peer of a node: chain, cluster, not this node itself, and
// listed by the configuration.
func (o TLSOptions) verify(state tls.ConnectionState, usage x509.ExtKeyUsage) (Identity, error) {
	keys := o.Keys()
	id, err := verifyPeer(state, keys.Cluster, keys.roots(), o.now(), usage)
	switch {
	case err != nil:
		return Identity{}, err
	case id.Node == keys.Node:
		return Identity{}, fmt.Errorf("%w: node %s connects to itself, or another agent runs with a copy of its keys; one agent per identity",
			belfry.ErrPermission, id.Node)
	case id.Client == "":
		return id, o.Listed(id.Node, state.PeerCertificates[0].PublicKey.(ed25519.PublicKey))
	case o.Client == nil:
		return Identity{}, fmt.Errorf("%w: %s; only nodes are let in here", belfry.ErrPermission, id)
	}
	return id, o.Client(id.Client, state.PeerCertificates[0].PublicKey.(ed25519.PublicKey))
}

// NodeKey is the key of a node's certificate (DER), shown outside of a handshake.
// It wraps ErrPermission unless the certificate is that node's, and one of this
// cluster that counts now.
func (k *Keys) NodeKey(certificate []byte, node belfry.NodeID, now time.Time) (ed25519.PublicKey, error) {
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", belfry.ErrPermission, err)
	}
	shown := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	id, err := verifyPeer(shown, k.Cluster, k.roots(), now, x509.ExtKeyUsageClientAuth)
	switch {
	case err != nil:
		return nil, err
	case id.Client != "" || id.Node != node:
		return nil, fmt.Errorf("%w: certificate of %s; that of node %s is needed", belfry.ErrPermission, id, node)
	}
	return leaf.PublicKey.(ed25519.PublicKey), nil
}

// verifyPeer judges what needs no configuration: chain, dates, use, key type,
// name and cluster.
func verifyPeer(state tls.ConnectionState, cluster belfry.ClusterID, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (Identity, error) {
	if len(state.PeerCertificates) != 1 {
		return Identity{}, fmt.Errorf("%w: %d certificates; exactly one, issued by the cluster's authority",
			belfry.ErrPermission, len(state.PeerCertificates))
	}
	leaf := state.PeerCertificates[0]
	if err := verifyChain(leaf, roots, now, usage); err != nil {
		return Identity{}, err
	}
	if _, ok := leaf.PublicKey.(ed25519.PublicKey); !ok {
		return Identity{}, fmt.Errorf("%w: certificate for a %T; Ed25519 only", belfry.ErrPermission, leaf.PublicKey)
	}
	id, err := certificateIdentity(leaf)
	if err != nil {
		return Identity{}, err
	}
	if id.Cluster != cluster {
		return Identity{}, fmt.Errorf("%w: certificate of cluster %s; this is cluster %s", belfry.ErrPermission, id.Cluster, cluster)
	}
	return id, nil
}

func verifyChain(leaf *x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) error {
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil && leaf.IsCA:
		return fmt.Errorf("%w: the authority's own certificate; a node's or a client's is needed", belfry.ErrPermission)
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: certificate valid from %s to %s, it is %s; renew it, or set the clock right",
			belfry.ErrPermission, stamp(leaf.NotBefore), stamp(leaf.NotAfter), stamp(now))
	}
	return fmt.Errorf("%w: %w; a certificate issued by the cluster's authority is needed", belfry.ErrPermission, err)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// refuse names the operation once, whoever reports the failed handshake.
func refuse(err error) error {
	if err == nil {
		return nil
	}
	return &belfry.Error{Op: "handshake", Err: err}
}

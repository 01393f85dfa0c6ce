package security

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// issued is when all certificates of these tests are issued.
var issued = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// A town is a cluster of three nodes on disk.
type town struct {
	Created
	keys [3]*Keys
}

func newTown(t *testing.T) town {
	t.Helper()
	var opts CreateOptions
	opts.Now = issued
	root := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		opts.Nodes = append(opts.Nodes, NewNode{Dir: filepath.Join(root, name, "keys")})
	}
	made, err := CreateCluster(opts)
	if err != nil {
		t.Fatal(err)
	}
	town := town{Created: made}
	for i, n := range opts.Nodes {
		if town.keys[i], err = Load(n.Dir); err != nil {
			t.Fatal(err)
		}
	}
	return town
}

// options are those of node i, which lists all nodes and lets in the client web.
func (tn town) options(i int) TLSOptions {
	return TLSOptions{
		Keys: func() *Keys { return tn.keys[i] },
		Now:  func() time.Time { return issued.Add(time.Hour) },
		Listed: func(node belfry.NodeID, public ed25519.PublicKey) error {
			for _, n := range tn.Nodes {
				if n.Node == node && n.Public.Equal(public) {
					return nil
				}
			}
			return fmt.Errorf("%w: node %s; the configuration does not list it", belfry.ErrNotMember, node)
		},
		Client: func(name string, _ ed25519.PublicKey) error {
			if name != "web" {
				return fmt.Errorf("%w: client %q has no role", belfry.ErrPermission, name)
			}
			return nil
		},
	}
}

// client is the configuration of a client of the API.
func (tn town) client(t *testing.T, name string) *tls.Config {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := tn.CA.IssueClient(issued, name, public)
	if err != nil {
		t.Fatal(err)
	}
	return ClientConfig(ClientOptions{
		Cluster: tn.Cluster, CA: tn.keys[0].CA, Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private},
		Now: func() time.Time { return issued.Add(time.Hour) },
	})
}

// shake does one handshake and returns what each side learned, and its error.
// A client learns of a refusal only from its first read (RFC 8446 4.4.2.4).
func shake(t *testing.T, server, client *tls.Config) (atServer, atClient Identity, serverErr, clientErr error) {
	t.Helper()
	s, c := loopback(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn := tls.Server(s, server)
		if serverErr = conn.HandshakeContext(ctx); serverErr == nil {
			atServer, serverErr = Peer(conn.ConnectionState())
		}
		if serverErr == nil {
			_, serverErr = conn.Write([]byte("k"))
		}
		s.Close()
	}()
	conn := tls.Client(c, client)
	if clientErr = conn.HandshakeContext(ctx); clientErr == nil {
		if _, clientErr = conn.Read(make([]byte, 1)); clientErr == nil {
			atClient, clientErr = Peer(conn.ConnectionState())
		}
	}
	c.Close()
	<-done
	return atServer, atClient, serverErr, clientErr
}

// loopback connects two ends by TCP. A pipe would not do: it has no buffer, and
// a side that refuses writes its alert while the other one still writes.
func loopback(t *testing.T) (server, client net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

func TestListedNodesAndClientsAreLetIn(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	nodeA, nodeB := tn.keys[0].Identity(), tn.keys[1].Identity()
	server := NodeServerConfig(tn.options(0))

	atServer, atClient, serverErr, clientErr := shake(t, server, NodeClientConfig(tn.options(1), nodeA.Node))
	if serverErr != nil || clientErr != nil || atServer != nodeB || atClient != nodeA {
		t.Errorf("node: %v, %v, %v, %v; want b, a and no errors", atServer, atClient, serverErr, clientErr)
	}
	atServer, atClient, serverErr, clientErr = shake(t, server, tn.client(t, "web"))
	if web := (Identity{Cluster: tn.Cluster, Client: "web"}); serverErr != nil || clientErr != nil || atServer != web || atClient != nodeA {
		t.Errorf("client: %v, %v, %v, %v; want web, a and no errors", atServer, atClient, serverErr, clientErr)
	}
}

// present replaces what a side shows.
func present(cfg *tls.Config, cert *tls.Certificate) *tls.Config {
	cfg = cfg.Clone()
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
	return cfg
}

// forge issues a certificate with whatever the caller changes in it.
func (tn town) forge(t *testing.T, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		URIs:      []*url.URL{tn.keys[1].Identity().URI()},
		NotBefore: issued, NotAfter: issued.Add(CertificateLife), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	key := tn.keys[1].Certificate.PrivateKey.(ed25519.PrivateKey)
	der, err := x509.CreateCertificate(rand.Reader, template, tn.CA.Certificate, key.Public(), tn.CA.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (tn town) uri(t *testing.T, text string) *tls.Certificate {
	t.Helper()
	return tn.forge(t, func(c *x509.Certificate) {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = []*url.URL{u}
	})
}

// Each row is a certificate that a node or client shows and that must be
// refused, by a server and by whoever dials it. The first row is the control:
// a forged certificate with nothing wrong is let in.
func TestWrongCertificatesAreRefused(t *testing.T) {
	t.Parallel()
	tn, other := newTown(t), newTown(t)
	node := func(u Identity) string { return u.URI().String() }
	b := tn.keys[1].Identity()
	elsewhere := Identity{Cluster: other.Cluster, Node: b.Node}
	for _, test := range []struct {
		name string
		cert *tls.Certificate
		want string // part of the error; empty: let in
	}{
		{"nothing wrong", tn.forge(t, func(*x509.Certificate) {}), ""},
		{"none", &tls.Certificate{}, "certificate"},
		{"of another cluster", &other.keys[1].Certificate, "unknown authority"},
		{"of this CA with the other cluster's name", tn.uri(t, node(elsewhere)), "certificate of cluster " + other.Cluster.String()},
		{"self-signed with the CA's name", selfSigned(t, b), "unknown authority"},
		{"expired", tn.forge(t, func(c *x509.Certificate) { c.NotAfter = issued.Add(time.Hour - time.Second) }), "renew it"},
		{"not yet valid", tn.forge(t, func(c *x509.Certificate) { c.NotBefore = issued.Add(time.Hour + time.Second) }), "set the clock right"},
		{"of a node that is not listed", tn.uri(t, node(Identity{Cluster: tn.Cluster, Node: belfry.NewNodeID()})), "does not list it"},
		{"listed node with another key", otherKey(t, tn), "does not list it"},
		{"the zero node", tn.uri(t, node(Identity{Cluster: tn.Cluster})), "zero node"},
		{"own identity", &tn.keys[0].Certificate, "connects to itself"},
		{"no name", tn.forge(t, func(c *x509.Certificate) { c.URIs = nil }), "0 URI names"},
		{"two names", tn.forge(t, func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }), "2 URI names"},
		{"a host name beside it", tn.forge(t, func(c *x509.Certificate) { c.DNSNames = []string{"b"} }), "no other name"},
		{"another scheme", tn.uri(t, "https"+strings.TrimPrefix(node(b), "belfry")), "canonical"},
		{"a query behind the name", tn.uri(t, node(b)+"?x"), "canonical"},
		{"upper case", tn.uri(t, "belfry://"+tn.Cluster.String()+"/node/ABCDEF01-0000-4000-8000-000000000000"), "canonical"},
		{"neither node nor client", tn.uri(t, "belfry://"+tn.Cluster.String()+"/ca"), "neither"},
		{"not for TLS", tn.forge(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }), "incompatible key usage"},
		{"the authority's own", &tls.Certificate{Certificate: [][]byte{tn.CA.Certificate.Raw}, PrivateKey: tn.CA.key}, "certificate"},
		{"with a chain", &tls.Certificate{
			Certificate: [][]byte{tn.keys[1].Certificate.Certificate[0], tn.CA.Certificate.Raw},
			PrivateKey:  tn.keys[1].Certificate.PrivateKey,
		}, "2 certificates"},
		{"an ECDSA key", ecdsaKey(t, tn), "Ed25519 only"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, _, err, clientErr := shake(t, NodeServerConfig(tn.options(0)),
				present(NodeClientConfig(tn.options(1), tn.keys[0].Node), test.cert))
			check(t, "server", err, test.want)
			if (clientErr == nil) != (test.want == "") {
				t.Errorf("refused client reads: %v", clientErr)
			}
			if test.name == "none" {
				return // a TLS server can not show none
			}
			expect := tn.keys[1].Node
			if id, err := certificateIdentity(mustParse(t, test.cert)); err == nil {
				expect = id.Node // so that only what the row is about is wrong
			}
			_, _, _, err = shake(t, present(NodeServerConfig(tn.options(1)), test.cert), NodeClientConfig(tn.options(0), expect))
			check(t, "dialler", err, test.want)
		})
	}
}

func check(t *testing.T, side string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v; want it let in", side, err)
	case want != "" && err == nil:
		t.Errorf("%s let it in; want an error with %q", side, want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%s: %v; want an error with %q", side, err, want)
	}
}

func mustParse(t *testing.T, cert *tls.Certificate) *x509.Certificate {
	t.Helper()
	parsed, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func selfSigned(t *testing.T, id Identity) *tls.Certificate {
	t.Helper()
	ca, err := NewCA(id.Cluster, issued) // the right names, the wrong key
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.IssueNode(issued, id.Node, public)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// otherKey is a good certificate of node b, but for a key that is not listed.
func otherKey(t *testing.T, tn town) *tls.Certificate {
	t.Helper()
	public, private, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := tn.CA.IssueNode(issued, tn.keys[1].Node, public)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

func ecdsaKey(t *testing.T, tn town) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "b"}, URIs: []*url.URL{tn.keys[1].Identity().URI()},
		NotBefore: issued, NotAfter: issued.Add(CertificateLife), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, tn.CA.Certificate, key.Public(), tn.CA.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestClientsAreLetInByNameOnly(t *testing.T) {
	t.Parallel()
	tn, other := newTown(t), newTown(t)
	onlyNodes := tn.options(0)
	onlyNodes.Client = nil

	_, _, err, _ := shake(t, NodeServerConfig(tn.options(0)), tn.client(t, "cron"))
	check(t, "name without role", err, `client "cron" has no role`)
	_, _, err, _ = shake(t, NodeServerConfig(onlyNodes), tn.client(t, "web"))
	check(t, "port for nodes", err, "only nodes are let in here")
	_, _, _, err = shake(t, NodeServerConfig(other.options(0)), tn.client(t, "web"))
	check(t, "client at another cluster", err, "an authority that this identity does not know")
}

// A client's certificate must not do as a server's, even one whose use was
// widened: a client that could pose as a node would read what others send it.
func TestClientCertificateIsNoServer(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	wide := tn.uri(t, Identity{Cluster: tn.Cluster, Client: "web"}.URI().String())
	_, _, _, err := shake(t, present(NodeServerConfig(tn.options(1)), wide), NodeClientConfig(tn.options(0), tn.keys[1].Node))
	check(t, "node", err, "answers where node")
	_, _, _, err = shake(t, present(NodeServerConfig(tn.options(1)), wide), tn.client(t, "web"))
	check(t, "client", err, "a node of the cluster should")
}

func TestAnotherListedNodeAtTheAddressIsRefused(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	_, _, _, err := shake(t, NodeServerConfig(tn.options(2)), NodeClientConfig(tn.options(0), tn.keys[1].Node))
	check(t, "dialler", err, "answers where node "+tn.keys[1].Node.String()+" was expected")
	if !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("%v does not wrap ErrPermission", err)
	}
}

// ± 1 s around each end of a certificate.
func TestDatesOfCertificatesCountToTheSecond(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	for _, test := range []struct {
		name string
		at   time.Time
		want string
	}{
		{"1 s before it begins", issued.Add(-backdate - time.Second), "set the clock right"},
		{"when it begins", issued.Add(-backdate), ""},
		{"when it ends", issued.Add(CertificateLife), ""},
		{"1 s after it ended", issued.Add(CertificateLife + time.Second), "renew it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server, client := tn.options(0), tn.options(1)
			server.Now = func() time.Time { return test.at }
			_, _, err, _ := shake(t, NodeServerConfig(server), NodeClientConfig(client, tn.keys[0].Node))
			check(t, "server", err, test.want)
		})
	}
}

func TestOlderTLSAndTicketsAreRefused(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	old := NodeClientConfig(tn.options(1), tn.keys[0].Node)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	_, _, err, _ := shake(t, NodeServerConfig(tn.options(0)), old)
	check(t, "server", err, "unsupported versions")

	// A removal counts at the next handshake: nothing of the last one is resumed.
	removed := false
	opts := tn.options(0)
	listed := opts.Listed
	opts.Listed = func(node belfry.NodeID, public ed25519.PublicKey) error {
		if removed {
			return fmt.Errorf("%w: removed", belfry.ErrNotMember)
		}
		return listed(node, public)
	}
	server, client := NodeServerConfig(opts), NodeClientConfig(tn.options(1), tn.keys[0].Node)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	_, _, err, _ = shake(t, server, client)
	check(t, "first handshake", err, "")
	removed = true
	_, _, err, _ = shake(t, server, client)
	check(t, "handshake after the removal", err, "removed")
	if _, ok := client.ClientSessionCache.Get(""); ok || !server.SessionTicketsDisabled {
		t.Error("the server gave a session ticket")
	}
}

// A renewed certificate counts at the next handshake, without a new config.
func TestKeysAreAskedForAtEachHandshake(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	asked := 0
	opts := tn.options(0)
	opts.Keys = func() *Keys { asked++; return tn.keys[0] }
	server := NodeServerConfig(opts)
	_, _, err, _ := shake(t, server, NodeClientConfig(tn.options(1), tn.keys[0].Node))
	check(t, "first handshake", err, "")
	first := asked
	_, _, err, _ = shake(t, server, NodeClientConfig(tn.options(1), tn.keys[0].Node))
	check(t, "second handshake", err, "")
	if first == 0 || asked != 2*first {
		t.Errorf("keys were asked for %d times in the first handshake and %d times in both; want the same for each", first, asked)
	}
}

func TestPeerWithoutCertificateIsNobody(t *testing.T) {
	t.Parallel()
	if id, err := Peer(tls.ConnectionState{HandshakeComplete: true}); !errors.Is(err, belfry.ErrPermission) || id != (Identity{}) {
		t.Errorf("Peer = %v, %v; want nobody and ErrPermission", id, err)
	}
}

package api

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// certificate is signed by ca, or by itself if ca is nil.
func certificate(t *testing.T, name string, ca *tls.Certificate) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, key := template, any(private)
	if ca != nil {
		parent, key = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}
}

func TestRemoteClientsHaveTheRoleOfTheirCertificate(t *testing.T) {
	t.Parallel()
	ca := certificate(t, "ca", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	s := New(Options{
		Decide: byRole,
		Events: newFakeEvents(), Cluster: &fakeCluster{},
		IdentifyTLS: func(state tls.ConnectionState) (Subject, error) {
			name := state.PeerCertificates[0].Subject.CommonName
			role, err := belfry.ParseRole(name)
			if err != nil {
				return Subject{}, fmt.Errorf("no client %q is listed", name)
			}
			return Subject{Client: name, Role: role}, nil
		},
	})
	g := grpc.NewServer(append(s.ServerOptions(), grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate(t, "agent", &ca)},
		ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})))...)
	s.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		stop(t, s)
	})
	dial := func(cert tls.Certificate) (*client.Client, error) {
		config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "agent", Certificates: []tls.Certificate{cert}}
		c, err := client.Dial(t.Context(), l.Addr().String(), client.WithTLS(config))
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return c, err
	}
	for name, want := range map[string][2]error{ // of Status, of Send
		"admin": {nil, nil}, "operator": {nil, nil}, "reader": {nil, belfry.ErrPermission},
		"none": {belfry.ErrPermission, belfry.ErrPermission}, "stranger": {belfry.ErrPermission, belfry.ErrPermission},
	} {
		c, err := dial(certificate(t, name, &ca))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Status(t.Context()); !errors.Is(err, want[0]) {
			t.Errorf("%s: status: %v; want %v", name, err, want[0])
		}
		if _, err := c.Send(t.Context(), "user.x", "", nil, 0); !errors.Is(err, want[1]) {
			t.Errorf("%s: send: %v; want %v", name, err, want[1])
		}
	}
	other := certificate(t, "other", nil)
	foreign := certificate(t, "admin", &other)
	for range 100 { // TLS 1.3: the refusal comes after the handshake, and may cross what the client writes
		c, err := dial(foreign)
		if err == nil {
			_, err = c.Status(t.Context())
		}
		if !errors.Is(err, belfry.ErrPermission) || !strings.Contains(err.Error(), "does not take this certificate") {
			t.Fatalf("a certificate of another cluster: %v; want ErrPermission", err)
		}
	}
}

package client

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// ownAuthority is a certificate for 127.0.0.1 that nobody else signed.
func ownAuthority(t *testing.T) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(nil, &template, &template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// TestAnAuthorityThatWasReplacedIsSaid instead of that nobody answers.
func TestAnAuthorityThatWasReplacedIsSaid(t *testing.T) {
	t.Parallel()
	old := ownAuthority(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{ownAuthority(t)}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).HandshakeContext(context.Background()) // the client ends it
			conn.Close()
		}
	}()
	known := x509.NewCertPool()
	authority, err := x509.ParseCertificate(old.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	known.AddCert(authority)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = Dial(ctx, listener.Addr().String(), WithTLS(&tls.Config{Certificates: []tls.Certificate{old}, RootCAs: known, MinVersion: tls.VersionTLS13}))
	if !errors.Is(err, belfry.ErrPermission) || errors.Is(err, belfry.ErrNoAgent) || !strings.Contains(err.Error(), "under an authority that this client does not know") || !strings.Contains(err.Error(), "belfry ca rotate") {
		t.Errorf("%v; want that its authority is not known", err)
	}
}

package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]struct {
		endpoints []string
		prefix    string
	}{
		"etcd://a:2379":             {[]string{"a:2379"}, ""},
		"etcd://a:1,b:2,c/belfry/x": {[]string{"a:1", "b:2", "c:2379"}, "belfry/x"},
		"etcd://[::1]:1,[fd00::2]/": {[]string{"[::1]:1", "[fd00::2]:2379"}, ""},
		"etcd://127.0.0.1//p/":      {[]string{"127.0.0.1:2379"}, "p"},
	} {
		endpoints, prefix, err := ParseURL(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if diff := cmp.Diff(want.endpoints, endpoints); diff != "" || prefix != want.prefix {
			t.Errorf("%s: prefix %q, want %q; endpoints (-want +got):\n%s", url, prefix, want.prefix, diff)
		}
	}
	for _, url := range []string{"", "a:2379", "http://a:2379", "etcd://", "etcd:///prefix", "etcd://a,,b", "etcd://:2379", "etcd://a:", "etcd://user:pass@a:2379", "etcd://a?x", "etcd://a#x", "etcd://a b"} {
		if _, _, err := ParseURL(url); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%q: %v, want %v", url, err, belfry.ErrUsage)
		}
	}
}

// Y: what is on the way between two machines is sealed.
func TestEtcdElsewhereNeedsTLS(t *testing.T) {
	t.Parallel()
	for endpoint, allowed := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true, "unix:///run/etcd.sock": true,
		"10.0.0.1:1": false, "etcd.example:1": false, "localhost.example:1": false, "0.0.0.0:1": false, "127.0.0.1.example:1": false, "x": false,
	} {
		cfg := config(0, "127.0.0.1:1", endpoint)
		_, err := cfg.urls()
		if allowed != (err == nil) {
			t.Errorf("%s without TLS: %v", endpoint, err)
		}
		if !allowed {
			_, err := Open(cfg)
			if !errors.Is(err, belfry.ErrUsage) {
				t.Errorf("%s: %v, want %v", endpoint, err, belfry.ErrUsage)
			}
			wantHelpful(t, err, endpoint)
			cfg.TLS = &tls.Config{}
			if _, err := cfg.urls(); err != nil {
				t.Errorf("%s with TLS: %v", endpoint, err)
			}
		}
	}
	for _, cfg := range []Config{config(0), {Endpoints: []string{"127.0.0.1:1"}}} {
		if _, err := Open(cfg); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%v: %v, want %v", cfg.Endpoints, err, belfry.ErrUsage)
		}
	}
}

// An authority signs for etcd and for its clients, and writes all as PEM.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.sign("ca", net.IP{})
	return a
}

// sign makes NAME.crt and NAME.key; the first ones are its own.
func (a *authority) sign(name string, ip net.IP) Files {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if len(ip) > 0 {
		cert.IPAddresses = []net.IP{ip}
	}
	signer, by := a.key, a.cert
	if by == nil {
		cert.IsCA, cert.BasicConstraintsValid, cert.KeyUsage = true, true, x509.KeyUsageCertSign
		signer, by = private, cert
		a.key, a.cert = private, cert
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, by, private.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	f := Files{CA: filepath.Join(a.dir, "ca.crt"), Cert: filepath.Join(a.dir, name+".crt"), Key: filepath.Join(a.dir, name+".key")}
	for file, block := range map[string]*pem.Block{f.Cert: {Type: "CERTIFICATE", Bytes: der}, f.Key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return f
}

func TestEtcdWithCertificates(t *testing.T) {
	t.Parallel()
	ours, foreign := newAuthority(t), newAuthority(t)
	address := newAddress()
	of := ours.sign("server", net.ParseIP(address))
	url := "https://" + address + ":2379"
	servers := newCluster(t, 1, "--listen-client-urls", url, "--advertise-client-urls", url, "--client-cert-auth",
		"--trusted-ca-file", of.CA, "--cert-file", of.Cert, "--key-file", of.Key)
	servers[0].address = address

	with := func(f Files) Config {
		t.Helper()
		cfg := config(0, endpoints(servers)...)
		var err error
		if cfg.TLS, err = f.TLS(); err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	mine := ours.sign("belfry", nil)
	found(t, with(mine))
	b := open(t, with(mine))
	op := opID(1, 1)
	add(t, b, op)

	other := foreign.sign("belfry", nil)
	other.CA = of.CA
	wrongServer := mine
	wrongServer.CA = filepath.Join(foreign.dir, "ca.crt")
	for name, f := range map[string]Files{"no certificate": {CA: of.CA}, "a foreign certificate": other, "a foreign server": wrongServer} {
		_, err := open(t, with(f)).Load()
		// A server that refuses a certificate may just hang up.
		if !errors.Is(err, belfry.ErrRestricted) || strings.Contains(err.Error(), "deadline") || name == "a foreign server" && !strings.Contains(err.Error(), "x509") {
			t.Errorf("%s: %v, want %v and what is wrong with it", name, err, belfry.ErrRestricted)
		}
	}
	if _, err := open(t, config(0, endpoints(servers)...)).Load(); !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("without TLS: %v, want %v", err, belfry.ErrRestricted)
	}

	// A renewed certificate is used for the next connection.
	if err := os.WriteFile(mine.Cert, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ours.sign("belfry", nil)
	servers[0].kill()
	servers[0].start()
	wantUpdates(t, patient{b}, op)
}

func TestFilesThatAreNotThere(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []Files{{CA: empty}, {CA: "none"}, {Cert: empty, Key: empty}, {Cert: empty}, {Key: "none"}} {
		if _, err := f.TLS(); err == nil || !strings.Contains(err.Error(), "empty") && !strings.Contains(err.Error(), "none") {
			t.Errorf("%+v: %v; want an error that names the file", f, err)
		}
	}
	if c, err := (Files{}).TLS(); err != nil || c.RootCAs != nil || c.GetClientCertificate != nil {
		t.Errorf("no files: %+v, %v", c, err)
	}
}

func TestEtcdOnASocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	servers := newCluster(t, 1)
	// Debian's etcd makes a socket only where it is started; a proxy makes one here.
	path := filepath.Join(dir, "etcd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, to: servers[0].endpoint()}
	t.Cleanup(func() { l.Close(); p.cut() })
	go p.serve()
	cfg := config(0, "unix://"+path)
	found(t, cfg)
	op := opID(1, 1)
	b := open(t, cfg)
	add(t, b, op)
	wantUpdates(t, b, op)
	var _ repository.Backend = b
}

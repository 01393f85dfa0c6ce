package security

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

func TestTokenIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	want := NewToken(tn.Cluster, tn.CA.Certificate)
	text := want.Text()
	got, err := ParseToken(text)
	if err != nil || got != want {
		t.Fatalf("%v, %v; want %v", got, err, want)
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if shown := fmt.Sprintf(form, want); strings.Contains(shown, fmt.Sprintf("%x", want.Secret[:])) || strings.Contains(shown, text[len(text)-20:]) {
			t.Errorf("%s shows the secret", form)
		}
	}
}

// TestNoMistypedTokenIsRead changes each character into each other one of the
// alphabet, swaps neighbours, and cuts.
func TestNoMistypedTokenIsRead(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	text := NewToken(tn.Cluster, tn.CA.Certificate).Text()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	tried := 0
	refuse := func(wrong string) {
		t.Helper()
		tried++
		_, err := ParseToken(wrong)
		if wrong != text && !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%q: %v; want ErrUsage", wrong, err)
		}
		if err != nil && len(wrong) > 30 && strings.Contains(err.Error(), wrong[len(wrong)-20:]) {
			t.Errorf("the error repeats the token: %v", err)
		}
	}
	for i := len(tokenPrefix); i < len(text); i++ {
		for _, c := range alphabet {
			refuse(text[:i] + string(c) + text[i+1:])
		}
		refuse(text[:i])
		if i+1 < len(text) {
			refuse(text[:i] + text[i+1:i+2] + text[i:i+1] + text[i+2:])
		}
	}
	for _, wrong := range []string{"", "x", "belfry2." + text[len(tokenPrefix):], text + "A", " " + text, strings.ToUpper(text), text + "\n", text + "="} {
		refuse(wrong)
	}
	t.Logf("%d mistyped tokens", tried)
}

func FuzzToken(f *testing.F) {
	f.Add(Token{}.Text())
	f.Add("belfry1.AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err == nil && token.Text() != text {
			t.Errorf("%q is read and written as %q", text, token.Text())
		}
	})
}

// guests are the options of a town's node that lets guests in.
func (tn town) guests(i int) TLSOptions {
	opts := tn.options(i)
	opts.Guests = true
	return opts
}

// TestGuestsTrustTheTokensAuthorityOnly shows a joiner every wrong server.
func TestGuestsTrustTheTokensAuthorityOnly(t *testing.T) {
	t.Parallel()
	tn, other := newTown(t), newTown(t)
	token := NewToken(tn.Cluster, tn.CA.Certificate)
	at := func(d time.Duration) func() time.Time { return func() time.Time { return issued.Add(d) } }
	show := func(cert *tls.Certificate, chain ...[]byte) *tls.Config {
		cfg := baseConfig()
		shown := *cert
		shown.Certificate = slices.Concat(cert.Certificate[:1], chain)
		cfg.Certificates = []tls.Certificate{shown}
		return cfg
	}
	good, ca := &tn.keys[0].Certificate, tn.CA.Certificate.Raw
	client, _ := tn.clientCertificate(t, "web")
	// An authority of the same cluster, by somebody who knows its name.
	forged, err := NewCA(tn.Cluster, issued)
	if err != nil {
		t.Fatal(err)
	}
	forgedCert := selfSignedBy(t, forged, tn.keys[0].Node)
	for _, tt := range []struct {
		name   string
		server *tls.Config
		now    time.Duration
		want   string
	}{
		{"nothing wrong", NodeServerConfig(tn.guests(0)), time.Hour, ""},
		{"a node that lets no guests in", NodeServerConfig(tn.options(0)), time.Hour, "no node of cluster"},
		{"without the authority", show(good), time.Hour, "no node of cluster"},
		{"another cluster", NodeServerConfig(other.guests(0)), time.Hour, "no node of cluster"},
		{"another cluster's chain", show(&other.keys[0].Certificate, other.CA.Certificate.Raw), time.Hour, "another cluster"},
		{"a forged authority with its own certificate", show(forgedCert, forged.Certificate.Raw), time.Hour, "another authority than the token names"},
		{"a forged certificate with the right authority", show(forgedCert, ca), time.Hour, "unknown authority"},
		{"the authority twice", show(&tls.Certificate{Certificate: [][]byte{ca}, PrivateKey: tn.CA.key}, ca), time.Hour, "authority"},
		{"a client of the cluster", show(client, ca), time.Hour, "incompatible key usage"},
		{"this machine's clock a year early", NodeServerConfig(tn.guests(0)), -365 * 24 * time.Hour, "set the clock right"},
		{"this machine's clock a year late", NodeServerConfig(tn.guests(0)), 365 * 24 * time.Hour, "set the clock right"},
		{"three certificates", show(good, ca, ca), time.Hour, "no node of cluster"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, _, err := shake(t, tt.server, JoinClientConfig(token, at(tt.now)))
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), "EOF") { // the server shows no identity: it has none to show
					t.Logf("read: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want an error with %q", err, tt.want)
			}
		})
	}
}

// TestAGuestWaitsForTheAuthorityThatTokensName: while the authority is replaced
// a node has a certificate under the old one for a moment, but tokens name the new one.
func TestAGuestWaitsForTheAuthorityThatTokensName(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	next, err := NewCA(tn.Cluster, issued)
	if err != nil {
		t.Fatal(err)
	}
	old := tn.keys[0]
	certificate, err := next.IssueNode(issued, old.Node, old.Certificate.Leaf.PublicKey.(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	authorities := [][]byte{next.Certificate.Raw, tn.CA.Certificate.Raw}
	renewed, err := old.Renewed(certificate, authorities)
	if err != nil {
		t.Fatal(err)
	}
	token := NewToken(tn.Cluster, next.Certificate)
	at := func() time.Time { return issued.Add(time.Hour) }
	const replaced = "another authority than the token names"
	for _, waits := range []bool{false, true} {
		before := *old
		if before.CA, err = ParseAuthorities(authorities); err != nil {
			t.Fatal(err)
		}
		var keys atomic.Pointer[Keys]
		keys.Store(&before)
		opts := tn.guests(0)
		opts.Keys = keys.Load
		if waits {
			opts.Settled = func(context.Context) { keys.Store(renewed) }
		}
		_, _, _, err := shake(t, NodeServerConfig(opts), JoinClientConfig(token, at))
		if got := err != nil && strings.Contains(err.Error(), replaced); got == waits {
			t.Errorf("waits: %v: %v; refused: %v, want %v", waits, err, got, !waits)
		}
	}
}

func (tn town) clientCertificate(t *testing.T, name string) (*tls.Certificate, ed25519.PublicKey) {
	t.Helper()
	public, private, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := tn.CA.IssueClient(issued, name, public)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, public
}

func selfSignedBy(t *testing.T, ca *CA, node belfry.NodeID) *tls.Certificate {
	t.Helper()
	public, private, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.IssueNode(issued, node, public)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// TestAGuestIsNobody: what a guest's connection is good for is joining.
func TestAGuestIsNobody(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	server, client := tn.guestConnection(t)
	if !IsJoin(server) {
		t.Error("the server does not see a guest")
	}
	if id, err := Peer(server); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("the guest is %v, %v; want nobody", id, err)
	}
	if IsJoin(client) {
		t.Error("the server is a guest")
	}
	for _, name := range []string{"", "join.", "join." + belfry.NewClusterID().String()} {
		cfg := JoinClientConfig(NewToken(tn.Cluster, tn.CA.Certificate), nil)
		cfg.ServerName = name
		cfg.VerifyConnection = nil
		if _, _, err, _ := shake(t, NodeServerConfig(tn.guests(0)), cfg); err == nil {
			t.Errorf("server name %q: let in without a certificate", name)
		}
	}
}

// guestConnection is both ends of one.
func (tn town) guestConnection(t *testing.T) (server, client tls.ConnectionState) {
	t.Helper()
	s, c := loopback(t)
	a := tls.Server(s, NodeServerConfig(tn.guests(0)))
	b := tls.Client(c, JoinClientConfig(NewToken(tn.Cluster, tn.CA.Certificate), func() time.Time { return issued.Add(time.Hour) }))
	done := make(chan error, 1)
	go func() { done <- a.HandshakeContext(t.Context()) }()
	if err := b.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return a.ConnectionState(), b.ConnectionState()
}

// TestAProofIsForOneConnectionAndOneIdentity keeps one that somebody recorded
// from being worth anything.
func TestAProofIsForOneConnectionAndOneIdentity(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	server, client := tn.guestConnection(t)
	elsewhere, _ := tn.guestConnection(t)
	j, err := PrepareJoin(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	proof, err := j.Prove(client)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckProof(server, j.Public(), proof); err != nil {
		t.Errorf("the right one: %v", err)
	}
	wrong := bytes.Clone(proof)
	wrong[0]++
	for name, check := range map[string]func() error{
		"another connection": func() error { return CheckProof(elsewhere, j.Public(), proof) },
		"another identity":   func() error { return CheckProof(server, tn.keys[1].Public(), proof) },
		"another proof":      func() error { return CheckProof(server, j.Public(), wrong) },
		"no proof":           func() error { return CheckProof(server, j.Public(), nil) },
	} {
		if err := check(); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("%s: %v; want ErrPermission", name, err)
		}
	}
}

func TestRequestsProveTheirKey(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := NewRequest(private)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := CheckRequest(der); err != nil || !got.Equal(public) {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range der {
		wrong := bytes.Clone(der)
		wrong[i] ^= 0x55
		if got, err := CheckRequest(wrong); err == nil {
			t.Fatalf("byte %d changed: accepted, for %x", i, got)
		}
	}
	if _, err := CheckRequest(make([]byte, maxRequest+1)); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("a long one: %v; want ErrLimit", err)
	}
}

func TestTheAuthoritysKeyIsOpenedByItsHoldersOnly(t *testing.T) {
	t.Parallel()
	tn, other := newTown(t), newTown(t)
	holder, err := NewSealingKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := NewSealingKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := SealCA(tn.CA, holder.Public())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := OpenCA(tn.CA.Certificate, sealed, holder)
	if err != nil || ca.Cluster != tn.Cluster || !ca.key.Equal(tn.CA.key) {
		t.Fatalf("%v, %v", ca, err)
	}
	if bytes.Contains(sealed, tn.CA.key.Seed()) {
		t.Error("the sealed key is the key")
	}
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)-1]++
	for name, open := range map[string]func() (*CA, error){
		"another node's key":                func() (*CA, error) { return OpenCA(tn.CA.Certificate, sealed, stranger) },
		"for another authority":             func() (*CA, error) { return OpenCA(other.CA.Certificate, sealed, holder) },
		"changed":                           func() (*CA, error) { return OpenCA(tn.CA.Certificate, damaged, holder) },
		"cut":                               func() (*CA, error) { return OpenCA(tn.CA.Certificate, sealed[:40], holder) },
		"nothing":                           func() (*CA, error) { return OpenCA(tn.CA.Certificate, nil, holder) },
		"a key that is not the authority's": func() (*CA, error) { return OpenCA(tn.CA.Certificate, sealSeed(t, holder, tn.CA), holder) },
	} {
		if ca, err := open(); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("%s: %v, %v; want ErrPermission", name, ca, err)
		}
	}
	if _, err := SealCA(tn.CA, []byte("short")); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("sealed to no key: %v; want ErrUsage", err)
	}
}

// sealSeed seals another key than the authority's, under its name.
func sealSeed(t *testing.T, to *SealingKey, ca *CA) []byte {
	t.Helper()
	_, private, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := SealCA(&CA{Cluster: ca.Cluster, Certificate: ca.Certificate, key: private}, to.Public())
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestASealingKeyIsTheIdentitys(t *testing.T) {
	t.Parallel()
	j, err := PrepareJoin(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewSealingKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckSealingKey(j.Public(), j.Sealing.Public(), j.SealingSignature()); err != nil {
		t.Error(err)
	}
	if err := CheckSealingKey(j.Public(), other.Public(), j.SealingSignature()); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("another key: %v; want ErrPermission", err)
	}
	if err := CheckSealingKey(j.Public(), nil, nil); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("none: %v; want ErrUsage", err)
	}
}

// TestAJoinThatIsCutOffGoesOn ends it after each file that is written, and
// tries again.
func TestAJoinThatIsCutOffGoesOn(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	secret := NewSecret()
	for _, left := range [][]string{nil, {"node.key"}, {"node.key", "seal.key"}, {"node.key", "seal.key", "ca.crt"}, {"node.key", "seal.key", "ca.crt", "group-7"}} {
		dir := filepath.Join(t.TempDir(), "keys")
		first := joined(t, tn, dir, secret)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !slices.Contains(left, e.Name()) {
				if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := Load(dir); err == nil {
			t.Errorf("%v: half of it loads", left)
		}
		again := joined(t, tn, dir, secret)
		if same := first.Public().Equal(again.Public()); same != slices.Contains(left, "node.key") {
			t.Errorf("%v: the same identity %t", left, same)
		}
	}
}

func joined(t *testing.T, tn town, dir string, secret Secret) *Keys {
	t.Helper()
	j, err := PrepareJoin(dir)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tn.CA.IssueNode(issued, belfry.NewNodeID(), j.Public())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := j.Finish(cert, [][]byte{tn.CA.Certificate.Raw}, 7, secret)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestARenewedCertificateIsOfTheSameNode(t *testing.T) {
	t.Parallel()
	tn, other := newTown(t), newTown(t)
	keys, ca := tn.keys[0], [][]byte{tn.CA.Certificate.Raw}
	issue := func(ca *CA, node belfry.NodeID, public ed25519.PublicKey) []byte {
		t.Helper()
		der, err := ca.IssueNode(issued.Add(CertificateLife), node, public)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	next, err := keys.Renewed(issue(tn.CA, keys.Node, keys.Public()), ca)
	if err != nil || !next.Certificate.Leaf.NotAfter.After(keys.Certificate.Leaf.NotAfter) || next.Node != keys.Node {
		t.Fatalf("%v, %v", next, err)
	}
	for name, wrong := range map[string]struct{ cert, ca []byte }{
		"another key":       {issue(tn.CA, keys.Node, tn.keys[1].Public()), ca[0]},
		"another node":      {issue(tn.CA, tn.keys[1].Node, keys.Public()), ca[0]},
		"another authority": {issue(other.CA, keys.Node, keys.Public()), ca[0]},
		"another cluster":   {issue(other.CA, keys.Node, keys.Public()), other.CA.Certificate.Raw},
		"no certificate":    {[]byte("x"), ca[0]},
	} {
		if _, err := keys.Renewed(wrong.cert, [][]byte{wrong.ca}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestASignatureForARequestIsWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	tn, other := newTown(t), newTown(t)
	dir := t.TempDir()
	keyFile := filepath.Join(dir, "ca.key")
	if err := writeKey(keyFile, tn.CA.key); err != nil {
		t.Fatal(err)
	}
	otherFile := filepath.Join(dir, "other.key")
	if err := writeKey(otherFile, other.CA.key); err != nil {
		t.Fatal(err)
	}
	j, err := PrepareJoin(filepath.Join(dir, "joiner"))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := j.Request()
	if err != nil {
		t.Fatal(err)
	}
	id := Identity{Cluster: tn.Cluster, Node: belfry.NewNodeID()}
	pending, err := LeaveRequest(filepath.Join(dir, "keys"), tn.CA.Certificate, id, csr)
	if err != nil {
		t.Fatal(err)
	}
	found, err := FindRequest(filepath.Join(dir, "keys"), j.Public())
	if err != nil || found.Identity != id || found.File != pending.File {
		t.Fatalf("%+v, %v", found, err)
	}
	if _, err := found.Signed(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before it is signed: %v; want ErrNotExist", err)
	}
	if _, _, err := SignRequest(pending.File, otherFile, issued); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("another key: %v; want ErrUsage", err)
	}
	who, to, err := SignRequest(pending.File, keyFile, issued)
	if err != nil || who != id {
		t.Fatalf("%v, %v", who, err)
	}
	der, err := found.Signed()
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err := x509.ParseCertificate(der); err != nil || !j.Public().Equal(leaf.PublicKey) {
		t.Errorf("%v, %v", leaf, err)
	}
	// One that is of somebody else is not taken.
	stolen, err := tn.CA.IssueNode(issued, tn.keys[1].Node, j.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := ReplaceFile(to, encodeCertificate(stolen)); err != nil {
		t.Fatal(err)
	}
	if _, err := found.Signed(); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("a certificate of another node: %v; want ErrUsage", err)
	}
	if err := found.Done(); err != nil {
		t.Error(err)
	}
	if _, err := FindRequest(filepath.Join(dir, "keys"), j.Public()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after it is done: %v; want ErrNotExist", err)
	}
}

func TestTokenSecretsAreKeptAsHashes(t *testing.T) {
	t.Parallel()
	tn := newTown(t)
	a, b := NewToken(tn.Cluster, tn.CA.Certificate), NewToken(tn.Cluster, tn.CA.Certificate)
	if a.Secret.Hash() != sha256.Sum256(a.Secret[:]) || a.Secret == b.Secret || a.ID == b.ID {
		t.Error("two tokens are one, or a hash is none")
	}
}

package security

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/belfry-ha/belfry"
)

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

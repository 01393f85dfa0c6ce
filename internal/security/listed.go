package security

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/belfry-ha/belfry"
)

// CheckListed judges a node that a document lists and that is not known here yet:
// its certificate is under one of these authorities, of this cluster, for this
// node and key, and not revoked. Its times do not matter: what the node has
// signed lies on a disk for as long as nobody writes something newer. It wraps
// ErrNotMember.
func CheckListed(cluster belfry.ClusterID, authorities []*x509.Certificate, node belfry.NodeID, key ed25519.PublicKey, certificate []byte, revoked []string) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: node %s: %s", belfry.ErrNotMember, node, fmt.Sprintf(format, args...))
	}
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return wrong("its certificate: %v", err)
	}
	if !slices.ContainsFunc(authorities, func(ca *x509.Certificate) bool { return cert.CheckSignatureFrom(ca) == nil }) {
		return wrong("its certificate is under no authority that counts here")
	}
	id, err := certificateIdentity(cert)
	public, _ := cert.PublicKey.(ed25519.PublicKey)
	if err != nil || id.Cluster != cluster || id.Node != node || id.Client != "" || !bytes.Equal(public, key) {
		return wrong("its certificate is another's")
	}
	if slices.Contains(revoked, cert.SerialNumber.Text(16)) {
		return wrong("its certificate is revoked")
	}
	return nil
}

package security

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// NewRequest makes a certificate request (RFC 2986) for a key, in DER. It names
// nobody: who gets the certificate is judged by whoever issues it.
func NewRequest(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// maxRequest bounds a certificate request, in bytes. One by NewRequest takes
// about 190.
const maxRequest = 4096

// CheckRequest reads a certificate request and proves that its sender has the
// private key. It wraps ErrUsage or ErrLimit.
func CheckRequest(der []byte) (ed25519.PublicKey, error) {
	if len(der) > maxRequest {
		return nil, fmt.Errorf("%w: certificate request of %d bytes; at most %d", belfry.ErrLimit, len(der), maxRequest)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate request: %w", belfry.ErrUsage, err)
	}
	public, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: certificate request for a %T; Ed25519 only", belfry.ErrUsage, csr.PublicKey)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: certificate request: %w", belfry.ErrPermission, err)
	}
	return public, nil
}

package security

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/belfry-ha/belfry"
)

// A SealingKey opens what was sealed to a node: X25519, as RFC 9180 uses it.
type SealingKey struct{ private hpke.PrivateKey }

const (
	sealKeyFile = "seal.key"
	pemSeal     = "BELFRY SEALING KEY"
	sealLabel   = "belfry ca key v1"
	sealDomain  = "belfry-sealing-v1\x00"
)

// The suite of security.md, Keys: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
// AES-256-GCM (RFC 9180 7).
func sealSuite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.DHKEM(ecdh.X25519()), hpke.HKDFSHA256(), hpke.AES256GCM()
}

// NewSealingKey draws one.
func NewSealingKey() (*SealingKey, error) {
	kem, _, _ := sealSuite()
	private, err := kem.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make sealing key: %w", err)
	}
	return &SealingKey{private}, nil
}

// Public is the half that others seal with, 32 bytes.
func (k *SealingKey) Public() []byte { return k.private.PublicKey().Bytes() }

// Sign binds a sealing key to a node's identity.
func (k *SealingKey) Sign(identity ed25519.PrivateKey) []byte {
	return ed25519.Sign(identity, append([]byte(sealDomain), k.Public()...))
}

// CheckSealingKey says whether the holder of an identity has named this
// sealing key. It wraps ErrPermission or ErrUsage.
func CheckSealingKey(identity ed25519.PublicKey, public, signature []byte) error {
	kem, _, _ := sealSuite()
	if _, err := kem.NewPublicKey(public); err != nil {
		return fmt.Errorf("%w: sealing key: %w", belfry.ErrUsage, err)
	}
	if !ed25519.Verify(identity, append([]byte(sealDomain), public...), signature) {
		return fmt.Errorf("%w: the sealing key is not signed by the identity", belfry.ErrPermission)
	}
	return nil
}

// SealCA seals an authority's private key to the holder of a sealing key. What
// is sealed can be opened for this authority's certificate only.
func SealCA(ca *CA, public []byte) ([]byte, error) {
	kem, kdf, aead := sealSuite()
	to, err := kem.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("%w: sealing key: %w", belfry.ErrUsage, err)
	}
	seed := ca.key.Seed()
	defer clear(seed)
	sealed, err := hpke.Seal(to, kdf, aead, sealInfo(ca.Certificate), seed)
	if err != nil {
		return nil, fmt.Errorf("seal the authority's key: %w", err)
	}
	return sealed, nil
}

// OpenCA is the inverse of SealCA. It wraps ErrPermission if it was sealed to
// another key or for another authority.
func OpenCA(certificate *x509.Certificate, sealed []byte, key *SealingKey) (*CA, error) {
	_, kdf, aead := sealSuite()
	seed, err := hpke.Open(key.private, kdf, aead, sealInfo(certificate), sealed)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w: the authority's key is not sealed to this node; another member has to sign", belfry.ErrPermission)
	}
	defer clear(seed)
	private := ed25519.NewKeyFromSeed(seed)
	if !private.Public().(ed25519.PublicKey).Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("%w: the sealed key is not that of the authority", belfry.ErrPermission)
	}
	cluster, err := caCluster(certificate)
	if err != nil {
		return nil, err
	}
	return &CA{Cluster: cluster, Certificate: certificate, key: private}, nil
}

func sealInfo(certificate *x509.Certificate) []byte {
	return append([]byte(sealLabel), certificate.Raw...)
}

// WriteSealingKey keeps the key in a node's folder of keys. It wraps ErrExist
// if there is one.
func WriteSealingKey(dir string, k *SealingKey) error {
	raw, err := k.private.Bytes()
	if err != nil {
		return fmt.Errorf("encode sealing key: %w", err)
	}
	defer clear(raw)
	text := pem.EncodeToMemory(&pem.Block{Type: pemSeal, Bytes: raw})
	defer clear(text)
	return writeFile(filepath.Join(dir, sealKeyFile), text, false)
}

// LoadSealingKey reads it; nil if the node has none, as those of clusters that
// were made before there were sealing keys.
func LoadSealingKey(dir string) (*SealingKey, error) {
	name := filepath.Join(dir, sealKeyFile)
	text, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // it need not be there
	}
	if err != nil {
		return nil, err
	}
	defer clear(text)
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemSeal || len(rest) != 0 {
		return nil, fmt.Errorf("%w: %s holds no sealing key; one PEM block %q", belfry.ErrUsage, name, pemSeal)
	}
	defer clear(block.Bytes)
	kem, _, _ := sealSuite()
	private, err := kem.NewPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", belfry.ErrUsage, name, err)
	}
	return &SealingKey{private}, nil
}

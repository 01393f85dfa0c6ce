package license

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// The blocks that keys of issuers are kept in: PKCS #8 and SubjectPublicKeyInfo,
// with Ed25519 as in RFC 8410, so that other tools read them too.
const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
)

// maxKeyText is far beyond what a key takes, in bytes.
const maxKeyText = 4 << 10

// EncodePrivateKey is the PEM text of an issuer's private key. It never fails
// for a key that ed25519 made.
func EncodePrivateKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fail("key", "", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), nil
}

// EncodePublicKey is the PEM text of its public key.
func EncodePublicKey(key ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fail("key", "", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

// ParsePrivateKey reads one PEM block with an Ed25519 key, and nothing else.
// ErrUsage says what the text is instead, never a part of it.
func ParsePrivateKey(text []byte) (ed25519.PrivateKey, error) {
	der, err := keyBlock(text, privateBlock)
	if err != nil {
		return nil, fail("key", "", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fail("key", "", wrong("the private key can not be read; want PKCS #8, as `belfry license keygen` writes it"))
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fail("key", "", wrong("%T; want an Ed25519 key, as `belfry license keygen` makes it", key))
	}
	return private, nil
}

// ParsePublicKey reads one PEM block with an Ed25519 key, and nothing else.
// Errors as of [ParsePrivateKey].
func ParsePublicKey(text []byte) (ed25519.PublicKey, error) {
	der, err := keyBlock(text, publicBlock)
	if err != nil {
		return nil, fail("key", "", err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fail("key", "", wrong("the public key can not be read; want what `belfry license keygen` writes"))
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fail("key", "", wrong("%T; want an Ed25519 key", key))
	}
	return public, nil
}

// keyBlock is the inside of the one block that a text is.
func keyBlock(text []byte, label string) ([]byte, error) {
	if len(text) > maxKeyText {
		return nil, fmt.Errorf("%w: %d bytes; a key has at most %d", belfry.ErrLimit, len(text), maxKeyText)
	}
	text = bytes.TrimSpace(text)
	block, rest := pem.Decode(text)
	switch {
	case block == nil || !bytes.HasPrefix(text, []byte("-----BEGIN ")):
		return nil, wrong("no PEM block; want one block %s, whole and with nothing before it", label)
	case block.Type == privateBlock:
		if label != privateBlock {
			return nil, wrong("this is the private key; want the public one, and let nobody see this file")
		}
	case block.Type != label:
		return nil, wrong("a PEM block %.40q; want %s", block.Type, label)
	}
	if len(bytes.TrimSpace(rest)) > 0 || len(block.Headers) > 0 {
		return nil, wrong("more than one PEM block %s; want that block alone, without headers", label)
	}
	return block.Bytes, nil
}

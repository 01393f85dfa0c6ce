package security

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/belfry-ha/belfry"
)

// A Token lets one node, or one client, join a cluster. It says which: whoever
// joins accepts no other authority than the one it names. Its secret does not
// print.
type Token struct {
	Cluster belfry.ClusterID
	CA      [sha256.Size]byte // SHA-256 of the authority's certificate
	ID      TokenID
	Secret  TokenSecret
}

// A TokenID is what a token is called; it is no secret.
type TokenID [8]byte

// String is 16 hexadecimal digits.
func (id TokenID) String() string { return hex.EncodeToString(id[:]) }

// A TokenSecret proves that somebody has the token. It does not print.
type TokenSecret [16]byte

// Format writes "secret", whatever the verb, so that no log or error shows it.
func (s TokenSecret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("secret")) }

// Hash is what the configuration keeps of it: SHA-256.
func (s TokenSecret) Hash() [sha256.Size]byte { return sha256.Sum256(s[:]) }

const (
	tokenPrefix = "belfry1." // version 1
	tokenSize   = 16 + sha256.Size + 8 + 16 + 4
)

// castagnoli is CRC-32C (RFC 3720, B.4): it finds what was mistyped or cut off
// before a server has to.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewToken draws a token for a cluster under an authority.
func NewToken(cluster belfry.ClusterID, ca *x509.Certificate) (t Token) {
	t.Cluster, t.CA = cluster, sha256.Sum256(ca.Raw)
	rand.Read(t.ID[:])
	rand.Read(t.Secret[:])
	return t
}

// Text is the form that is handed over: belfry1. and base64url (RFC 4648 5,
// without padding) of cluster, authority, id, secret and CRC-32C.
func (t Token) Text() string {
	b := make([]byte, 0, tokenSize)
	b = append(b, t.Cluster[:]...)
	b = append(b, t.CA[:]...)
	b = append(b, t.ID[:]...)
	b = append(b, t.Secret[:]...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	defer clear(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads the form that Text writes. It wraps ErrUsage and says what
// is wrong, but never repeats the text.
func ParseToken(text string) (Token, error) {
	t, err := parseToken(text)
	if err != nil {
		return Token{}, &belfry.Error{Op: "token", Err: fmt.Errorf("%w: %w", belfry.ErrUsage, err)}
	}
	return t, nil
}

func parseToken(text string) (t Token, err error) {
	body, ok := strings.CutPrefix(text, tokenPrefix)
	switch {
	case !ok && strings.HasPrefix(text, "belfry"):
		return t, fmt.Errorf("a token of another version; this one knows %s", strings.TrimSuffix(tokenPrefix, "."))
	case !ok:
		return t, fmt.Errorf("not a token; it begins with %s", tokenPrefix)
	case len(body) != base64.RawURLEncoding.EncodedLen(tokenSize):
		return t, fmt.Errorf("a token has %d characters, this has %d; copy all of it", len(tokenPrefix)+base64.RawURLEncoding.EncodedLen(tokenSize), len(text))
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return t, fmt.Errorf("a character that no token has; copy it again")
	}
	defer clear(b)
	sum := binary.LittleEndian.Uint32(b[tokenSize-4:])
	if sum != crc32.Checksum(b[:tokenSize-4], castagnoli) {
		return t, fmt.Errorf("a character is wrong; copy it again")
	}
	n := copy(t.Cluster[:], b)
	n += copy(t.CA[:], b[n:])
	n += copy(t.ID[:], b[n:])
	copy(t.Secret[:], b[n:])
	return t, nil
}

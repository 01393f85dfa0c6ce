package license

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/belfry-ha/belfry"
)

// MaxFile is the greatest size of a file, in bytes of its text.
const MaxFile = 64 << 10

const (
	version    = 1
	headerSize = 1 + len(KeyID{}) + 4 // version, key id, length of the payload
	lineWidth  = 64                   // characters of base64 a line (RFC 7468 2)
)

// A KeyID is the start of the SHA-256 of a public key. It only finds the key:
// two keys may share one, and each is tried.
type KeyID [8]byte

// KeyIDOf is the KeyID of a public key.
func KeyIDOf(key ed25519.PublicKey) KeyID {
	sum := sha256.Sum256(key)
	return KeyID(sum[:len(KeyID{})])
}

// String is the KeyID in hexadecimal.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// An Issuer is a key and the one product that it may sign for. Who issues
// several products, or has several keys, is several of these. So a key that
// somebody registered for their product unlocks no other one.
type Issuer struct {
	Product string
	Key     ed25519.PublicKey
}

// A kind is a sort of signed file. The domain keeps a signature of one from
// being taken for one of the other.
type kind struct{ what, label, domain string }

var (
	licenses    = kind{"license", "BELFRY LICENSE", "belfry-license-v1\x00"}
	revocations = kind{"revocation list", "BELFRY REVOCATIONS", "belfry-revocation-v1\x00"}
)

// content is what issuers sign.
type content[T any] interface {
	License | Revocations
	kind() kind
	product() string
	normal() T    // in the one form that is written
	check() error // of the normal form
}

// Signed is a file: what it grants and who says so. A value of it comes only
// from parsing or signing, so that it is always in the right form; whether its
// signature holds is another question, which Verify answers.
type Signed[T content[T]] struct {
	content   T
	key       KeyID
	payload   []byte
	signature [ed25519.SignatureSize]byte
}

// File is a license as it was signed.
type File = Signed[License]

// Parse reads a file: one PEM block (RFC 7468, strict form) with the label
// BELFRY LICENSE, without headers, that is the base64 of
//
//	version 1 (1 byte) | key id (8) | length of the payload (4, little endian) | payload | signature (64)
//
// The signature is Ed25519 (RFC 8032) over "belfry-license-v1", a zero byte,
// version, key id and payload. The payload is the JSON of [License]: all
// fields in their order, without white space; times that are none and the
// unused parts of the binding are left out.
//
// A license has one form only: Encode of what was parsed gives the same bytes
// for every text that Parse takes. So nothing comes before the block or after
// its last newline; [Tidy] makes that of what people send each other.
//
// Errors: ErrLimit (longer than [MaxFile]), ErrUnsupported (version), ErrUsage.
// No signature is looked at.
func Parse(text []byte) (File, error) { return parse[License](text) }

// Sign makes a file of what is granted, for vendors. Sets may be in any order.
// ErrUsage: a field is out of its range, which the error names; ErrLimit: the
// file would be longer than [MaxFile]. The same input gives the same bytes.
func Sign(l License, key ed25519.PrivateKey) (File, error) { return sign(l, key) }

// Tidy takes off what mail and editors add to a file: blanks, tabs and
// carriage returns at both ends of each line, and empty lines before and after
// the block. It takes off nothing else: a text beside the block is refused by
// [Parse], because a reader may take it for a part of the license.
func Tidy(text []byte) []byte {
	const space = " \t\r\n"
	var tidy []byte
	for line := range bytes.Lines(bytes.Trim(text, space)) {
		tidy = append(append(tidy, bytes.Trim(line, space)...), '\n')
	}
	return tidy
}

// Encode is the file's text. It never fails.
func (f Signed[T]) Encode() []byte {
	return armor(f.content.kind().label, append(f.frame(), f.signature[:]...))
}

// KeyID names the key that is said to have signed.
func (f Signed[T]) KeyID() KeyID { return f.key }

// Unproven is what the file says, to show it to a person. Nothing may be
// granted on it: take what Verify returns.
func (f Signed[T]) Unproven() T { return f.content }

// Verify returns what the file says if one of the issuers' keys has signed it
// and may sign for that product; ErrPermission that says which it lacks.
func (f Signed[T]) Verify(issuers []Issuer) (T, error) {
	var none T
	product, elsewhere, tried := f.content.product(), "", false
	for _, issuer := range issuers {
		if len(issuer.Key) != ed25519.PublicKeySize || KeyIDOf(issuer.Key) != f.key {
			continue
		}
		if issuer.Product != product {
			// Where a byte of the name has changed the signature does not fit either.
			if elsewhere = issuer.Product; !ed25519.Verify(issuer.Key, f.message(), f.signature[:]) {
				tried = true
			}
			continue
		}
		tried = true
		if ed25519.Verify(issuer.Key, f.message(), f.signature[:]) {
			return f.content, nil
		}
	}
	k := f.content.kind()
	switch {
	case tried:
		return none, fail("verify", k.what, fmt.Errorf("%w: the signature does not fit; get the file from its issuer again", belfry.ErrPermission))
	case elsewhere != "":
		return none, fail("verify", k.what, fmt.Errorf("%w: key %s signs for %s, not for %s; ask the issuer of %s",
			belfry.ErrPermission, f.key, elsewhere, product, product))
	}
	return none, fail("verify", k.what, fmt.Errorf(
		"%w: no issuer of %s has the key %s; register it with `belfry license issuer add` if you trust it", belfry.ErrPermission, product, f.key))
}

// frame is the file's bytes up to the signature.
func (f Signed[T]) frame() []byte {
	b := make([]byte, 0, headerSize+len(f.payload)+len(f.signature))
	b = append(append(b, version), f.key[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.payload)))
	return append(b, f.payload...)
}

// message is what is signed. The length is not in it: it follows from the rest.
func (f Signed[T]) message() []byte {
	b := append([]byte(f.content.kind().domain), version)
	return append(append(b, f.key[:]...), f.payload...)
}

func sign[T content[T]](c T, key ed25519.PrivateKey) (f Signed[T], err error) {
	k := c.kind()
	if len(key) != ed25519.PrivateKeySize {
		return f, fail("sign", k.what, fmt.Errorf("%w: a key of %d bytes; want an Ed25519 private key", belfry.ErrUsage, len(key)))
	}
	made := Signed[T]{content: c.normal(), key: KeyIDOf(ed25519.PublicKey(key[ed25519.SeedSize:]))} // RFC 8032: seed, then public key
	if err := made.content.check(); err != nil {
		return f, fail("sign", k.what, err)
	}
	if made.payload, err = marshal(made.content); err != nil {
		return f, fail("sign", k.what, fmt.Errorf("%w: %w", belfry.ErrUsage, err))
	}
	copy(made.signature[:], ed25519.Sign(key, made.message()))
	if n := len(made.Encode()); n > MaxFile {
		return f, fail("sign", k.what, fmt.Errorf("%w: a file of %d bytes; shorten its lists, at most %d", belfry.ErrLimit, n, MaxFile))
	}
	return made, nil
}

func parse[T content[T]](text []byte) (Signed[T], error) {
	var f Signed[T]
	if err := f.read(text); err != nil {
		return Signed[T]{}, fail("parse", f.content.kind().what, err)
	}
	return f, nil
}

func (f *Signed[T]) read(text []byte) error {
	raw, err := dearmor(f.content.kind().label, text)
	if err != nil {
		return err
	}
	if len(raw) < headerSize+len(f.signature) {
		return wrong("%d bytes inside; want at least %d: the file is cut off; get it from its issuer again", len(raw), headerSize+len(f.signature))
	}
	if raw[0] != version {
		return fmt.Errorf("%w: version %d; want %d, or a newer belfry", belfry.ErrUnsupported, raw[0], version)
	}
	f.key = KeyID(raw[1:])
	length := binary.LittleEndian.Uint32(raw[headerSize-4:])
	if int64(length) != int64(len(raw)-headerSize-len(f.signature)) {
		return wrong("says that it grants %d bytes, and has %d; the file is cut off or joined, get it from its issuer again", length, len(raw)-headerSize-len(f.signature))
	}
	f.payload, f.signature = raw[headerSize:headerSize+int(length)], [ed25519.SignatureSize]byte(raw[headerSize+int(length):])
	f.content, err = unmarshal[T](f.payload)
	return err
}

// armor is RFC 7468, strict form.
func armor(label string, raw []byte) []byte {
	begin, end := boundaries(label)
	body := base64.StdEncoding.AppendEncode(nil, raw)
	text := make([]byte, 0, len(begin)+len(body)+len(body)/lineWidth+1+len(end))
	text = append(text, begin...)
	for len(body) > 0 {
		n := min(lineWidth, len(body))
		text = append(append(text, body[:n]...), '\n')
		body = body[n:]
	}
	return append(text, end...)
}

func boundaries(label string) (begin, end string) {
	return "-----BEGIN " + label + "-----\n", "-----END " + label + "-----\n"
}

// dearmor takes what armor writes, to the byte, and nothing else.
func dearmor(label string, text []byte) ([]byte, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%w: %d bytes; at most %d", belfry.ErrLimit, len(text), MaxFile)
	}
	begin, end := boundaries(label)
	body, begins := bytes.CutPrefix(text, []byte(begin))
	body, ends := bytes.CutSuffix(body, []byte(end))
	switch n := bytes.Count(text, []byte(begin)); {
	case n > 1:
		return nil, wrong("%d PEM blocks %s; want one, in a file of its own", n, label)
	case begins && !ends && !bytes.Contains(text, []byte("\n-----END ")):
		return nil, wrong("the last line of the PEM block %s is missing: the file is cut off; get it from its issuer again", label)
	}
	if !begins || !ends {
		return nil, wrong("not one PEM block %s; want its first line first, its last line last, nothing beside them", label)
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(body)))
	n, err := base64.StdEncoding.Decode(raw, body)
	if err != nil {
		return nil, wrong("not base64 inside the block: %v; want no PEM headers and no second block", err)
	}
	// The decoder passes over line ends wherever they are, and over bits that
	// mean nothing.
	if raw = raw[:n]; !bytes.Equal(armor(label, raw), text) {
		return nil, wrong("lines are not as they were written; want %d characters a line and no white space", lineWidth)
	}
	return raw, nil
}

// marshal writes JSON in the one form. What check lets through has no
// character that versions of encoding/json escape differently.
func marshal[T content[T]](c T) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(c); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// unmarshal takes what marshal writes, to the byte. The comparison refuses
// what a decoder lets pass: fields twice, in another order, case or spelling,
// missing ones, white space, null, numbers and times in another form.
func unmarshal[T content[T]](payload []byte) (c T, err error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, wrong("not the JSON of a %s: %v; get the file from its issuer again", c.kind().what, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return c, wrong("something follows the JSON of the %s; want one object", c.kind().what)
	}
	c = c.normal()
	if err := c.check(); err != nil {
		return c, err
	}
	again, err := marshal(c)
	if err != nil {
		return c, wrong("%v", err)
	}
	if !bytes.Equal(again, payload) {
		return c, wrong("the JSON of the %s is not in the one form that is written, from byte %d on; get the file from its issuer again", c.kind().what, common(again, payload))
	}
	return c, nil
}

// common is how many bytes a and b begin with alike.
func common(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

package license

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

func keyTexts(t testing.TB) (private, public []byte) {
	t.Helper()
	private, err := EncodePrivateKey(vendorKey)
	if err != nil {
		t.Fatal(err)
	}
	public, err = EncodePublicKey(publicOf(vendorKey))
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func publicOf(key []byte) []byte { return key[32:] }

func TestKeysAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	private, public := keyTexts(t)
	key, err := ParsePrivateKey(private)
	if err != nil || !key.Equal(vendorKey) {
		t.Errorf("private key: %v, another one: %t", err, !key.Equal(vendorKey))
	}
	pub, err := ParsePublicKey(append([]byte("\r\n"), public...)) // what mail adds
	if err != nil || !bytes.Equal(pub, publicOf(vendorKey)) {
		t.Errorf("public key: %x, %v", pub, err)
	}
}

// Whoever gives the wrong file is told what it is; of a private key nothing is
// repeated.
func TestOtherFilesAreNoKeys(t *testing.T) {
	t.Parallel()
	private, public := keyTexts(t)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	foreign := pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der})
	readPublic := func(text []byte) error { _, err := ParsePublicKey(text); return err }
	readPrivate := func(text []byte) error { _, err := ParsePrivateKey(text); return err }
	for _, c := range []struct {
		name string
		read func([]byte) error
		text []byte
		want string
	}{
		{"a private key", readPublic, private, "this is the private key; want the public one, and let nobody see this file"},
		{"a public key", readPrivate, public, `a PEM block "PUBLIC KEY"; want PRIVATE KEY`},
		{"a license", readPrivate, signed(t, annual()), `a PEM block "BELFRY LICENSE"; want PRIVATE KEY`},
		{"another curve", readPrivate, foreign, "*ecdsa.PrivateKey; want an Ed25519 key"},
		{"a block cut off", readPrivate, private[:len(private)-10], "no PEM block"},
		{"a key cut off", readPublic, pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: publicOf(vendorKey)}), "the public key can not be read"},
		{"bytes for a key", readPrivate, pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: []byte("x")}), "the private key can not be read"},
		{"two keys", readPublic, append(bytes.Clone(public), public...), "more than one PEM block PUBLIC KEY"},
		{"text before it", readPublic, append([]byte("my key\n"), public...), "no PEM block"},
		{"nothing", readPublic, nil, "no PEM block"},
	} {
		err := c.read(c.text)
		if !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want ErrUsage, %s", c.name, err, c.want)
		}
		if secret := string(private[30:60]); strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v repeats the key", c.name, err)
		}
	}
	if err := readPublic(bytes.Repeat([]byte("x"), maxKeyText+1)); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("a huge file: %v; want ErrLimit", err)
	}
}

// What people cut off or join by accident is told by name.
func TestFilesThatWereCutOrJoinedAreToldSo(t *testing.T) {
	t.Parallel()
	one := signed(t, annual())
	for text, want := range map[string]string{
		string(one[:len(one)-40]):       "the last line of the PEM block BELFRY LICENSE is missing: the file is cut off; get it from its issuer again",
		string(one) + string(one):       "2 PEM blocks BELFRY LICENSE; want one, in a file of its own",
		string(one[20:]):                "not one PEM block BELFRY LICENSE; want its first line first, its last line last, nothing beside them",
		"dear customer\n" + string(one): "not one PEM block BELFRY LICENSE",
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want ErrUsage, %s", err, want)
		}
	}
}

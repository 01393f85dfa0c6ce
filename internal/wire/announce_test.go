package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var (
	announceCluster = belfry.ClusterID{1, 2, 3}
	announceKey     = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
)

func announce() Announce {
	return Announce{
		Notice: [AnnouncedNotice]byte{1, 80: 2}, From: belfry.NodeID{5}, Port: 7432,
		Certificate: bytes.Repeat([]byte{0xce}, 425), Authority: bytes.Repeat([]byte{0xca}, 330),
	}
}

func announced(t testing.TB, a Announce) []byte {
	t.Helper()
	data, err := AppendAnnounce(nil, announceCluster, a, announceKey)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAnnounceReadsBack(t *testing.T) {
	want := announce()
	data := announced(t, want)
	got, err := DecodeAnnounce(data, announceCluster)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	if !VerifyAnnounce(data, announceKey.Public().(ed25519.PublicKey)) {
		t.Fatal("the signature does not verify")
	}
	// Golden: the form is a promise between versions.
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:8]); len(data) != 930 || got != "f099915d6f22676b" {
		t.Fatalf("%d bytes, %s", len(data), got)
	}
}

func TestEachByteOfAnAnnounceIsSigned(t *testing.T) {
	data := announced(t, announce())
	public := announceKey.Public().(ed25519.PublicKey)
	for i := range data {
		data[i] ^= 1
		if VerifyAnnounce(data, public) {
			t.Errorf("byte %d can be changed", i)
		}
		data[i] ^= 1
	}
	other := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	if VerifyAnnounce(data, other) || VerifyAnnounce(data, nil) || VerifyAnnounce(nil, public) {
		t.Error("verified for another identity, for none, or nothing at all")
	}
	signed := len(data) - ed25519.SignatureSize
	copy(data[signed:], ed25519.Sign(announceKey, data[:signed]))
	if VerifyAnnounce(data, public) {
		t.Error("a signature for another purpose counts")
	}
}

func TestAnnounceIsStrict(t *testing.T) {
	data := announced(t, announce())
	for n := range data {
		if _, err := DecodeAnnounce(data[:n], announceCluster); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for i := range announceSize {
		wrong := bytes.Clone(data)
		wrong[i] ^= 1
		if _, err := DecodeAnnounce(wrong, announceCluster); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("byte %d of the head: %v", i, err)
		}
	}
	for name, change := range map[string]func(*Announce){
		"no sender":      func(a *Announce) { a.From = belfry.NodeID{} },
		"no port":        func(a *Announce) { a.Port = 0 },
		"no certificate": func(a *Announce) { a.Certificate = nil },
		"no authority":   func(a *Announce) { a.Authority = nil },
	} {
		a := announce()
		change(&a)
		if _, err := AppendAnnounce(nil, announceCluster, a, announceKey); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a := announce()
	a.Authority = make([]byte, MaxSize-announceFixed-len(a.Certificate)+1)
	if _, err := AppendAnnounce(nil, announceCluster, a, announceKey); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("a byte over the limit: %v", err)
	}
	a.Authority = a.Authority[1:]
	if _, err := DecodeAnnounce(announced(t, a), announceCluster); err != nil {
		t.Errorf("at the limit: %v", err)
	}
}

// FuzzAnnounce: what is read is written the same, but for the signature.
func FuzzAnnounce(f *testing.F) {
	data := announced(f, announce())
	f.Add(data)
	f.Add(append(bytes.Clone(data), 0)) // a byte too many
	f.Add(data[:announceFixed])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := DecodeAnnounce(data, announceCluster)
		if err != nil {
			if !errors.Is(err, belfry.ErrUsage) || !cmp.Equal(a, Announce{}) {
				t.Fatalf("%+v beside %v", a, err)
			}
			return
		}
		signed := len(data) - ed25519.SignatureSize
		if again := announced(t, a); !bytes.Equal(again[:len(again)-ed25519.SignatureSize], data[:signed]) {
			t.Fatalf("written as\n%x\nread from\n%x", again, data)
		}
	})
}

package license

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// Keys from fixed seeds, so that each run signs the same bytes.
var (
	vendorKey = testKey(1) // signs for "acme-db"
	secondKey = testKey(2) // signs for "acme-db" too
	otherKey  = testKey(3) // signs for "other"
	rogueKey  = testKey(4) // signs for nobody
)

const product = "acme-db"

var testIssuers = []Issuer{
	{product, public(vendorKey)},
	{product, public(secondKey)},
	{"other", public(otherKey)},
}

var (
	testCluster  = belfry.ClusterID{0xc1, 15: 1}
	otherCluster = belfry.ClusterID{0xc1, 15: 2}
)

func testKey(seed byte) ed25519.PrivateKey {
	s := make([]byte, ed25519.SeedSize)
	for i := range s {
		s[i] = seed
	}
	return ed25519.NewKeyFromSeed(s)
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func node(n int) belfry.NodeID { return belfry.NodeID{0xa0, 14: byte(n >> 8), 15: byte(n)} }

// at reads RFC 3339, or a date.
func at(text string) time.Time {
	if len(text) == len(time.DateOnly) {
		text += "T00:00:00Z"
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t
}

// annual is good for 2026 in the test's cluster.
func annual() License {
	return License{
		ID: "L1", Product: product, Edition: "standard", Features: []string{"backup", "replica"},
		Binding: Binding{Cluster: testCluster}, NotBefore: at("2026-01-01"), NotAfter: at("2026-12-31T23:59:59Z"),
		GraceDays: DefaultGraceDays, IssuedAt: at("2025-12-15T10:20:30Z"), Customer: "Example GmbH",
	}
}

// with is a license with changes.
func with(l License, changes ...func(*License)) License {
	for _, change := range changes {
		change(&l)
	}
	return l
}

func signed(t testing.TB, l License) []byte { return signedBy(t, l, vendorKey) }

func signedBy(t testing.TB, l License, key ed25519.PrivateKey) []byte {
	t.Helper()
	f, err := Sign(l, key)
	if err != nil {
		t.Fatal(err)
	}
	return f.Encode()
}

func revoking(t testing.TB, key ed25519.PrivateKey, serial int64, ids ...ID) []byte {
	t.Helper()
	f, err := SignRevocations(Revocations{Product: product, Serial: serial, IssuedAt: at("2026-03-01"), Revoked: ids}, key)
	if err != nil {
		t.Fatal(err)
	}
	return f.Encode()
}

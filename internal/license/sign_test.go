package license

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

func TestSignRefusesWhatNobodyCouldRead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", maxName+1)
	var many []ID
	for i := range maxList + 1 {
		many = append(many, ID("id-"+strings.Repeat("x", i%50)+string(rune('a'+i/50))))
	}
	for _, tt := range []struct {
		want   string
		change func(*License)
	}{
		{"license_id is \"\"", func(l *License) { l.ID = "" }},
		{"license_id is \"../x\"", func(l *License) { l.ID = "../x" }},
		{"product is \"a b\"", func(l *License) { l.Product = "a b" }},
		{"edition is \"" + long, func(l *License) { l.Edition = long }},
		{"features has a twice", func(l *License) { l.Features = []string{"a", "b", "a"} }},
		{"features is \"-a\"", func(l *License) { l.Features = []string{"-a"} }},
		{"binding says 0 things", func(l *License) { l.Binding = Binding{} }},
		{"binding says 2 things", func(l *License) { l.Binding.Any = true }},
		{"names the node 00000000", func(l *License) { l.Binding = Binding{Nodes: []belfry.NodeID{node(1), {}}} }},
		{"names a node twice", func(l *License) { l.Binding = Binding{Nodes: []belfry.NodeID{node(1), node(2), node(1)}} }},
		{"binding has 1025 nodes", func(l *License) { l.Binding = Binding{Nodes: make([]belfry.NodeID, maxList+1)} }},
		{"capacity nodes is -1", func(l *License) { l.Capacity.Nodes = -1 }},
		{"capacity cores is 9007199254740992", func(l *License) { l.Capacity.Cores = 1 << 53 }},
		{"capacity memory_bytes is -5", func(l *License) { l.Capacity.MemoryBytes = -5 }},
		{"not_before has parts of a second", func(l *License) { l.NotBefore = l.NotBefore.Add(1) }},
		{"not_after is in the year 9991", func(l *License) { l.NotAfter = at("9991-01-01") }},
		{"maintenance_until is in the year 1969", func(l *License) { l.MaintenanceUntil = at("1969-12-31") }},
		{"issued_at is missing", func(l *License) { l.IssuedAt = time.Time{} }},
		{"is before not_before", func(l *License) { l.NotAfter = l.NotBefore.Add(-time.Second) }},
		{"grace_days is -1", func(l *License) { l.GraceDays = -1 }},
		{"grace_days is 367", func(l *License) { l.GraceDays = 367 }},
		{"supersedes has 1025 names", func(l *License) { l.Supersedes = many }},
		{"supersedes names the license itself", func(l *License) { l.Supersedes = []ID{"L0", l.ID} }},
		{"customer has 257 bytes", func(l *License) { l.Customer = strings.Repeat("c", maxCustomer+1) }},
		{"customer has 1 bytes", func(l *License) { l.Customer = "\xff" }},
		{"control character U+000A", func(l *License) { l.Customer = "a\nb" }},
		{"control character U+009B", func(l *License) { l.Customer = "a\u009bb" }},
		{"control character U+2028", func(l *License) { l.Customer = "a\u2028b" }},
	} {
		f, err := Sign(with(annual(), tt.change), vendorKey)
		if !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", tt.want, err)
		}
		if f.payload != nil {
			t.Errorf("%s: a file all the same", tt.want)
		}
	}
	for _, n := range []int{0, 31, 32, 63} {
		if _, err := Sign(annual(), vendorKey[:n]); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "want an Ed25519 private key") {
			t.Errorf("%d bytes of a key: %v", n, err)
		}
	}
}

// X26. Who may sign for what.
func TestOnlyAnIssuerOfTheProductUnlocks(t *testing.T) {
	t.Parallel()
	elsewhere := with(annual(), func(l *License) { l.Product = "other" })
	wrongID := File{content: annual().normal(), key: KeyIDOf(public(secondKey))}
	wrongID.payload, _ = marshal(wrongID.content)
	copy(wrongID.signature[:], ed25519.Sign(vendorKey, wrongID.message())) // by the first key, in the name of the second
	undated := framedWith(t, vendorKey, "", annual())
	asList := framedWith(t, vendorKey, revocations.domain, annual())
	flipped := rearmored(t, signed(t, annual()), func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b })
	for _, tt := range []struct {
		name, want string // empty: accepted
		text       []byte
	}{
		{"the vendor's key", "", signed(t, annual())},
		{"the vendor's second key", "", signedBy(t, annual(), secondKey)},
		{"a key that nobody knows", "no issuer of acme-db has the key " + KeyIDOf(public(rogueKey)).String(), signedBy(t, annual(), rogueKey)},
		{"the key of another product", "signs for other, not for acme-db", signedBy(t, annual(), otherKey)},
		{"another product by its own key", "", signedBy(t, elsewhere, otherKey)},
		{"another product by our key", "signs for acme-db, not for other", signedBy(t, elsewhere, vendorKey)},
		{"one key in the name of another", "signature does not fit", wrongID.Encode()},
		{"a signature of the bytes alone", "signature does not fit", undated},
		{"a signature of a list", "signature does not fit", asList},
		{"a bit of the signature", "signature does not fit", flipped},
	} {
		f, err := Parse(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		l, err := f.Verify(testIssuers)
		switch {
		case tt.want == "":
			if err != nil || l.ID != "L1" {
				t.Errorf("%s: %v, want it accepted", tt.name, err)
			}
		case !errors.Is(err, belfry.ErrPermission) || !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s: %v, want ErrPermission, %s", tt.name, err, tt.want)
		case l.ID != "":
			t.Errorf("%s: refused, and given out all the same", tt.name)
		}
	}
	f, err := Parse(signed(t, annual()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Verify([]Issuer{{product, nil}, {product, public(vendorKey)[:31]}}); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("issuers without a key: %v, want ErrPermission", err)
	}
}

// framedWith signs a license in another domain.
func framedWith(t testing.TB, key ed25519.PrivateKey, domain string, l License) []byte {
	t.Helper()
	f, err := Sign(l, key)
	if err != nil {
		t.Fatal(err)
	}
	message := append([]byte(domain), bytes.TrimPrefix(f.message(), []byte(licenses.domain))...)
	copy(f.signature[:], ed25519.Sign(key, message))
	return f.Encode()
}

package license

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

func TestRevocationListsAreReadAgain(t *testing.T) {
	t.Parallel()
	text := revoking(t, vendorKey, 7, "L9", "L1")
	if !independent("BELFRY REVOCATIONS", "belfry-revocation-v1", text, public(vendorKey)) {
		t.Errorf("an independent reader does not accept\n%s", text)
	}
	f, err := ParseRevocations(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.Encode(), text) {
		t.Errorf("read and written again:\n%s", cmp.Diff(string(text), string(f.Encode())))
	}
	const payload = `{"product":"acme-db","serial":7,"issued_at":"2026-03-01T00:00:00Z","revoked":["L1","L9"]}`
	if diff := cmp.Diff(payload, string(f.payload)); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
	r, err := f.Verify(testIssuers)
	want := Revocations{Product: product, Serial: 7, IssuedAt: at("2026-03-01"), Revoked: []ID{"L1", "L9"}}
	if diff := cmp.Diff(want, r); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := f.Verify(testIssuers[2:]); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("by an issuer of another product: %v, want ErrPermission", err)
	}
}

// A signature of a license is none of a list, though all else fits.
func TestAListIsNeverALicense(t *testing.T) {
	t.Parallel()
	f, err := ParseRevocations(revoking(t, vendorKey, 7, "L1"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Parse(signed(t, annual()))
	if err != nil {
		t.Fatal(err)
	}
	f.signature = l.signature
	if _, err := f.Verify(testIssuers); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a list with the signature of a license: %v, want ErrPermission", err)
	}
	if _, err := ParseRevocations(signed(t, annual())); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("a license as a list: %v, want ErrUsage", err)
	}
}

func TestRevocationListsThatNobodyCouldRead(t *testing.T) {
	t.Parallel()
	good := Revocations{Product: product, Serial: 1, IssuedAt: at("2026-03-01"), Revoked: []ID{"L1"}}
	for _, tt := range []struct {
		want   string
		change func(*Revocations)
	}{
		{"product is \"\"", func(r *Revocations) { r.Product = "" }},
		{"serial is 0", func(r *Revocations) { r.Serial = 0 }},
		{"serial is 9007199254740992", func(r *Revocations) { r.Serial = 1 << 53 }},
		{"issued_at is missing", func(r *Revocations) { r.IssuedAt = time.Time{} }},
		{"issued_at has parts", func(r *Revocations) { r.IssuedAt = r.IssuedAt.Add(1) }},
		{"revoked has L1 twice", func(r *Revocations) { r.Revoked = []ID{"L1", "L1"} }},
		{"revoked is \"\"", func(r *Revocations) { r.Revoked = []ID{""} }},
	} {
		r := good
		tt.change(&r)
		if _, err := SignRevocations(r, vendorKey); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", tt.want, err)
		}
	}
}

func TestSerialsOnlyRise(t *testing.T) {
	t.Parallel()
	old := Revocations{Product: product, Serial: 7}
	for _, tt := range []struct {
		list Revocations
		want error
	}{
		{Revocations{Product: product, Serial: 8}, nil},
		{Revocations{Product: product, Serial: 7}, belfry.ErrStale},
		{Revocations{Product: product, Serial: 6}, belfry.ErrStale},
		{Revocations{Product: "other", Serial: 8}, belfry.ErrUsage},
	} {
		if err := tt.list.Replaces(old); !errors.Is(err, tt.want) {
			t.Errorf("%s %d in the place of 7: %v, want %v", tt.list.Product, tt.list.Serial, err, tt.want)
		}
	}
}

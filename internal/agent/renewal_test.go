package agent

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// A certificate that can not be renewed is an event from 7 days before its end,
// once a day.
func TestACertificateThatIsAboutToEndIsToldOf(t *testing.T) {
	t.Parallel()
	n := localNodes(t, 1)[0]
	a := startAgent(t, n)
	stream, err := dialAgent(t, n).Register(t.Context(), belfry.Registration{Class: "security.certificate", Subject: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	ends := a.keys.now().Certificate.Leaf.NotAfter
	reason := errors.New("no holder of the authority's key answers")
	for _, before := range []time.Duration{8 * 24, 6 * 24, 6*24 - 1, 5*24 - 1} {
		a.tellCertificate(ends.Add(-before*time.Hour), reason)
	}
	got, err := stream.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for got.Last < 2 { // they may come in one or in two
		if got, err = stream.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got.Last != 2 || got.Edge != belfry.EdgeFailing {
		t.Errorf("%+v; want two occurrences in all", got)
	}
}

func TestACertificateFromAClockThatWasAheadIsRenewed(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	leaf := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(30 * 24 * time.Hour)}
	for _, tt := range []struct {
		at           time.Duration
		young, valid bool
	}{
		{-365 * 24 * time.Hour, false, false},
		{-time.Second, false, false},
		{0, true, true},
		{20*24*time.Hour - 1, true, true},
		{20 * 24 * time.Hour, false, true},
		{30*24*time.Hour + 1, false, false},
	} {
		if young, valid := certificateAge(begin.Add(tt.at), leaf, 20*24*time.Hour); young != tt.young || valid != tt.valid {
			t.Errorf("after %s: young %v, valid %v; want %v, %v", tt.at, young, valid, tt.young, tt.valid)
		}
	}
}

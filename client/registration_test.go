package client

import (
	"errors"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

// TestWhatNoMessageCarriesIsRefusedHere: the agent would never hear of it, and
// whoever registers would wait for ever.
func TestWhatNoMessageCarriesIsRefusedHere(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxText)
	for _, tt := range []struct {
		is   belfry.Registration
		text string
	}{
		{belfry.Registration{Class: "user.x", Subject: long, Filter: long}, ""},
		{belfry.Registration{Class: "user.x", Subject: long + "x"}, "Register: the subject has 4097 bytes; at most 4096"},
		{belfry.Registration{Class: "user.x", Filter: long + "x"}, "Register: the expression has 4097 bytes; at most 4096"},
		{belfry.Registration{Class: "user.x", Filter: "\xff"}, `Register: the expression is not UTF-8: "\xff"`},
		{belfry.Registration{Class: "user.\xff"}, `Register: the class is not UTF-8: "user.\xff"`},
	} {
		if err := sendable(tt.is); (err == nil) != (tt.text == "") || err != nil && (err.Error() != tt.text || !errors.Is(err, belfry.ErrUsage)) {
			t.Errorf("%v; want %q", err, tt.text)
		}
	}
}

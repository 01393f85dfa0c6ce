package belfry_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
)

func TestLicenseStatesReadWhatTheyWrite(t *testing.T) {
	t.Parallel()
	words := []string{"locked", "unlocked", "grace", "expired", "over_capacity", "revoked"}
	for i, word := range words {
		state := belfry.LicenseState(i)
		if state.String() != word {
			t.Errorf("state %d is %s, want %s", i, state, word)
		}
		if got, err := belfry.ParseLicenseState(word); got != state || err != nil {
			t.Errorf("%s: %s, %v", word, got, err)
		}
		if usable := word == "unlocked" || word == "grace"; state.Usable() != usable {
			t.Errorf("%s: usable is %t", word, state.Usable())
		}
	}
	if text, err := json.Marshal(belfry.LicenseOverCapacity); string(text) != `"over_capacity"` || err != nil {
		t.Errorf("in JSON: %s, %v", text, err)
	}
	_, err := belfry.ParseLicenseState("open")
	if !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "open") {
		t.Errorf("open: %v; want ErrUsage that names it", err)
	}
	if got := belfry.LicenseState(len(words)).String(); got != "unknown-6" {
		t.Errorf("the state after the last is %s: the list of this test lacks one", got)
	}
}

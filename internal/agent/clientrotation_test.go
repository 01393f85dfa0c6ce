package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// TestAReplacedAuthorityRemovesNoClient: docs/rights.md says what it does to them.
// Its certificate counts until the old authority goes, which waits for all members;
// then it has to join again, and is who it was.
func TestAReplacedAuthorityRemovesNoClient(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	formed(t, m)
	intruder := m[0].joinClient(t, "ci", "operator").Clone()
	intruder.VerifyConnection = nil // a good one asks no node with a new certificate
	c := m[0].dial(t)
	if _, err := c.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: "client:ci", Role: "reader"}); err != nil {
		t.Fatal(err)
	}
	m[1].stop(t)
	m[0].waitVerdict(t, "n2", "left", "down", "stalled")
	if _, err := c.RotateCA(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		m[0].agent.doDuties(t.Context())
	}
	if _, err := m[0].asClient(t, intruder); err != nil {
		t.Errorf("while a member is down: %v; want the old certificate to count", err)
	}
	m[1].start(t)
	m[0].waitHolds(t, "n1", "n2")
	replaced := func() bool { // at both, of which one has a table of before
		t0, t1 := m[0].agent.members.Table(), m[1].agent.members.Table()
		return len(t0.CA) == 1 && len(t1.CA) == 1 && t1.Generation == t0.Generation
	}
	for end := time.Now().Add(testTimeout); !replaced(); {
		m[0].agent.doDuties(t.Context())
		if time.Now().After(end) {
			t.Fatal("the old authority does not go")
		}
	}
	for _, at := range m {
		if _, err := at.asClient(t, intruder); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("%s, under the new authority alone: %v; want ErrPermission", at.Name, err)
		}
	}
	if all := m[0].agent.Clients(); len(all) != 1 || all[0].GetRole() != "reader" || all[0].GetTokenRole() != "operator" {
		t.Errorf("clients: %v; want ci as it was", all)
	}
	token := m[0].token(t, client.TokenRequest{Role: "reader", Name: "ci"})
	_, err := Join(t.Context(), nil, JoinOptions{Token: token, Address: m[0].address(), Identity: t.TempDir() + "/ci"})
	if !errors.Is(err, belfry.ErrExist) || !strings.Contains(err.Error(), "client ci joined as operator") {
		t.Errorf("with another role: %v; want ErrExist", err)
	}
	if _, err := m[1].asClient(t, m[0].joinClient(t, "ci", "operator")); err != nil {
		t.Errorf("with its role: %v", err)
	}
}

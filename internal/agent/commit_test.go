package agent

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
)

// TestEditsOfOneGenerationFailAlone applies edits of which one fails half-way
// and one leads to a table that is not valid.
func TestEditsOfOneGenerationFailAlone(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	broken := errors.New("broken")
	for _, e := range []struct {
		name    string
		f       func(*Table) error
		changed bool
		is      error
	}{
		{"good", func(t *Table) error { t.Nodes[0].Stopped = true; return nil }, true, nil},
		{"fails half-way", func(t *Table) error { t.Nodes[1].Name = "x"; return broken }, false, broken},
		{"not valid", func(t *Table) error { t.Tunables = map[string]string{"watchers": "3"}; return nil }, false, belfry.ErrUsage},
		{"nothing", func(*Table) error { return nil }, false, nil},
		{"good again", func(t *Table) error { t.Nodes[1].Stopped = true; return nil }, true, nil},
	} {
		changed, err := applyEdit(table, e.f)
		if changed != e.changed || !errors.Is(err, e.is) || (err == nil) != (e.is == nil) {
			t.Errorf("%s: changed %t, %v; want %t, %v", e.name, changed, err, e.changed, e.is)
		}
	}
	if !table.Nodes[0].Stopped || !table.Nodes[1].Stopped || table.Nodes[1].Name != "b" || table.Tunables != nil {
		t.Errorf("the table is %+v", table)
	}
}

// TestChangesAtOnceAreAllMade has all members ask for changes at the same time;
// each is in the table in the end, whoever was asked.
func TestChangesAtOnceAreAllMade(t *testing.T) {
	t.Parallel()
	const each = 10
	m := machines(t, 3)
	formed(t, m)
	var group sync.WaitGroup
	for i, machine := range m {
		c := machine.dial(t)
		for k := range each {
			group.Go(func() {
				name := []string{"stall_max", "node_timeout", "node_down_delay"}[i]
				if _, err := c.SetConfig(t.Context(), "tunables."+name, fmt.Sprintf("%ds", 10+k), false); err != nil {
					t.Errorf("%s, %d: %v", machine.Name, k, err)
				}
			})
		}
	}
	group.Wait()
	first := m[0].agent.members.Table()
	if len(first.Tunables) != 3 {
		t.Errorf("tunables: %v; want three", first.Tunables)
	}
	for _, machine := range m[1:] {
		if same, err := machine.agent.members.Table().equal(first); !same || err != nil || machine.agent.members.Table().Generation != first.Generation {
			t.Errorf("%s has another table, %v", machine.Name, err)
		}
	}
}

// TestASecretIsBelievedOnlyIfTheTableNamesIt is about a member that gives
// another one.
func TestASecretIsBelievedOnlyIfTheTableNamesIt(t *testing.T) {
	t.Parallel()
	right, wrong := security.NewSecret(), security.NewSecret()
	table := &Table{Epoch: 3, Secret: sha256.Sum256(right[:])}
	if got, err := table.believe(right[:]); err != nil || got != right {
		t.Errorf("the right one: %v", err)
	}
	for name, given := range map[string][]byte{"another": wrong[:], "none": nil, "a part": right[:31], "more": append(right[:], 0)} {
		if _, err := table.believe(given); err == nil {
			t.Errorf("%s is believed", name)
		}
	}
}

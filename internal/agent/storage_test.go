package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// waitMode returns when the machine's agent stands to the repository like that.
func (m *machine) waitMode(t *testing.T, want repository.Mode) {
	t.Helper()
	for end := time.Now().Add(testTimeout); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // of several agents, whose states are asked
		state := m.agent.storage.state.Load()
		if state.mode == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is %s (%v); want %s", m.Name, state.mode, state.why, want)
		}
	}
}

// waitGeneration returns when the machine's agent holds it.
func (m *machine) waitGeneration(t *testing.T, want uint64) {
	t.Helper()
	for end := time.Now().Add(testTimeout); m.agent.members.Table().Generation < want; time.Sleep(time.Millisecond) { //nolint:forbidigo // of several agents, whose states are asked
		if time.Now().After(end) {
			t.Fatalf("%s holds generation %d; want %d", m.Name, m.agent.members.Table().Generation, want)
		}
	}
}

func TestAClusterKeepsItsConfigurationOnAFile(t *testing.T) { // C5, C6
	t.Parallel()
	m := machines(t, 4)
	formedOnFile(t, m[:3])
	for _, one := range m[:3] {
		one.waitMode(t, repository.Ready)
		if _, err := os.Stat(filepath.Join(one.State, memberFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s has a member file beside the repository: %v", one.Name, err)
		}
	}
	// A change at any member is in force at all when the command ends.
	c := m[2].dial(t)
	answer, err := c.SetConfig(t.Context(), "tunables.node_timeout", "7s", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range m[:3] {
		table := one.agent.members.Table()
		if table.Generation != answer.GetGeneration() || table.Tunables["node_timeout"] != "7s" {
			t.Errorf("%s has generation %d, node_timeout %s; want %d, 7s", one.Name, table.Generation, table.Tunables["node_timeout"], answer.GetGeneration())
		}
	}
	e := lastEntry(&m[1].agent.storage.held().Document)
	if e.Author == "" || e.Text != "tunable node_timeout default -> 7s" || e.Node != m[0].agent.id.node.ID {
		t.Errorf("the generation is by %q: %q, committed by %s", e.Author, e.Text, e.Node)
	}
	// Who is removed leaves; who was removed joins again, as another node.
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n3", false); err != nil {
		t.Fatal(err)
	}
	m[2].waitEnded(t)
	m[2].stop(t)
	again, err := New(Options{Config: m[2].settings()})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(t.Context()); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("its agent starts again: %v", err)
	}
	m[2].mustJoin(t, m[1])
	m[3].mustJoin(t, m[0])
	for _, one := range m {
		one.waitHolds(t, "n1", "n2", "n3", "n4")
	}
	// The leader does not commit its own removal: it asks another one.
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	m[0].waitEnded(t)
	m[1].waitHolds(t, "n2", "n3", "n4")
}

package agent

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// TestAMachineThatHasLeftSaysSo to whoever starts its agent or asks the doctor,
// and one that was removed says that. Both join again.
func TestAMachineThatHasLeftSaysSo(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	// A wish that did not come about counts for nothing later.
	m[2].agent.Leaving(true)
	m[2].stop(t)
	m[2].start(t)
	m[0].waitHolds(t, "n1", "n2", "n3")
	if _, err := m[1].dial(t).RemoveNode(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n3", false); err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]string{
		1: "this machine has left cluster test: node ",
		2: "it was removed from cluster test; to enter it again: belfry join TOKEN",
	} {
		m[i].waitEnded(t)
		m[i].stop(t)
		again, err := New(Options{Config: m[i].settings()})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Start(t.Context()); !errors.Is(err, belfry.ErrNotMember) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s starts: %v; want ErrNotMember with %q", m[i].Name, err, want)
		}
		names := []string{"socket", "addresses", "clock", "members"}
		levels := []Level{LevelWarning, LevelFailure, LevelUnknown, LevelUnknown}
		found := Diagnose(m[i].settings(), time.Now(), names, Ask{Status: noAgent})
		if len(found) != len(names) {
			t.Fatalf("%s: %v; want one finding of each of %v", m[i].Name, found, names)
		}
		for j, f := range found {
			if f.Check != names[j] || f.Level != levels[j] || !strings.Contains(f.Text, want) || !strings.Contains(f.Text, "belfry join TOKEN") || strings.Contains(f.Text, "start") {
				t.Errorf("%s: %s %s: %s; want %s with %q", m[i].Name, f.Level, f.Check, f.Text, levels[j], want)
			}
		}
		m[0].waitAuthority(t) // else it may be replaced between the token and the join
		m[i].mustJoin(t, m[0])
		if !missing(filepath.Join(m[i].State, leftFile)) {
			t.Errorf("%s: the wish to leave outlives the next join", m[i].Name)
		}
		// The log goes on, and was signed by the identity that is gone.
		for _, f := range Diagnose(m[i].settings(), time.Now(), []string{"audit"}, Ask{Status: noAgent}) {
			if f.Level != LevelOK {
				t.Errorf("%s after the next join: %s audit: %s", m[i].Name, f.Level, f.Text)
			}
		}
	}
	m[0].waitHolds(t, "n1", "n2", "n3")
}

package agent

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/security"
)

// TestRolesOfTheTableAreInForceAtOnce with an agent and a remote client: what
// is granted counts from the generation on that grants it, and streams end with
// the one that takes it away.
// TestAGroupThatGivesNothingHereIsNamed: group 0 is no group of people.
func TestAGroupThatGivesNothingHereIsNamed(t *testing.T) {
	t.Parallel()
	groups := map[string]uint32{"root": 0, "dba": 54322}
	for subject, want := range map[string]string{
		"group:dba": "", "uid:1000": "", "client:dbaa": "",
		"group:dbaa": "a has no group dbaa",
		"group:root": "group root has number 0 on a, which never gives anything",
	} {
		got := nothingHere(subject, "a", func(name string) (uint32, bool) { gid, ok := groups[name]; return gid, ok })
		if got != want {
			t.Errorf("%s: %q; want %q", subject, got, want)
		}
	}
}

func TestRolesOfTheTableAreInForceAtOnce(t *testing.T) {
	t.Parallel()
	n := localNodes(t, 1)[0]
	a := startAgent(t, n)
	config, err := ClientTLS(filepath.Join(filepath.Dir(n.State), "client"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), n.Streams.String(), client.WithTLS(config))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	commit := func(role string, grants ...security.Grant) {
		t.Helper()
		if _, _, err := a.commit(t.Context(), func(table *Table) error {
			table.Clients, table.Roles = nil, grants
			if role != "" {
				table.Clients = []ClientRole{{Name: LocalClient, Role: role}}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	allow := func(rights ...string) security.Grant {
		return security.Grant{Subjects: []string{"client:" + LocalClient}, Allow: rights}
	}
	send := func() error { _, err := c.Send(t.Context(), "user.backup", "", nil, 0); return err }

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := send(); err != nil {
		t.Errorf("an administrator's event: %v", err)
	}
	commit("reader")
	if err := send(); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a reader's event: %v; want ErrPermission", err)
	}
	commit("reader", allow("emit:user.backup", "observe:user.*"))
	if err := send(); err != nil {
		t.Errorf("an event that is granted: %v", err)
	}
	s, err := c.Register(t.Context(), belfry.Registration{Class: "user.other"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	commit("reader", allow("emit:user.backup"))
	if _, err := s.Next(ctx); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a stream whose right was taken away: %v; want ErrPermission", err)
	}
	if s, err = c.Register(t.Context(), belfry.Registration{Class: "node.state"}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	commit("")
	if _, err := s.Next(ctx); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a stream of a client that is not listed any more: %v; want ErrPermission", err)
	}
}

func TestRolesThatMakeNoSenseAreNotCommitted(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	table.Roles = []security.Grant{{Subjects: []string{"uid:1000"}, Role: "king"}}
	if err := table.Validate(); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("role king: %v; want ErrUsage", err)
	}
	table.Roles = []security.Grant{{Subjects: []string{"uid:1000"}, Role: "reader"}}
	if err := table.Validate(); err != nil {
		t.Error(err)
	}
}

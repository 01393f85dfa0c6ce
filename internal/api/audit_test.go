package api

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// TestDoneAndDeniedAreAudited and what only looks is not.
func TestDoneAndDeniedAreAudited(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	var caller atomic.Pointer[Subject] // of the next connection
	caller.Store(&operator)
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(t.TempDir(), "s")}
	a.Server = New(Options{
		Decide: byRole,
		Events: a.events, Cluster: a.cluster, Config: &fakeConfiguration{}, Members: &fakeMembers{},
		Identify: func(net.Conn) (Subject, error) { return *caller.Load(), nil },
		Audit: func(r AuditRecord) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprintf("%s, %s: %s (%s) %q %d denied=%t", r.Subject, r.Role, r.Operation, r.Right, r.Target, r.Generation, r.Denied != nil))
		},
	})
	if err := a.ServeUnix(a.socket, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, a.Server) })
	c := a.dial(t)
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.StopNode(t.Context(), "a", true); err != nil {
		t.Error(err)
	}
	if _, err := c.StopNode(t.Context(), "a", false); err != nil {
		t.Error(err)
	}
	if _, err := c.RevokeToken(t.Context(), "x"); err == nil {
		t.Error("an operator has revoked a token")
	}
	caller.Store(&reader)
	if err := register("process.exit")(t.Context(), a.dial(t)); err == nil {
		t.Error("a reader observes processes")
	}
	want := []string{
		`uid 1001, operator: StopNode (operate) "a" 8 denied=false`,
		`uid 1001, operator: RevokeToken (admit) "x" 0 denied=true`,
		`uid 1000, reader: register (observe) "process.exit:x" 0 denied=true`,
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestWhoAskedIsKeptWhereTheyAsked though another node makes the change: that one
// knows only which member it was asked by. What changes nothing is not kept.
func TestWhoAskedIsKeptWhereTheyAsked(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	keep := func(where string) func(AuditRecord) {
		return func(r AuditRecord) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprintf("%s: %s, %s: %s %q %d", where, r.Subject, r.Role, r.Operation, r.Target, r.Generation))
		}
	}
	options := func(where string, leader Leader) Options {
		return Options{
			Decide: byRole, Events: newFakeEvents(), Cluster: &fakeCluster{}, Config: &fakeConfiguration{}, Members: &fakeMembers{},
			Identify: func(net.Conn) (Subject, error) { return admin, nil }, Leader: leader, Audit: keep(where),
		}
	}
	a := &agent{socket: filepath.Join(t.TempDir(), "s")}
	a.Server = New(options("here", &elsewhere{New(options("leader", nil))}))
	if err := a.ServeUnix(a.socket, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, a.Server) })
	c := a.dial(t)
	for name, call := range map[string]func() error{
		`SetConfig "tunables.x" 8`: func() error { _, err := c.SetConfig(t.Context(), "tunables.x", "2", false); return err },
		`StopNode "a" 8`:           func() error { _, err := c.StopNode(t.Context(), "a", false); return err },
		`StartNode "b" 8`:          func() error { _, err := c.StartNode(t.Context(), "b", false); return err },
		`CreateToken "0a" 9`:       func() error { _, err := c.CreateToken(t.Context(), client.TokenRequest{}); return err },
		`RevokeToken "0a" 9`:       func() error { _, err := c.RevokeToken(t.Context(), "0a"); return err },
		`RemoveNode "x" 9`:         func() error { _, err := c.RemoveNode(t.Context(), "b", false); return err },
		`RemoveClient "web" 9`:     func() error { _, err := c.RemoveClient(t.Context(), "web", false); return err },
		`RotateCA "ff" 9`:          func() error { _, err := c.RotateCA(t.Context()); return err },
		`SetGrant "uid:1 has reader emit:user.x" 9`: func() error {
			_, err := c.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: "uid:1", Role: "reader", Allow: []string{"emit:user.x"}})
			return err
		},
		`SetGrant "uid:1 has nothing" 9`: func() error {
			_, err := c.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: "uid:1"})
			return err
		},
		"": func() error {
			_, err := c.SetConfig(t.Context(), "tunables.x", "2", true)
			_, err2 := c.StopNode(t.Context(), "b", false) // it is stopped already
			_, err3 := c.RemoveClient(t.Context(), "web", true)
			return errors.Join(err, err2, err3)
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var want []string
		if name != "" {
			want = []string{"leader: node a, admin: " + name, "here: " + admin.String() + ", admin: " + name}
		}
		mu.Lock()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		got = nil
		mu.Unlock()
	}
}

// TestTheRoleThatCountsIsAudited which is the one that the configuration gives.
func TestTheRoleThatCountsIsAudited(t *testing.T) {
	t.Parallel()
	var got AuditRecord
	s := New(Options{
		Decide: func(Subject, Ask) (belfry.Role, bool) { return belfry.RoleOperator, true },
		Audit:  func(r AuditRecord) { got = r },
	})
	s.audit(withSubject(t.Context(), Subject{Client: "ci"}), "SetConfig", "tunables.x", 7)
	want := AuditRecord{Subject: "client ci", Role: "operator", Right: "configure", Operation: "SetConfig", Target: "tunables.x", Generation: 7}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

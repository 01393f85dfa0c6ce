package api

import (
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
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
		`uid 1001, operator: RevokeToken (admit) "" 0 denied=true`,
		`uid 1000, reader: register (observe) "process.exit:x" 0 denied=true`,
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
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

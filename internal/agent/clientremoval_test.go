package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// TestAClientIsRemovedByForce where the member that is left is the smaller half:
// whoever has stolen a key must not be safe until the others are back. The other
// one then has it too.
func TestAClientIsRemovedByForce(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	formed(t, m)
	m[0].joinClient(t, "ci", "operator")
	m[0].stop(t)
	m[1].waitVerdict(t, "n1", "left", "down", "stalled")
	c := m[1].dial(t)
	demote := &belfryv1.SetGrantRequest{Subject: "client:ci", Role: "reader"}
	for name, try := range map[string]func() error{
		"a removal":          func() error { _, err := c.RemoveClient(t.Context(), "ci", false); return err },
		"a removal's check":  func() error { _, err := c.RemoveClient(t.Context(), "ci", true); return err },
		"a change of a role": func() error { _, err := c.SetGrant(t.Context(), demote); return err },
	} {
		if err := try(); !errors.Is(err, belfry.ErrRestricted) {
			t.Errorf("%s with half of the members: %v; want ErrRestricted", name, err)
		}
	}
	demote.Force = true
	if answer, err := c.SetGrant(t.Context(), demote); err != nil || !answer.GetChanged() {
		t.Errorf("role by force: %v, %v", answer, err)
	}
	if info := m[1].agent.Clients(); len(info) != 1 || info[0].GetRole() != "reader" {
		t.Errorf("clients: %v; want ci as reader", info)
	}
	if answer, err := c.RemoveClientByForce(t.Context(), "ci"); err != nil || answer.GetClient().GetRole() != "reader" {
		t.Errorf("removed by force: %v, %v", answer, err)
	}
	m[0].start(t)
	for _, k := range m {
		k.waitHolds(t, "n1", "n2")
	}
	for end := time.Now().Add(testTimeout); len(m[0].agent.Clients()) != 0; time.Sleep(time.Millisecond) { //nolint:forbidigo // of two agents, whose tables are compared
		if time.Now().After(end) {
			t.Fatalf("n1 is back and lists %v; want none", m[0].agent.Clients())
		}
	}
}

// joinClient has a client join by a machine and is its identity.
func (m *machine) joinClient(t *testing.T, name, role string) *tls.Config {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	token := m.token(t, client.TokenRequest{Role: role, Name: name})
	if _, err := Join(t.Context(), nil, JoinOptions{Token: token, Address: m.address(), Identity: dir}); err != nil {
		t.Fatal(err)
	}
	identity, err := ClientTLS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// asClient dials a machine with a client's identity.
func (m *machine) asClient(t *testing.T, identity *tls.Config) (*client.Client, error) {
	t.Helper()
	c, err := client.Dial(t.Context(), m.address(), client.WithTLS(identity))
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// audited ends a machine's agent and is what its log has of an operation, as
// "SUBJECT: TARGET".
func (m *machine) audited(t *testing.T, operation string) (records []string) {
	t.Helper()
	m.stop(t)
	data, err := os.ReadFile(filepath.Join(m.State, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var r struct{ Subject, Operation, Target, Result string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Operation == operation && r.Result == "done" {
			records = append(records, r.Subject+": "+r.Target)
		}
	}
	return records
}

// watchAs has a client watch at each machine; the channel has how each ended.
func watchAs(t *testing.T, machines []*machine, identity *tls.Config) <-chan error {
	t.Helper()
	ended := make(chan error, len(machines))
	for _, at := range machines {
		c, err := at.asClient(t, identity)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Register(t.Context(), belfry.Registration{Class: "node.state"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		go func() {
			n, err := s.Next(t.Context())
			ended <- fmt.Errorf("%s: %v: %w", at.Name, n, err)
		}()
	}
	return ended
}

// connectAs opens a connection of a client to each machine and does nothing on it.
func connectAs(t *testing.T, machines []*machine, identity *tls.Config) (idle []*tls.Conn) {
	t.Helper()
	for _, at := range machines {
		conn, err := tls.Dial("tcp", at.address(), identity)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		idle = append(idle, conn)
	}
	return idle
}

// closedByPeer tells whether the other side closes a connection, after all it says.
func closedByPeer(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(testTimeout))
	_, err := io.Copy(io.Discard, conn)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestARemovedClientIsRefusedEverywhere: within two seconds no node lets it in,
// its streams have ended with the reason and its connections are closed.
func TestARemovedClientIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	identity := m[1].joinClient(t, "ci", "operator")
	admin := m[1].dial(t) // not the leader, who is n1
	if _, err := admin.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: "client:ci", Role: "admin", Allow: []string{"emit:user.*"}}); err != nil {
		t.Fatal(err)
	}
	watches, idle := watchAs(t, m, identity), connectAs(t, m, identity)

	begin := time.Now()
	answer, err := admin.RemoveClient(t.Context(), "ci", false)
	if err != nil || answer.GetClient().GetRole() != "admin" || answer.GetClient().GetTokenRole() != "operator" || len(answer.GetUnconfirmed()) > 0 {
		t.Fatalf("%v, %v; want an administrator who joined as operator", answer, err)
	}
	for _, at := range m {
		if _, err := at.asClient(t, identity); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("%s lets it in: %v", at.Name, err)
		}
	}
	for range m {
		select {
		case err := <-watches:
			if !errors.Is(err, belfry.ErrPermission) {
				t.Errorf("a stream ended with %v; want ErrPermission", err)
			}
		case <-time.After(testTimeout):
			t.Fatal("a stream goes on")
		}
	}
	for i, conn := range idle {
		if !closedByPeer(conn) {
			t.Errorf("%s keeps its connection", m[i].Name)
		}
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("refused everywhere after %v; within 2 s", took)
	}
	// Whoever asked is kept where they asked; the leader knows which node did.
	asker := fmt.Sprintf("uid %d: ", os.Getuid())
	for _, tt := range []struct {
		at              *machine
		operation, want string
	}{
		{m[0], "SetGrant", "node n2: client:ci has admin emit:user.*"},
		{m[0], "RemoveClient", "node n2: ci"},
		{m[1], "SetGrant", asker + "client:ci has admin emit:user.*"},
		{m[1], "RemoveClient", asker + "ci"},
	} {
		if got := tt.at.audited(t, tt.operation); !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s of %s: %q; want %q", tt.operation, tt.at.Name, got, tt.want)
		}
	}
}

// TestTheNextOneOfANameIsAnother over a restart of the agent too: the list of
// the clients is kept.
func TestTheNextOneOfANameIsAnother(t *testing.T) {
	t.Parallel()
	m := machines(t, 1)
	formed(t, m)
	first, other := m[0].joinClient(t, "ci", "operator"), m[0].joinClient(t, "web", "reader")
	admin := m[0].dial(t)
	if _, err := admin.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: "client:ci", Role: "admin", Allow: []string{"emit:user.*"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RemoveClient(t.Context(), "ci", false); err != nil {
		t.Fatal(err)
	}
	next := m[0].joinClient(t, "ci", "reader")
	for _, when := range []string{"at once", "after a restart"} {
		if _, err := m[0].asClient(t, first); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("%s: the removed one is let in: %v", when, err)
		}
		for _, identity := range []*tls.Config{next, other} {
			c, err := m[0].asClient(t, identity)
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			if _, err := c.Nodes(t.Context()); err != nil {
				t.Errorf("%s: a reader: %v", when, err)
			}
			if _, err := c.Send(t.Context(), "user.x", "", nil, 0); !errors.Is(err, belfry.ErrPermission) {
				t.Errorf("%s: a reader sends: %v; want ErrPermission", when, err)
			}
		}
		m[0].stop(t)
		m[0].start(t)
	}
	clients, err := m[0].dial(t).Clients(t.Context())
	if err != nil || len(clients) != 2 || clients[0].GetRole() != "reader" || len(clients[0].GetAllow()) > 0 || len(clients[0].GetCertificates()) != 1 {
		t.Fatalf("%v, %v; want ci, a reader, and web", clients, err)
	}
	leaf := next.Certificates[0].Leaf
	if k := clients[0].GetCertificates()[0]; k.GetSerial() != leaf.SerialNumber.Text(16) || !k.GetExpires().AsTime().Equal(leaf.NotAfter) || len(k.GetToken()) != 16 || time.Since(k.GetJoined().AsTime()) > time.Minute {
		t.Errorf("%v; want that of serial %x until %s", k, leaf.SerialNumber, leaf.NotAfter)
	}
}

// TestWhoReplacesAClientAtOnceGetsNothingOfIt: both changes are one generation,
// so that no node ever knew the name to be nobody's.
func TestWhoReplacesAClientAtOnceGetsNothingOfIt(t *testing.T) {
	t.Parallel()
	m := machines(t, 1)
	formed(t, m)
	identity := m[0].joinClient(t, "ci", "reader")
	c, err := m[0].asClient(t, identity)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Register(t.Context(), belfry.Registration{Class: "node.state"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, _, err := m[0].agent.commit(t.Context(), func(t *Table) error {
		t.removeClient("ci")
		return t.addClient("ci", "reader", clientKey(1, 0))
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Nodes(t.Context()); err == nil {
		t.Error("a call on the connection that is left is answered")
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	// The stream itself ends: it does not wait for its connection to be closed.
	if n, err := s.Next(ctx); !errors.Is(err, belfry.ErrPermission) || !strings.Contains(err.Error(), "client ci has no role at this agent") {
		t.Errorf("its stream: %v, %v; want ErrPermission, for it has no role", n, err)
	}
}

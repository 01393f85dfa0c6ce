package agent

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

// TestOnlyTheNodeItselfIsTold asks with everything that is not its key.
func TestOnlyTheNodeItselfIsTold(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	keys := make([]*security.Keys, len(m))
	for i, k := range m {
		var err error
		if keys[i], err = security.Load(filepath.Join(k.State, keysDir)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n3", false); err != nil {
		t.Fatal(err)
	}
	host := m[0].agent.id.node
	open := func(i int) *transport.Door { // from one of six addresses: failures of one are limited
		door, err := transport.OpenDoor(t.Context(), m[0].address(), m[i%3].Addresses[i/3%2].Addr(),
			security.MembershipClientConfig(keys[0].Cluster, host.ID, host.Key.ed25519()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { door.Close() })
		return door
	}
	recorded := open(0)
	for i, tt := range []struct {
		name  string
		id    belfry.NodeID
		prove func(*transport.Door) ([]byte, error)
		want  string
	}{
		{"a member", keys[1].Node, func(d *transport.Door) ([]byte, error) { return keys[1].Prove(d.State()) }, "listed"},
		{"a removed node", keys[2].Node, func(d *transport.Door) ([]byte, error) { return keys[2].Prove(d.State()) }, "removed"},
		{"a removed node with another's key", keys[2].Node, func(d *transport.Door) ([]byte, error) { return keys[1].Prove(d.State()) }, "refused"},
		{"a member with a removed node's key", keys[1].Node, func(d *transport.Door) ([]byte, error) { return keys[2].Prove(d.State()) }, "refused"},
		{"a proof of another connection", keys[2].Node, func(*transport.Door) ([]byte, error) { return keys[2].Prove(recorded.State()) }, "refused"},
		{"no proof", keys[2].Node, func(*transport.Door) ([]byte, error) { return nil, nil }, "refused"},
		{"nobody", belfry.NewNodeID(), func(d *transport.Door) ([]byte, error) { return keys[2].Prove(d.State()) }, "refused"},
		{"the zero node", belfry.NodeID{}, func(d *transport.Door) ([]byte, error) { return keys[2].Prove(d.State()) }, "refused"},
	} {
		door := open(i)
		proof, err := tt.prove(door)
		if err != nil {
			t.Fatal(err)
		}
		before := m[0].agent.members.Table().Generation // the authority is being replaced, too
		answer, err := door.Membership(t.Context(), &belfryv1.GetMembershipRequest{NodeId: tt.id.String(), Proof: proof})
		got := "listed"
		switch {
		case errors.Is(err, belfry.ErrPermission) && strings.Contains(err.Error(), "join refused"):
			got = "refused"
		case err != nil:
			got = err.Error()
		case answer.GetGeneration() < before || answer.GetGeneration() > m[0].agent.members.Table().Generation:
			got = "listed as of another generation"
		case answer.GetRemoved():
			got = "removed"
		}
		if got != tt.want {
			t.Errorf("%s: %s; want %s", tt.name, got, tt.want)
		}
	}
}

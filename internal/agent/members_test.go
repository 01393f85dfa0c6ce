package agent

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

func testTable(t *testing.T) *Table {
	t.Helper()
	table := &Table{Cluster: belfry.NewClusterID(), Name: "test", Generation: 1, Epoch: 1}
	for i, name := range []string{"a", "b"} {
		public, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		address := netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)})
		table.Nodes = append(table.Nodes, Node{
			ID: belfry.NewNodeID(), Number: belfry.NodeNumber(i + 1), Name: name, Key: PublicKey(public),
			Networks: []Network{{Name: "net1", Heartbeat: netip.AddrPortFrom(address, 7431)}},
			Streams:  netip.AddrPortFrom(address, 7432),
		})
	}
	return table
}

func TestMemberTableSurvivesTheFile(t *testing.T) {
	t.Parallel()
	dir, want := t.TempDir(), testTable(t)
	if err := WriteMembers(dir, want); err != nil {
		t.Fatal(err)
	}
	members, err := OpenMembers(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, members.Table(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestDirectoryWithoutMemberTableBelongsToNoCluster(t *testing.T) {
	t.Parallel()
	if _, err := OpenMembers(t.TempDir()); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("got %v; want ErrNotMember", err)
	}
}

func TestEverythingWrongInAMemberTableIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	table.Cluster = belfry.ClusterID{}
	table.Nodes[0].Name = "A b"
	table.Nodes[1].Number = table.Nodes[0].Number
	table.Nodes[1].Networks = nil
	table.Nodes = append(table.Nodes, table.Nodes[1])
	table.Removed = []RemovedNode{{ID: belfry.NewNodeID()}}
	err := table.Validate()
	for _, want := range []string{"cluster: missing", `nodes[0].name: "A b"`, "nodes[1].number: 1 is zero or used twice", "nodes[1]: needs a heartbeat address", `nodes[2].name: "b"`, "nodes[2].id: missing or used twice", "removed[0]: needs an id and a key"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
	if err := WriteMembers(t.TempDir(), table); err == nil {
		t.Error("a table that is wrong was written")
	}
}

func TestOnlyTheListedKeyOfAListedNodeIsAccepted(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	a, b := table.Nodes[0], table.Nodes[1]
	if err := table.Listed(a.ID, ed25519.PublicKey(a.Key)); err != nil {
		t.Error(err)
	}
	if err := table.Listed(a.ID, ed25519.PublicKey(b.Key)); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("another key: got %v; want ErrNotMember", err)
	}
	if err := table.Listed(belfry.NewNodeID(), ed25519.PublicKey(a.Key)); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("a stranger: got %v; want ErrNotMember", err)
	}
}

func TestStateDirectoryIsForOneAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(dir); !errors.Is(err, belfry.ErrExist) || !strings.Contains(err.Error(), "another agent uses this state directory") {
		t.Errorf("got %v; want ErrExist", err)
	}
	first.Close()
	again, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestIncarnationCountsStartsAndIsNeverGuessed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for want := belfry.Incarnation(1); want <= 3; want++ {
		if got, err := nextIncarnation(dir); err != nil || got != want {
			t.Fatalf("got %d, %v; want %d", got, err, want)
		}
	}
	path := filepath.Join(dir, "incarnation")
	if err := os.WriteFile(path, []byte("three\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := nextIncarnation(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v; want an error that names %s", err, path)
	}
}

// TestATableThatNobodyCouldReadIsNotMade: an agent that has it could not start
// again.
func TestATableThatNobodyCouldReadIsNotMade(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	members, _ := openTable(t, table)
	grow := func(n int) func(*Table) error {
		return func(t *Table) error {
			for i := range n {
				t.Clients = append(t.Clients, ClientRole{Name: fmt.Sprintf("%s%d", strings.Repeat("x", 1000), i), Role: "reader"})
			}
			return nil
		}
	}
	origin := table.Nodes[0].ID
	if _, err := members.Change(origin, false, grow(900)); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		if _, err := members.Change(origin, dry, grow(200)); !errors.Is(err, belfry.ErrLimit) {
			t.Errorf("too much, dry run %t: %v; want ErrLimit", dry, err)
		}
	}
	full := members.Table().clone()
	if changed, err := applyEdit(full, grow(200)); changed || !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("one edit of several: changed %t, %v; want ErrLimit", changed, err)
	}
	// One of an older agent, which is full, can become smaller.
	if err := grow(200)(full); err != nil {
		t.Fatal(err)
	}
	changed, err := applyEdit(full, func(t *Table) error { t.Clients = t.Clients[:1020]; return nil })
	if !changed || err != nil {
		t.Errorf("less of what is too much: changed %t, %v", changed, err)
	}
}

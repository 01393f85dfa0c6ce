package agent

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// openTable is the membership of a node that has this table.
func openTable(t *testing.T, table *Table) (Membership, string) {
	t.Helper()
	dir := t.TempDir()
	if err := WriteMembers(dir, table); err != nil {
		t.Fatal(err)
	}
	members, err := OpenMembers(dir)
	if err != nil {
		t.Fatal(err)
	}
	return members, dir
}

func encoded(t *testing.T, table *Table) []byte {
	t.Helper()
	document, err := table.encode()
	if err != nil {
		t.Fatal(err)
	}
	return document
}

func stopFirst(table *Table) error { table.Nodes[0].Stopped = true; return nil }

func TestChangeIsTheNextGenerationAndSurvivesTheAgent(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	members, dir := openTable(t, table)
	if changed, err := members.Change(table.Nodes[1].ID, true, stopFirst); err != nil || !changed || members.Table().Generation != 1 {
		t.Errorf("dry run: changed %t, %v, generation %d; want true, nil, 1", changed, err, members.Table().Generation)
	}
	if changed, err := members.Change(table.Nodes[1].ID, false, stopFirst); err != nil || !changed {
		t.Fatalf("changed %t, %v; want true, nil", changed, err)
	}
	if changed, err := members.Change(table.Nodes[0].ID, false, stopFirst); err != nil || changed {
		t.Errorf("the same again: changed %t, %v; want false, nil", changed, err)
	}
	again, err := OpenMembers(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := table.clone()
	want.Generation, want.Origin, want.Nodes[0].Stopped = 2, table.Nodes[1].ID, true
	for name, got := range map[string]*Table{"in force": members.Table(), "in the file": again.Table()} {
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
	if table.Nodes[0].Stopped {
		t.Error("the change reached into the table before it")
	}
}

// TestAllNodesEndWithTheSameTable has two nodes make changes without knowing
// of each other's, and hands all their tables to all in a random order.
func TestAllNodesEndWithTheSameTable(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 20 {
		table := testTable(t)
		documents := [][]byte{encoded(t, table)}
		nodes := make([]Membership, 4) // the last two only listen
		for i := range nodes {
			nodes[i], _ = openTable(t, table)
		}
		for i, writer := range nodes[:2] {
			for n := range r.IntN(4) {
				value := (time.Duration(100*i+n+1) * time.Second).String()
				if _, err := writer.Change(table.Nodes[i].ID, false, func(next *Table) error {
					next.Tunables = map[string]string{"stall_max": value}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				documents = append(documents, encoded(t, writer.Table()))
			}
		}
		for _, node := range nodes {
			r.Shuffle(len(documents), func(i, j int) { documents[i], documents[j] = documents[j], documents[i] })
			for _, d := range documents {
				if _, err := node.Take(d); err != nil {
					t.Fatal(err)
				}
			}
		}
		want := string(encoded(t, nodes[0].Table()))
		for i, node := range nodes {
			if diff := cmp.Diff(want, string(encoded(t, node.Table()))); diff != "" {
				t.Fatalf("seed %d, round %d: node %d differs from node 0:\n%s", seed, round, i, diff)
			}
		}
	}
}

func renamed(n Node, name string) Node { n.Name = name; return n }

func TestOnlyANewerTableThatFollowsIsTaken(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	table.Generation, table.Origin = 5, slices.MinFunc(table.Nodes, func(a, b Node) int { return a.ID.Compare(b.ID) }).ID
	higher := slices.MaxFunc(table.Nodes, func(a, b Node) int { return a.ID.Compare(b.ID) }).ID
	gone := renamed(table.Nodes[0], "c")
	gone.ID = belfry.NewNodeID()
	table.Removed = []RemovedNode{{gone.ID, gone.Key}}
	tests := []struct {
		name  string
		edit  func(*Table)
		taken bool
		err   error
		text  string
	}{
		{name: "the same", edit: func(*Table) {}},
		{name: "older", edit: func(o *Table) { o.Generation = 4; o.Nodes[0].Stopped = true }},
		{name: "newer", edit: func(o *Table) { o.Generation = 7 }, taken: true},
		{name: "as new, of a higher origin", edit: func(o *Table) { o.Origin = higher }, taken: true},
		{name: "as new, without origin", edit: func(o *Table) { o.Origin = belfry.NodeID{} }},
		{name: "settings", edit: func(o *Table) { o.Generation = 6; o.Tunables = map[string]string{"watchers": "2"} }, taken: true},
		{name: "another cluster", edit: func(o *Table) { o.Generation = 6; o.Cluster = belfry.NewClusterID() }, err: belfry.ErrNotMember, text: "it is of cluster"},
		{name: "a member less", edit: func(o *Table) { o.Generation = 6; o.Nodes = o.Nodes[:1] }, taken: true},
		{name: "a member more", edit: func(o *Table) { o.Generation = 6; o.add(renamed(testTable(t).Nodes[0], "c")) }, taken: true},
		{name: "a member that was removed", edit: func(o *Table) { o.Generation = 9; o.add(gone) }, err: belfry.ErrNotMember, text: "it lists node c"},
		{name: "by a member that was removed", edit: func(o *Table) { o.Generation, o.Origin = 9, gone.ID }, err: belfry.ErrNotMember, text: "which was removed"},
		{name: "another key", edit: func(o *Table) { o.Generation = 6; o.Nodes[0].Key = o.Nodes[1].Key }, err: belfry.ErrNotMember, text: "another key or number"},
		{name: "another number", edit: func(o *Table) { o.Generation = 6; o.Nodes[0].Number = 9 }, err: belfry.ErrNotMember, text: "another key or number"},
		{name: "a client more", edit: func(o *Table) { o.Generation = 6; o.Clients = []ClientRole{{Name: "x", Role: "admin"}} }, taken: true},
		{name: "too many tokens", edit: func(o *Table) { o.Generation = 6; o.Tokens = make([]JoinToken, maxTokens+1) }, err: belfry.ErrLimit, text: "tokens: 65"},
		{name: "a key for a stranger", edit: func(o *Table) { o.Generation = 6; o.CAKeys = []SealedKey{{Holder: belfry.NewNodeID()}} }, text: "ca_keys[0]"},
		{name: "a wrong setting", edit: func(o *Table) { o.Generation = 6; o.Tunables = map[string]string{"watchers": "3"} }, err: belfry.ErrUsage, text: "watchers is 3"},
		{name: "the last generation", edit: func(o *Table) { o.Generation = maxGeneration + 1 }, text: "generation: 9007199254740993"},
	}
	for _, tt := range tests {
		members, dir := openTable(t, table)
		next := table.clone()
		tt.edit(next)
		taken, err := members.Take(encoded(t, next))
		if taken != tt.taken || (err != nil) != (tt.text != "") || tt.err != nil && !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: taken %t, %v; want %t, %v with %q", tt.name, taken, err, tt.taken, tt.err, tt.text)
		}
		want := table
		if tt.taken {
			want = next
		}
		kept, err := OpenMembers(dir)
		if err != nil {
			t.Fatal(err)
		}
		if string(encoded(t, want)) != string(encoded(t, members.Table())) || string(encoded(t, want)) != string(encoded(t, kept.Table())) {
			t.Errorf("%s: the table in force or in the file is not the right one", tt.name)
		}
	}
	members, _ := openTable(t, table)
	for _, garbage := range []string{"", "{", `{"nodes": 1}`, strings.Repeat(" ", maxMemberFile+1)} {
		if taken, err := members.Take([]byte(garbage)); taken || err == nil {
			t.Errorf("%.20q: taken %t, %v; want an error", garbage, taken, err)
		}
	}
}

// TestATableByARemovedMemberIsReplaced has a member that was down when another
// was removed, and took a table of that other's own.
func TestATableByARemovedMemberIsReplaced(t *testing.T) {
	t.Parallel()
	first := testTable(t)
	gone := first.Nodes[1].ID
	alone := first.clone()
	alone.Generation, alone.Origin = 9, gone
	members, _ := openTable(t, alone)
	rest := first.clone()
	rest.Generation, rest.Origin = 2, rest.Nodes[0].ID
	rest.remove(gone)
	for i, want := range []bool{true, false} {
		if taken, err := members.Take(encoded(t, rest)); taken != want || err != nil {
			t.Errorf("time %d: taken %t, %v; want %t", i+1, taken, err, want)
		}
	}
	for i := range maxRemoved + 1 {
		n := renamed(rest.Nodes[0], "c")
		n.ID = belfry.NodeID{1, byte(i >> 8), byte(i)}
		rest.add(n)
		rest.remove(n.ID)
	}
	if len(rest.Removed) != maxRemoved || rest.removed(gone) {
		t.Errorf("%d removed members are remembered, the oldest of them %t; want %d, the newest", len(rest.Removed), rest.removed(gone), maxRemoved)
	}
}

func TestDefaultsOfTunablesAreThoseOfTheMachine(t *testing.T) {
	t.Parallel()
	written := map[string]string{}
	for _, tunable := range tunables() {
		s := tunable.setting(nil)
		if s.Set || s.Value != s.Default {
			t.Errorf("%s: value %q, default %q, set %t, though nobody wrote it", s.Path, s.Value, s.Default, s.Set)
		}
		written[tunable.name] = tunable.normal(s.Default)
	}
	for name, values := range map[string]map[string]string{"unwritten": nil, "written": written} {
		got, err := tunablesOf(values)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(cluster.DefaultTunables(), got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

func TestTunablesAreReadAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	got, err := tunablesOf(map[string]string{
		"watchers": "6", "detect_target": "2.5s", "policy": "path", "interval_min": "50ms", "rate_quiet": "0.5", "rate_max": "3",
		"loss_prior": "30%", "loss_floor": "0.05", "node_timeout": "1m", "profile": "aix",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := cluster.DefaultTunables()
	want.Watchers, want.DetectTarget, want.Policy, want.IntervalMin = 6, 2500*time.Millisecond, cluster.PolicyPath, 50*time.Millisecond
	want.RateQuiet, want.RateMax, want.LossPrior, want.LossFloor = 500, 3000, 76, 12
	want.NodeTimeout, want.NodeDownDelay = time.Minute, 10*time.Second // the profile sets what is not written
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	all := map[string]string{"30%": "0.3", "0.30": "0.3", "0.123": "0.123", "x": "x"}
	for text, want := range all {
		tunable, err := tunableAt("tunables.loss_prior")
		if err != nil {
			t.Fatal(err)
		}
		if got := tunable.normal(text); got != want {
			t.Errorf("%q is kept as %q; want %q", text, got, want)
		}
	}
}

func TestWrongTunablesAreRefusedWithWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, value, want string }{
		{"watcher", "4", "unknown setting tunables.watcher; did you mean tunables.watchers?"},
		{"watchers", "3", "tunables.watchers is 3; want an even number, 2 to 8"},
		{"watchers", "99999999999", `tunables.watchers "99999999999": not a whole number; write for example 4; its range is an even number, 2 to 8`},
		{"detect_target", "5", `tunables.detect_target "5": not a duration; write for example 2.5s or 250ms; its range is 200ms to 1m`},
		{"detect_target", "-1s", "tunables.detect_target is -1s; want 200ms to 1m0s"},
		{"interval_max", "50ms", "tunables.interval_max is 50ms; want 100ms to 1m0s"},
		{"rate_quiet", "0.05", "tunables.rate_quiet is 0.05; want 0.1 to 100 per second"},
		{"rate_quiet", "NaN", "not a number per second"},
		{"rate_max", "1e300", "not a number per second"},
		{"loss_prior", "60%", "out of range; its range is 0 to 0.5"},
		{"loss_prior", "NaN", "out of range"},
		{"loss_floor", "-0.1", "out of range"},
		{"policy", "fast", `tunables.policy "fast": no such policy; its range is target or path`},
		{"profile", "hpux", `tunables.profile "hpux": no such profile; its range is none or aix`},
		{"node_timeout", "", `tunables.node_timeout "": not a duration`},
	}
	for _, tt := range tests {
		_, err := tunablesOf(map[string]string{tt.name: tt.value})
		if !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: %v; want ErrUsage with %q", tt.name, tt.value, err, tt.want)
		}
	}
	for path, want := range map[string]error{
		"networks.net1": belfry.ErrUnsupported, "repository": belfry.ErrUnsupported, "tunable.watchers": belfry.ErrUsage, "": belfry.ErrUsage, "tunables": belfry.ErrUsage,
	} {
		if _, err := tunableAt(path); !errors.Is(err, want) {
			t.Errorf("%q: %v; want %v", path, err, want)
		}
	}
}

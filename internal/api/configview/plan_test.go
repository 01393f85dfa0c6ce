package configview

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Each kind of change, with the nodes that it is about.
func TestAPlanNamesTheNodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want []string
	}{
		{"{}", nil},
		{"cluster: {name: bonn}", []string{"~ cluster  cluster name köln -> bonn  on a b d"}},
		{"tunables: {allowance: 2.5s, watchers: 2}", []string{
			"~ tunables  tunable node_timeout 3s -> 0s (default)  on a b d", "~ tunables  tunable watchers 4 (default) -> 2  on a b d",
		}},
		{"tunables: {allowance: 2.5s, profile: aix}", []string{ // what a profile sets
			"~ tunables  tunable node_timeout 3s -> 30s (default)  on a b d", "~ tunables  tunable profile none (default) -> aix  on a b d",
		}},
		{"links: []", []string{"~ links  link a - b on net2 is removed  on a b", "! heartbeats on net2 begin"}},
		{"witness: {drained: [a]}", []string{
			"~ witness  a is drained  on a", "~ witness  b is drained no more  on b", "~ witness  net name FS1 is removed  on a b d",
			"~ witness  net name FS2 is removed  on a b d", "! clients of the witness on a are sent to others",
		}},
		{"resources: [{name: service/db, holders: [a, d], watch: 'unit:postgresql.service', address: 10.0.1.50:5432, probe: 10.0.1.50:5432}]", []string{
			"~ resources  resource service/db holders a, b -> a, d  on a b d",
		}},
		{"resources: []", []string{"~ resources  resource service/db is removed  on a b", "! clients are told nothing more of service/db"}},
		{"handlers: []", []string{"~ handlers  handler page is removed  on a b d", "! handler page runs no more"}},
		{"linked: []", []string{"~ linked  linked cluster bonn is removed  on a b d"}},
		{"networks: [{name: net1, prefix: 10.0.1.0/24, port: 7431, priority: 10}, {name: net2, prefix: 10.0.2.0/24, port: 7441}, {name: net3}]", []string{
			"~ networks  network net2 priority 5 -> 0  on a b d", "~ networks  network net3 is added",
		}},
	} {
		d := golden(t)
		text, err := Read("c.yaml", []byte(c.text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		got := Lines(Plan(d, text.over(d, known), known), len(d.Nodes))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.text, diff)
		}
	}
}

func TestAPlanOfNodes(t *testing.T) {
	t.Parallel()
	a := golden(t)
	b := a
	b.Nodes = append([]repository.Node(nil), a.Nodes...)
	b.Nodes[1].Intent = repository.IntentStopped
	b.Nodes[2].Addresses = b.Nodes[2].Addresses[:1]
	want := []string{
		"~ nodes  address of d on net2 is removed  on d", "~ nodes  b is stopped  on b", "! b is held left until it is started", "! heartbeats on net1 end",
	}
	if diff := cmp.Diff(want, Lines(Plan(a, b, known), 3)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Values that nobody wrote change with the profile that sets them.
func TestAPlanTellsWhatAProfileSets(t *testing.T) {
	t.Parallel()
	a := golden(t)
	a.Tunables = nil
	b := a
	b.Tunables = map[string]string{"profile": "aix"}
	want := []string{"~ tunables  tunable profile none (default) -> aix  on a b d", "! tunable node_timeout is 30s, was 0s"}
	if diff := cmp.Diff(want, Lines(Plan(a, b, known), 3)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"~ tunables  tunable profile default -> aix  on a b d"}, Lines(Plan(a, b, Tunables{}), 3)); diff != "" {
		t.Errorf("where they are not known (-want +got):\n%s", diff)
	}
}

func TestManyNodesAreCounted(t *testing.T) {
	t.Parallel()
	a := golden(t)
	for i := range 20 {
		n := a.Nodes[0]
		n.Name, n.ID = fmt.Sprintf("n%02d", i), belfry.NodeID{0xb0, byte(i)}
		n.Addresses = []repository.Address{{Network: "net1", Heartbeat: netip.MustParseAddrPort(fmt.Sprintf("10.0.1.%d:7431", 100+i))}}
		a.Nodes = append(a.Nodes, n)
	}
	b := a
	b.Cluster.Name = "bonn"
	b.Networks = append([]repository.Network(nil), a.Networks...)
	b.Networks[0].Priority, b.Networks[1].Priority = 1, 2
	want := []string{
		"~ cluster  cluster name köln -> bonn  on all 23 nodes", "~ networks  network net1 priority 10 -> 1  on all 23 nodes", "~ networks  network net2 priority 5 -> 2  on a b d",
	}
	if diff := cmp.Diff(want, Lines(Plan(a, b, known), 23)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Resources = append([]repository.Resource(nil), a.Resources...)
	b.Cluster, b.Networks = a.Cluster, a.Networks
	b.Resources[0].Holders = []string{"a", "n00", "n01", "n02", "n03", "n04", "n05", "n06", "n07", "n08"}
	lines := Lines(Plan(a, b, known), 23)
	if len(lines) != 1 || !strings.HasSuffix(lines[0], "  on a b n00 n01 n02 n03 n04 n05 and 3 more") {
		t.Errorf("got %q", lines)
	}
}

// Without an agent a text is judged as far as it can be: nodes that it names
// are taken for some.
func TestATextIsJudgedByItself(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{string(Render(golden(t), known)), ""},
		{"{}\n", ""},
		{"witness: {drained: [x, y]}\nlinks: [{a: p, b: q, network: net1}]\nnetworks: [{name: net1, prefix: 10.0.0.0/30}]\n", ""},
		{"handlers:\n  - name: page\n    on: [node.state]\n    nodes: [z]\n", "c.yaml:4:5: handlers[0].nodes: are given; want scope cluster"},
		{"witness: {drained: [X]}\n", `c.yaml:1:21: witness.drained[0]: "X" is no node; want one of a`},
		{"links: [{a: q, b: p, network: net1}]\nnetworks: [{name: net1}]\n", "c.yaml:1:9: links[0]: q, p; want two nodes in the order of the alphabet"},
		{"tunables: {watchers: 5}\n", `c.yaml:1:12: tunables.watchers "5": not even; its range is 2 to 4`},
	} {
		f, err := ReadFile("c.yaml", []byte(c.text))
		if err == nil {
			err = f.Check("c.yaml", known)
		}
		if got := fmt.Sprint(err); got != c.want && (c.want != "" || err != nil) {
			t.Errorf("%.60s\n got %s\nwant %s", c.text, got, c.want)
		}
		if err != nil && !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%v wraps no sentinel", err)
		}
	}
}

// With a document as nodes keep it, its members count.
func TestATextIsJudgedWithADocument(t *testing.T) {
	t.Parallel()
	base, err := ReadFile("current", []byte(encode(t, golden(t))))
	if err != nil || !base.Whole() {
		t.Fatal(err)
	}
	f, err := ReadFile("c.yaml", []byte("witness: {drained: [x]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := `c.yaml:1:21: witness.drained[0]: "x" is no node; want one of a, b, d`
	if err := f.CheckIn(base, known); err == nil || err.Error() != want {
		t.Errorf("got %v; want %s", err, want)
	}
	if err := base.Check("current", known); err != nil {
		t.Errorf("the document itself: %v", err)
	}
	_, err = ReadFile("current", []byte(strings.Replace(encode(t, golden(t)), `"net1"`, `"net1 "`, 1)+" "))
	if err == nil || !strings.HasPrefix(err.Error(), "current: ") || !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("a document that is none: %v", err)
	}
}

func TestFilesAreCompared(t *testing.T) {
	t.Parallel()
	d := golden(t)
	next := d
	next.Cluster.Name = "bonn"
	file := func(text string) File {
		f, err := ReadFile("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	whole, text, renamed := file(encode(t, d)), file(string(Render(d, known))), file(string(Render(next, known)))
	for _, c := range []struct {
		name string
		a, b File
		want []string
	}{
		{"a document with itself", whole, whole, nil},
		{"a document with its text", whole, text, nil},
		{"a text with its document", text, whole, nil},
		{"a text with itself", text, text, nil},
		{"a document and a text", whole, renamed, []string{"~ cluster  cluster name köln -> bonn  on a b d"}},
		{"a text and a document", renamed, whole, []string{"~ cluster  cluster name bonn -> köln  on a b d"}},
		{"two texts", text, renamed, []string{"~ cluster  cluster name köln -> bonn"}},
		{"texts with other nodes", file("witness: {drained: [x]}\n"), file("witness: {drained: [y]}\n"), []string{
			"~ witness  x is drained no more", "~ witness  y is drained", "! clients of the witness on y are sent to others",
		}},
	} {
		if diff := cmp.Diff(c.want, Lines(Compare(c.a, c.b, known), 3)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

package configview

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// drawn is a valid document with operator's sections of any kind.
func drawn(t *rapid.T, base repository.Document) repository.Document {
	d := base
	words := rapid.OneOf(rapid.StringMatching(`[a-z0-9.:%/ -]{1,12}`), rapid.StringMatching(`[ -~éß\x{2028}]{1,20}`))
	nodes := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "d"}), 1, 3, rapid.ID)
	d.Cluster.Name = rapid.StringMatching(`[ -~é]{0,20}`).Draw(t, "cluster")
	d.Networks, d.Links, d.Resources, d.Linked, d.Handlers = slices.Clone(d.Networks), nil, nil, nil, nil
	for i := range rapid.IntRange(0, 3).Draw(t, "networks") {
		d.Networks = append(d.Networks, repository.Network{
			Name: fmt.Sprintf("x%d", i), Port: rapid.Uint16().Draw(t, "port"), Priority: rapid.IntRange(0, 255).Draw(t, "priority"),
			Prefix: rapid.SampledFrom([]netip.Prefix{{}, netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("0.0.0.0/0")}).Draw(t, "prefix"),
		})
	}
	if rapid.Bool().Draw(t, "link") {
		d.Links = []repository.Link{{A: "a", B: "d", Network: "net1", Disabled: rapid.Bool().Draw(t, "disabled"), Priority: rapid.Ptr(rapid.IntRange(0, 255), true).Draw(t, "priority")}}
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "resources") {
		d.Resources = append(d.Resources, repository.Resource{
			Name: fmt.Sprintf("service/%d", i), Holders: nodes.Draw(t, "holders"), Watch: "unit:" + words.Draw(t, "unit"), Address: "10.0.0.9",
		})
	}
	d.Witness = repository.Witness{Drained: nodes.Draw(t, "drained")}
	for i := range rapid.IntRange(0, 2).Draw(t, "handlers") {
		d.Handlers = append(d.Handlers, repository.Handler{
			Name: fmt.Sprintf("h%d", i), On: rapid.SliceOfN(words, 1, 3).Draw(t, "on"), Where: words.Draw(t, "where") + "\n\t&& true", Over: words.Draw(t, "over"),
			Limit: rapid.IntRange(0, 1<<20).Draw(t, "limit"), Snapshot: rapid.Bool().Draw(t, "snapshot"), Hold: "1m30s",
		})
	}
	d.Tunables = map[string]string{}
	for _, name := range []string{"watchers", "node_timeout", "profile", "anything"} {
		if rapid.Bool().Draw(t, name) {
			d.Tunables[name] = rapid.OneOf(rapid.StringMatching(`[0-9]{1,3}(\.[0-9]{1,3})?`), words).Draw(t, "value")
		}
	}
	return d
}

// What is rendered is read as it was: applied to the document that it is of it
// changes nothing, applied to another one it makes the same sections.
func TestRenderedIsRead(t *testing.T) {
	t.Parallel()
	base := golden(t)
	rapid.Check(t, func(t *rapid.T) {
		d := drawn(t, base)
		if err := d.Validate(nil); err != nil {
			t.Fatalf("the test's own document: %v", err)
		}
		text := Render(d, Tunables{})
		read, err := Read("c.yaml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if read.Generation() != d.Generation() {
			t.Fatalf("generation %d of %d", read.Generation(), d.Generation())
		}
		if to := read.over(d, Tunables{}); !same(d, to) {
			t.Fatalf("applied to its own document it changes it:\n%s\n%s", text, Lines(Plan(d, to, known), 3))
		}
		c, err := Apply(read, 0, 0, Tunables{})
		if err != nil {
			t.Fatal(err)
		}
		next, _, err := c.Next(base, entry(base), Tunables{})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		next.History, d.History = nil, nil
		if !same(d, next) {
			t.Fatalf("applied to another document it makes something else:\n%s\n%s", text, Lines(Plan(d, next, known), 3))
		}
	})
}

// No text makes it panic; the next document of one that is taken is valid,
// follows, and rendered and applied again changes nothing.
func FuzzDocumentYAML(f *testing.F) {
	base := golden(f)
	f.Add(string(Render(base, known)))
	f.Add("generation: 7\nnetworks:\n- {name: net1}\n- {name: net2, port: 1, prefix: 10.0.2.0/24}\nlinks: []\n")
	f.Add("handlers: [{name: a, on: [\"node.state\"], where: |\n  x\n  y\n}]\n")
	f.Add("tunables: {watchers: 4, profile: aix, node_timeout: 0x1}\nwitness:\n  net_names:\n  - name: FS\n    any_share: true\n    addresses: [10.0.0.1, 'fd00::1']\n")
	f.Add("cluster: {name: \"\\u2028\"}\nresources: []\nlinked: [{name: x, ca: " + fmt.Sprintf("%064d", 1) + ", addresses: ['10.0.0.1:1']}]\n")
	f.Add("a: &x [*x]\n<<: *x\nnodes: 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		read, err := Read("c.yaml", []byte(text))
		if err == nil {
			_ = read.judge(imagined(read.named()), known)
			var c Change
			if c, err = Apply(read, base.Generation(), 0, known); err != nil {
				t.Fatal(err)
			}
			var next repository.Document
			if next, _, err = c.Next(base, entry(base), known); err == nil {
				checkNext(t, base, next)
			}
		}
		if err != nil && !errors.Is(err, belfry.ErrUsage) && !errors.Is(err, belfry.ErrLimit) {
			t.Errorf("%v wraps no sentinel", err)
		}
	})
}

func checkNext(t *testing.T, base, next repository.Document) {
	t.Helper()
	if err := next.Validate(known.Check); err != nil {
		t.Errorf("taken, and not valid: %v", err)
	}
	machine := next
	machine.Cluster.Name, machine.Networks, machine.Links, machine.Tunables = base.Cluster.Name, base.Networks, base.Links, base.Tunables
	machine.Resources, machine.Witness, machine.Linked, machine.Handlers, machine.History = base.Resources, base.Witness, base.Linked, base.Handlers, base.History
	if !same(base, machine) {
		t.Errorf("a section changed that is none of an operator's: %v", Lines(Plan(base, machine, known), 3))
	}
	again, err := Read("c.yaml", Render(next, known))
	if err != nil {
		t.Fatalf("rendered: %v", err)
	}
	if to := again.over(next, known); !same(next, to) {
		t.Errorf("rendered and applied again it changes:\n%s", Lines(Plan(next, to, known), 3))
	}
}

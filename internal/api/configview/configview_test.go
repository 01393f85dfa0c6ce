package configview

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// golden is the repository's own document with something in every field,
// without what waits: nothing may follow that but what is waited for.
func golden(t testing.TB) repository.Document {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "repository", "testdata", "document.golden"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := repository.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	d.Moving, d.Confirm = nil, nil
	return d
}

// known is a small table of tunables: watchers is even, and a profile sets the
// time-out.
var known = Tunables{
	Check: func(written map[string]string) error {
		for name, value := range written {
			switch {
			case !slices.Contains([]string{"watchers", "node_timeout", "allowance", "profile"}, name):
				return fmt.Errorf("%w: unknown setting tunables.%s; one of watchers, node_timeout, allowance, profile", belfry.ErrUsage, name)
			case name == "watchers" && value != "2" && value != "4":
				return fmt.Errorf("%w: tunables.watchers %q: not even; its range is 2 to 4", belfry.ErrUsage, value)
			}
		}
		return nil
	},
	InForce: func(written map[string]string) []Tunable {
		timeout := "0s"
		if written["profile"] == "aix" {
			timeout = "30s"
		}
		all := []Tunable{{"watchers", "4"}, {"node_timeout", timeout}, {"allowance", "2s"}, {"profile", "none"}}
		for i, one := range all {
			if value, ok := written[one.Name]; ok {
				all[i].Value = value
			}
		}
		return all
	},
	Normal: func(_, value string) string {
		if d, err := time.ParseDuration(value); err == nil {
			return strings.TrimSuffix(d.String(), "m0s")
		}
		return value
	},
}

func goldenFile(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update rewrites it:\n%s", name, diff)
	}
}

func TestTheViewIsGolden(t *testing.T) {
	t.Parallel()
	goldenFile(t, "view.yaml", string(Render(golden(t), known)))
	goldenFile(t, "all.yaml", string(RenderAll(golden(t))))
	if got, want := string(Render(repository.Document{}, Tunables{})), "generation: 0\ncluster:\n  name: \"\"\nnetworks: []\nlinks: []\ntunables: {}\nresources: []\nwitness: {}\nlinked: []\nhandlers: []\n"; got != want {
		t.Errorf("nothing is written as\n%s", got)
	}
}

func TestASectionAlone(t *testing.T) {
	t.Parallel()
	all := string(Render(golden(t), known))
	rest := strings.TrimPrefix(all, "generation: 8\n")
	for _, section := range Sections {
		text, err := RenderSection(golden(t), known, section)
		if err != nil || !strings.HasPrefix(rest, string(text)) {
			t.Fatalf("%s: %v\n%s", section, err, text)
		}
		rest = strings.TrimPrefix(rest, string(text))
	}
	if rest != "" {
		t.Errorf("no section has\n%s", rest)
	}
	for section, want := range map[string]string{
		"nodes": "wrong use: nodes come by belfry join and go by belfry node remove; config get --all shows it",
		"node":  `wrong use: unknown section "node"; one of cluster, networks, links, tunables, resources, witness, linked, handlers`,
	} {
		if _, err := RenderSection(golden(t), known, section); !errors.Is(err, belfry.ErrUsage) || err.Error() != want {
			t.Errorf("%s: %v; want %s", section, err, want)
		}
	}
}

// Whatever a field with the tag secret holds is in no view.
func TestNoSecretIsRendered(t *testing.T) {
	t.Parallel()
	d := golden(t)
	var secrets []string
	for _, s := range d.Security.CAKeys {
		secrets = append(secrets, text(t, s.Sealed))
	}
	for _, s := range d.Security.Tokens {
		secrets = append(secrets, text(t, s.Hash))
	}
	for _, c := range d.Security.Clients {
		for _, k := range c.Keys {
			secrets = append(secrets, text(t, k.Key))
		}
	}
	secrets = append(secrets, text(t, d.Security.Datagram.Secret), "c2VjcmV0", "BELFRY LICENSE", "BELFRY REVOCATIONS")
	if len(secrets) != 7 {
		t.Fatalf("%d secrets in the document, want 7: the test looks for nothing", len(secrets))
	}
	for _, view := range [][]byte{Render(d, known), RenderAll(d)} {
		for _, s := range secrets {
			if s == "" || strings.Contains(string(view), s) {
				t.Errorf("%q is in\n%s", s, view)
			}
		}
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Trim(string(data), `"`)
}

// apply is the next document of the golden one, by a text.
func apply(t *testing.T, base repository.Document, text string, confirm time.Duration) (repository.Document, bool, error) {
	t.Helper()
	read, err := Read("c.yaml", []byte(text))
	if err != nil {
		return base, false, err
	}
	c, err := Apply(read, 0, confirm, known)
	if err != nil {
		return base, false, err
	}
	return c.Next(base, entry(base), known)
}

func entry(base repository.Document) repository.Entry {
	return repository.Entry{Time: base.History[len(base.History)-1].Time.Add(time.Hour), Author: "uid 0 on a"}
}

func TestWhatIsShownChangesNothing(t *testing.T) {
	t.Parallel()
	d := golden(t)
	next, changed, err := apply(t, d, string(Render(d, known)), time.Minute)
	if err != nil || changed || next.Generation() != d.Generation() {
		t.Errorf("generation %d, changed %t, %v; want it as it was", next.Generation(), changed, err)
	}
}

func TestASectionThatIsLeftOutStays(t *testing.T) {
	t.Parallel()
	d := golden(t)
	next, changed, err := apply(t, d, "generation: 8\nhandlers: []\ncluster: {name: bonn}\n", 0)
	if err != nil || !changed {
		t.Fatalf("changed %t, %v", changed, err)
	}
	want := d
	want.Cluster.Name, want.Handlers = "bonn", nil
	want.History = next.History
	if diff := cmp.Diff(encode(t, want), encode(t, next)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	last := next.History[len(next.History)-1]
	if last.Generation != 9 || last.Author != "uid 0 on a" || last.Text != "config apply" {
		t.Errorf("the history says %+v", last)
	}
}

func encode(t *testing.T, d repository.Document) string {
	t.Helper()
	data, err := repository.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The tunables of a text are in force afterwards, and no more than it takes is
// written for it.
func TestTunablesAreWrittenAsFarAsTheyMust(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		was        map[string]string
		text, want string
	}{
		{nil, "{watchers: 4, node_timeout: 0s, allowance: 2s, profile: none}", "map[]"},
		{nil, "{watchers: 2, node_timeout: 20000ms}", "map[node_timeout:20s watchers:2]"},
		{map[string]string{"watchers": "4"}, "{watchers: 4}", "map[watchers:4]"}, // somebody wanted it written
		{map[string]string{"watchers": "2", "allowance": "3s"}, "{allowance: 3s}", "map[allowance:3s]"},
		{map[string]string{"watchers": "2"}, "{}", "map[]"},
		{map[string]string{"profile": "aix"}, "{profile: aix, node_timeout: 30s}", "map[profile:aix]"},
		{map[string]string{"profile": "aix"}, "{profile: none, node_timeout: 30s}", "map[node_timeout:30s profile:none]"}, // else it would end with the profile
		{nil, "{profile: aix, node_timeout: 0s}", "map[node_timeout:0s profile:aix]"},                                     // else the profile would set it
	} {
		d := golden(t)
		d.Tunables = c.was
		next, _, err := apply(t, d, "tunables: "+c.text+"\n", 0)
		if got := fmt.Sprint(next.Tunables); err != nil || got != c.want {
			t.Errorf("%v, then %s: %s, %v; want %s", c.was, c.text, got, err, c.want)
		}
	}
}

// Each fault in a text, with its place.
func TestFaultsOfATextHaveTheirPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"netwroks: []\n", "c.yaml:1:1: unknown key netwroks; did you mean networks?"},
		{"nodes: []\n", "c.yaml:1:1: nodes come by belfry join and go by belfry node remove; leave it out"},
		{"roles: []\n", "c.yaml:1:1: roles are given by belfry role set; leave it out"},
		{"cluster: {name: a, uuid: x}\n", "c.yaml:1:20: cluster.uuid never changes; leave it out"},
		{"handlers: [{name: page, on: [node.state], exec: [/bin/x]}]\n", "c.yaml:1:43: handlers[0].exec: what a handler runs is said by the entry of its name in the settings file of each node, never here; leave it out"},
		{"handlers: [{name: page, on: node.state}]\n", "c.yaml:1:29: handlers[0].on is text; want a list; [] is an empty one"},
		{"handlers:\n  - name: page\n    on: []\n", "c.yaml:3:5: handlers[0].on: names no event; for example node.state"},
		{"networks:\n  - name: net1\n  - name: net2\n    priority: 300\n", "c.yaml:4:5: networks[1].priority: 300; want 0 to 255"},
		{"networks: [{name: net1, port: 70000}]\n", "c.yaml:1:31: networks[0].port is 70000; want a whole number from 0 to 65535, in digits"},
		{"networks:\n- name: net1\n", "c.yaml: nodes[0].addresses[1].network: \"net2\" is no network; want one of net1\n" +
			"c.yaml: nodes[1].addresses[1].network: \"net2\" is no network; want one of net1\n" +
			"c.yaml: nodes[2].addresses[1].network: \"net2\" is no network; want one of net1\n" +
			"c.yaml: links[0].network: \"net2\" is no network; want one of net1"},
		{"witness:\n  drained: [z]\n", "c.yaml:2:13: witness.drained[0]: \"z\" is no node; want one of a, b, d"},
		{"tunables: {watchers: 3}\n", "c.yaml:1:12: tunables.watchers \"3\": not even; its range is 2 to 4"},
		{"tunables:\n  watchers: 4\n  wotchers: 4\n", "c.yaml:3:3: unknown setting tunables.wotchers; one of watchers, node_timeout, allowance, profile"},
		{"cluster: {name: " + strings.Repeat("n", 64) + "}\n", "c.yaml:1:11: cluster.name: 64 bytes; at most 63"},
		{"generation: -1\n", "c.yaml:1:13: generation is -1; want a whole number from 0 to 18446744073709551615, in digits"},
		{"linked: [{name: bonn, addresses: ['10.0.0.1:7432'], ca: abc}]\n", `c.yaml:1:57: linked[0].ca: "abc": 3 characters; want 64 hexadecimal digits`},
	} {
		_, _, err := apply(t, golden(t), c.text, 0)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
		}
		if !errors.Is(err, belfry.ErrUsage) && !errors.Is(err, belfry.ErrLimit) {
			t.Errorf("%s: %v wraps no sentinel", c.text, err)
		}
	}
}

// A change that waits to be confirmed lets nothing else past, and is confirmed
// or taken back.
func TestAChangeWaitsToBeConfirmed(t *testing.T) {
	t.Parallel()
	d := golden(t)
	waiting, changed, err := apply(t, d, "cluster: {name: bonn}\n", 2*time.Minute)
	if err != nil || !changed {
		t.Fatalf("changed %t, %v", changed, err)
	}
	at := entry(d).Time.Add(2 * time.Minute)
	if c := waiting.Confirm; c == nil || c.Base != 8 || !c.Deadline.Equal(at) {
		t.Fatalf("it waits for %+v; want generation 8 to come back at %s", waiting.Confirm, at)
	}
	_, _, err = apply(t, waiting, "cluster: {name: trier}\n", 0)
	want := "conflict: generation 9 waits to be confirmed until " + at.Format(time.RFC3339) + "; belfry config confirm, or belfry config rollback 8, first"
	if !errors.Is(err, belfry.ErrConflict) || err.Error() != want {
		t.Errorf("another change: %v; want %s", err, want)
	}

	confirmed, changed, err := Confirm(9).Next(waiting, entry(waiting), known)
	if err != nil || !changed || confirmed.Confirm != nil || confirmed.Cluster.Name != "bonn" {
		t.Errorf("confirmed: %t, %v, %+v, %s", changed, err, confirmed.Confirm, confirmed.Cluster.Name)
	}
	if _, _, err := Confirm(7).Next(waiting, entry(waiting), known); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("confirmed another one: %v; want ErrConflict", err)
	}
	if _, _, err := Confirm(0).Next(d, entry(d), known); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("nothing waits: %v; want ErrNotFound", err)
	}

	back, changed, err := Rollback(d).Next(waiting, entry(waiting), known)
	if err != nil || !changed || back.Confirm != nil || back.Cluster.Name != "köln" || back.Generation() != 10 {
		t.Errorf("rolled back: %t, %v, %+v, %s, generation %d", changed, err, back.Confirm, back.Cluster.Name, back.Generation())
	}
	if text := back.History[len(back.History)-1].Text; text != "config rollback 8" {
		t.Errorf("the history says %q", text)
	}

	for _, confirm := range []time.Duration{-time.Second, time.Second, MaxConfirm + 1} {
		if _, _, err := apply(t, d, "cluster: {name: bonn}\n", confirm); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "want 10s to 24h0m0s, or none") {
			t.Errorf("confirm %s: %v; want ErrUsage with the range", confirm, err)
		}
	}
}

// Two operators at once: what was made from an older generation is refused,
// whether the caller says which or the text.
func TestWhatWasMadeFromAnotherGenerationConflicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		base uint64
		want string
	}{
		{"cluster: {name: bonn}\n", 0, ""},
		{"cluster: {name: bonn}\n", 8, ""},
		{"generation: 8\ncluster: {name: bonn}\n", 0, ""},
		{"generation: 7\ncluster: {name: bonn}\n", 8, ""}, // the caller's word counts
		{"cluster: {name: bonn}\n", 7, "conflict: generation is 8, not 7; plan again"},
		{"generation: 7\ncluster: {name: bonn}\n", 0, "conflict: generation is 8, and the text was made from 7; look at belfry config diff 7, take over what is new, and write generation: 8"},
		{"generation: 7\n", 0, "conflict: generation is 8, and the text was made from 7; look at belfry config diff 7, take over what is new, and write generation: 8"},
	} {
		read, err := Read("c.yaml", []byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		change, err := Apply(read, c.base, 0, known)
		if err != nil {
			t.Fatal(err)
		}
		d := golden(t)
		_, changed, err := change.Next(d, entry(d), known)
		if c.want == "" && (err != nil || !changed) || c.want != "" && (!errors.Is(err, belfry.ErrConflict) || err.Error() != c.want) {
			t.Errorf("%q on %d: %t, %v; want %s", c.text, c.base, changed, err, c.want)
		}
	}
}

// What comes back by itself does so at the deadline, and only if it still waits.
func TestAChangeThatNobodyConfirmsComesBack(t *testing.T) {
	t.Parallel()
	d := golden(t)
	waiting, _, err := apply(t, d, "cluster: {name: bonn}\n", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	confirmed, _, err := Confirm(0).Next(waiting, entry(waiting), known)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := apply(t, confirmed, "cluster: {name: trier}\n", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		base  repository.Document
		after time.Duration // the deadline
		want  string
	}{
		{"at the deadline", waiting, 0, "köln"},
		{"later", waiting, time.Hour, "köln"},
		{"a moment before", waiting, -1, ""},
		{"confirmed meanwhile", confirmed, 0, ""},
		{"another one waits", again, 24 * time.Hour, ""},
		{"nothing ever waited", d, 0, ""},
	} {
		e := repository.Entry{Time: waiting.Confirm.Deadline.Add(c.after), Author: "deadline"}
		next, changed, err := Expire(d).Next(c.base, e, known)
		if err != nil || changed != (c.want != "") {
			t.Errorf("%s: changed %t, %v", c.name, changed, err)
		}
		if changed && (next.Cluster.Name != c.want || next.Confirm != nil || next.History[len(next.History)-1].Text != "config rollback 8: not confirmed") {
			t.Errorf("%s: %s, %+v", c.name, next.Cluster.Name, next.History[len(next.History)-1])
		}
	}
}

func TestAChangeSaysWhy(t *testing.T) {
	t.Parallel()
	d := golden(t)
	past := d
	past.Cluster.Name = "bonn"
	for why, want := range map[string]string{
		"": "config rollback 8", "net1 is slow": "config rollback 8: net1 is slow", strings.Repeat("x", 200): "config rollback 8: " + strings.Repeat("x", 200),
		strings.Repeat("x", 201): "", "a\nb": "", "\xff": "",
	} {
		c, err := Rollback(past).Because(why)
		if (err == nil) != (want != "") || err != nil && !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%.20q: %v", why, err)
		}
		if err != nil {
			continue
		}
		next, _, err := c.Next(d, entry(d), known)
		if got := next.History[len(next.History)-1].Text; err != nil || got != want {
			t.Errorf("%.20q: the history says %q, %v; want %q", why, got, err, want)
		}
	}
}

func TestNothingFollowsWhileTheRepositoryMoves(t *testing.T) {
	t.Parallel()
	d := golden(t)
	d.Moving = &repository.Moving{Epoch: 3}
	for _, c := range []Change{Rollback(golden(t)), Confirm(0)} {
		if _, _, err := c.Next(d, entry(d), known); !errors.Is(err, belfry.ErrConflict) || !strings.Contains(err.Error(), "the repository moves to epoch 3; try again when it is there") {
			t.Errorf("%s: %v; want ErrConflict", c.Text, err)
		}
	}
}

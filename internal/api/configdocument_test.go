package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/repository"
)

// fakeDocuments keeps the generations in memory. Each commit is one hour after
// the one before.
type fakeDocuments struct {
	mu   sync.Mutex
	all  []repository.Document
	race func() // runs once, between the look at the newest document and the commit
}

func newFakeDocuments(t testing.TB) *fakeDocuments {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "repository", "testdata", "document.golden"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := repository.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	d.Moving, d.Confirm = nil, nil
	return &fakeDocuments{all: []repository.Document{d}}
}

func (f *fakeDocuments) Document() (repository.Document, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all[len(f.all)-1], nil
}

func (f *fakeDocuments) Past(generation uint64) (repository.Document, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.all, func(d repository.Document) bool { return d.Generation() == generation })
	if i < 0 {
		return repository.Document{}, fmt.Errorf("%w: generation %d is not kept here; the oldest is %d", belfry.ErrNotFound, generation, f.all[0].Generation())
	}
	return f.all[i], nil
}

func (f *fakeDocuments) Kept(generation uint64) bool {
	_, err := f.Past(generation)
	return err == nil
}

func (f *fakeDocuments) Tunables() configview.Tunables { return configview.Tunables{} }

// CommitConfig is compare and swap with as many attempts as it takes.
func (f *fakeDocuments) CommitConfig(_ context.Context, change configview.Change, author string) (ConfigCommitted, error) {
	for {
		base, _ := f.Document()
		e := repository.Entry{Time: base.History[len(base.History)-1].Time.Add(time.Hour), Author: author}
		next, changed, err := change.Next(base, e, f.Tunables())
		if err != nil {
			return ConfigCommitted{}, err
		}
		if race := f.race; race != nil {
			f.race = nil
			race()
		}
		f.mu.Lock()
		if newest := f.all[len(f.all)-1]; newest.Generation() != base.Generation() {
			f.mu.Unlock()
			continue
		}
		if changed {
			f.all = append(f.all, next)
		}
		f.mu.Unlock()
		return ConfigCommitted{Changed: changed, Before: base, After: next, Replicated: true, InForce: []string{"a", "b", "d"}}, nil
	}
}

func startConfigAgent(t *testing.T, subject Subject) (*agent, *fakeDocuments) {
	t.Helper()
	f := newFakeDocuments(t)
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(t.TempDir(), "s"), subject: subject, config: f}
	a.start(t)
	return a, f
}

func TestTheConfigurationIsShownAsText(t *testing.T) {
	t.Parallel()
	a, f := startConfigAgent(t, operator)
	c := a.dial(t)
	d, _ := f.Document()
	whole, err := c.ConfigText(t.Context(), "", false)
	if err != nil || whole.GetText() != string(configview.Render(d, configview.Tunables{})) || whole.GetGeneration() != 8 || len(whole.GetSettings()) != 1 {
		t.Errorf("whole: %v, %v", whole, err)
	}
	section, err := c.ConfigText(t.Context(), "networks", false)
	if err != nil || !strings.HasPrefix(section.GetText(), "networks:\n  - name: net1\n") || len(section.GetSettings()) != 0 {
		t.Errorf("networks: %v, %v", section, err)
	}
	all, err := c.ConfigText(t.Context(), "", true)
	if err != nil || !strings.Contains(all.GetText(), "\nsecurity:\n") || strings.Contains(all.GetText(), "BELFRY LICENSE") {
		t.Errorf("all: %v, %v", all, err)
	}
	one, err := c.Config(t.Context(), "tunables.x")
	if err != nil || one.GetText() != "" || len(one.GetSettings()) != 1 {
		t.Errorf("one value: %v, %v", one, err)
	}
	for path, want := range map[string]string{
		"nodes":  "nodes come by belfry join and go by belfry node remove; config get --all shows it",
		"netwrk": `unknown section "netwrk"; one of cluster,`,
	} {
		if _, err := c.ConfigText(t.Context(), path, false); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want ErrUsage, %s", path, err, want)
		}
	}
	if _, err := c.ConfigText(t.Context(), "networks", true); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("all of one section: %v; want ErrUsage", err)
	}
}

// An agent without documents says so, and has its settings all the same.
func TestAnAgentWithoutDocumentsSaysSo(t *testing.T) {
	t.Parallel()
	c := startAgent(t, operator).dial(t)
	if got, err := c.ConfigText(t.Context(), "", false); err != nil || got.GetText() != "" || len(got.GetSettings()) != 1 {
		t.Errorf("get: %v, %v", got, err)
	}
	ctx := t.Context()
	for name, err := range map[string]error{
		"all":      second(c.ConfigText(ctx, "", true)),
		"plan":     second(c.PlanConfig(ctx, client.ConfigChange{})),
		"apply":    second(c.ApplyConfig(ctx, client.ConfigChange{})),
		"confirm":  second(c.ConfirmConfig(ctx, 0)),
		"rollback": second(c.RollbackConfig(ctx, 1, "", false)),
		"dry run":  second(c.RollbackConfig(ctx, 1, "", true)),
		"diff":     second(c.DiffConfig(ctx, 1, 0)),
		"history":  second(c.Generations(ctx, 0)),
	} {
		if !errors.Is(err, belfry.ErrUnsupported) || !strings.Contains(err.Error(), "this cluster has no repository") {
			t.Errorf("%s: %v; want ErrUnsupported", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAPlanChangesNothing(t *testing.T) {
	t.Parallel()
	a, f := startConfigAgent(t, operator)
	c := a.dial(t)
	got, err := c.PlanConfig(t.Context(), client.ConfigChange{Text: "links: []\n", Name: "c.yaml", Base: 8})
	want := &belfryv1.PlanConfigResponse{
		Generation: 8, Next: 9, Nodes: 3,
		Effects: []*belfryv1.ConfigEffect{
			{Section: "links", Text: "link a - b on net2 is removed", Nodes: []string{"a", "b"}}, {Section: "networks", Text: "heartbeats on net2 begin", Consequence: true},
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	same, err := c.PlanConfig(t.Context(), client.ConfigChange{Text: "cluster: {name: köln}\n"})
	if err != nil || same.GetNext() != 0 || len(same.GetEffects()) != 0 {
		t.Errorf("nothing: %v, %v", same, err)
	}
	_, err = c.PlanConfig(t.Context(), client.ConfigChange{Text: "link: []\nwitness: {drained: [z]}\n", Name: "c.yaml"})
	if want := "PlanConfig: c.yaml:1:1: unknown key link; did you mean links?"; !errors.Is(err, belfry.ErrUsage) || !strings.HasPrefix(strings.Replace(err.Error(), "wrong use: ", "", 1), want) {
		t.Errorf("a fault: %v; want ErrUsage, %s", err, want)
	}
	if len(f.all) != 1 {
		t.Errorf("%d generations; want the one that there was", len(f.all))
	}
}

// Two operators change the same generation: one has a conflict, and nothing of
// either is lost.
func TestTwoOperatorsAtOnce(t *testing.T) {
	t.Parallel()
	a, f := startConfigAgent(t, operator)
	c := a.dial(t)
	apply := func(text string, base uint64) (*belfryv1.ApplyConfigResponse, error) {
		return c.ApplyConfig(t.Context(), client.ConfigChange{Text: text, Name: "c.yaml", Base: base})
	}
	first, err := apply("cluster: {name: bonn}\n", 8)
	if err != nil || first.GetGeneration() != 9 || !first.GetChanged() || !first.GetReplicated() || !slices.Equal(first.GetNodes(), []string{"a", "b", "d"}) {
		t.Fatalf("the first: %v, %v", first, err)
	}
	_, err = apply("handlers: []\n", 8)
	if want := "generation is 9, not 8; plan again"; !errors.Is(err, belfry.ErrConflict) || !strings.Contains(err.Error(), want) {
		t.Errorf("the second: %v; want ErrConflict, %s", err, want)
	}
	// Without a base it is made of whatever is there, also if that changes meanwhile.
	f.race = func() {
		if _, err := apply("links: []\n", 0); err != nil {
			t.Errorf("in between: %v", err)
		}
	}
	third, err := apply("handlers: []\n", 0)
	if err != nil || third.GetGeneration() != 11 {
		t.Errorf("the third: %v, %v", third, err)
	}
	// With one, what came in between is a conflict.
	f.race = func() {
		if _, err := apply("linked: []\n", 0); err != nil {
			t.Errorf("in between: %v", err)
		}
	}
	if _, err := apply("resources: []\n", 11); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("overtaken: %v; want ErrConflict", err)
	}
	d, _ := f.Document()
	if d.Cluster.Name != "bonn" || len(d.Links)+len(d.Handlers)+len(d.Linked) != 0 || len(d.Resources) != 1 {
		t.Errorf("of the changes is left: %s, %d links, %d handlers, %d linked, %d resources", d.Cluster.Name, len(d.Links), len(d.Handlers), len(d.Linked), len(d.Resources))
	}
}

func TestAChangeIsConfirmedOrComesBack(t *testing.T) {
	t.Parallel()
	a, f := startConfigAgent(t, operator)
	c := a.dial(t)
	ctx := t.Context()
	applied, err := c.ApplyConfig(ctx, client.ConfigChange{Text: "cluster: {name: bonn}\n", Confirm: 2 * time.Minute})
	if err != nil || applied.GetConfirmation().GetGeneration() != 9 || applied.GetConfirmation().GetBase() != 8 {
		t.Fatalf("applied: %v, %v", applied, err)
	}
	d, _ := f.Document()
	if at := d.History[len(d.History)-1].Time.Add(2 * time.Minute); !applied.GetConfirmation().GetDeadline().AsTime().Equal(at) {
		t.Errorf("until %s; want %s", applied.GetConfirmation().GetDeadline().AsTime(), at)
	}
	if _, err := c.ApplyConfig(ctx, client.ConfigChange{Text: "links: []\n"}); !errors.Is(err, belfry.ErrConflict) || !strings.Contains(err.Error(), "generation 9 waits to be confirmed until") {
		t.Errorf("another one: %v; want ErrConflict", err)
	}
	if _, err := c.ConfirmConfig(ctx, 7); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("confirm 7: %v; want ErrConflict", err)
	}
	confirmed, err := c.ConfirmConfig(ctx, 9)
	if err != nil || confirmed.GetGeneration() != 10 || confirmed.GetConfirmed() != 9 {
		t.Errorf("confirmed: %v, %v", confirmed, err)
	}
	if _, err := c.ConfirmConfig(ctx, 0); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("again: %v; want ErrNotFound", err)
	}
	if _, err := c.ApplyConfig(ctx, client.ConfigChange{Text: "links: []\n", Confirm: time.Second}); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("a second: %v; want ErrUsage", err)
	}

	dry, err := c.RollbackConfig(ctx, 8, "", true)
	if err != nil || !dry.GetChanged() || dry.GetGeneration() != 10 || len(dry.GetEffects()) != 1 || dry.GetEffects()[0].GetText() != "cluster name bonn -> köln" {
		t.Errorf("dry run: %v, %v", dry, err)
	}
	back, err := c.RollbackConfig(ctx, 8, "", false)
	if err != nil || back.GetGeneration() != 11 || !back.GetChanged() {
		t.Errorf("rolled back: %v, %v", back, err)
	}
	if _, err := c.RollbackConfig(ctx, 3, "", false); !errors.Is(err, belfry.ErrNotFound) || !strings.Contains(err.Error(), "the oldest is 8") {
		t.Errorf("rolled back to 3: %v; want ErrNotFound", err)
	}
	diff, err := c.DiffConfig(ctx, 9, 0)
	if err != nil || diff.GetTo() != 11 || len(diff.GetEffects()) != 2 {
		t.Errorf("diff 9: %v, %v", diff, err)
	}
	if diff, err := c.DiffConfig(ctx, 8, 9); err != nil || diff.GetFrom() != 8 || diff.GetTo() != 9 || diff.GetNodes() != 3 {
		t.Errorf("diff 8 9: %v, %v", diff, err)
	}
	if _, err := c.DiffConfig(ctx, 8, 99); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("diff 8 99: %v; want ErrNotFound", err)
	}
}

// Every generation says who, when and what; newest first.
func TestTheHistorySaysWho(t *testing.T) {
	t.Parallel()
	a, _ := startConfigAgent(t, operator)
	c := a.dial(t)
	ctx := t.Context()
	forged := &belfryv1.ApplyConfigRequest{Text: "links: []\n", Author: "root on nowhere"}
	if err := a.conn(t).Invoke(ctx, belfryv1.ConfigService_ApplyConfig_FullMethodName, forged, &belfryv1.ApplyConfigResponse{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RollbackConfig(ctx, 8, "the links were wanted", false); err != nil {
		t.Fatal(err)
	}
	got, err := c.Generations(ctx, 4)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, g := range got.GetGenerations() {
		lines = append(lines, fmt.Sprintf("%d %s by %q of %q: %s, kept %t", g.GetGeneration(), g.GetTime().AsTime().Format(time.RFC3339), g.GetAuthor(), g.GetNode(), g.GetText(), g.GetKept()))
	}
	want := []string{
		`10 2026-03-01T10:00:00Z by "uid 1001 on a" of "": config rollback 8: the links were wanted, kept true`,
		`9 2026-03-01T09:00:00Z by "uid 1001 on a" of "": config apply, kept true`, // not what the request says
		`8 2026-03-01T08:00:00Z by "client <web> & co" of "a": set node_timeout, kept true`,
		`7 2026-03-01T07:00:00Z by "uid 0 on a" of "": leave c, kept false`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The leader makes the change, and the history says who asked, where they did.
func TestTheLeaderCommitsWhatIsAskedElsewhere(t *testing.T) {
	t.Parallel()
	b, f := startConfigAgent(t, nobody)
	a := &agent{
		events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(t.TempDir(), "s"), subject: operator,
		leader: &elsewhere{b.Server}, config: newFakeDocuments(t),
	}
	a.start(t)
	c := a.dial(t)
	applied, err := c.ApplyConfig(t.Context(), client.ConfigChange{Text: "links: []\n", Confirm: time.Minute})
	if err != nil || applied.GetGeneration() != 9 {
		t.Fatalf("applied: %v, %v", applied, err)
	}
	if _, err := c.ConfirmConfig(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if _, err := c.RollbackConfig(t.Context(), 8, "", false); err != nil {
		t.Error(err)
	}
	d, _ := f.Document()
	for _, e := range d.History[2:] {
		if e.Author != "uid 1001 on a" {
			t.Errorf("%s by %q; want uid 1001 on a", e.Text, e.Author)
		}
	}
	if d.Generation() != 11 {
		t.Errorf("generation %d at the leader; want 11", d.Generation())
	}
	if _, err := c.ApplyConfig(t.Context(), client.ConfigChange{Text: "links: []\n", Base: 8}); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("an old base: %v; want ErrConflict", err)
	}
}

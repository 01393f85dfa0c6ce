package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/repository"
)

func mustApply(t *testing.T, text string) configview.Change {
	t.Helper()
	read, err := configview.Read("text", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	change, err := configview.Apply(read, 0, 0, configDocuments{}.Tunables())
	if err != nil {
		t.Fatal(err)
	}
	return change
}

// TestChangesAtAllMembersAtOnce: each member commits by itself, as after a change
// of the leader. The storage puts them in a row, and each counts what was before.
func TestChangesAtAllMembersAtOnce(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formedOnFile(t, m)
	for _, one := range m {
		one.waitMode(t, repository.Ready)
	}
	first := m[0].agent.storage.held().Generation
	changes := []struct {
		text string
		is   func(repository.Document) bool
	}{
		{"cluster: {name: bonn}", func(d repository.Document) bool { return d.Cluster.Name == "bonn" }},
		{"handlers: [{name: page, on: [node.state]}]", func(d repository.Document) bool { return len(d.Handlers) == 1 }},
		{"tunables: {stall_max: 7s}", func(d repository.Document) bool { return d.Tunables["stall_max"] == "7s" }},
		{"witness: {drained: [n1]}", func(d repository.Document) bool { return len(d.Witness.Drained) == 1 }},
	}
	var group sync.WaitGroup
	done, errs := make([]api.ConfigCommitted, len(changes)), make([]error, len(changes)+1)
	for i, c := range changes {
		change := mustApply(t, c.text)
		documents := configDocuments{m[i%len(m)].agent}
		group.Go(func() { done[i], errs[i] = documents.CommitConfig(t.Context(), change, "test "+c.text) })
	}
	table := m[0].dial(t) // and the table is changed as ever
	group.Go(func() { _, errs[len(changes)] = table.CreateToken(t.Context(), client.TokenRequest{}) })
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	m[0].waitGeneration(t, first+uint64(len(errs)))
	d := m[0].agent.storage.held().Document
	if d.Generation() != first+uint64(len(errs)) {
		t.Errorf("generation %d after %d; want %d more", d.Generation(), first, len(errs))
	}
	for i, change := range changes {
		name := change.text
		if !change.is(d) {
			t.Errorf("%s: lost", name)
		}
		c := done[i]
		if !c.Changed || c.After.Generation() != c.Before.Generation()+1 || !slices.Contains(c.InForce, m[i%len(m)].Name) {
			t.Errorf("%s: changed %t, %d after %d, in force on %v", name, c.Changed, c.After.Generation(), c.Before.Generation(), c.InForce)
		}
		e := lastEntry(&c.After)
		self := m[i%len(m)].agent.id.node.ID
		if e.Author != "test "+name || e.Text != "config apply" || e.Node != self {
			t.Errorf("%s is by %q at %s: %q", name, e.Author, e.Node, e.Text)
		}
		op := func(o repository.Operation) bool { return o.Node == self && o.Generation == c.After.Generation() }
		if !slices.ContainsFunc(c.After.Ops, op) {
			t.Errorf("%s: no operation of %s in generation %d: an unknown end could not be told", name, self, c.After.Generation())
		}
	}
}

func TestThePastIsThatOfTheHistory(t *testing.T) {
	t.Parallel()
	m := machines(t, 1)
	formedOnFile(t, m)
	m[0].waitMode(t, repository.Ready)
	c := m[0].dial(t)
	documents := configDocuments{m[0].agent}
	first := m[0].agent.storage.held().Generation
	for i := range 3 {
		if _, err := c.SetConfig(t.Context(), "tunables.node_timeout", fmt.Sprintf("%ds", 7+i), false); err != nil {
			t.Fatal(err)
		}
	}
	past, err := documents.Past(first + 1)
	if err != nil || past.Generation() != first+1 || past.Tunables["node_timeout"] != "7s" {
		t.Errorf("generation %d is %d, %v (%v)", first+1, past.Generation(), past.Tunables, err)
	}
	if now, err := documents.Past(first + 3); err != nil || now.Tunables["node_timeout"] != "9s" || !documents.Kept(first+3) {
		t.Errorf("the one in force: %v, %v", now.Tunables, err)
	}
	// A copy of a generation that has never been part of this history, as after an old backup.
	state := m[0].State
	v := m[0].agent.storage.held().Version
	other := past
	other.Tunables = map[string]string{"node_timeout": "1m"}
	data, err := repository.Encode(other)
	if err != nil {
		t.Fatal(err)
	}
	v.Generation, v.Digest = first+1, digestOf(data)
	text := fmt.Appendf(nil, "%s %s %d %d %d %s\n%s", copyMagic, v.Repository, v.Epoch, uint64(v.Ballot), v.Generation, v.Digest, data)
	if err := os.WriteFile(copyOfGeneration(state, first+1), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := documents.Past(first + 1); !errors.Is(err, belfry.ErrNotFound) || !strings.Contains(err.Error(), "is not the one that") {
		t.Errorf("a copy of another history: %v; want ErrNotFound", err)
	}
	if _, err := c.RollbackConfig(t.Context(), first+1, "", false); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("rolled back to it: %v; want ErrNotFound", err)
	}
	if err := os.Remove(copyOfGeneration(state, first)); err != nil {
		t.Fatal(err)
	}
	oldest := fmt.Sprintf("the oldest is %d", first+1)
	if first > 1 {
		oldest = "the oldest is 1"
	}
	if _, err := documents.Past(first); !errors.Is(err, belfry.ErrNotFound) || !strings.HasSuffix(err.Error(), oldest) || documents.Kept(first) {
		t.Errorf("one that is gone: %v, kept %t; want ErrNotFound, %s", err, documents.Kept(first), oldest)
	}
	for _, none := range []uint64{0, first + 4} {
		if _, err := documents.Past(none); !errors.Is(err, belfry.ErrNotFound) || documents.Kept(none) {
			t.Errorf("%d: %v, kept %t; want ErrNotFound", none, err, documents.Kept(none))
		}
	}
}

// TestNothingPassesAChangeThatWaits: one setting would be lost with it. What no
// operator changes goes on, and stays.
func TestNothingPassesAChangeThatWaits(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	formedOnFile(t, m)
	c := m[1].dial(t)
	applied, err := c.ApplyConfig(t.Context(), client.ConfigChange{Text: "tunables: {node_timeout: 9s}", Confirm: time.Hour})
	if err != nil || applied.GetConfirmation() == nil {
		t.Fatal(applied, err)
	}
	for _, dryRun := range []bool{true, false} {
		if _, err := c.SetConfig(t.Context(), "tunables.stall_max", "4s", dryRun); !errors.Is(err, belfry.ErrConflict) || !strings.Contains(err.Error(), "waits to be confirmed until") {
			t.Errorf("one setting (dry run %t): %v; want ErrConflict", dryRun, err)
		}
	}
	if _, err := c.CreateToken(t.Context(), client.TokenRequest{}); err != nil {
		t.Errorf("a token: %v", err)
	}
	if _, err := c.ConfirmConfig(t.Context(), applied.GetGeneration()); err != nil {
		t.Fatal(err)
	}
	// Whoever watched the deadline comes too late.
	held := m[0].agent.storage.held()
	m[0].agent.rollBack(repository.Confirmation{Base: applied.GetGeneration() - 1, Deadline: time.Now()})
	if now := m[0].agent.storage.held(); now.Generation != held.Generation || now.Document.Tunables["node_timeout"] != "9s" {
		t.Errorf("generation %d, node_timeout %s; want %d, 9s", now.Generation, now.Document.Tunables["node_timeout"], held.Generation)
	}
	if _, err := c.SetConfig(t.Context(), "tunables.stall_max", "4s", false); err != nil {
		t.Errorf("one setting after that: %v", err)
	}
}

// TestWhatIsNewestIsReadAndInForce: the answer that nothing is to be changed, or
// can be, is of the newest generation.
func TestWhatIsNewestIsReadAndInForce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{documents: &documentMembership{}}
		hold := func(g uint64) {
			a.documents.held.Store(&heldTable{Held: repository.Held{Version: repository.Version{Generation: g}}})
		}
		s := &storage{agent: a, in: make(chan repository.Message, 2), news: make(chan struct{})}
		s.state.Store(&storageState{})
		newest := func(g uint64) repository.Snapshot {
			return repository.Snapshot{Version: repository.Version{Generation: g}}
		}
		hold(5)
		s.looked(time.Now().Add(-time.Second), newest(5)) // before anybody asked
		var ended bool
		var err error
		go func() { err = s.fresh(t.Context(), time.Now()); ended = true }()
		synctest.Wait()
		if _, asked := (<-s.in).(repository.Hint); !asked || ended {
			t.Fatalf("read %t, ended %t (%v); want that it reads first", asked, ended, err)
		}
		s.looked(time.Now(), newest(6))
		s.hand(repository.Output{}, true)
		synctest.Wait()
		if ended {
			t.Fatalf("ended (%v) while 6 is there and 5 in force", err)
		}
		hold(6)
		s.hand(repository.Output{}, true)
		synctest.Wait()
		if !ended || err != nil {
			t.Errorf("ended %t, %v", ended, err)
		}
		begin := time.Now()
		if err := s.fresh(context.Background(), begin.Add(time.Hour)); !errors.Is(err, belfry.ErrRestricted) || time.Since(begin) != freshTimeout {
			t.Errorf("a read that does not come: %v after %s; want ErrRestricted after %s", err, time.Since(begin), freshTimeout)
		}
	})
}

func TestAMembersTableHasNoDocuments(t *testing.T) {
	t.Parallel()
	if d := new(Agent).configDocuments(); d != nil {
		t.Errorf("a cluster without a repository has %v; want nil", d)
	}
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/repository"
)

const (
	// commitTimeout bounds one generation, with all its attempts: each device has
	// its own deadline of 2 s.
	commitTimeout = 10 * time.Second
	// commitAttempts is how often edits are made anew because another generation
	// came before theirs.
	commitAttempts = 5
)

// commitGeneration makes one generation of all edits that succeed, on the
// repository. That it is the only one of its number is the storage's word, and
// takes no majority of the members (repository.md, invariant 1).
func (a *Agent) commitGeneration(batch []*edit) {
	ctx, cancel := context.WithTimeout(a.ended, commitTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		held := a.storage.held()
		changed := a.storage.changed()
		generation, err := a.commitOn(ctx, held, batch)
		if isConflict(err) && attempt < commitAttempts && a.awaitNewer(ctx, held, changed) {
			continue
		}
		for _, e := range batch {
			if err != nil {
				e.changed, e.err = false, errors.Join(e.err, err)
			}
			e.generation = generation
		}
		return
	}
}

// awaitNewer waits until the generation that came before is in force.
func (a *Agent) awaitNewer(ctx context.Context, held *heldTable, changed <-chan struct{}) bool {
	for a.storage.held() == held {
		select {
		case <-changed:
			changed = a.storage.changed()
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// commitOn applies the edits to what is held, and commits what comes of it.
func (a *Agent) commitOn(ctx context.Context, held *heldTable, batch []*edit) (generation uint64, err error) {
	next := held.table.clone()
	var authors []string
	for _, e := range batch {
		if e.changed, e.err = applyEdit(next, e.f); e.changed && !slices.Contains(authors, e.author) {
			authors = append(authors, e.author)
		}
	}
	if !slices.ContainsFunc(batch, func(e *edit) bool { return e.changed }) {
		return held.Generation, nil
	}
	if _, member := next.Node(a.id.node.ID); !member {
		return held.Generation, fmt.Errorf("%w: a node does not commit its own removal, for its records would count no more; another member must be up", belfry.ErrRestricted)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	op := newOp()
	document, err := a.next(held, op, next.written(held.Document, now), repository.Entry{Time: now, Author: strings.Join(authors, ", ")})
	if err != nil {
		return held.Generation, err
	}
	if err := a.mayChangeMembers(ctx, held, document); err != nil {
		return held.Generation, err
	}
	result, err := a.storage.propose(ctx, held.Version, op, document, repository.NoticeConfiguration)
	if err != nil {
		return held.Generation, err
	}
	a.awaitHeld(ctx, result.Version.Generation)
	a.awaitReports(a.ended, held.table, result.Version.Generation)
	return result.Version.Generation, nil
}

// next is the generation after the one that is held, with its last operation and
// its entry in the history.
func (a *Agent) next(held *heldTable, op repository.OpID, to repository.Document, e repository.Entry) ([]byte, error) {
	self := a.id.node.ID
	to.Ops = withOperation(to.Ops, repository.Operation{Node: self, ID: op, Generation: held.Generation + 1})
	e.Node, e.Text = self, whatChanged(held.Document, to)
	if len(e.Author) > maxEntryText {
		e.Author = e.Author[:maxEntryText]
	}
	to, err := repository.Follow(held.Document, to, e)
	if err != nil {
		return nil, err
	}
	return repository.Encode(to)
}

// awaitHeld returns when a generation is in force here: an earlier attempt may
// have been the one that happened.
func (a *Agent) awaitHeld(ctx context.Context, generation uint64) {
	for {
		changed := a.storage.changed()
		if a.storage.held().Generation >= generation {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// awaitReports returns when every member that is up has the generation in its
// local copy, or has had its time.
func (a *Agent) awaitReports(ctx context.Context, old *Table, generation uint64) {
	ctx, cancel := context.WithTimeout(ctx, replicateTimeout)
	defer cancel()
	for {
		changed := a.storage.changed()
		var names []string
		up := a.up()
		for _, n := range a.members.Table().Nodes {
			if _, was := old.Node(n.ID); was && n.ID != a.id.node.ID && up[n.ID] && a.storage.holds(n.ID) < generation {
				names = append(names, n.Name+": it has not said that it holds the configuration; it reads the repository every few seconds")
			}
		}
		if len(names) == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			slices.Sort(names)
			a.unconfirmed.note(generation, names)
			a.log.Warn("members have not confirmed the configuration", "generation", generation, "members", names)
			return
		}
	}
}

// authorOf is who asked for a change, and where, as the history has it.
func (a *Agent) authorOf(ctx context.Context) string {
	who := api.Asker(ctx)
	if who == "" {
		return "node " + a.id.node.Name
	}
	return who + " on " + a.id.node.Name
}

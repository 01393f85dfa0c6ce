package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/repository"
)

const (
	// majorityTimeout is how long a change waits for a majority of the members.
	majorityTimeout = 5 * time.Second
	// answerTime is what is left of the asker's time for the answer, so that what
	// is stored is not told as unknown because it is not replicated yet.
	answerTime = 500 * time.Millisecond
	// freshTimeout bounds the read that shows which generation is the newest.
	freshTimeout = 2 * time.Second
)

// CommitConfig makes and proposes a change, again on a newer document as long as
// others come first.
func (c configDocuments) CommitConfig(ctx context.Context, change configview.Change, author string) (api.ConfigCommitted, error) {
	begin := time.Now()
	done, err := c.commitDocument(ctx, change, author)
	if err != nil || !done.Changed {
		return done, err
	}
	wait, cancel := waitFor(ctx, begin.Add(majorityTimeout))
	defer cancel()
	c.awaitReports(wait, tableOf(&done.Before), done.After.Generation())
	done.InForce, done.Replicated = c.awaitMajority(wait, done.After)
	return done, nil
}

// waitFor is ctx until a time, or shortly before ctx ends by itself.
func waitFor(ctx context.Context, end time.Time) (context.Context, context.CancelFunc) {
	if last, bounded := ctx.Deadline(); bounded && last.Add(-answerTime).Before(end) {
		end = last.Add(-answerTime)
	}
	return context.WithDeadline(ctx, end)
}

// commitDocument returns when a change is in force here. One is made at a time,
// so that those of this node do not overtake each other.
func (c configDocuments) commitDocument(ctx context.Context, change configview.Change, author string) (done api.ConfigCommitted, err error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	select {
	case c.storage.changing <- struct{}{}:
		defer func() { <-c.storage.changing }()
	case <-ctx.Done():
		return done, fmt.Errorf("%w: other changes are under way; nothing is changed, try again", belfry.ErrConflict)
	}
	if err := c.storage.fit(); err != nil {
		return done, err
	}
	for {
		held, changed, asked := c.storage.held(), c.storage.changed(), time.Now()
		done, document, err := c.make(held, change, author)
		if err != nil || !done.Changed {
			// It is the last word only of what is the newest.
			if late := c.storage.fresh(ctx, asked); late != nil {
				return done, late
			}
			if c.storage.held() == held {
				return done, err
			}
			continue
		}
		result, err := c.storage.propose(ctx, held.Version, document.op, document.data, change.Notice)
		switch {
		case err == nil:
			c.awaitHeld(ctx, result.Version.Generation)
			return done, nil
		case !isConflict(err) || !c.awaitNewer(ctx, held, changed):
			return api.ConfigCommitted{}, err
		}
	}
}

// A proposal is the bytes of a document, and the operation that it is known by.
type proposal struct {
	op   repository.OpID
	data []byte
}

// make is a change made of the generation that is held.
func (c configDocuments) make(held *heldTable, change configview.Change, author string) (done api.ConfigCommitted, p proposal, err error) {
	e := repository.Entry{Time: c.entryTime(), Author: author, Node: c.id.node.ID}
	next, changed, err := change.Next(held.Document, e, c.Tunables())
	done = api.ConfigCommitted{Changed: changed, Before: held.Document, After: next}
	if err != nil || !changed {
		return done, p, err
	}
	p.op = newOp()
	done.After.Ops = withOperation(next.Ops, repository.Operation{Node: c.id.node.ID, ID: p.op, Generation: next.Generation()})
	p.data, err = repository.Encode(done.After)
	if err != nil {
		return api.ConfigCommitted{}, p, err
	}
	return done, p, nil
}

// withOperation has one operation of each node, the last.
func withOperation(ops []repository.Operation, last repository.Operation) []repository.Operation {
	others := slices.DeleteFunc(slices.Clone(ops), func(o repository.Operation) bool { return o.Node == last.Node })
	return append(others, last)
}

// awaitMajority returns when a majority of the members has a generation in force,
// which is on their disks then, or with ctx.
func (c configDocuments) awaitMajority(ctx context.Context, d repository.Document) (names []string, majority bool) {
	for {
		changed := c.storage.changed()
		names = nil
		for _, n := range d.Nodes {
			if n.ID == c.id.node.ID || c.storage.holds(n.ID) >= d.Generation() {
				names = append(names, n.Name)
			}
		}
		slices.Sort(names)
		if 2*len(names) > len(d.Nodes) {
			return names, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return names, false
		}
	}
}

// A look is the last read of the storage, and the newest generation in it.
type look struct {
	begin      time.Time
	generation uint64
}

// looked notes a read that has succeeded.
func (s *storage) looked(begin time.Time, newest repository.Snapshot) {
	s.look.Store(&look{begin, newest.Generation})
}

// fresh returns when what the storage held at that time is in force here. It
// reads the storage. ErrRestricted: that did not come about in time.
func (s *storage) fresh(ctx context.Context, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	s.tell(repository.Hint{})
	for {
		changed := s.changed()
		if l := s.look.Load(); l != nil && !l.begin.Before(since) && s.held().Generation >= l.generation {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: the repository was not read in time, so that it is not known which generation is the newest; nothing is changed, try again", belfry.ErrRestricted)
		}
	}
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// Changes of what all nodes share are made by one node, the leader: the
// lowest-numbered member that is up. All others ask it. So two changes at once
// follow each other, and none is lost (ADR 0013).

const (
	// replicateTimeout bounds the wait for members that are held up and do not
	// confirm a generation: they may have just died.
	replicateTimeout = 2 * time.Second
	// leaderTimeout bounds the search for a leader that agrees that it is one.
	leaderTimeout = 3 * time.Second
	// farewellTimeout bounds what a node that is removed can delay its removal.
	farewellTimeout = 300 * time.Millisecond
	leaderRetry     = 100 * time.Millisecond
	// maxForwarded is half of what a member serves another at a time.
	maxForwarded = 4
)

// opLead is the operation of a node that is asked to lead and does not; the
// views of two nodes may differ for a moment.
const opLead = "lead"

func notLeader(name string) error {
	return &belfry.Error{Op: opLead, Subject: name, Err: fmt.Errorf("%w: it does not make the changes, as far as it knows", belfry.ErrConflict)}
}

func isNotLeader(err error) bool {
	for e := (*belfry.Error)(nil); errors.As(err, &e); err = e.Err { // the call to it may stand around it
		if e.Op == opLead {
			return true
		}
	}
	return false
}

// An edit is one change that waits for its generation.
type edit struct {
	f      func(*Table) error
	alone  bool   // also without a majority
	author string // who asked, and where
	done   chan struct{}
	// What it came to, once done is closed.
	changed    bool
	generation uint64
	err        error
}

// A commits is the queue of edits. While one generation is written the edits
// that come meanwhile gather, and become the next one together.
type commits struct {
	mu      sync.Mutex
	waiting []*edit
	writing bool
}

// commit makes a change at this node, which must be the leader, and returns
// when it is durable here and at every member that is up, or when those that
// are not heard have been waited for. The change is then in force here.
func (a *Agent) commit(ctx context.Context, f func(*Table) error) (changed bool, generation uint64, err error) {
	return a.submit(ctx, &edit{f: f, author: a.authorOf(ctx), done: make(chan struct{})})
}

// commitAlone is commit without asking whether more than half of the members are
// there: somebody has said that they are gone for good.
func (a *Agent) commitAlone(ctx context.Context, f func(*Table) error) (changed bool, generation uint64, err error) {
	return a.submit(ctx, &edit{f: f, author: a.authorOf(ctx), alone: true, done: make(chan struct{})})
}

// A committer is commit or commitAlone.
type committer func(context.Context, func(*Table) error) (changed bool, generation uint64, err error)

func (a *Agent) submit(ctx context.Context, e *edit) (changed bool, generation uint64, err error) {
	a.commits.mu.Lock()
	a.commits.waiting = append(a.commits.waiting, e)
	write := !a.commits.writing
	a.commits.writing = true
	a.commits.mu.Unlock()
	if write {
		a.group.Go(func() error { a.write(); return nil })
	}
	select {
	case <-e.done:
		return e.changed, e.generation, e.err
	case <-ctx.Done():
		return false, 0, fmt.Errorf("%w: the change may still come into force; look again", ctx.Err())
	}
}

// write makes generations until no edit waits.
func (a *Agent) write() {
	for {
		a.commits.mu.Lock()
		batch := a.commits.waiting
		a.commits.waiting = nil
		a.commits.writing = len(batch) > 0
		a.commits.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		a.writeGeneration(batch)
		for _, e := range batch {
			close(e.done)
		}
	}
}

// writeGeneration makes one generation of all edits that succeed. Those that
// need a majority fail where none answers.
func (a *Agent) writeGeneration(batch []*edit) {
	if a.storage != nil {
		a.commitGeneration(batch)
		return
	}
	needs := func(e *edit) bool { return !e.alone }
	if slices.ContainsFunc(batch, needs) {
		if err := a.quorum(); err != nil {
			for _, e := range batch {
				if needs(e) {
					e.generation, e.err = a.members.Table().Generation, err
				}
			}
			batch = slices.DeleteFunc(slices.Clone(batch), needs)
		}
	}
	if len(batch) == 0 {
		return
	}
	a.config.mu.Lock()
	old := a.members.Table()
	changed, err := a.members.Change(a.id.node.ID, false, func(next *Table) error {
		if _, member := next.Node(a.id.node.ID); !member {
			return fmt.Errorf("%w: this node was removed, it changes nothing any more", belfry.ErrNotMember)
		}
		for _, e := range batch {
			e.changed, e.err = applyEdit(next, e.f)
		}
		return nil
	})
	table := a.members.Table()
	_, member := table.Node(a.id.node.ID)
	if changed {
		a.farewell(old, table)
	}
	if changed && member {
		a.tableChanged(old)
	}
	a.config.mu.Unlock()
	if err == nil && changed {
		a.replicate(table)
	}
	if !member { // it has removed itself, and ends when the others know
		a.removed(table)
	}
	for _, e := range batch {
		e.generation, e.err = table.Generation, errors.Join(e.err, err)
	}
}

// applyEdit leaves the table as it was if the edit fails, or leads to a table
// that is not valid.
func applyEdit(t *Table, f func(*Table) error) (changed bool, err error) {
	tried := t.clone()
	if err := f(tried); err != nil {
		return false, err
	}
	if err := errors.Join(tried.Validate(), tried.fits(t)); err != nil {
		return false, fmt.Errorf("member table: %w", err)
	}
	same, err := tried.equal(t)
	if err != nil || same {
		return false, err
	}
	*t = *tried
	return true, nil
}

// replicate returns when every member that can be reached has the table, or has
// had its time. To those that are up and can not be reached from here, others
// pass it on.
func (a *Agent) replicate(t *Table) {
	document, err := t.encode()
	if err != nil { // it was encoded for its file
		a.log.Error("configuration not replicated", "generation", t.Generation, "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(a.ended, replicateTimeout)
	defer cancel()
	confirmed, missed := a.askAll(ctx, t, func(id belfry.NodeID) error {
		return a.ask(ctx, id, belfryv1.MemberPeerService_TakeTable_FullMethodName, &belfryv1.TakeTableRequest{Document: document}, new(belfryv1.TakeTableResponse))
	})
	var names []string
	for _, n := range missed {
		a.log.Warn("member did not confirm the configuration", "peer", n.Name, "generation", t.Generation, "err", n.err)
		names = append(names, n.Name+": "+whatItSaid(n.err))
	}
	slices.Sort(names)
	a.unconfirmed.note(t.Generation, names)
	if len(missed) == 0 {
		return
	}
	a.dutyDue() // ask them soon how they are
	for _, n := range confirmed {
		if err := a.streams.SendConfiguration(n.ID, t.Generation, document); err != nil {
			a.log.Debug("configuration not sent", "peer", n.Name, "err", err)
		}
	}
}

// farewell tells nodes that they are no members any more, as far as they can
// still be told: nobody lets them in after this. It does not wait long for one
// that does not care.
func (a *Agent) farewell(old, t *Table) {
	gone := old.clone()
	gone.Nodes = slices.DeleteFunc(gone.Nodes, func(n Node) bool { _, ok := t.Node(n.ID); return ok })
	document, err := t.encode()
	if err != nil || len(gone.Nodes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(a.ended, farewellTimeout)
	defer cancel()
	a.askAll(ctx, gone, func(id belfry.NodeID) error {
		return a.ask(ctx, id, belfryv1.MemberPeerService_TakeTable_FullMethodName, &belfryv1.TakeTableRequest{Document: document}, new(belfryv1.TakeTableResponse))
	})
}

// A failedNode is a member that is up and did not do what it was asked.
type failedNode struct {
	Node
	err error
}

// whatItSaid is the answer of a member without the call around it.
func whatItSaid(err error) string {
	var call *belfry.Error
	if errors.As(err, &call) && call.Err != nil {
		err = call.Err
	}
	return strings.TrimPrefix(err.Error(), belfryv1.MemberPeerService_TakeTable_FullMethodName+": ")
}

// keptUnconfirmed is how many generations back it is known who did not confirm.
const keptUnconfirmed = 16

// unconfirmed remembers who did not confirm the newest generations. The zero
// value is ready, and safe for concurrent use.
type unconfirmed struct {
	mu    sync.Mutex
	names map[uint64][]string
}

func (u *unconfirmed) note(generation uint64, names []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names == nil {
		u.names = map[uint64][]string{}
	}
	delete(u.names, generation-keptUnconfirmed)
	if len(names) > 0 {
		u.names[generation] = names
	}
}

// Unconfirmed is api.Leader.
func (a *Agent) Unconfirmed(generation uint64) []string {
	a.unconfirmed.mu.Lock()
	defer a.unconfirmed.mu.Unlock()
	return a.unconfirmed.names[generation]
}

// askAll asks all other members of a table that have a stream, or are up, at
// once: who answered, and who did not although it is up.
func (a *Agent) askAll(ctx context.Context, t *Table, ask func(belfry.NodeID) error) (answered []Node, missed []failedNode) {
	up := a.up()
	var group sync.WaitGroup
	var mu sync.Mutex
	for _, n := range t.Nodes {
		if n.ID == a.id.node.ID || !up[n.ID] && !a.streams.Connected(n.ID) {
			continue
		}
		group.Go(func() {
			err := ask(n.ID)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				answered = append(answered, n)
			case up[n.ID]:
				a.log.Debug("member did not answer", "peer", n.Name, "err", err)
				missed = append(missed, failedNode{n, err})
			}
		})
	}
	group.Wait()
	return answered, missed
}

// up tells which members this node holds up, itself included.
func (a *Agent) up() map[belfry.NodeID]bool {
	up := map[belfry.NodeID]bool{}
	for id, verdict := range a.verdicts() {
		if verdict == belfry.VerdictUp {
			up[id] = true
		}
	}
	return up
}

// verdicts tells what this node holds of each member, of itself that it is up.
// One that is stopped hears no heartbeats: it goes by its streams.
func (a *Agent) verdicts() map[belfry.NodeID]belfry.Verdict {
	verdicts := map[belfry.NodeID]belfry.Verdict{}
	a.cluster.call(func(m *cluster.Machine) {
		for _, n := range m.Nodes(time.Now()) {
			verdicts[n.ID] = n.Verdict
		}
	})
	if a.isStopped(a.id.node.ID) {
		for id := range verdicts {
			if a.streams.Connected(id) {
				verdicts[id] = belfry.VerdictUp
			}
		}
	}
	verdicts[a.id.node.ID] = belfry.VerdictUp
	return verdicts
}

// leads tells whether this node makes the changes. One that was removed does
// not.
func (a *Agent) leads() bool {
	_, member := a.members.Table().Node(a.id.node.ID)
	return member && a.leader().ID == a.id.node.ID
}

// leader is who makes changes, as far as this node knows. A node that is
// stopped leads only where nobody else is up.
func (a *Agent) leader() Node {
	if a.storage != nil {
		return a.storageLeader()
	}
	table, up := a.members.Table(), a.up()
	lead, found := Node{}, false
	for _, n := range table.Nodes {
		if up[n.ID] && !n.Stopped && (!found || n.Number < lead.Number) {
			lead, found = n, true
		}
	}
	if !found {
		return a.id.node
	}
	return lead
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/repository"
)

// A configuration keeps the member table the same on all agents, until the
// repository does (ADR 0008). Its changes are applied in order: the lock is
// held from the change until every part of this agent has been told.
type configuration struct {
	mu       sync.Mutex
	refused  map[belfry.NodeID]bool      // peers whose last table was refused: logged once
	admitted map[belfry.NodeID]time.Time // members that came while this agent ran
	bad      atomic.Uint64               // tables that were refused
}

// The methods below are api.Configuration.

var _ api.Configuration = (*Agent)(nil)

// Settings are the tunables in force.
func (a *Agent) Settings(path string) ([]api.Setting, uint64, error) {
	table := a.members.Table()
	all := tunables()
	if path != "" && path != tunablesSection {
		t, err := tunableAt(path)
		if err != nil {
			return nil, 0, err
		}
		all = []tunable{t}
	}
	settings := make([]api.Setting, 0, len(all))
	for _, t := range all {
		settings = append(settings, t.setting(table.Tunables))
	}
	return settings, table.Generation, nil
}

// SetSetting writes one tunable.
func (a *Agent) SetSetting(ctx context.Context, path, value string, dryRun bool) (before, after api.Setting, c api.Changed, err error) {
	t, err := tunableAt(path)
	if err != nil {
		return before, after, c, err
	}
	c, err = a.change(ctx, changing{dryRun: dryRun}, func(table *Table) error {
		if err := a.passes(); err != nil {
			return err
		}
		before = t.setting(table.Tunables)
		text := t.normal(value)
		if before.Set && before.Value == text {
			after = before
			return nil
		}
		if table.Tunables == nil {
			table.Tunables = map[string]string{}
		}
		table.Tunables[t.name] = text
		after = t.setting(table.Tunables)
		_, err := tunablesOf(table.Tunables)
		return err
	})
	return before, after, c, err
}

// SetStopped writes whether a node is to be held left (stopped), and tells how
// many members are not.
func (a *Agent) SetStopped(ctx context.Context, node belfry.NodeID, stopped, dryRun bool) (running int, c api.Changed, err error) {
	c, err = a.change(ctx, changing{dryRun: dryRun}, func(table *Table) error {
		running = 0
		for i := range table.Nodes {
			if table.Nodes[i].ID == node {
				table.Nodes[i].Stopped = stopped
			}
			if !table.Nodes[i].Stopped {
				running++
			}
		}
		return nil
	})
	return running, c, err
}

// changing is how a change is made.
type changing struct {
	dryRun bool // only checked
	force  bool // also while most members are down
}

// change makes the next generation, here, and has everybody take it. This node
// is the leader.
func (a *Agent) change(ctx context.Context, how changing, edit func(*Table) error) (api.Changed, error) {
	if err := a.majority(); err != nil && !how.force {
		return api.Changed{}, err
	}
	if how.dryRun {
		a.config.mu.Lock()
		defer a.config.mu.Unlock()
		changed, err := a.members.Change(a.id.node.ID, true, edit)
		return api.Changed{Changed: changed, Generation: a.members.Table().Generation}, err
	}
	commit := a.commit
	if how.force {
		commit = a.commitAlone
	}
	changed, generation, err := commit(ctx, edit)
	return api.Changed{Changed: changed, Generation: generation}, err
}

// passed takes a table that came by itself: with a new stream, or because the
// leader does not reach everybody. It is passed on, so that it also gets to a
// node without a stream to who sent it.
func (a *Agent) passed(from belfry.NodeID, document []byte) {
	if a.storage != nil { // which is read, whatever others send
		return
	}
	taken, err := a.received(from, document)
	if err != nil || !taken {
		return // it is logged
	}
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	for _, n := range a.members.Table().Nodes {
		if n.ID != a.id.node.ID && n.ID != from {
			a.sendTable(n.ID)
		}
	}
}

// received takes a peer's table, if it is newer than this node's. The error
// says why it can not be this cluster's.
func (a *Agent) received(from belfry.NodeID, document []byte) (taken bool, err error) {
	if a.storage != nil {
		return a.members.Take(document)
	}
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	old := a.members.Table()
	if _, member := old.Node(from); !member { // its stream is about to be closed
		return false, fmt.Errorf("%w: node %s is a member no more", belfry.ErrNotMember, from)
	}
	taken, err = a.members.Take(document)
	if err != nil {
		a.config.bad.Add(1)
		if !a.config.refused[from] {
			a.log.Error("configuration of a peer refused", "peer", a.nameOf(from), "err", err)
			a.sendTable(from) // it may have heard nothing of what was decided here; once, as it may refuse this one
		}
		a.config.refused[from] = true
		a.removedUnkept(document, err)
		return false, err
	}
	delete(a.config.refused, from)
	if taken {
		a.tableChanged(old)
	}
	return taken, nil
}

// removedUnkept ends this agent if it was removed and can not write that down.
func (a *Agent) removedUnkept(document []byte, err error) {
	if !errors.As(err, new(notKept)) {
		return
	}
	next, err := decodeTable(document) // Take found it in order
	if err != nil {
		return
	}
	if _, listed := next.Node(a.id.node.ID); !listed {
		a.removed(next)
	}
}

// takeTable answers the leader, which made a generation.
func (a *Agent) takeTable(_ context.Context, from belfry.NodeID, req *belfryv1.TakeTableRequest) (*belfryv1.TakeTableResponse, error) {
	_, err := a.received(from, req.GetDocument())
	return &belfryv1.TakeTableResponse{Generation: a.members.Table().Generation}, err
}

// greetTable sends this node's table on a new stream, unless the peer's is
// newer. Equal generations may differ: two nodes wrote at once.
func (a *Agent) greetTable(peer belfry.NodeID, generation uint64) {
	if a.storage != nil {
		a.storage.tell(repository.Greeted{Node: peer, Generation: generation})
		return
	}
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	if table := a.members.Table(); !table.Origin.IsZero() && table.Generation >= generation {
		a.sendTable(peer)
	}
}

// sendTable fails where there is no stream: the next one begins with it.
func (a *Agent) sendTable(peer belfry.NodeID) {
	table := a.members.Table()
	document, err := table.encode()
	if err == nil {
		err = a.streams.SendConfiguration(peer, table.Generation, document)
	}
	if err != nil {
		a.log.Debug("configuration not sent", "peer", peer, "err", err)
	}
}

// isStopped tells whether the configuration holds a node left.
func (a *Agent) isStopped(node belfry.NodeID) bool {
	n, _ := a.members.Table().Node(node)
	return n.Stopped
}

package agent

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// A configuration keeps the member table the same on all agents, until the
// repository does (ADR 0008). Its changes are applied in order: the lock is
// held from the change until every part of this agent has been told.
type configuration struct {
	mu      sync.Mutex
	refused map[belfry.NodeID]bool // peers whose last table was refused: logged once
	bad     atomic.Uint64          // tables that were refused
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
func (a *Agent) SetSetting(_ context.Context, path, value string, dryRun bool) (before, after api.Setting, c api.Changed, err error) {
	t, err := tunableAt(path)
	if err != nil {
		return before, after, c, err
	}
	c, err = a.change(dryRun, func(table *Table) error {
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
func (a *Agent) SetStopped(_ context.Context, node belfry.NodeID, stopped, dryRun bool) (running int, c api.Changed, err error) {
	c, err = a.change(dryRun, func(table *Table) error {
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

// change makes the next generation here and sends it to everybody.
func (a *Agent) change(dryRun bool, edit func(*Table) error) (api.Changed, error) {
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	changed, err := a.members.Change(a.id.node.ID, dryRun, edit)
	if err != nil {
		return api.Changed{}, err
	}
	if changed && !dryRun {
		a.tableChanged(belfry.NodeID{})
	}
	return api.Changed{Changed: changed, Generation: a.members.Table().Generation}, nil
}

// received takes a peer's table, if it is newer than this node's.
func (a *Agent) received(from belfry.NodeID, document []byte) {
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	taken, err := a.members.Take(document)
	if err != nil {
		a.config.bad.Add(1)
		if !a.config.refused[from] {
			a.log.Error("configuration of a peer refused", "peer", a.nameOf(from), "err", err)
		}
		a.config.refused[from] = true
		return
	}
	delete(a.config.refused, from)
	if taken {
		a.tableChanged(from)
	}
}

// tableChanged tells every part of this agent, and all peers but the one that
// sent the table. The caller holds the lock.
func (a *Agent) tableChanged(from belfry.NodeID) {
	table := a.members.Table()
	settings, err := tunablesOf(table.Tunables)
	if err != nil { // it was validated before it was kept
		a.log.Error("settings not taken", "generation", table.Generation, "err", err)
		return
	}
	a.log.Info("configuration", "generation", table.Generation, "by", a.nameOf(table.Origin))
	a.cluster.receive(cluster.Settings{Tunables: settings})
	a.cluster.receive(memberTable(table))
	a.streams.SetGeneration(table.Generation)
	for _, n := range table.Nodes {
		if n.ID != a.id.node.ID && n.ID != from {
			a.sendTable(n.ID)
		}
	}
}

// greetTable sends this node's table on a new stream, unless the peer's is
// newer. Equal generations may differ: two nodes wrote at once.
func (a *Agent) greetTable(peer belfry.NodeID, generation uint64) {
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

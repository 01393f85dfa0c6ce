package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/repository"
)

// configDocuments is the configuration as a whole, of a cluster whose document
// lies on shared storage. It is safe for concurrent use.
type configDocuments struct{ *Agent }

var _ api.ConfigDocuments = configDocuments{}

// configDocuments is for [api.Options]: nil where members keep the table.
func (a *Agent) configDocuments() api.ConfigDocuments {
	if a.storage == nil {
		return nil
	}
	return configDocuments{a}
}

// Document is the one in force here, also while the repository is away.
func (c configDocuments) Document() (repository.Document, error) {
	return c.storage.held().Document, nil
}

// Past reads this node's own copy. Only one that the history in force leads to
// counts: after a fork or an old backup there may be others under its number.
func (c configDocuments) Past(generation uint64) (repository.Document, error) {
	held := c.storage.held()
	if generation == held.Generation {
		return held.Document, nil
	}
	next := held.Document.History
	i := slices.IndexFunc(next, func(e repository.Entry) bool { return e.Generation == generation+1 })
	if i < 0 {
		return repository.Document{}, c.notKept(held, generation)
	}
	past, err := readCopy(copyOfGeneration(c.opts.Config.State, generation))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return repository.Document{}, c.notKept(held, generation)
	case err != nil:
		return repository.Document{}, fmt.Errorf("local copy of generation %d: %w; other members may have it", generation, err)
	case past.Digest != next[i].Hash:
		return repository.Document{}, fmt.Errorf("%w: the local copy of generation %d is not the one that %d was made from; other members may have that", belfry.ErrNotFound, generation, generation+1)
	}
	return past.Document, nil
}

// notKept says what there is.
func (c configDocuments) notKept(held *heldTable, generation uint64) error {
	if generation > held.Generation || generation == 0 {
		return fmt.Errorf("%w: there is no generation %d; the newest here is %d", belfry.ErrNotFound, generation, held.Generation)
	}
	oldest := held.Generation
	for _, e := range held.Document.History {
		if g := e.Generation - 1; g > 0 && g < oldest && c.copied(g) {
			oldest = g
		}
	}
	return fmt.Errorf("%w: generation %d is not kept here; the oldest is %d", belfry.ErrNotFound, generation, oldest)
}

// Kept looks for the file, not into it.
func (c configDocuments) Kept(generation uint64) bool {
	held := c.storage.held()
	follower := func(e repository.Entry) bool { return e.Generation == generation+1 }
	return generation == held.Generation || slices.ContainsFunc(held.Document.History, follower) && c.copied(generation)
}

func (c configDocuments) copied(generation uint64) bool {
	_, err := os.Stat(copyOfGeneration(c.opts.Config.State, generation))
	return err == nil
}

// Tunables is what this agent's table of settings knows.
func (c configDocuments) Tunables() configview.Tunables {
	return configview.Tunables{Check: judgeTunables, InForce: tunablesInForce, Normal: normalTunable, Acts: configview.Acts}
}

func tunablesInForce(written map[string]string) (all []configview.Tunable) {
	for _, t := range tunables() {
		all = append(all, configview.Tunable{Name: t.name, Value: t.setting(written).Value})
	}
	return all
}

func normalTunable(name, value string) string {
	for _, t := range tunables() {
		if t.name == name {
			return t.normal(value)
		}
	}
	return value
}

// rollBack commits what was before a change that nobody has confirmed. It does
// nothing if that has become needless meanwhile.
func (a *Agent) rollBack(c repository.Confirmation) {
	ctx, cancel := context.WithTimeout(a.ended, commitTimeout)
	defer cancel()
	select {
	case <-time.After(c.Deadline.Sub(a.clusterTime())): // clocks are compared from time to time: it may be a little more
	case <-ctx.Done():
		return
	}
	documents := configDocuments{a}
	past, err := documents.Past(c.Base)
	var done api.ConfigCommitted
	if err == nil {
		done, err = documents.CommitConfig(ctx, configview.Expire(past), "node "+a.id.node.Name+", for want of a confirmation")
	}
	switch {
	case err != nil:
		a.log.Error("a change that nobody has confirmed is not rolled back; it is tried again", "base", c.Base, "err", err)
	case done.Changed:
		a.log.Warn("a change that nobody has confirmed is rolled back", "base", c.Base, "generation", done.After.Generation())
	}
}

// passes refuses a change of one setting while another change may still come
// back: it would come back with it, or be lost with it.
func (a *Agent) passes() error {
	if a.storage == nil {
		return nil
	}
	return configview.Waits(a.storage.held().Document)
}

// entryTime is when a generation is made, by the cluster's time, which deadlines
// of confirmations go by (repository.Machine).
func (a *Agent) entryTime() time.Time { return a.clusterTime().UTC().Truncate(time.Millisecond) }

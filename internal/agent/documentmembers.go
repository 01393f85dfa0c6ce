package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

// documentMembership is the table of a cluster whose document lies on shared
// storage: a view of the generation in the local copy. It is written by the
// storage's driver only.
type documentMembership struct {
	state string
	held  atomic.Pointer[heldTable]
}

// A heldTable is one generation, in both forms. Nobody writes to it.
type heldTable struct {
	repository.Held
	table *Table
}

func newHeldTable(h repository.Held) *heldTable { return &heldTable{h, tableOf(&h.Document)} }

// openDocument reads the local copy of a state directory.
func openDocument(state string) (*documentMembership, error) {
	path, held, err := newestCopy(state)
	if err == nil {
		err = held.Document.Validate(judgeTunables)
	}
	if err != nil {
		return nil, fmt.Errorf("local copy of the configuration %s: %w; stop the agent and copy the file from another member", path, err)
	}
	m := &documentMembership{state: state}
	h := newHeldTable(held)
	if g := keptRemoved(state); g > held.Generation {
		if keys, err := security.Load(filepath.Join(state, keysDir)); err == nil {
			h.table.remove(keys.Node)
			h.table.Generation = g
		}
	}
	m.held.Store(h)
	return m, nil
}

func (m *documentMembership) Table() *Table { return m.held.Load().table }

// Change only checks: what is to be committed goes over the storage.
func (m *documentMembership) Change(by belfry.NodeID, dryRun bool, edit func(*Table) error) (changed bool, err error) {
	held := m.held.Load()
	next := held.table.clone()
	if err := edit(next); err != nil {
		return false, err
	}
	same, err := held.table.equal(next)
	if err != nil || same {
		return false, err
	}
	if !dryRun {
		return false, fmt.Errorf("%w: the configuration lies in repository %s, and changes there", belfry.ErrUnsupported, held.Repository)
	}
	return true, next.Validate()
}

// Take refuses: messages between nodes carry no configuration (repository.md,
// invariant 5).
func (m *documentMembership) Take([]byte) (bool, error) {
	return false, fmt.Errorf("%w: the configuration lies in repository %s, and comes from there", belfry.ErrUnsupported, m.held.Load().Repository)
}

// belongs tells whether a state directory belongs to a cluster, of either kind.
func belongs(state string) bool {
	for _, path := range []string{copyOf(state), filepath.Join(state, memberFile)} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

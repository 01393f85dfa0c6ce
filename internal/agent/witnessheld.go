package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/witness"
)

// heldFile is the resources that an operator holds in a state on this node, until
// their time is over: the agent may start again before that.
const heldFile = "held.json"

// A storedHolding is one of them.
type storedHolding struct {
	Resource string    `json:"resource"`
	State    string    `json:"state"`
	Until    time.Time `json:"until"`
}

// A holdingStore keeps them in its file. It is safe for concurrent use.
type holdingStore struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	held []witness.Holding
	wake chan struct{}
}

// readHoldings begins with what an earlier start left. A file that can not be read
// costs what was held, not the start.
func readHoldings(state string, log *slog.Logger) *holdingStore {
	s := &holdingStore{path: filepath.Join(state, heldFile), log: log, wake: make(chan struct{}, 1)}
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	var lines []storedHolding
	if err == nil {
		err = json.Unmarshal(data, &lines)
	}
	for _, l := range lines {
		h := witness.Holding{Until: l.Until}
		var fault error
		if h.Resource, fault = belfry.ParseResource(l.Resource); fault == nil {
			h.State, fault = belfry.ParseResourceState(l.State)
		}
		if fault != nil {
			err = errors.Join(err, fault)
			continue
		}
		s.held = append(s.held, h)
	}
	if err != nil {
		log.Warn("resources that were held in a state before the start are not, or not all of them; belfry witness set holds them again", "file", s.path, "err", err)
	}
	return s
}

// list is what has not ended yet.
func (s *holdingStore) list(now time.Time) (held []witness.Holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		if h.Until.After(now) {
			held = append(held, h)
		}
	}
	return held
}

// keep notes them for the file.
func (s *holdingStore) keep(held []witness.Holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes what is new until ctx ends.
func (s *holdingStore) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		s.mu.Lock()
		lines := []storedHolding{}
		for _, h := range s.held {
			lines = append(lines, storedHolding{string(h.Resource), h.State.String(), h.Until})
		}
		s.mu.Unlock()
		data, err := json.MarshalIndent(lines, "", "  ")
		if err == nil {
			err = security.ReplaceFile(s.path, append(data, '\n'))
		}
		if err != nil {
			s.log.Error("what is held in a state is not kept over a restart", "file", s.path, "err", err)
		}
	}
}

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/security"
)

// pauseFile holds the longest pauses that nodes survived, under the state
// directory: what was learned of a slow host holds after a restart too.
const pauseFile = "pauses.json"

// pauseEvery bounds how often the file is written.
const pauseEvery = time.Second

// A pauseStore keeps pauses in a file. Its methods are safe for concurrent use;
// keep never waits for the disk.
type pauseStore struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	known map[belfry.NodeID]cluster.Pause
	wake  chan struct{} // capacity 1
}

// storedPause is one line of the file.
type storedPause struct {
	Node    belfry.NodeID `json:"node"`
	Seconds float64       `json:"pause_seconds"`
	At      time.Time     `json:"at"`
}

// readPauses begins with what an earlier start left. A file that can not be
// read costs what was learned, not the start.
func readPauses(state string, log *slog.Logger) *pauseStore {
	s := &pauseStore{
		path: filepath.Join(state, pauseFile), log: log,
		known: map[belfry.NodeID]cluster.Pause{}, wake: make(chan struct{}, 1),
	}
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	var lines []storedPause
	if err == nil {
		err = json.Unmarshal(data, &lines)
	}
	if err != nil {
		log.Warn("pauses of an earlier start are not used; they are learned again", "file", s.path, "err", err)
		return s
	}
	for _, l := range lines {
		s.known[l.Node] = cluster.Pause{Node: l.Node, D: time.Duration(l.Seconds * float64(time.Second)), At: l.At}
	}
	return s
}

// list is all pauses, by node.
func (s *pauseStore) list() []cluster.Pause {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]cluster.Pause, 0, len(s.known))
	for _, p := range s.known {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b cluster.Pause) int { return a.Node.Compare(b.Node) })
	return all
}

// keep notes pauses for the file.
func (s *pauseStore) keep(pauses []cluster.Pause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pauses {
		s.known[p.Node] = p
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes what is new until ctx ends.
func (s *pauseStore) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		if err := s.write(); err != nil {
			s.log.Warn("pauses are not kept for the next start", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pauseEvery):
		}
	}
}

func (s *pauseStore) write() error {
	var lines []storedPause
	for _, p := range s.list() {
		lines = append(lines, storedPause{Node: p.Node, Seconds: p.D.Seconds(), At: p.At.UTC()})
	}
	data, err := json.MarshalIndent(lines, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return security.ReplaceFile(s.path, append(data, '\n'))
}

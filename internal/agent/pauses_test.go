package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

func TestPausesAreReadByTheNextStart(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	want := []cluster.Pause{
		{Node: belfry.NodeID{1}, D: 2500 * time.Millisecond, At: at},
		{Node: belfry.NodeID{2}, D: 7 * time.Second, At: at.Add(time.Hour)},
	}
	s := readPauses(dir, log)
	if got := s.list(); len(got) != 0 {
		t.Errorf("a first start knows %v, want nothing", got)
	}
	s.keep(want[1:])
	s.keep(want[:1])
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, readPauses(dir, log).list()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What can not be read costs what was learned, not the start.
func TestABrokenPauseFileIsNoReasonNotToStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, pauseFile), []byte(`[{"node":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readPauses(dir, slog.New(slog.DiscardHandler)).list(); len(got) != 0 {
		t.Errorf("read %v, want nothing", got)
	}
}

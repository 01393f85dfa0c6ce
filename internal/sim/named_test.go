package sim

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// seedsOf is how many seeds a test plays: one in share of $SEEDS where that is
// set, as by make sim and make soak, and not less than usual.
func seedsOf(t *testing.T, usual, share int) uint64 {
	t.Helper()
	text := os.Getenv("SEEDS")
	if testing.Short() {
		usual = max(1, usual/10)
	}
	if text == "" {
		return uint64(usual)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("SEEDS=%s: want a number from 1", text)
	}
	return uint64(max(usual, n/share))
}

// What cluster.md promises of each kind of trouble, on several seeds; each with
// the invariants of cluster.md 15.
func TestNamedScenarios(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "*.scenario"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d scenarios (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".scenario"), func(t *testing.T) {
			t.Parallel()
			s := read(t, file)
			seeds := seedsOf(t, namedSeeds, 10)
			for seed := s.SeedLow; seed < s.SeedLow+seeds; seed++ {
				r, err := Run(s, Options{Seed: seed})
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range r.Failures {
					t.Errorf("seed %d: %v", seed, f)
				}
			}
		})
	}
}

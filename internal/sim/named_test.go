package sim

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// seedsOf is how many seeds a test plays: $SEEDS where it is set, as `make sim`
// and the nightly run do.
func seedsOf(t *testing.T, seeds int) int {
	t.Helper()
	text := os.Getenv("SEEDS")
	if text == "" {
		return seeds
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("SEEDS=%s: want a number from 1", text)
	}
	return n
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
			seeds := uint64(seedsOf(t, namedSeeds))
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

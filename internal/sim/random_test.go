package sim

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The invariants of cluster.md 15 hold whatever happens. A seed that fails is
// printed with its schedule, which belongs into testdata then.
func TestInvariantsHoldUnderRandomFaults(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= seedsOf(t, randomSeeds, 1); seed++ {
		s := Random(seed)
		r, err := Run(s, Options{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Failures) == 0 {
			continue
		}
		for _, f := range r.Failures[:min(5, len(r.Failures))] {
			t.Errorf("seed %d: %v", seed, f)
		}
		t.Logf("seed %d is this scenario:\n%s", seed, s.Format())
	}
}

func TestRandomSchedulesAreOfTheirSeedAndCanBeWritten(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		text := Random(seed).Format()
		if again := Random(seed).Format(); again != text {
			t.Fatalf("seed %d (-one +two):\n%s", seed, cmp.Diff(text, again))
		}
		s, err := Parse("random", []byte(text))
		if err != nil {
			t.Fatalf("seed %d: %v in\n%s", seed, err, text)
		}
		if diff := cmp.Diff(text, s.Format()); diff != "" {
			t.Fatalf("seed %d (-written +read and written):\n%s", seed, diff)
		}
	}
}

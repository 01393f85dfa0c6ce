package repositorytest

import (
	"os"
	"testing"
)

// schedules is how many are played with one disk; of mirrors a fifth each.
func schedules(t *testing.T) uint64 {
	t.Helper()
	switch {
	case os.Getenv("BELFRY_SOAK") != "":
		return 1_000_000
	case testing.Short():
		return 2_000
	}
	return 20_000
}

func play(t *testing.T, disks int, from, to uint64) {
	t.Helper()
	for seed := from; seed < to; seed++ {
		s := Schedule{Seed: seed, Disks: disks, Steps: 250}
		if err := s.Run(); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
	}
}

// Invariants 1 and 3, with any timing of any writer.
func TestNoScheduleLosesAnUpdate(t *testing.T) {
	t.Parallel()
	play(t, 1, 0, schedules(t))
}

func TestNoScheduleOfTwoDisksLosesAnUpdate(t *testing.T) {
	t.Parallel()
	play(t, 2, 0, schedules(t)/10)
}

func TestNoScheduleOfThreeDisksLosesAnUpdate(t *testing.T) {
	t.Parallel()
	play(t, 3, 0, schedules(t)/10)
}

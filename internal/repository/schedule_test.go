package repository_test

import (
	"os"
	"testing"

	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// scaled is how many of usual are played: one in ten in a short run, fifty times
// as many in a soak.
func scaled(usual int) int {
	switch {
	case os.Getenv("BELFRY_SOAK") != "":
		return 50 * usual
	case testing.Short():
		return max(usual/10, 1)
	}
	return usual
}

func play(t *testing.T, disks int, count int) {
	t.Helper()
	for seed := range uint64(count) {
		s := repositorytest.Schedule{Seed: seed, Disks: disks, Steps: 250}
		if err := s.Run(); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
	}
}

// Invariants 1 and 3, with any timing of any writer.
func TestNoScheduleLosesAnUpdate(t *testing.T) {
	t.Parallel()
	play(t, 1, scaled(scheduleSeeds))
}

func TestNoScheduleOfTwoDisksLosesAnUpdate(t *testing.T) {
	t.Parallel()
	play(t, 2, scaled(scheduleSeeds)/10)
}

func TestNoScheduleOfThreeDisksLosesAnUpdate(t *testing.T) {
	t.Parallel()
	play(t, 3, scaled(scheduleSeeds)/10)
}

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

func play(t *testing.T, like repositorytest.Schedule, count int) {
	t.Helper()
	for seed := range uint64(count) {
		s := like
		s.Seed = seed
		if err := s.Run(); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
	}
}

// Invariants 1 and 3, with any timing of any writer.
func TestNoScheduleLosesAnUpdate(t *testing.T) {
	t.Parallel()
	play(t, repositorytest.Schedule{Disks: 1, Steps: 250}, scaled(scheduleSeeds))
}

func TestNoScheduleOfTwoDisksLosesAnUpdate(t *testing.T) {
	t.Parallel()
	play(t, repositorytest.Schedule{Disks: 2, Steps: 250}, scaled(scheduleSeeds)/10)
}

func TestNoScheduleOfThreeDisksLosesAnUpdate(t *testing.T) {
	t.Parallel()
	play(t, repositorytest.Schedule{Disks: 3, Steps: 250}, scaled(scheduleSeeds)/10)
}

// A commit reads the slots that were given only; each host gives the next one.
func TestNoScheduleWithNewHostsLosesAnUpdate(t *testing.T) {
	t.Parallel()
	for disks := 1; disks <= 3; disks++ {
		play(t, repositorytest.Schedule{Disks: disks, Steps: 400, NewHosts: true}, max(scaled(scheduleSeeds)/[]int{0, 10, 40, 40}[disks], 5))
	}
}

//go:build race

package repository_test

// A schedule has one goroutine; the run without -race plays all of them.
const (
	scheduleSeeds = 500
	imageRounds   = 4
	flipStep      = 61
)

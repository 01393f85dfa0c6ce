//go:build race

package repository_test

// A schedule has one goroutine; the run without -race plays all of them.
const (
	scheduleSeeds = 100
	imageRounds   = 1
	flipStep      = 509
	surveyStep    = 5009
)

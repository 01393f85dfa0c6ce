//go:build !race

package repository_test

const (
	scheduleSeeds = 20_000 // with one disk; of mirrors a tenth each
	imageRounds   = 150    // of updates, each of some 800 crash images
	flipStep      = 1
	surveyStep    = 61 // a survey verifies signatures
)

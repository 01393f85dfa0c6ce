//go:build !race

package event

// townSchedules is how many schedules of three nodes are played.
const townSchedules = 10_000

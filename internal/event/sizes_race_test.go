//go:build race

package event

// townSchedules is how many schedules of three nodes are played. A machine has
// one goroutine; the race detector only makes it slow.
const townSchedules = 300

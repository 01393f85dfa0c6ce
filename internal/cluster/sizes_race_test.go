//go:build race

package cluster

// seedsPart: a machine has one goroutine, and the run without -race plays all
// of the seeds.
const seedsPart = 10

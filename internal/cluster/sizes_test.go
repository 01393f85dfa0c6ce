//go:build !race

package cluster

// seedsPart is the share of the seeds that a test plays: one in so many.
const seedsPart = 1

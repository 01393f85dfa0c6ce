//go:build race

package cluster

import "flag"

// seedsPart: a machine has one goroutine, and the run without -race plays all
// of the seeds.
const seedsPart = 10

func init() {
	if err := flag.Set("rapid.checks", "10"); err != nil {
		panic(err)
	}
}

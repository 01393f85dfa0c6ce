//go:build race

package sim

import "testing"

// The race detector makes everything ten times slower, and a run has one
// goroutine: less of it is enough.
const (
	namedSeeds  = 1
	randomSeeds = 10
)

func TestAThousandNodesPlayUnderTheRaceDetector(t *testing.T) {
	t.Parallel()
	run(t, parse(t, "nodes 1000\nat 5s kill host n7\nrun 12s\nexpect n7 down within 4s at all\nexpect never down n8\n"), 1)
}

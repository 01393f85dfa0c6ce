//go:build !race

package sim

import (
	"runtime"
	"syscall"
	"testing"
	"time"
)

// How much of everything a run without the race detector plays; sizes_race_test.go
// has the other half.
const (
	namedSeeds  = 30
	randomSeeds = 200
)

// cluster.md 13: 10,000 nodes for 60 virtual seconds in a minute on one core and
// 2 GiB; and a host that falls silent is noticed there like anywhere else.
func TestTenThousandNodesPlayInAMinute(t *testing.T) {
	if testing.Short() {
		t.Skip("needs: a run without -short")
	}
	s := parse(t, "nodes 10000\nat 20s kill host n7\nrun 60s\nexpect n7 unreachable within 1s at first\nexpect n7 down within 4s at all\nexpect never down n8\n")
	began := processorTime(t)
	r := run(t, s, 1)
	took := processorTime(t) - began // of all threads: other programs do not count
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%v for %d events, %d MiB", took.Round(time.Millisecond), r.Events, m.Sys>>20)
	if took > time.Minute {
		t.Errorf("took %v, want a minute at most", took)
	}
	if m.Sys > 2<<30 {
		t.Errorf("took %d MiB of memory, want 2048 at most", m.Sys>>20)
	}
}

// processorTime is what this process has used up.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

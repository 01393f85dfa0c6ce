//go:build !race

package sim

import (
	"container/heap"
	"math/rand/v2"
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
// 2 GiB; and a host that falls silent is noticed there like anywhere else. A
// machine that is slow, or shared, has as much more time as it takes for other
// work of the kind.
func TestTenThousandNodesPlayInAMinute(t *testing.T) {
	if testing.Short() {
		t.Skip("needs: a run without -short")
	}
	s := parse(t, "nodes 10000\nat 20s kill host n7\nrun 60s\nexpect n7 unreachable within 1s at first\nexpect n7 down within 4s at all\nexpect never down n8\n")
	control := controlTime(t)
	began := processorTime(t)
	r := run(t, s, 1)
	took := processorTime(t) - began // of all threads: other programs do not count
	control = (control + controlTime(t)) / 2
	most := time.Duration(float64(time.Minute) * max(1, control.Seconds()/controlUsual.Seconds()))
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%v for %d events, %d MiB; control %v", took.Round(time.Millisecond), r.Events, m.Sys>>20, control.Round(time.Millisecond))
	if took > most {
		t.Errorf("took %v, want %v at most", took, most)
	}
	if m.Sys > 2<<30 {
		t.Errorf("took %d MiB of memory, want 2048 at most", m.Sys>>20)
	}
}

// controlUsual is the controlTime of a machine on which a minute is the limit. The
// simulation takes 35 to 40 times the control: 45 s at most there.
const controlUsual = 1150 * time.Millisecond

// controlTime is how long this machine takes for what a simulation does most: a
// million entries of a map, and a queue in order of time, in more memory than
// the caches hold.
func controlTime(t *testing.T) time.Duration {
	t.Helper()
	const n = 1 << 20
	rng := rand.New(rand.NewPCG(1, 2))
	began := processorTime(t)
	var queue times
	seen := map[uint64]*[64]byte{}
	for range n {
		at := rng.Uint64()
		seen[at] = new([64]byte)
		heap.Push(&queue, at)
	}
	for last := uint64(0); len(queue) > 0; {
		at := heap.Pop(&queue).(uint64)
		if at < last || seen[at] == nil {
			t.Fatalf("%d after %d", at, last)
		}
		last = at
	}
	return processorTime(t) - began
}

// times is a heap of them.
type times []uint64

func (q times) Len() int           { return len(q) }
func (q times) Less(i, j int) bool { return q[i] < q[j] }
func (q times) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *times) Push(x any)        { *q = append(*q, x.(uint64)) }
func (q *times) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
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

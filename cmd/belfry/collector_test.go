package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestTheHeadroomIsBounded(t *testing.T) {
	const mib = 1 << 20
	for live, want := range map[uint64]int64{0: 800, mib: 800, 2 * mib: 800, 4 * mib: 400, 16 * mib: 100, 32 * mib: 50, 1024 * mib: 50} {
		if got := percentFor(live); got != want {
			t.Errorf("%d MiB live: %d %%; want %d", live/mib, got, want)
		}
	}
}

// Not parallel: the pace is the process's.
func TestThePaceFollowsTheHeap(t *testing.T) {
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	paceCollector(func(string) string { return "" })
	held := make([][]byte, 64)
	for i := range held {
		held[i] = make([]byte, 1<<20)
	}
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	for deadline := time.Now().Add(10 * time.Second); percent() > leastPercent*11/10; { // a tenth is not worth a change
		if time.Now().After(deadline) {
			t.Fatalf("%d %% with 64 MiB live; want about %d", percent(), leastPercent)
		}
		runtime.GC()
	}
	runtime.KeepAlive(held)
}

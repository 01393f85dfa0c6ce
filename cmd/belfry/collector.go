package main

import (
	"runtime"
	"runtime/debug"
	gc "runtime/metrics"
	"sync/atomic"
)

// How much the heap may grow beyond what is live until it is collected. Go's own
// measure, as much again, collects the few MiB of most agents all the time, and
// lets the many of one with 100,000 registrations become twice as many.
const (
	leastHeadroom = 16 << 20 // bytes
	leastPercent  = 50       // of what is live
	mostPercent   = 800
)

// A collector sets the pace of the garbage collector anew after each collection.
type collector struct{ percent atomic.Int64 }

// paceCollector is for the process; GOGC in its environment wins.
func paceCollector(getenv func(string) string) {
	if getenv("GOGC") == "" {
		new(collector).collected()
	}
}

// collected runs once for each collection: what it leaves behind is garbage at once.
func (c *collector) collected() {
	live := []gc.Sample{{Name: "/gc/heap/live:bytes"}}
	gc.Read(live)
	percent := percentFor(live[0].Value.Uint64())
	// Setting it stops everything for a moment, so not for little.
	if was := c.percent.Load(); was == 0 || max(percent-was, was-percent) > was/10 {
		c.percent.Store(percent)
		debug.SetGCPercent(int(percent))
	}
	runtime.AddCleanup(new(*collector), (*collector).collected, c)
}

// percentFor is the headroom for a live heap, in the measure of debug.SetGCPercent.
func percentFor(live uint64) int64 {
	return int64(min(max(leastPercent, leastHeadroom*100/max(live, 1)), mostPercent))
}

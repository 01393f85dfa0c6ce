package main

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/bench/stats"
)

const (
	latencySubjects = 1024 // so many events are under way before two of one subject are
	latencyTime     = 2 * time.Second
	warmUp          = 2 * latencySubjects // events before the first that counts
	// arriveTimeout is how long the last events may take to arrive.
	arriveTimeout = 5 * time.Second
)

// latencies are p50 and p99 in µs, all NaN when the sender fell behind.
type latencies struct {
	post50, post99 float64 // from the program that posts
	node50, node99 float64 // from the node that took the event in; NaN if the bus does not tell
	merged         float64 // share of events that came together with an earlier one
}

// measureLatency posts at a steady rate and takes the time until each event
// has arrived.
func measureLatency(ctx context.Context, b *bench) ([]side.Row, error) {
	var rows []side.Row
	for _, c := range []struct {
		rate     int
		p50, p99 float64
	}{{1_000, 0, 0.92}, {10_000, 0.93, 0.79}, {100_000, 0, 0.74}} {
		var theirs, sealed, ours []latencies
		once := func(system func() bus, all *[]latencies) func(context.Context) error {
			return func(ctx context.Context) error {
				l, err := latencyOf(ctx, system(), c.rate, b.seconds(latencyTime))
				*all = append(*all, l)
				return err
			}
		}
		err := b.turns(ctx, fmt.Sprintf("latency at %s/s", side.Commas(int64(c.rate))),
			once(func() bus { return &natsBus{server: b.nats} }, &theirs),
			once(func() bus { return &natsBus{server: b.sealed} }, &sealed),
			once(func() bus { return &belfryBus{agents: b.agents} }, &ours))
		if err != nil {
			return nil, err
		}
		rows = append(rows, latencyRows(c.rate, c.p50, c.p99, natsCore, theirs, ours)...)
		rows = append(rows, latencyRows(c.rate, 0, 0, natsSealed, sealed, ours)...)
	}
	return rows, nil
}

// The peers of remote events. The targets are against the first, which has less
// to do.
const (
	natsCore   = "NATS core"
	natsSealed = "NATS core, TLS"
)

func latencyRows(rate int, p50, p99 float64, peer string, theirs, ours []latencies) []side.Row {
	their50 := side.Pick(theirs, func(l latencies) float64 { return l.post50 })
	their99 := side.Pick(theirs, func(l latencies) float64 { return l.post99 })
	name := side.Commas(int64(rate)) + "/s"
	merged := stats.Median(stats.Valid(side.Pick(ours, func(l latencies) float64 { return l.merged })))
	line := func(what, hops string, theirs []float64, own func(latencies) float64, bound float64) side.Row {
		return side.Row{Work: name + what, Unit: "µs", Hops: hops, Peer: peer, Theirs: theirs, Ours: side.Pick(ours, own), Target: side.Target{Ratio: bound}}
	}
	rows := []side.Row{
		line(", agent → agent → client, p50", "2 : 2", their50, func(l latencies) float64 { return l.node50 }, p50),
		line(", agent → agent → client, p99", "2 : 2", their99, func(l latencies) float64 { return l.node99 }, p99),
		line(", from the posting program, p50", "2 : 3", their50, func(l latencies) float64 { return l.post50 }, 0),
		line(", from the posting program, p99", "2 : 3", their99, func(l latencies) float64 { return l.post99 }, 0),
	}
	if peer != natsCore {
		return rows // of the same repetitions of Belfry
	}
	rows[0].Note = fmt.Sprintf("%.2g %% of Belfry's events came merged with an earlier one of their subject; each counts with the time since the oldest of them", 100*merged)
	return rows
}

// latencyOf runs one repetition.
func latencyOf(ctx context.Context, b bus, rate int, length time.Duration) (result latencies, err error) {
	n := warmUp + int(float64(rate)*length.Seconds())
	r := newRecorder(n)
	defer func() {
		if e := b.close(); err == nil {
			err = e
		}
	}()
	if err := b.open(ctx, 1, latencySubjects, func(_ int, d delivery) { r.deliver(d) }); err != nil {
		return result, err
	}
	behind, err := pace(ctx, n, rate, func(i int) error {
		r.posted[i] = time.Now().UnixNano()
		return b.post(ctx, i%latencySubjects)
	})
	if err != nil {
		return result, err
	}
	timer := time.NewTimer(arriveTimeout)
	defer timer.Stop()
	select {
	case <-r.all:
	case <-timer.C:
		behind = true // what did not arrive has no latency to show
	case <-ctx.Done():
		return result, ctx.Err()
	}
	if behind || r.lost.Load() > 0 {
		nan := math.NaN()
		return latencies{nan, nan, nan, nan, nan}, nil
	}
	return r.result(), nil
}

// A sender falls behind when the rate is missed by this share, or any event by
// this time.
const (
	maxSlow = 0.01
	maxLate = 100 * time.Millisecond
)

// pace calls post n times at a steady rate and tells whether it fell behind.
func pace(ctx context.Context, n, rate int, post func(i int) error) (behind bool, err error) {
	start := time.Now()
	var latest time.Duration
	for i := range n {
		due := time.Duration(i) * time.Second / time.Duration(rate)
		if ahead := due - time.Since(start); ahead > 0 {
			time.Sleep(ahead)
		}
		latest = max(latest, time.Since(start)-due)
		if err := post(i); err != nil {
			return true, err
		}
		if i%1024 == 0 && ctx.Err() != nil {
			return true, ctx.Err()
		}
	}
	want := time.Duration(n) * time.Second / time.Duration(rate)
	return latest > maxLate || float64(time.Since(start)-want) > maxSlow*float64(want)+float64(time.Millisecond), nil
}

// A recorder notes when each event was posted and arrived. Its deliveries come
// from one goroutine.
type recorder struct {
	posted   []int64 // Unix ns; written before the event is posted
	perEvent []float64
	perNode  []float64
	got      []int // of each subject
	arrived  int
	merged   int
	lost     atomic.Uint64
	all      chan struct{} // closed when all have arrived
}

func newRecorder(n int) *recorder {
	return &recorder{posted: make([]int64, n), got: make([]int, latencySubjects), all: make(chan struct{})}
}

// deliver takes the times. The k-th event of a subject is the one that was
// posted in the k-th round over all subjects.
func (r *recorder) deliver(d delivery) {
	now := time.Now()
	r.lost.Add(d.lost)
	r.merged += max(0, int(d.count)-1)
	for range d.count {
		i := d.subject + r.got[d.subject]*latencySubjects
		r.got[d.subject]++
		r.arrived++
		if i < len(r.posted) && i >= warmUp {
			r.perEvent = append(r.perEvent, float64(now.UnixNano()-r.posted[i])/1e3)
			if !d.oldest.IsZero() {
				r.perNode = append(r.perNode, float64(now.Sub(d.oldest))/1e3)
			}
		}
		if r.arrived == len(r.posted) {
			close(r.all)
		}
	}
}

func (r *recorder) result() latencies {
	post, node := stats.Quantiles(r.perEvent, 0.5, 0.99), stats.Quantiles(r.perNode, 0.5, 0.99)
	return latencies{post[0], post[1], node[0], node[1], float64(r.merged) / float64(len(r.posted))}
}

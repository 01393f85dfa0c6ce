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

const throughputTime = 2 * time.Second

// A load is how throughput is measured. The sender lets at most window events
// be under way to the slowest consumer, in both systems alike, so nothing is
// lost by overflow.
type load struct {
	consumers int
	window    int
	subjects  int // as many as the window: no two equal events are ever under way, so none can merge
}

// measureThroughput posts as fast as the consumers take.
func measureThroughput(ctx context.Context, b *bench) ([]side.Row, error) {
	var rows []side.Row
	for _, c := range []struct {
		consumers, window int
		target            float64
	}{{1, 4_096, 1.44}, {100, 1_024, 1.35}} {
		var theirs, sealed, distinct, equal []throughput
		once := func(system func() bus, subjects int, all *[]throughput) func(context.Context) error {
			return func(ctx context.Context) error {
				t, err := throughputOf(ctx, system(), load{c.consumers, c.window, subjects}, b.seconds(throughputTime))
				*all = append(*all, t)
				return err
			}
		}
		nats := func() bus { return &natsBus{server: b.nats} }
		natsTLS := func() bus { return &natsBus{server: b.sealed} }
		ours := func() bus { return &belfryBus{agents: b.agents} }
		err := b.turns(ctx, fmt.Sprintf("throughput to %d", c.consumers),
			once(nats, c.window, &theirs), once(natsTLS, c.window, &sealed), once(ours, c.window, &distinct), once(ours, 1, &equal))
		if err != nil {
			return nil, err
		}
		rows = append(rows, throughputRows(c.consumers, side.Target{Ratio: c.target, AtLeast: true}, natsCore, theirs, distinct, equal)...)
		rows = append(rows, throughputRows(c.consumers, side.Target{}, natsSealed, sealed, distinct, equal)...)
	}
	return rows, nil
}

func throughputRows(consumers int, bound side.Target, peer string, theirs, distinct, equal []throughput) []side.Row {
	name := fmt.Sprintf("to %d remote consumers", consumers)
	if consumers == 1 {
		name = "to 1 remote consumer"
	}
	rate := func(t throughput) float64 { return t.events }
	cost := func(t throughput) float64 { return t.cost }
	notifications := stats.Median(stats.Valid(side.Pick(equal, func(t throughput) float64 { return t.notifications })))
	line := func(what, unit string, ours []throughput, of func(throughput) float64, bound side.Target) side.Row {
		return side.Row{Work: name + ", " + what, Unit: unit, Hops: "2 : 3", Peer: peer, Theirs: side.Pick(theirs, of), Ours: side.Pick(ours, of), Target: bound}
	}
	rows := []side.Row{
		line("different events: none merged", "deliveries/s", distinct, rate, bound),
		line("different events, processor time of all processes", "µs per delivery", distinct, cost, side.Target{}),
		line("one event: merged under load", "occurrences/s", equal, rate, bound),
		line("one event, processor time of all processes", "µs per occurrence", equal, cost, side.Target{}),
	}
	if peer != natsCore {
		return rows // of the same repetitions of Belfry
	}
	rows[2].Note = fmt.Sprintf("every occurrence was counted exactly; they came in %s notifications a second", side.Number(notifications))
	return rows
}

// A throughput is what all consumers got together, each second, and what each
// event at each of them cost: µs of processor time of the programs and what is
// between them. All are NaN when something was lost.
type throughput struct{ events, notifications, cost float64 }

// throughputOf runs one repetition.
func throughputOf(ctx context.Context, b bus, l load, length time.Duration) (result throughput, err error) {
	w := newWindow(l)
	defer func() {
		if e := b.close(); err == nil {
			err = e
		}
	}()
	if err := b.open(ctx, l.consumers, l.subjects, w.deliver); err != nil {
		return result, err
	}
	// The first rounds make the entries and fill caches.
	if _, err := w.send(ctx, b, func(i int) bool { return i < 2*l.window }); err != nil {
		return result, err
	}
	before, used := w.notifications(), side.ProcessorTime(b.servers())
	start := time.Now()
	n, err := w.send(ctx, b, func(i int) bool { return i%64 != 0 || time.Since(start) < length })
	if err != nil {
		return result, err
	}
	took := time.Since(start).Seconds()
	if w.lost() > 0 {
		nan := math.NaN()
		return throughput{nan, nan, nan}, nil
	}
	deliveries := float64(n * l.consumers)
	used = side.ProcessorTime(b.servers()) - used
	return throughput{deliveries / took, float64(w.notifications()-before) / took, used.Seconds() * 1e6 / deliveries}, nil
}

// A window holds the sender back while too much is under way.
type window struct {
	load
	got  []counter // of each consumer
	sent uint64
	goal atomic.Uint64 // how much each consumer must have before the sender goes on
	wake chan struct{} // has a value when a consumer has reached the goal
}

type counter struct {
	events, notifications, lost atomic.Uint64
	_                           [40]byte // the rest of a cache line
}

func newWindow(l load) *window {
	return &window{load: l, got: make([]counter, l.consumers), wake: make(chan struct{}, 1)}
}

func (w *window) deliver(consumer int, d delivery) {
	c := &w.got[consumer]
	c.notifications.Add(1)
	if d.lost > 0 {
		c.lost.Add(d.lost)
	}
	n := d.count + d.lost
	now := c.events.Add(n)
	if goal := w.goal.Load(); now-n < goal && goal <= now {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// reach waits until every consumer has at least goal events.
func (w *window) reach(ctx context.Context, goal uint64) error {
	w.goal.Store(goal) // before looking: whoever gets there later wakes us
	timer := time.NewTimer(arriveTimeout)
	defer timer.Stop()
	for i := range w.got {
		for w.got[i].events.Load() < goal {
			select {
			case <-w.wake:
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
				return fmt.Errorf("consumer %d has %d of %d events after %s", i, w.got[i].events.Load(), goal, arriveTimeout)
			}
		}
	}
	return nil
}

// send posts while more says so, then waits until all has arrived. It returns
// how many it posted.
func (w *window) send(ctx context.Context, b bus, more func(i int) bool) (n int, err error) {
	free := 0 // how many may be posted before looking again
	for ; more(n); n++ {
		if free == 0 {
			quarter := uint64(w.window / 4)
			if under := uint64(w.window) - quarter; w.sent > under {
				if err := w.reach(ctx, w.sent-under); err != nil {
					return n, err
				}
			}
			free = int(quarter)
		}
		if err := b.post(ctx, int(w.sent%uint64(w.subjects))); err != nil {
			return n, err
		}
		w.sent++
		free--
	}
	return n, w.reach(ctx, w.sent)
}

func (w *window) notifications() (n uint64) {
	for i := range w.got {
		n += w.got[i].notifications.Load()
	}
	return n
}

func (w *window) lost() (n uint64) {
	for i := range w.got {
		n += w.got[i].lost.Load()
	}
	return n
}

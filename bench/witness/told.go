package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/bench/stats"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	clients     = 10_000
	rounds      = 6 // of changes in one repetition, of which the first does not count
	alone       = 1000
	registering = 1000
)

// A crowd is what one repetition with all clients found.
type crowd struct {
	changed spread // from the request of a change
	down    spread // from the verdict down
	up      spread // from the verdict up
}

// measureCrowd tells ten thousand at once.
func measureCrowd(ctx context.Context, b *bench) ([]side.Row, error) {
	var ours, plain, sealed []crowd
	n := b.scaled(clients)
	once := func(s system, all *[]crowd, more func(context.Context, *watchers, *crowd) error) func(context.Context) error {
		return func(ctx context.Context) error {
			c, err := gather(ctx, s, n, more)
			*all = append(*all, c)
			return err
		}
	}
	none := func(context.Context, *watchers, *crowd) error { return nil }
	err := b.turns(ctx, fmt.Sprintf("%d clients", n),
		once(b.plain, &plain, none), once(b.sealed, &sealed, none), once(b.cluster, &ours, b.killed))
	if err != nil {
		return nil, err
	}
	changed := func(c crowd) float64 { return c.changed.p50 }
	last := func(c crowd) float64 { return c.changed.p99 }
	title := side.Commas(int64(n)) + " clients, from "
	row := func(work, unit string, of func(crowd) float64, bound side.Target) side.Row {
		return side.Row{Work: work, Unit: unit, Ours: side.Pick(ours, of), Target: bound}
	}
	rows := []side.Row{
		row(title+"the verdict *down*, p50", "ms", func(c crowd) float64 { return c.down.p50 }, side.Target{Own: 150}),
		row(title+"the verdict *down*, p99", "ms", func(c crowd) float64 { return c.down.p99 }, side.Target{Own: 300}),
		row(title+"the verdict *up*, p50", "ms", func(c crowd) float64 { return c.up.p50 }, side.Target{Own: 150}),
		row(title+"the verdict *up*, p99", "ms", func(c crowd) float64 { return c.up.p99 }, side.Target{Own: 300}),
	}
	for _, peer := range []struct {
		name   string
		theirs []crowd
		bound  side.Target
	}{{b.sealed.name(), sealed, side.Target{Ratio: 1}}, {b.plain.name(), plain, side.Target{}}} {
		for _, line := range []struct {
			work, unit string
			of         func(crowd) float64
		}{{title + "the request of a change, p50", "ms", changed}, {title + "the request of a change, p99", "ms", last}} {
			r := row(line.work, line.unit, line.of, peer.bound)
			r.Peer, r.Theirs = peer.name, side.Pick(peer.theirs, line.of)
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// gather opens all connections, changes something several times, and lets more
// happen to them.
func gather(ctx context.Context, s system, n int, more func(context.Context, *watchers, *crowd) error) (c crowd, err error) {
	w, err := watch(ctx, s, n)
	if err != nil {
		return c, err
	}
	defer w.close()
	if _, err := w.changes(ctx, s, 2); err != nil { // warm, and as it was
		return c, err
	}
	took, err := w.changes(ctx, s, rounds)
	if err != nil {
		return c, err
	}
	c.changed = spreadOf(took)
	return c, more(ctx, w, &c)
}

// killed kills b and brings it back.
func (b *bench) killed(ctx context.Context, w *watchers, c *crowd) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	verdicts, err := b.cluster.verdicts(ctx)
	if err != nil {
		return err
	}
	reach := func(to belfry.Verdict, do func() error) (spread, error) {
		var at time.Time
		took, err := w.round(ctx, func() (time.Time, error) {
			if err := do(); err != nil {
				return at, err
			}
			for {
				select {
				case v := <-verdicts:
					if v.to == to {
						at = v.at
						return at, nil
					}
				case <-time.After(toldTimeout):
					return at, fmt.Errorf("a does not hold b %s", to)
				}
			}
		})
		if err != nil {
			return spread{math.NaN(), math.NaN()}, err
		}
		return spreadOf(took), nil
	}
	if c.down, err = reach(belfry.VerdictDown, func() error { return b.cluster.agents.Kill("b") }); err != nil {
		return err
	}
	if c.up, err = reach(belfry.VerdictUp, func() error { return b.cluster.agents.Restart("b") }); err != nil {
		return err
	}
	return b.cluster.agents.Settle(ctx)
}

// registerMany makes n registrations on one connection, one after the other, and
// takes the time of each but the first warm ones, ms.
func registerMany(ctx context.Context, c *cluster, n, warm int) (took []float64, err error) {
	conn, err := connect(ctx, c.address, c.tls)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	pace := time.NewTicker(time.Second / 1000) // below what an agent takes of one client
	defer pace.Stop()
	for i := range n {
		<-pace.C
		at := time.Now()
		if err := conn.call(registerClient, &belfryv1.RegisterClientRequest{Registration: wish(i)}, true); err != nil {
			return nil, err
		}
		if err := conn.read(func([]byte) bool { return true }); err != nil {
			return nil, err
		}
		if i >= warm {
			took = append(took, float64(time.Since(at))/1e6)
		}
	}
	return took, nil
}

// measureAlone tells one client again and again, and registers one.
func measureAlone(ctx context.Context, b *bench) ([]side.Row, error) {
	var ours, plain, sealed []spread
	var registered []float64
	once := func(s system, all *[]spread) func(context.Context) error {
		return func(ctx context.Context) error {
			w, err := watch(ctx, s, 1)
			if err != nil {
				return err
			}
			defer w.close()
			if _, err := w.changes(ctx, s, 20); err != nil {
				return err
			}
			took, err := w.changes(ctx, s, b.scaled(alone)/2*2)
			*all = append(*all, spreadOf(took))
			return err
		}
	}
	err := b.turns(ctx, "one client",
		once(b.plain, &plain), once(b.sealed, &sealed), once(b.cluster, &ours),
		func(ctx context.Context) error {
			took, err := registerMany(ctx, b.cluster, b.scaled(registering), b.scaled(registering)/10)
			if err == nil {
				registered = append(registered, stats.Quantile(took, 0.99))
			}
			return err
		})
	if err != nil {
		return nil, err
	}
	var rows []side.Row
	for _, peer := range []struct {
		name   string
		theirs []spread
		bound  side.Target
	}{{b.sealed.name(), sealed, side.Target{Ratio: 1}}, {b.plain.name(), plain, side.Target{}}} {
		rows = append(rows,
			side.Row{Work: "1 client, from the request of a change, p50", Unit: "ms", Peer: peer.name, Theirs: side.Pick(peer.theirs, half), Ours: side.Pick(ours, half)},
			side.Row{Work: "1 client, from the request of a change, p99", Unit: "ms", Peer: peer.name, Theirs: side.Pick(peer.theirs, most), Ours: side.Pick(ours, most), Target: peer.bound})
	}
	return append(rows,
		side.Row{Work: "the same, bound of its own", Unit: "ms", Ours: side.Pick(ours, most), Target: side.Target{Own: 5}},
		side.Row{Work: "one registration, p99", Unit: "ms", Ours: registered, Target: side.Target{Own: 5}}), nil
}

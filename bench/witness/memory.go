package main

import (
	"context"
	"errors"
	"math"

	"github.com/belfry-ha/belfry/bench/side"
)

const (
	remembered = 2000 // connections
	further    = 5000 // registrations on one
)

// measureMemory lets processes that have just started grow: later ones keep what
// they had.
func measureMemory(ctx context.Context, b *bench) ([]side.Row, error) {
	var ours, plain, sealed, another []float64
	n := b.scaled(remembered)
	peer := func(all *[]float64, args ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			e, err := startEtcd(args...)
			if err != nil {
				return err
			}
			each, err := grow(ctx, e, n)
			*all = append(*all, each)
			return errors.Join(err, e.stop())
		}
	}
	err := b.turns(ctx, "memory", peer(&plain), peer(&sealed, withTLS), func(ctx context.Context) error {
		c, err := startCluster(ctx)
		if err != nil {
			return err
		}
		each, err := grow(ctx, c, n)
		if err != nil {
			return errors.Join(err, c.stop())
		}
		before, more := side.ResidentKiB(c.pid()), b.scaled(further)
		_, err = registerMany(ctx, c, more, 0)
		grown := float64(side.ResidentKiB(c.pid())-before) / float64(more)
		if grown < 0 { // the collector gave back more than they took, which says nothing about them
			grown = math.NaN()
		}
		ours, another = append(ours, each), append(another, grown)
		return errors.Join(err, c.stop())
	})
	const work, unit = "one client's connection", "KiB, resident"
	return []side.Row{
		{Work: work, Unit: unit, Peer: "etcd, mutual TLS", Theirs: sealed, Ours: ours, Target: side.Target{Ratio: 1}},
		{Work: work, Unit: unit, Peer: "etcd", Theirs: plain, Ours: ours},
		{Work: work + ", bound of its own", Unit: unit, Ours: ours, Target: side.Target{Own: 40}},
		{Work: "one more registration on a connection that there is", Unit: unit, Ours: another, Target: side.Target{Own: 2}},
	}, err
}

// grow is what each of n connections adds to a process, KiB.
func grow(ctx context.Context, s system, n int) (float64, error) {
	before := side.ResidentKiB(s.pid())
	w, err := watch(ctx, s, n)
	if err != nil {
		return 0, err
	}
	defer w.close()
	return float64(side.ResidentKiB(s.pid())-before) / float64(n), nil
}

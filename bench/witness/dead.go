package main

import (
	"context"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry/bench/side"
)

// kills are those of one repetition.
const kills = 20

// measureDead kills the agent of the node that is used: from the kill until the
// client is told by the witness on another node.
func measureDead(ctx context.Context, b *bench) ([]side.Row, error) {
	var all []spread
	n := b.scaled(kills)
	err := b.turns(ctx, "agent killed", func(ctx context.Context) error {
		took, err := killAgain(ctx, b.cluster, n)
		if err == nil {
			all = append(all, spreadOf(took))
		}
		return err
	})
	return []side.Row{
		{Work: "from SIGKILL of the agent to its client, p50", Unit: "ms", Ours: side.Pick(all, half)},
		{
			Work: "from SIGKILL of the agent to its client, p99", Unit: "ms", Ours: side.Pick(all, most), Target: side.Target{Own: 300},
			Note: fmt.Sprintf("%d kills in each repetition: p99 is the longest", n),
		},
	}, err
}

func killAgain(ctx context.Context, c *cluster, n int) (took []float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := watch(ctx, c, 1)
	if err != nil {
		return nil, err
	}
	defer w.close()
	for range n {
		one, err := w.round(ctx, func() (time.Time, error) { return time.Now(), c.agents.Kill("b") })
		if err != nil {
			return nil, err
		}
		took = append(took, one...)
		if _, err := w.round(ctx, func() (time.Time, error) { return time.Now(), c.agents.Restart("b") }); err != nil {
			return nil, err
		}
		if err := c.agents.Settle(ctx); err != nil {
			return nil, err
		}
	}
	return took, nil
}

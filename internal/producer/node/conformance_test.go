package node_test

import (
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	p := node.New()
	p.Update(view(state("a", belfry.VerdictUp), state("b", belfry.VerdictUp)))
	producertest.Run(t, p, producertest.Fixture{
		Class:   node.Class,
		Subject: "b",
		Cause:   func() { p.Changed(change("b", belfry.VerdictUp, belfry.VerdictDown)) },
		Undo:    func() { p.Changed(change("b", belfry.VerdictDown, belfry.VerdictUp)) },
		Absent:  "c",
		Overflow: func() {
			for range 10_000 {
				p.Changed(change("b", belfry.VerdictUp, belfry.VerdictUp))
			}
		},
	})
}

package node_test

import (
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func TestNoticesConform(t *testing.T) { // not parallel: it counts goroutines
	p := node.NewNotices("dev", "a", []string{"b", "a"}, []string{"file"})
	restart := func() {
		p.Tell(node.Restarted, "b", time.Now(), belfry.EdgeNone, &belfryv1.NodeRestarted{Node: "b", Incarnation: 2})
	}
	producertest.Run(t, p, producertest.Fixture{
		Class:   node.Restarted,
		Subject: "b",
		Cause:   restart,
		Absent:  "c",
		Overflow: func() {
			for range 10_000 {
				restart()
			}
		},
	})
}

package unit_test

import (
	"testing"

	"github.com/belfry-ha/belfry/internal/producer/producertest"
	"github.com/belfry-ha/belfry/internal/producer/unit"
)

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	f := newFake(t)
	f.add("web.service")
	f.start("web.service")
	producertest.Run(t, f.producer(), producertest.Fixture{
		Class:   unit.Class,
		Subject: "web.service",
		Cause:   func() { f.set("web.service", "failed", "failed", failed("signal")) },
		Undo:    func() { f.set("web.service", "active", "running", f.started) },
		Replace: func() { f.set("web.service", "active", "running", f.started) },
		Overflow: func() {
			for range 5000 {
				f.set("web.service", "failed", "failed")
				f.set("web.service", "active", "running")
			}
		},
		Absent:    "none.service",
		Malformed: "web",
		Rounds:    1000,
	})
}

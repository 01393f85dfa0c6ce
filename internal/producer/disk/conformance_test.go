package disk_test

import (
	"testing"

	"github.com/belfry-ha/belfry/internal/producer/disk"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	l := newLoop(t)
	l.attach()
	t.Cleanup(func() {
		if l.attached() {
			l.detach()
		}
	})
	producertest.Run(t, disk.New(), producertest.Fixture{
		Class:   disk.Class,
		Subject: l.name,
		Cause:   l.detach,
		Undo: func() {
			if !l.attached() {
				l.attach()
			}
		},
		Replace:   func() { l.detach(); l.attach() },
		Absent:    "none",
		Malformed: l.device(),
		Overflow:  func() { l.detach(); l.storm(); l.attach() },
	})
}

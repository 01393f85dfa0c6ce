package file_test

import (
	"os"
	"testing"

	"github.com/belfry-ha/belfry/internal/producer/file"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	t.Run("file", func(t *testing.T) {
		tr := newTree(t)
		tr.write("f", "")
		producertest.Run(t, file.New(), producertest.Fixture{
			Class:   file.FileClass,
			Subject: tr.path("f"),
			Cause:   func() { tr.append("f", "x") },
			Replace: func() {
				tr.write("new", "")
				tr.rename("new", "f")
			},
			Absent:    tr.path("none"),
			Malformed: "f",
		})
	})
	t.Run("attribute", func(t *testing.T) {
		tr, mode := newTree(t), os.FileMode(0o644)
		tr.write("f", "")
		producertest.Run(t, file.New(), producertest.Fixture{
			Class:   file.AttributeClass,
			Subject: tr.path("f"),
			Cause: func() {
				mode ^= 0o111
				tr.chmod("f", mode)
			},
			Replace: func() {
				tr.write("new", "")
				tr.rename("new", "f")
			},
			Undo: func() {
				mode = 0o644
				tr.chmod("f", mode)
			},
			Absent:    tr.path("none"),
			Malformed: "f",
		})
	})
	t.Run("directory", func(t *testing.T) {
		tr := newTree(t)
		tr.mkdir("d")
		producertest.Run(t, file.New(), producertest.Fixture{
			Class:   file.DirClass,
			Subject: tr.path("d"),
			Cause:   func() { tr.mkdir("d/sub") },
			Undo: func() {
				tr.remove("d/sub")
				tr.remove("old")
			},
			Replace: func() {
				tr.rename("d", "old")
				tr.mkdir("d")
			},
			Absent:    tr.path("none"),
			Malformed: "d",
			Overflow: func() {
				tr.write("d/0", "")
				from, to := tr.path("d/0"), tr.path("d/1")
				for range queueLength(t) {
					tr.must(os.Rename(from, to))
					from, to = to, from
				}
			},
		})
	})
}

func TestConformanceWithoutRights(t *testing.T) {
	if !producertest.WithoutRights(t) {
		return
	}
	tr := newTree(t)
	tr.write("f", "")
	producertest.Run(t, file.New(), producertest.Fixture{
		Class:     file.FileClass,
		Subject:   tr.path("f"),
		Forbidden: "/etc/shadow",
		Rounds:    10,
	})
}

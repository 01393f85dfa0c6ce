package filesystem_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/producer/filesystem"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	path := mount(t)
	twice := false
	producertest.Run(t, filesystem.New(), producertest.Fixture{
		Class:     filesystem.Class,
		Subject:   path,
		Threshold: over(90),
		Cause:     func() { fill(t, path, "f", 128) },
		Undo: func() {
			if twice {
				twice = false
				if err := unix.Unmount(path, 0); err != nil {
					t.Error(err)
				}
			}
			_ = os.Remove(filepath.Join(path, "f"))
		},
		Replace: func() {
			twice = true
			remount(t, path)
		},
		Absent:    filepath.Join(path, "none"),
		Malformed: "mnt",
	})
}

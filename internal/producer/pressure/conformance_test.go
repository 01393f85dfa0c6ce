package pressure_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer/pressure"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	c := newCgroup(t)
	producertest.Run(t, pressure.New(), producertest.Fixture{
		Class:     pressure.CPU,
		Subject:   c.name,
		Threshold: over(20),
		Cause:     c.strain,
		Undo:      c.relax,
		Replace:   c.replace,
		Absent:    c.name + "/none",
		Malformed: "cgroup",
		Rounds:    2, // each waits for a value, which takes a window
	})
}

func TestConformanceOfTheWaits(t *testing.T) { // not parallel: it counts goroutines
	for class, file := range map[belfry.Class]string{
		pressure.CPUWait: "schedstat", pressure.MemoryWait: "vmstat", pressure.PagingWait: "pressure/memory",
	} {
		t.Run(string(class), func(t *testing.T) {
			proc := newProc(t)
			stalled := 0
			producertest.Run(t, pressure.NewAt(proc.dir), producertest.Fixture{
				Class:     class,
				Threshold: over(1),
				Cause: func() {
					stalled++
					proc.write(file, stalled)
				},
				Malformed: "some",
				Rounds:    1, // which takes a second
			})
		})
	}
}

func over(value float64) belfry.Threshold { return belfry.Threshold{Hi: value, HasHi: true} }

// A proc stands in the place of /proc.
type proc struct {
	t   *testing.T
	dir string
}

func newProc(t *testing.T) proc {
	t.Helper()
	p := proc{t, t.TempDir()}
	if err := os.Mkdir(filepath.Join(p.dir, "pressure"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file := range procFiles {
		p.write(file, 0)
	}
	return p
}

// write gives a file the content it has after so many times of waiting, at
// once: a reader sees the old one or the new one.
func (p proc) write(file string, times int) {
	p.t.Helper()
	path := filepath.Join(p.dir, file)
	if err := os.WriteFile(path+".new", []byte(procFiles[file](times)), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		p.t.Fatal(err)
	}
}

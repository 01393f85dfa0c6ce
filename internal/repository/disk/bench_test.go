package disk

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/internal/repository"
)

// BenchmarkCommit takes commits of a document of one block by a host that has
// the claim, and controls: a write of the same size and an fdatasync, on the
// same file or device, in turns. The goal is a p50 of at most 3 controls.
func BenchmarkCommit(b *testing.B) {
	for _, on := range []struct {
		name string
		path func(b *testing.B, size int64) string
	}{{"File", func(b *testing.B, size int64) string {
		path := b.TempDir() + "/bench" + Suffix
		if err := Create(path, size); err != nil {
			b.Fatal(err)
		}
		return path
	}}, {"Loop", func(b *testing.B, size int64) string { return newLoop(b, size).path }}} {
		for _, slots := range []int{3, 64} {
			b.Run(on.name+map[int]string{3: "/SlotsGiven3", 64: "/SlotsGiven64"}[slots], func(b *testing.B) {
				l := repository.DefaultLayout(64, 256<<10)
				path := on.path(b, l.Size())
				format(b, path, l)
				commits(b, path, l, slots)
			})
		}
	}
}

func commits(b *testing.B, path string, l repository.Layout, slots int) {
	cfg := hostConfig(path, 0, 2)
	cfg.Repository.Slots = func([]byte) int { return slots }
	h := newHost(b, cfg)
	control, err := Open(path, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer control.Close()
	doc := make([]byte, repository.BlockSize)
	_, _ = rand.Read(doc)
	aligned := take(2 * repository.BlockSize).bytes // as direct I/O wants it
	_, _ = rand.Read(aligned)
	base, err := h.Load()
	if err != nil {
		b.Fatal(err)
	}
	v := base.Version
	spare := l.Payload(63, 0) // nobody's
	var ours, theirs []time.Duration
	n := 0
	commit := func() {
		n++
		op := opID(1, n)
		copy(doc, op[:])
		start := time.Now()
		if v, err = h.CAS(v, doc, op); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(start))
		h.sealing.Wait() // quiet: nobody commits while the last commit is sealed
	}
	write := func() {
		start := time.Now()
		n, err := control.handle.writeAt(aligned, spare)
		if err == nil && n == len(aligned) {
			err = control.handle.sync()
		}
		if err != nil {
			b.Fatal(err)
		}
		theirs = append(theirs, time.Since(start))
	}
	for range 5 { // the first ones allocate
		commit()
		write()
	}
	ours, theirs = nil, nil
	for b.Loop() {
		commit()
		write()
	}
	p := func(all []time.Duration, percent int) float64 {
		slices.Sort(all)
		return float64(all[len(all)*percent/100].Microseconds())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(p(ours, 50), "commit-p50-µs")
	b.ReportMetric(p(theirs, 50), "control-p50-µs")
	b.ReportMetric(p(ours, 50)/p(theirs, 50), "ratio-p50")
	b.ReportMetric(p(ours, 99), "commit-p99-µs")
	b.ReportMetric(p(theirs, 99), "control-p99-µs")
}

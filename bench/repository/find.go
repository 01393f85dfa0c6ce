package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/internal/repository/disk"
)

// foundAmong is how many files are looked at, of which one holds the repository.
const foundAmong = 100

// measureFind looks for one repository among many files, as an agent does that
// knows nothing yet, and again when all are known.
func measureFind(ctx context.Context, b *bench) (_ []side.Row, err error) {
	m, err := newMedium(ctx, "file")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.end()) }()
	folder := filepath.Dir(m.path)
	for i := range foundAmong - 1 {
		if err := disk.Create(filepath.Join(folder, fmt.Sprintf("other%d%s", i, disk.Suffix)), layout().Size()); err != nil {
			return nil, err
		}
	}
	none := filepath.Join(folder, "none") // no devices of this machine
	if err := errors.Join(os.MkdirAll(filepath.Join(none, "class", "block"), 0o700)); err != nil {
		return nil, err
	}
	var cold, warm []percentiles
	err = b.turns(ctx, "find", func(context.Context) error {
		var first, again []time.Duration
		for range b.scaled(20) {
			f := disk.NewFinder(disk.FinderConfig{Folders: []string{folder}, Sysfs: none})
			for _, all := range []*[]time.Duration{&first, &again} {
				begin := time.Now()
				r := f.Find(benchRepository)
				*all = append(*all, time.Since(begin))
				if n := len(r.Repository(benchRepository)); n != 1 {
					return fmt.Errorf("%d disks of the repository found, want 1; %w", n, errors.Join(r.Problems...))
				}
			}
		}
		cold, warm = append(cold, percentilesOf(first)), append(warm, percentilesOf(again))
		return nil
	})
	row := func(work string, all []percentiles, bound float64) side.Row {
		return side.Row{Work: fmt.Sprintf("among %d files, %s, p99", foundAmong, work), Unit: "ms", Ours: side.Pick(all, p99), Target: side.Target{Own: bound}}
	}
	return []side.Row{row("by an agent that has just started", cold, 500), row("again, warm", warm, 50)}, err
}

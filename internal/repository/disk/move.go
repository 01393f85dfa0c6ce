package disk

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Look tells what the disk at a path is: its size in bytes, and its boot record, if
// it has one. ErrExist: it has none, and holds something else; not with destroy.
func Look(path string, destroy bool) (size int64, h repository.Header, err error) {
	d, err := Open(path, Options{ReadOnly: true})
	if err != nil {
		return 0, h, err
	}
	size = d.Size()
	h, none := repository.ReadHeader(d)
	if none != nil && !destroy {
		err = repository.Inspect(d, repository.CompactLayout(1, repository.BlockSize, 3*repository.BlockSize))
	}
	return size, h, about("look", path, finish(err, d))
}

// Reserve is [repository.Reserve] of what is at a path, which nothing else may be
// using. ErrExist: it holds something, and destroy is false; or it is in use.
func Reserve(path string, destroy bool, h repository.Header) error {
	ours := func(d *Device) error {
		if now, err := repository.ReadHeader(d); err == nil && now.Reserved() || destroy {
			return nil
		}
		return repository.Inspect(d, h.Layout)
	}
	return alone("reserve", path, ours, func(d *Device) error { return repository.Reserve(d, h) })
}

// Release gives a disk back that is still only reserved.
func Release(path string) error {
	reserved := func(d *Device) error {
		h, err := repository.ReadHeader(d)
		if err == nil && !h.Reserved() {
			err = belfry.ErrExist
		}
		return err
	}
	return alone("release", path, reserved, func(d *Device) error { return repository.Wipe(d) })
}

// Complete is [repository.CompleteReserved] of what is at the paths, in the order of
// the headers; an empty one is away. Hosts that complete at the same time go on
// after one another, within [Patience].
func Complete(cfg repository.Config, m repository.Move, paths []string) (v repository.Version, err error) {
	devices := make([]repository.Device, len(m.Headers))
	var opened []*Device
	defer func() {
		for _, d := range opened {
			err = errors.Join(err, d.Close())
		}
	}()
	var problems []error
	for i, path := range paths {
		if path == "" {
			continue
		}
		d, err := Open(path, Options{})
		if err != nil {
			problems = append(problems, err)
			continue
		}
		opened = append(opened, d)
		if err := d.Lock(m.Headers[i].Layout.Record(cfg.Host, 0), 2*repository.BlockSize); err != nil {
			problems = append(problems, fail("complete", path, err))
			continue
		}
		devices[i] = d
	}
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	end := time.Now().Add(Patience)
	for attempt := 1; ; attempt++ {
		v, err = repository.CompleteReserved(cfg, m, devices...)
		wait := repository.BackOff(attempt, rng)
		if !errors.Is(err, repository.Preempted) || time.Now().Add(wait).After(end) {
			break
		}
		<-time.After(wait)
	}
	if err != nil {
		err = errors.Join(append(problems, err)...)
	}
	return v, err
}

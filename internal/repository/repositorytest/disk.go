// Package repositorytest has what tests of the repository share: a simulated
// disk that loses, tears and delays what was not flushed, hosts on it, random
// schedules, crash images, and what every backend must do.
package repositorytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/belfry-ha/belfry/internal/repository"
)

// SectorSize is what a simulated disk writes as a whole or not at all.
const SectorSize = 512

var errIO = errors.New("input/output error")

// A Disk is a medium with a cache. Hosts read and write the cache; Flush makes
// it durable. A crash keeps any part of what was not flushed.
type Disk struct {
	durable []byte
	cache   []byte
	order   []int // sectors that were written since the last flush, oldest first
	down    bool  // each call fails
}

// NewDisk has the given content, all of it durable.
func NewDisk(content []byte) *Disk {
	return &Disk{durable: slices.Clone(content), cache: slices.Clone(content)}
}

func (d *Disk) write(p []byte, off int64) {
	copy(d.cache[off:], p)
	for s := int(off) / SectorSize; s < (int(off)+len(p))/SectorSize; s++ {
		if i := slices.Index(d.order, s); i >= 0 {
			d.order = slices.Delete(d.order, i, i+1)
		}
		if !slices.Equal(d.sector(d.cache, s), d.sector(d.durable, s)) {
			d.order = append(d.order, s)
		}
	}
}

func (d *Disk) sector(of []byte, s int) []byte { return of[s*SectorSize : (s+1)*SectorSize] }

func (d *Disk) flush() {
	for _, s := range d.order {
		copy(d.sector(d.durable, s), d.sector(d.cache, s))
	}
	d.order = d.order[:0]
}

// lose drops any part of what was not flushed; the rest becomes durable. The
// hosts live on.
func (d *Disk) lose(rng *rand.Rand) {
	keep := rng.IntN(4)
	for _, s := range d.order {
		if rng.IntN(4) < keep {
			copy(d.sector(d.durable, s), d.sector(d.cache, s))
		} else {
			copy(d.sector(d.cache, s), d.sector(d.durable, s))
		}
	}
	d.order = d.order[:0]
}

// forget is what a failed flush may do: pages that could not be written stay in
// the cache as clean ones, so that no later flush writes them (fsync(2)).
func (d *Disk) forget() { d.order = d.order[:0] }

// Port is a disk as one host reaches it.
type Port struct {
	disk *Disk
	// before is called before each call takes effect: an error fails it. The
	// write that is about to happen is given, or nil.
	before func(w *late) error
}

// A late write has been given to the device and has not landed yet.
type late struct {
	disk *Disk
	data []byte
	off  int64
}

// land writes any number of its sectors.
func (w *late) land(rng *rand.Rand) {
	all := rng.IntN(2) == 0
	for i := 0; i < len(w.data); i += SectorSize {
		if all || rng.IntN(2) == 0 {
			w.disk.write(w.data[i:i+SectorSize], w.off+int64(i))
		}
	}
}

// Open is a port without any trouble.
func (d *Disk) Open() *Port { return &Port{disk: d} }

// Before is a port that calls a function before each call takes effect.
func Before(d *Disk, call func()) *Port {
	return &Port{d, func(*late) error { call(); return nil }}
}

// Size is the size of the medium in bytes.
func (p *Port) Size() int64 { return int64(len(p.disk.cache)) }

// ReadAt reads what was written last, durable or not.
func (p *Port) ReadAt(b []byte, off int64) error {
	if err := p.step(b, off, nil); err != nil {
		return err
	}
	copy(b, p.disk.cache[off:])
	return nil
}

// WriteAt writes into the cache.
func (p *Port) WriteAt(b []byte, off int64) error {
	if err := p.step(b, off, &late{p.disk, b, off}); err != nil {
		return err
	}
	p.disk.write(b, off)
	return nil
}

// Flush makes durable what any host has written.
func (p *Port) Flush() error {
	if err := p.step(nil, 0, nil); err != nil {
		return err
	}
	p.disk.flush()
	return nil
}

func (p *Port) step(b []byte, off int64, w *late) error {
	if off%repository.BlockSize != 0 || len(b)%repository.BlockSize != 0 || off < 0 || off+int64(len(b)) > p.Size() {
		panic(fmt.Sprintf("%d bytes at %d of a device of %d: not whole blocks of it", len(b), off, p.Size()))
	}
	if p.before != nil {
		if err := p.before(w); err != nil {
			return err
		}
	}
	if p.disk.down {
		return errIO
	}
	return nil
}

// Content is what any host reads.
func (d *Disk) Content() []byte { return d.cache }

// Flip turns one bit, as a bad disk does.
func (d *Disk) Flip(bit int64) {
	d.cache[bit/8] ^= 1 << (bit % 8)
	d.durable[bit/8] ^= 1 << (bit % 8)
}

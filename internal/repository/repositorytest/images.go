package repositorytest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

const (
	allSubsets = 10 // sectors up to which every subset is tried
	mixes      = 40 // random images beyond
)

// images calls visit with what a crash may leave of the disk now: all subsets
// of few sectors not flushed, else prefixes, suffixes, all but one, and one;
// then random mixes of dropped, kept, torn and garbage.
func (d *Disk) images(rng *rand.Rand, visit func(image []byte) error) error {
	n := len(d.order)
	one := func(keep func(i int) bool) error {
		image := slices.Clone(d.durable)
		for i, s := range d.order {
			if keep(i) {
				copy(d.sector(image, s), d.sector(d.cache, s))
			}
		}
		return visit(image)
	}
	if n <= allSubsets {
		for set := range 1 << n {
			if err := one(func(i int) bool { return set>>i&1 == 1 }); err != nil {
				return err
			}
		}
	} else {
		for at := range n + 1 {
			for _, keep := range []func(int) bool{
				func(i int) bool { return i < at },
				func(i int) bool { return i >= at },
				func(i int) bool { return i != at },
				func(i int) bool { return i == at },
			} {
				if err := one(keep); err != nil {
					return err
				}
			}
		}
	}
	if n == 0 {
		return nil // nothing to mix
	}
	for range mixes {
		if err := visit(d.mix(rng)); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) mix(rng *rand.Rand) []byte {
	image := slices.Clone(d.durable)
	for _, s := range d.order {
		old, now := d.sector(image, s), d.sector(d.cache, s)
		switch rng.IntN(4) {
		case 0: // dropped
		case 1:
			copy(old, now)
		case 2: // torn within the sector
			cut := rng.IntN(SectorSize)
			copy(old[:cut], now[:cut])
		case 3:
			for i := range old {
				old[i] = byte(rng.Uint32())
			}
		}
	}
	return image
}

// Images counts what [CrashUpdates] and [CrashFormat] have tried.
type Images struct{ Count int }

// CrashUpdates has two hosts commit, load and seal on one disk. After each
// call of the disk it takes every crash image, and has a reader, the same host
// and another one go on from there: nothing acknowledged is lost, nothing but
// what was proposed is read, and the images go on to work.
func CrashUpdates(seed uint64, count *Images) error {
	rng := rand.New(rand.NewPCG(seed, 7))
	disks, err := format(2, 1)
	if err != nil {
		return err
	}
	d := disks[0]
	acked, proposed := first(), first()
	check := func(*late) error {
		return d.images(rng, func(image []byte) error {
			count.Count++
			return goOn(image, acked, proposed)
		})
	}
	stores := make([]*repository.Store, 2)
	for h := range stores {
		if stores[h], err = repository.Open(config(h, 1, 0), &Port{d, check}); err != nil {
			return err
		}
		if err := stores[h].Settled(); err != nil {
			return err
		}
	}
	for round := range 3 {
		store := stores[rng.IntN(2)]
		op := opID(1, round+1)
		proposed = appendOp(acked, op)
		if rng.IntN(2) == 0 { // many sectors
			proposed = append(proposed, bytes.Repeat(op[:], rng.IntN(1200)/opSize)...)
		}
		base, err := store.Claim()
		if err != nil {
			return err
		}
		if !bytes.Equal(base.Document, acked) {
			return fmt.Errorf("claim found %d bytes, not the %d acknowledged", len(base.Document), len(acked))
		}
		if _, err := store.Commit(proposed, op); err != nil {
			return err
		}
		acked = proposed
		if rng.IntN(3) > 0 {
			if err := store.Seal(); err != nil {
				return err
			}
		}
		if rng.IntN(4) == 0 {
			if _, err := store.Load(); err != nil {
				return err
			}
		}
	}
	return check(nil)
}

// goOn uses what a crash has left.
func goOn(image, acked, proposed []byte) error {
	d := NewDisk(image)
	if err := readOnly(d, acked, proposed); err != nil {
		return err
	}
	found := acked
	for i, h := range []int{0, 1} {
		store, err := repository.Open(config(h, 2, 1), d.Open())
		if err != nil {
			return fmt.Errorf("host %d: %w", h, err)
		}
		var base repository.Snapshot
		if err := retry(store, 3, func() error { base, err = store.Load(); return err }); err != nil {
			return fmt.Errorf("host %d: %w", h, err)
		}
		if i == 0 && bytes.Equal(base.Document, proposed) {
			found = proposed
		}
		if !bytes.Equal(base.Document, found) {
			return fmt.Errorf("host %d found %d bytes, want %d; acknowledged were %d", h, len(base.Document), len(found), len(acked))
		}
		op := opID(10+h, 1)
		found = appendOp(opsOf(base.Document), op)
		if _, err := store.CAS(base.Version, found, op); err != nil {
			return fmt.Errorf("host %d: %w", h, err)
		}
	}
	return nil
}

// opsOf keeps what fits beside further updates.
func opsOf(doc []byte) []byte { return doc[:min(len(doc), repository.BlockSize/2)] }

// readOnly polls as a node without a host slot.
func readOnly(d *Disk, acked, proposed []byte) error {
	cfg := config(0, 2, 1)
	cfg.Host, cfg.Sign = -1, nil
	store, err := repository.Open(cfg, d.Open())
	if err != nil {
		return fmt.Errorf("reader: %w", err)
	}
	found, err := store.Poll()
	if errors.Is(err, repository.Undecided) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reader: %w", err)
	}
	if !bytes.HasPrefix(acked, found.Document) && !bytes.Equal(proposed, found.Document) {
		return fmt.Errorf("reader found %d bytes that nobody has proposed", len(found.Document))
	}
	return nil
}

// CrashFormat formats a disk that held something else, another repository in
// every second run: each crash image is the whole new repository, or none.
func CrashFormat(seed uint64, count *Images) error {
	rng := rand.New(rand.NewPCG(seed, 8))
	h := header(2, 1, 0)
	content := make([]byte, h.Layout.Size())
	if seed%2 == 0 {
		before, err := format(2, 1)
		if err != nil {
			return err
		}
		content = before[0].cache
		h.Repository = repository.UUID{9}
	} else {
		for i := range content {
			content[i] = byte(rng.Uint32())
		}
	}
	d := NewDisk(content)
	var begun bool
	check := func(*late) error {
		return d.images(rng, func(image []byte) error {
			count.Count++
			return wholeOrNone(image, h.Repository, begun)
		})
	}
	port := &Port{d, func(w *late) error {
		if err := check(w); err != nil {
			return err
		}
		begun = true
		return nil
	}}
	doc := append(first(), bytes.Repeat([]byte{5}, rng.IntN(2000))...)
	if err := repository.Format(port, h, founder(), doc, opID(0, 0)); err != nil {
		return err
	}
	return wholeOrNone(d.durable, h.Repository, begun)
}

// wholeOrNone: before the first write took effect it may still be the old one.
func wholeOrNone(image []byte, id repository.UUID, begun bool) error {
	d := NewDisk(image)
	found, err := repository.ReadHeader(d.Open())
	if errors.Is(err, belfry.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if found.Repository != id && !begun {
		return nil
	}
	cfg := config(0, 2, 0)
	cfg.Host, cfg.Sign = -1, nil
	store, err := repository.Open(cfg, d.Open())
	if err != nil {
		return fmt.Errorf("a boot record without a repository: %w", err)
	}
	if _, err := store.Poll(); err != nil {
		return fmt.Errorf("a boot record without a repository: %w", err)
	}
	return nil
}

package repositorytest

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/belfry-ha/belfry/internal/repository"
)

// CrashMove completes a move to so many new disks, which hold other data and are
// reserved for it. After
// each call of the first it takes every crash image and has another host
// complete the move from there: the value is there once, and is worked on.
func CrashMove(seed uint64, disks int, count *Images) error {
	rng := rand.New(rand.NewPCG(seed, 9))
	move := repository.Move{Document: appendOp(first(), opID(1, 1)), Generation: 3, Previous: repository.Digest{7}, Op: opID(1, 2)}
	var all []*Disk
	for i := range disks {
		h := header(2, disks, i)
		h.Epoch, h.Sequence = 2, 2
		for j := range h.Disks {
			h.Disks[j][0] = 4 // each disk has a new UUID
		}
		move.Headers = append(move.Headers, h)
		content := make([]byte, h.Layout.Size())
		for j := range content {
			content[j] = byte(rng.Uint32())
		}
		d := NewDisk(content)
		if err := repository.Reserve(d.Open(), repository.Reservation(h.Cluster, h.Disk(), h.Layout, h.Created)); err != nil {
			return err
		}
		all = append(all, d)
	}
	check := func(*late) error {
		return all[0].images(rng, func(image []byte) error {
			count.Count++
			if disks == 1 {
				if err := leadsSomewhere(image); err != nil {
					return err
				}
			}
			devices := []repository.Device{NewDisk(image).Open()}
			for _, d := range all[1:] {
				devices = append(devices, NewDisk(d.cache).Open())
			}
			return completed(move, devices)
		})
	}
	devices := []repository.Device{&Port{all[0], check}}
	for _, d := range all[1:] {
		devices = append(devices, d.Open())
	}
	cfg := config(0, 1, 0)
	cfg.Settled = true
	if _, err := repository.CompleteReserved(cfg, move, devices...); err != nil {
		return err
	}
	return check(nil)
}

// leadsSomewhere: where there is a boot record there is a repository.
func leadsSomewhere(image []byte) error {
	d := NewDisk(image)
	if h, err := repository.ReadHeader(d.Open()); err != nil || h.Reserved() {
		return nil //nolint:nilerr // none, or none yet: as before the move
	}
	store, err := repository.Open(config(1, 1, 0), d.Open())
	if err != nil {
		return err
	}
	if err := store.Settled(); err != nil {
		return err
	}
	_, err = store.Load()
	return err
}

// completed has host 1 complete the move, and then update.
func completed(move repository.Move, devices []repository.Device) error {
	cfg := config(1, 1, 0)
	cfg.Settled = true
	v, err := repository.CompleteReserved(cfg, move, devices...)
	if err != nil {
		return err
	}
	if v.Generation != move.Generation || v.Epoch != move.Headers[0].Epoch {
		return fmt.Errorf("completed as generation %d of epoch %d", v.Generation, v.Epoch)
	}
	store, err := repository.Open(cfg, devices...)
	if err != nil {
		return err
	}
	found, err := store.Load()
	if err != nil {
		return err
	}
	if !bytes.Equal(found.Document, move.Document) || found.Generation != move.Generation {
		return fmt.Errorf("found %d bytes, generation %d after the move", len(found.Document), found.Generation)
	}
	op := opID(2, 1)
	_, err = store.CAS(found.Version, appendOp(found.Document, op), op)
	return err
}

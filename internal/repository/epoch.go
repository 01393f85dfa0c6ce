package repository

import (
	"errors"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// A Move is what the last document of an epoch says of the next one: other
// disks, more of them, other sizes, or another place on a device. It determines
// every byte of the new headers, so that any member can complete it, and
// several may.
type Move struct {
	Headers    []Header // of the new epoch, one for each of its disks in their order
	Document   []byte   // of the last generation of the old epoch, without the move
	Generation uint64   // of Document: one after the generation that has the move
	Previous   Digest   // of the generation that has the move
	Op         OpID
}

// check wants headers that differ in nothing but their disk.
func (m *Move) check(devices int) error {
	if len(m.Headers) == 0 || len(m.Headers) != devices || m.Generation < 2 {
		return fmt.Errorf("%w: %d headers for %d devices, generation %d; name each disk of the new epoch", belfry.ErrUsage, len(m.Headers), devices, m.Generation)
	}
	for i, h := range m.Headers {
		if err := h.check(); err != nil {
			return err
		}
		first := m.Headers[0]
		if int(h.Index) != i || h.Repository != first.Repository || h.Epoch != first.Epoch || h.Layout != first.Layout || len(h.Disks) != devices {
			return fmt.Errorf("%w: header %d is not of the same epoch and layout as the first", belfry.ErrUsage, i)
		}
	}
	return nil
}

// Complete brings the repository to its new disks: it agrees with whoever else
// completes on the first generation there, then writes the headers. Devices
// are in the order of the headers; one that is nil is away, a majority must be
// there. After any error, and after any crash, it may be called again, by any
// member. Moved: a later epoch has begun. Settling: call again with Settled.
func Complete(cfg Config, m Move, devices ...Device) (Version, error) {
	if err := m.check(len(devices)); err != nil {
		return Version{}, fail("complete", "", err)
	}
	s := &Store{cfg: cfg, header: m.Headers[0], fresh: true, settled: cfg.Settled}
	for i, d := range devices {
		if d == nil {
			continue
		}
		if err := m.Headers[i].Layout.check(d.Size()); err != nil {
			return Version{}, fail("complete", m.Headers[i].Disk().String(), err)
		}
		if err := mayHold(d, m.Headers[i]); err != nil {
			return Version{}, fail("complete", m.Headers[i].Disk().String(), err)
		}
		s.replicas = append(s.replicas, &replica{dev: d, uuid: m.Headers[i].Disk()})
	}
	if err := s.Reopen(); err != nil {
		return Version{}, err
	}
	if _, err := s.Claim(); err != nil {
		return Version{}, err
	}
	v, err := s.found(m)
	if err != nil {
		return Version{}, err
	}
	_, err = s.each("complete", s.openDisks(), func(r *replica) error {
		for i := range m.Headers {
			if m.Headers[i].Disk() == r.uuid {
				return writeHeaders(r.dev, m.Headers[i])
			}
		}
		return nil
	})
	if err != nil {
		return v, err
	}
	return v, s.Seal() // else a member that was away through it finds nothing that counts
}

// found makes the first generation of the new epoch, or confirms what is there.
func (s *Store) found(m Move) (Version, error) {
	if s.base.Generation >= m.Generation {
		confirmed, err := s.confirm()
		return confirmed.Version, err
	}
	if len(m.Document) == 0 || int64(len(m.Document)) > s.header.Layout.SlotSize {
		return Version{}, fail("complete", s.header.Repository.String(), fmt.Errorf(
			"%w: a document of %d bytes; 1 to %d, the new slot size", belfry.ErrLimit, len(m.Document), s.header.Layout.SlotSize))
	}
	s.base = Snapshot{Version: Version{Generation: m.Generation - 1, Digest: m.Previous}}
	return s.Commit(m.Document, m.Op)
}

// mayHold refuses a disk of a later epoch, and areas that overlap those of an
// older one: the old value must stay whole until the new header leads away.
func mayHold(d Device, h Header) error {
	if err := notLater(d, h); err != nil {
		return err
	}
	now, err := ReadHeader(d)
	if err != nil || now.Repository != h.Repository || now.Epoch >= h.Epoch {
		return nil // notLater has read it as well: nothing of ours, or moved already
	}
	if now.Layout.RecordOffset < h.Layout.Used && h.Layout.RecordOffset < now.Layout.Used {
		return fmt.Errorf("%w: records from %d to %d overlap those of the present epoch, %d to %d; choose another place",
			belfry.ErrUsage, h.Layout.RecordOffset, h.Layout.Used, now.Layout.RecordOffset, now.Layout.Used)
	}
	return nil
}

// notLater refuses a disk whose boot record is of a later epoch of this
// repository: whoever completes now has been asleep.
func notLater(d Device, h Header) error {
	now, err := ReadHeader(d)
	switch {
	case err == nil && now.Repository == h.Repository && now.Sequence > h.Sequence:
		return Moved
	case err == nil, errors.Is(err, belfry.ErrNotFound):
		return nil
	}
	return err
}

// writeHeaders writes B, then A. Before each it looks whether a later epoch has
// begun, so that one who has slept for any time damages one copy at most, and
// never the one that counts.
func writeHeaders(d Device, h Header) error {
	block, err := EncodeHeader(h)
	if err != nil {
		return err
	}
	for _, off := range []int64{d.Size()/BlockSize*BlockSize - BlockSize, 0} {
		if err := notLater(d, h); err != nil {
			return err
		}
		if err := d.WriteAt(block, off); err != nil {
			return err
		}
		if err := d.Flush(); err != nil {
			return err
		}
	}
	return nil
}

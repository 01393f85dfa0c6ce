package repository

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// MoveOf is what a document that moves wants done: headers of the disks, where it
// moves to disks, and the document of the next epoch. It follows from the document
// alone, so that all who complete a move write the same bytes. ErrUsage: it does
// not move.
func MoveOf(d Document) (Move, error) {
	to, err := Completed(d)
	if err != nil {
		return Move{}, err
	}
	from, err := Encode(d)
	if err != nil {
		return Move{}, err
	}
	m := Move{Generation: to.Generation(), Previous: sha256.Sum256(from), Op: d.Moving.Op}
	if m.Document, err = Encode(to); err != nil {
		return Move{}, err
	}
	areas := d.Moving.Areas
	if areas == nil {
		return m, nil
	}
	m.Headers = d.headers(d.Moving.Epoch, areas)
	return m, nil
}

// reservedLabel is what people see of a reserved disk.
const reservedLabel = "reserved"

// Reservation is the boot record of a disk that a repository is about to move to.
// It is one of a repository of its own, with the UUID of the disk and without a
// record: so the disk is found by its UUID on every machine that sees it, before
// there is anything on it, and taken for no other disk.
func Reservation(cluster belfry.ClusterID, disk UUID, l Layout, now time.Time) Header {
	return Header{
		Repository: disk, Cluster: cluster, Epoch: 1, Sequence: 1, Disks: []UUID{disk}, Layout: l,
		Created: now.UTC().Truncate(time.Second), Label: reservedLabel,
	}
}

// Reserved tells whether a boot record is a [Reservation].
func (h *Header) Reserved() bool {
	return h.Repository == h.Disk() && h.Label == reservedLabel && h.Epoch == 1
}

// Reserve writes a reservation. Call [Inspect] first: what is there is lost, though
// nothing but the boot record is written.
func Reserve(d Device, h Header) error {
	if err := h.Layout.check(d.Size() / BlockSize * BlockSize); err != nil {
		return fail("reserve", h.Disk().String(), fmt.Errorf("%w: %w; name a larger device", belfry.ErrLimit, err))
	}
	return recoverAs(d, h)
}

// mayMoveTo tells whether a device is the disk that a header of a move is for: it is
// reserved for it, or a disk of the repository with that UUID already. Whatever is
// anything else is not written.
func mayMoveTo(d Device, h Header) error {
	now, err := ReadHeader(d)
	switch {
	case err != nil:
		return err
	case now.Disk() == h.Disk() && (now.Repository == h.Repository || now.Reserved()):
		return nil
	}
	return fmt.Errorf("%w: the device is disk %s, not %s", belfry.ErrExist, now.Disk(), h.Disk())
}

// CompleteReserved is [Complete] for disks that were found by their UUID: it
// refuses any that is neither reserved for its header nor of this repository.
func CompleteReserved(cfg Config, m Move, devices ...Device) (Version, error) {
	for i, d := range devices {
		if d == nil || i >= len(m.Headers) {
			continue
		}
		if err := mayMoveTo(d, m.Headers[i]); err != nil {
			return Version{}, fail("complete", m.Headers[i].Disk().String(), err)
		}
	}
	return Complete(cfg, m, devices...)
}

// NextLayout is where on a disk the areas of the next epoch may lie, of which it has
// so many bytes: beside those of the present one, before or behind it, since these
// must stay whole until the new boot record leads away. ErrLimit: there is no room
// for slots that take a document of so many bytes.
func NextLayout(now Layout, size int64, document int) (Layout, error) {
	for slot := now.SlotSize; slot >= BlockSize && slot >= 2*int64(document); slot /= 2 {
		if slot%BlockSize != 0 {
			break
		}
		for _, at := range []int64{BlockSize, now.Used} {
			l := LayoutAt(at, now.Hosts, slot)
			apart := l.Used <= now.RecordOffset || at >= now.Used
			if apart && l.check(size/BlockSize*BlockSize) == nil {
				return l, nil
			}
		}
	}
	return Layout{}, fmt.Errorf("%w: %d bytes have no room beside the present areas, which end at %d; enlarge the device, or move to others", belfry.ErrLimit, size, now.Used)
}

// LayoutAt has its records from an offset on, and its payload slots right behind.
func LayoutAt(offset int64, hosts int, slotSize int64) Layout {
	l := Layout{Hosts: hosts, SlotSize: slotSize, RecordOffset: offset}
	l.PayloadOffset = l.recordsEnd()
	l.Used = l.PayloadOffset + 2*int64(hosts)*slotSize
	return l
}

// MoveTo makes the document that begins a move to other disks, in the order in
// which they are named. What is wrong with the move is ErrUsage.
func MoveTo(d Document, kind string, areas *Areas, etcd *Etcd, op OpID) (Document, error) {
	if d.Moving != nil {
		return d, fmt.Errorf("%w: the repository moves to epoch %d; wait until it is there", belfry.ErrConflict, d.Moving.Epoch)
	}
	if (d.Repository.Epoch+1)%takeoverStep == 0 {
		return d, fmt.Errorf("%w: epoch %d is one that the members begin by their agreement; the repository stays where it is", belfry.ErrLimit, d.Repository.Epoch+1)
	}
	to := d
	if areas != nil { // who is a disk is no spare any more
		to.Repository.Spares = slices.DeleteFunc(slices.Clone(to.Repository.Spares), func(u UUID) bool { return slices.Contains(areas.Disks, u) })
	}
	to.Moving = &Moving{Epoch: d.Repository.Epoch + 1, Op: op, Areas: areas, Etcd: etcd}
	if kind != d.Repository.Kind {
		to.Moving.Kind = kind
	}
	return to, nil
}

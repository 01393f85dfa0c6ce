package repository

import (
	"bytes"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/belfry-ha/belfry"
)

// Limits of the format.
const (
	MaxHosts    = 120     // host slots
	MaxDisks    = 3       // mirrors
	MaxSlotSize = 8 << 20 // bytes of one payload slot
	MaxLabel    = 64      // bytes of UTF-8
)

const (
	headerMagic = "BELFRYR1"
	formatMajor = 1
	formatMinor = 0
)

// A Header is the boot record. It is not trusted: it says where to look.
// Trust comes from the signed records there.
type Header struct {
	Compat, ReadOnlyCompat, Incompat uint64 // feature bits; this agent knows none

	Repository UUID
	Cluster    belfry.ClusterID
	Epoch      uint64 // of the set of disks, from 1
	Sequence   uint64 // of two valid copies the one with the higher counts
	Index      uint8  // of this disk among Disks
	Disks      []UUID // of this epoch, 1 to MaxDisks
	Layout     Layout
	Created    time.Time // to the second
	Label      string    // at most MaxLabel bytes, no zero byte
	CA         Digest    // of the CA certificate
}

// A Layout says where on a device the areas lie. All in bytes but Hosts.
type Layout struct {
	Hosts         int   // host slots, 1 to MaxHosts
	SlotSize      int64 // of one payload slot, a multiple of BlockSize
	RecordOffset  int64
	PayloadOffset int64
	Used          int64 // to the end of the payload slots
}

// DefaultLayout has its records from block 1 on and its payload slots from 1 MiB on.
func DefaultLayout(hosts int, slotSize int64) Layout {
	return CompactLayout(hosts, slotSize, 1<<20)
}

// CompactLayout is [DefaultLayout] with the payload slots at another place.
func CompactLayout(hosts int, slotSize, payloadOffset int64) Layout {
	return Layout{
		Hosts: hosts, SlotSize: slotSize, RecordOffset: BlockSize, PayloadOffset: payloadOffset,
		Used: payloadOffset + 2*int64(hosts)*slotSize,
	}
}

// Size is what the device must have at least: the areas and header B.
func (l Layout) Size() int64 { return l.Used + BlockSize }

// Record is where the record of a host lies; copies are 0 and 1.
func (l Layout) Record(host, number int) int64 {
	return l.RecordOffset + int64(2*host+number)*BlockSize
}

// Payload is where the payload of a host lies; slots are 0 and 1.
func (l Layout) Payload(host, slot int) int64 {
	return l.PayloadOffset + int64(2*host+slot)*l.SlotSize
}

// recordsEnd is the end of the records.
func (l Layout) recordsEnd() int64 { return l.RecordOffset + 2*int64(l.Hosts)*BlockSize }

// check bounds every place by the size of the device (negative: unknown).
func (l Layout) check(size int64) error {
	switch {
	case l.Hosts < 1 || l.Hosts > MaxHosts:
		return blockError("%d host slots; 1 to %d", l.Hosts, MaxHosts)
	case l.SlotSize < BlockSize || l.SlotSize > MaxSlotSize || l.SlotSize%BlockSize != 0:
		return blockError("payload slots of %d bytes; a multiple of %d, at most %d", l.SlotSize, BlockSize, MaxSlotSize)
	case l.RecordOffset < BlockSize || l.RecordOffset%BlockSize != 0 || l.RecordOffset > 1<<40:
		return blockError("records at %d; a multiple of %d after the boot record", l.RecordOffset, BlockSize)
	case l.PayloadOffset < l.recordsEnd() || l.PayloadOffset%BlockSize != 0 || l.PayloadOffset > 1<<40:
		return blockError("payload slots at %d; a multiple of %d after the records, which end at %d", l.PayloadOffset, BlockSize, l.recordsEnd())
	case l.Used != l.PayloadOffset+2*int64(l.Hosts)*l.SlotSize:
		return blockError("%d bytes used; the payload slots end at %d", l.Used, l.PayloadOffset+2*int64(l.Hosts)*l.SlotSize)
	case size >= 0 && l.Size() > size:
		return blockError("needs %d bytes, the device has %d", l.Size(), size)
	}
	return nil
}

// fields goes through the block in the order of its bytes.
func (h *Header) fields(f *field) error {
	magic, major, minor, size := []byte(headerMagic), uint16(formatMajor), uint16(formatMinor), uint32(BlockSize)
	f.bytes(0, magic)
	integer(f, 8, &major)
	integer(f, 10, &minor)
	integer(f, 12, &size)
	integer(f, 16, &h.Compat)
	integer(f, 24, &h.ReadOnlyCompat)
	integer(f, 32, &h.Incompat)
	f.bytes(40, h.Repository[:])
	f.bytes(56, h.Cluster[:])
	integer(f, 72, &h.Epoch)
	integer(f, 80, &h.Sequence)
	integer(f, 88, &h.Index)
	count, hosts, slot := uint8(len(h.Disks)), uint16(h.Layout.Hosts), uint32(h.Layout.SlotSize)
	integer(f, 89, &count)
	integer(f, 90, &hosts)
	integer(f, 92, &slot)
	record, payload, used := uint64(h.Layout.RecordOffset), uint64(h.Layout.PayloadOffset), uint64(h.Layout.Used)
	integer(f, 96, &record)
	integer(f, 104, &payload)
	integer(f, 112, &used)
	created := uint64(h.Created.Unix())
	integer(f, 120, &created)
	label := make([]byte, MaxLabel)
	copy(label, h.Label)
	f.bytes(128, label)
	var own UUID
	if f.write {
		own = h.Disk()
	}
	f.bytes(192, own[:])
	disks := make([]UUID, MaxDisks)
	copy(disks, h.Disks)
	for i := range disks {
		f.bytes(208+16*i, disks[i][:])
	}
	f.bytes(256, h.CA[:])
	if f.write {
		return nil
	}
	if err := f.end(crcOffset); err != nil {
		return err
	}
	switch {
	case major != formatMajor:
		return fmt.Errorf("%w: format %d.%d of the repository, this agent knows %d; use a newer agent", belfry.ErrUnsupported, major, minor, formatMajor)
	case minor != formatMinor && h.Compat|h.ReadOnlyCompat|h.Incompat == 0:
		return blockError("format %d.%d without the feature bits of it", major, minor)
	case size != BlockSize:
		return blockError("blocks of %d bytes; %d", size, BlockSize)
	case count < 1 || count > MaxDisks:
		return blockError("%d disks; 1 to %d", count, MaxDisks)
	case record>>62|payload>>62|used>>62|created>>62 != 0:
		return blockError("an offset or time out of range")
	}
	for _, d := range disks[count:] {
		if d != (UUID{}) {
			return blockError("more disks than their count of %d", count)
		}
	}
	h.Disks = disks[:count]
	h.Layout = Layout{int(hosts), int64(slot), int64(record), int64(payload), int64(used)}
	h.Created = time.Unix(int64(created), 0).UTC()
	h.Label = string(bytes.TrimRight(label, "\x00"))
	if own != h.Disk() {
		return blockError("disk %s is not number %d of the disks", own, h.Index)
	}
	return h.check()
}

// Disk is the UUID of the disk that the header lies on; zero if Index is none.
func (h *Header) Disk() UUID {
	if int(h.Index) >= len(h.Disks) {
		return UUID{}
	}
	return h.Disks[h.Index]
}

// Writable is false if the repository has features that only readers may ignore.
func (h *Header) Writable() bool { return h.ReadOnlyCompat == 0 }

func (h *Header) check() error {
	if len(h.Disks) < 1 || len(h.Disks) > MaxDisks || int(h.Index) >= len(h.Disks) {
		return blockError("disk %d of %d; at most %d", h.Index, len(h.Disks), MaxDisks)
	}
	for i, d := range h.Disks {
		if d == (UUID{}) {
			return blockError("disk %d has no UUID", i)
		}
		for _, e := range h.Disks[:i] {
			if d == e {
				return blockError("disk %s is named twice", d)
			}
		}
	}
	switch {
	case h.Repository == UUID{} || h.Cluster.IsZero():
		return blockError("no UUID of repository or cluster")
	case h.Epoch == 0 || h.Sequence == 0:
		return blockError("epoch %d, header sequence %d; both from 1", h.Epoch, h.Sequence)
	case len(h.Label) > MaxLabel || !utf8.ValidString(h.Label) || bytes.IndexByte([]byte(h.Label), 0) >= 0:
		return blockError("label %q; UTF-8 without zero bytes, at most %d bytes", h.Label, MaxLabel)
	case h.Created.Unix() < 0:
		return blockError("created before 1970")
	}
	return h.Layout.check(-1)
}

// EncodeHeader writes the block; the header must be valid.
func EncodeHeader(h Header) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	block := make([]byte, BlockSize)
	if err := h.fields(&field{block: block, write: true}); err != nil {
		return nil, err
	}
	putCRC(block)
	return block, nil
}

// DecodeHeader reads a block of a device of that size (negative: unknown).
// ErrUnsupported: a repository that only a newer agent can read.
func DecodeHeader(block []byte, size int64) (Header, error) {
	if len(block) != BlockSize || !bytes.HasPrefix(block, []byte(headerMagic)) {
		return Header{}, blockError("no boot record")
	}
	if !crcFits(block) {
		return Header{}, blockError("boot record with a wrong checksum")
	}
	var h Header
	if err := h.fields(&field{block: block}); err != nil {
		return Header{}, err
	}
	if h.Incompat != 0 {
		return Header{}, fmt.Errorf("%w: features %#x of the repository; use a newer agent", belfry.ErrUnsupported, h.Incompat)
	}
	if err := h.Layout.check(size); err != nil {
		return Header{}, err
	}
	return h, nil
}

// ReadHeader reads both copies of the boot record. The valid one with the
// higher sequence counts. ErrNotFound: this is no repository, or none any more;
// ErrRestricted: it is one that was cut; ErrUnsupported: of a newer agent.
func ReadHeader(d Device) (Header, error) {
	size := d.Size()
	if size < 2*BlockSize {
		return Header{}, fail("header", "", fmt.Errorf("%w: a device of %d bytes is no repository; name another one", belfry.ErrNotFound, size))
	}
	var found Header
	var newer, broken, cut error // why a copy does not count
	var spoiled []error          // was one once
	for _, off := range []int64{0, size/BlockSize*BlockSize - BlockSize} {
		block := make([]byte, BlockSize)
		if err := d.ReadAt(block, off); err != nil {
			broken = err
			continue
		}
		h, err := DecodeHeader(block, size)
		switch {
		case err == nil && h.Sequence > found.Sequence:
			found = h
		case belfryUnsupported(err):
			newer = err
		case err != nil && bytes.HasPrefix(block, []byte(headerMagic)):
			spoiled = append(spoiled, err)
			if _, whole := DecodeHeader(block, -1); whole == nil {
				cut = err
			}
		}
	}
	switch {
	case newer != nil:
		return Header{}, fail("header", "", newer)
	case found.Sequence > 0:
		return found, nil
	case cut != nil:
		return Header{}, fail("header", "", fmt.Errorf("%w: the repository was cut (%w); give the device its size back, or replace the disk", belfry.ErrRestricted, cut))
	case len(spoiled) == 2: // or what a crash while formatting it anew has left: not ours
		return Header{}, fail("header", "", fmt.Errorf("%w: both copies of the boot record are damaged (A: %w; B: %w); replace the disk, or format it anew with `belfry init --force`",
			belfry.ErrNotFound, spoiled[0], spoiled[1]))
	case broken != nil:
		return Header{}, fail("header", "", broken)
	}
	return Header{}, fail("header", "", fmt.Errorf("%w: no boot record; name a device that `belfry init` has formatted", belfry.ErrNotFound))
}

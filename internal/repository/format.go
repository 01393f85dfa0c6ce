package repository

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/belfry-ha/belfry"
)

func belfryUnsupported(err error) bool { return errors.Is(err, belfry.ErrUnsupported) }

// A Founder is the host that formats a repository and writes its first value.
type Founder struct {
	Node        belfry.NodeID
	Host        int
	Incarnation uint64
	Boot        UUID
	Sign        Sign
}

// Inspect refuses a device that is too small or that seems to hold something:
// ErrExist names what.
func Inspect(d Device, l Layout) error {
	size := d.Size() / BlockSize * BlockSize
	if err := l.check(size); err != nil {
		return fail("format", "", fmt.Errorf("%w: %w; name a larger device", belfry.ErrLimit, err))
	}
	span := min(size, ForeignSpan)
	head, tail := make([]byte, span), make([]byte, span)
	if err := d.ReadAt(head, 0); err != nil {
		return fail("format", "", err)
	}
	if err := d.ReadAt(tail, size-span); err != nil {
		return fail("format", "", err)
	}
	if what := Foreign(head, tail, size); what != "" {
		return fail("format", "", fmt.Errorf("%w: the device holds %s; name another one, or use --force to destroy it", belfry.ErrExist, what))
	}
	return nil
}

// Format makes a device a disk of the repository h with doc as generation 1.
// A header lies there only when all that it leads to is durable, so that a
// crash at any point leaves a whole repository or none. All disks of a mirror
// are formatted with the same doc. Call [Inspect] first.
func Format(d Device, h Header, founder Founder, doc []byte, op OpID) error {
	size := d.Size() / BlockSize * BlockSize
	l := h.Layout
	if err := l.check(size); err != nil {
		return fail("format", "", err)
	}
	if founder.Host < 0 || founder.Host >= l.Hosts {
		return usage("format", "", "host slot %d; 0 to %d", founder.Host, l.Hosts-1)
	}
	if len(doc) == 0 || int64(len(doc)) > l.SlotSize {
		return fail("format", "", fmt.Errorf("%w: a document of %d bytes; 1 to %d", belfry.ErrLimit, len(doc), l.SlotSize))
	}
	header, err := EncodeHeader(h)
	if err != nil {
		return fail("format", "", err)
	}
	ballot := FounderBallot(founder.Host)
	record, err := EncodeRecord(Record{
		Repository: h.Repository, Disk: h.Disk(), Epoch: h.Epoch, Host: uint32(founder.Host), Chosen: true,
		Writer: founder.Node, Incarnation: founder.Incarnation, Boot: founder.Boot, Sequence: 1,
		Promised: ballot, Accepted: ballot, Generation: 1, Length: uint32(len(doc)), Payload: sha256.Sum256(doc), Op: op,
	}, founder.Sign)
	if err != nil {
		return fail("format", "", err)
	}
	zero := make([]byte, BlockSize)
	slots := 2 * l.SlotSize
	steps := []struct {
		off  int64
		data []byte // nil: flush
	}{
		// Headers of before go first: with them, half of a format would be
		// taken for a damaged repository.
		{0, zero},
		{size - BlockSize, zero},
		{0, nil},
		{l.RecordOffset, make([]byte, l.recordsEnd()-l.RecordOffset)},
		{l.Payload(founder.Host, 0), make([]byte, slots)},
		{0, nil},
		{l.Payload(founder.Host, 0), padded(doc)},
		{l.Record(founder.Host, 0), record},
		{0, nil},
		{size - BlockSize, header},
		{0, nil},
		{0, header},
		{0, nil},
	}
	for _, s := range steps {
		if s.data == nil {
			err = d.Flush()
		} else {
			err = d.WriteAt(s.data, s.off)
		}
		if err != nil {
			return fail("format", h.Disk().String(), err)
		}
	}
	return nil
}

// FounderBallot is the ballot of generation 1, as [Format] writes it.
func FounderBallot(host int) Ballot { return Ballot(0).next(host) }

// padded is doc in whole blocks, the rest of the last one zero.
func padded(doc []byte) []byte {
	p := make([]byte, (len(doc)+BlockSize-1)/BlockSize*BlockSize)
	copy(p, doc)
	return p
}

package repository

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// A ValuePlace is where a value is kept that is written as a whole or not at
// all, as in a key of etcd. Its record has host slot, copy and payload slot 0,
// since there is one place only.
type ValuePlace struct {
	Repository UUID
	// Epoch of the repository, from 1. A value of another epoch is that of a place
	// where the repository was, or has gone to.
	Epoch uint64
	// Disk is the store that holds the value. What was restored or copied into
	// another one says so.
	Disk UUID
	// Limit is how long a document may be, in bytes.
	Limit int
}

// EncodeValue is one generation in one piece: the record, signed, and after it
// the document. What the place determines of the record is set here.
//
// ErrLimit: the document is empty, or longer than the place takes.
func EncodeValue(at ValuePlace, r Record, doc []byte, sign Sign) ([]byte, error) {
	if len(doc) == 0 || len(doc) > at.Limit {
		return nil, fmt.Errorf("%w: a document of %d bytes; 1 to %d", belfry.ErrLimit, len(doc), at.Limit)
	}
	r.Repository, r.Disk, r.Epoch, r.Host, r.Copy, r.Slot, r.Chosen = at.Repository, at.Disk, at.Epoch, 0, 0, 0, true
	r.Length, r.Payload = uint32(len(doc)), sha256.Sum256(doc)
	block, err := EncodeRecord(r, sign)
	if err != nil {
		return nil, err
	}
	return append(block, doc...), nil
}

// DecodeValue reads what [EncodeValue] writes. It checks bounds, magic, place,
// CRC, length and hash, and then signer and signature, because who counts may be
// said by this very document. The ballot of the snapshot is that which the record
// was written with. The document is a part of value.
//
// Damaged: nobody writes that. ErrUsage: of another repository. Moved: of a later
// epoch. ErrNotFound: of an earlier one. Regressed: valid, but written into another
// store, from which it was restored or copied.
func DecodeValue(at ValuePlace, value []byte, admit func(signer belfry.NodeID, candidate []byte) (Verify, error)) (Snapshot, error) {
	if len(value) <= BlockSize {
		return Snapshot{}, damaged(blockError("%d bytes; a record has %d", len(value), BlockSize))
	}
	block, doc := value[:BlockSize], value[BlockSize:]
	repository, disk, epoch := UUID(block[8:24]), UUID(block[24:40]), binary.LittleEndian.Uint64(block[40:48])
	if bytes.HasPrefix(block, []byte(recordMagic)) && crcFits(block) {
		switch {
		case repository != at.Repository:
			return Snapshot{}, fmt.Errorf("%w: of repository %s, not %s; name the place of that one", belfry.ErrUsage, repository, at.Repository)
		case epoch > at.Epoch:
			return Snapshot{}, Moved
		case epoch < at.Epoch:
			return Snapshot{}, fmt.Errorf("%w: what is there was left when the repository moved away, in epoch %d; it is in epoch %d now", belfry.ErrNotFound, epoch, at.Epoch)
		}
	}
	// The record names the disk that it lies on; which one it should be is judged
	// when everything else has shown that this is a value.
	r, err := decodeRecord(block, place{repository: at.Repository, disk: disk, epoch: at.Epoch, slotSize: int64(at.Limit)})
	if err != nil {
		return Snapshot{}, damaged(err)
	}
	switch {
	case r.Generation == 0 || !r.Chosen || r.Slot != 0:
		return Snapshot{}, damaged(blockError("record without a committed value"))
	case int(r.Length) != len(doc) || sha256.Sum256(doc) != r.Payload:
		return Snapshot{}, damaged(blockError("document does not fit its record"))
	}
	if err := vouched(&r, block, doc, admit); err != nil {
		return Snapshot{}, damaged(err)
	}
	if disk != at.Disk {
		return Snapshot{}, fmt.Errorf("written into store %s, found in %s: %w", disk, at.Disk, Regressed)
	}
	return Snapshot{Version: r.version(), Document: doc, Previous: r.Previous, Op: r.Op, Writer: r.Writer}, nil
}

// vouched wants a signature of one who counts: a member in the document that
// this node holds, or a node that only this very document lists.
func vouched(r *Record, block, doc []byte, admit func(belfry.NodeID, []byte) (Verify, error)) error {
	verify, err := admit(r.Writer, nil)
	if err != nil {
		verify, err = admit(r.Writer, doc)
	}
	if err != nil {
		return fmt.Errorf("signer %s: %w", r.Writer, err)
	}
	if !verified(block, verify) {
		return blockError("signature is not that of %s", r.Writer)
	}
	return nil
}

// damaged says what is wrong with a value, and that it was valid once.
func damaged(why error) error { return fmt.Errorf("%w (%w)", Damaged, why) }

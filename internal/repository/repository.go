// Package repository keeps the cluster's configuration on storage that all
// nodes reach: the format of the blocks, and the rules by which hosts that
// share nothing but the storage agree on one value after the other.
//
// It is pure: straight-line code over [Device], which has the deadlines. It
// has no clock: who must wait is told so by the error, and how long by
// [SettleTime] and [BackOff].
package repository

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"time"

	"github.com/belfry-ha/belfry"
)

// BlockSize is the unit of all reads and writes. It fits devices with sectors
// of 512 bytes, of 512 bytes emulated, and of 4096 bytes.
const BlockSize = 4096

// A Device is one block device or file. Offsets and lengths are multiples of
// [BlockSize]. Each call does all or returns an error, within a deadline of its
// own (2 s); the error of a write may be that of the next Flush or ReadAt. What
// was written counts as durable after Flush, not before.
type Device interface {
	ReadAt(p []byte, off int64) error
	WriteAt(p []byte, off int64) error
	Flush() error
	Size() int64 // bytes
}

// A Span is a part of a device, in whole blocks; both in bytes.
type Span struct {
	Off int64
	Len int
}

// A Gatherer is a Device that reads several spans at the same time, into memory
// of its own: look gets them in their order, when all of them are read, and must
// not keep the bytes.
type Gatherer interface {
	Gather(spans []Span, look func(i int, p []byte)) error
}

// gather is Gather of a device that may not have it.
func gather(d Device, spans []Span, look func(i int, p []byte)) error {
	if g, ok := d.(Gatherer); ok {
		return g.Gather(spans, look)
	}
	all := make([][]byte, len(spans))
	for i, s := range spans {
		all[i] = make([]byte, s.Len)
		if err := d.ReadAt(all[i], s.Off); err != nil {
			return err
		}
	}
	for i, p := range all {
		look(i, p)
	}
	return nil
}

// A Backend is where a cluster keeps its configuration: disks, or etcd.
type Backend interface {
	// Load is linearizable: it sees all that was acknowledged before it began.
	Load() (Snapshot, error)
	// Poll is the newest value known to be committed; cheap, may lag.
	Poll() (Snapshot, error)
	// CAS puts doc in the place of the value with base's generation and hash.
	// ErrConflict: another value is there. ErrUnknown: may have happened; the
	// same call again, with the same op, tells, and does it at most once.
	// ErrRestricted: nothing can be written now. ErrLimit: doc is too long.
	CAS(base Version, doc []byte, op OpID) (Version, error)
	// Hints wakes who polls, no more. It may be nil.
	Hints() <-chan Version
	Close() error
}

// A UUID names a repository or one of its disks.
type UUID [16]byte

// String is the UUID form of RFC 9562, in lower case.
func (u UUID) String() string { return belfry.ClusterID(u).String() }

// An OpID names one update. The same update tried again has the same OpID.
type OpID [16]byte

// A Digest is the SHA-256 of a document.
type Digest [32]byte

// String is the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// of tells whether it is the digest of a document.
func (d Digest) of(doc []byte) bool { return sha256.Sum256(doc) == d }

// A Ballot orders the attempts of hosts to write. Two hosts never have the
// same one: its low 16 bits are the host slot (etcd: it is the ModRevision).
type Ballot uint64

// next is a ballot of host above b.
func (b Ballot) next(host int) Ballot { return (b>>16+1)<<16 | Ballot(host) }

// A Version names one committed state. Generation and Digest are the value;
// Ballot is the attempt that wrote it last, and rises without the value.
type Version struct {
	Repository UUID
	Epoch      uint64
	Ballot     Ballot
	Generation uint64
	Digest     Digest
}

// Same tells whether two versions have the same value, whoever wrote it last.
func (v Version) Same(w Version) bool {
	return v.Repository == w.Repository && v.Generation == w.Generation && v.Digest == w.Digest
}

// Before orders versions by epoch, ballot, generation: never by generation
// alone, since two hosts may have written different values as the next one.
func (v Version) Before(w Version) bool {
	if v.Epoch != w.Epoch {
		return v.Epoch < w.Epoch
	}
	if v.Ballot != w.Ballot {
		return v.Ballot < w.Ballot
	}
	return v.Generation < w.Generation
}

// A Snapshot is one state of the repository. The document belongs to the
// caller.
type Snapshot struct {
	Version
	Document []byte
	Previous Digest        // of the generation before
	Op       OpID          // of the update that made the generation
	Writer   belfry.NodeID // who wrote it last
	// Newer is a greater value that is there and that no record says is
	// committed, as of a poll: its writer is about to say so, or has died before it
	// could. Zero: there is none.
	Newer Version
	// Away are the disks of the epoch that did not take part in a poll: all goes on
	// without them as long as a majority of the others does.
	Away []UUID
}

// SettleTime is how long a host writes nothing after its machine has started
// anew: a write of the dead kernel lands within this time or never.
const SettleTime = 30 * time.Second

// BackOff is how long to wait before attempt n (from 1) after [Preempted], so
// that one of the hosts that preempt each other gets through: a random 10 to
// 50 ms for each attempt, at most 1 s.
func BackOff(attempt int, rng *rand.Rand) time.Duration {
	step := 10*time.Millisecond + time.Duration(rng.Int64N(int64(40*time.Millisecond)+1))
	return min(time.Duration(max(attempt, 1))*step, time.Second)
}

package repository

import (
	"encoding/binary"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// NoticeSize is how many bytes a notice has.
const NoticeSize = 81

// A NoticeKind says what a notice is about.
type NoticeKind uint8

// The kinds. None of them has anything but identifiers (repository.md,
// invariant 5).
const (
	NoticeConfiguration NoticeKind = 1 // a generation was committed
	NoticeUnlock        NoticeKind = 2 // a generation was committed that unlocks a license
	NoticeHeld          NoticeKind = 3 // the sender has the generation in its local copy
)

// A Notice says that a generation exists. It is a wake-up: whoever gets one
// reads the storage, and believes nothing else (US8788465 claims 1 and 2).
type Notice struct {
	Kind       NoticeKind
	Cluster    belfry.ClusterID
	Repository UUID
	Epoch      uint64
	Generation uint64
	Digest     Digest
}

// Append writes the [NoticeSize] bytes of n: kind, cluster, repository, epoch,
// generation, SHA-256, numbers in little endian.
func (n Notice) Append(dst []byte) []byte {
	dst = append(dst, byte(n.Kind))
	dst = append(dst, n.Cluster[:]...)
	dst = append(dst, n.Repository[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, n.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, n.Generation)
	return append(dst, n.Digest[:]...)
}

// DecodeNotice is the inverse of Append. It wraps ErrUsage for another length,
// ErrUnsupported for a kind that this agent does not know.
func DecodeNotice(data []byte) (n Notice, err error) {
	if len(data) != NoticeSize {
		return n, fmt.Errorf("%w: notice of %d bytes; want %d", belfry.ErrUsage, len(data), NoticeSize)
	}
	n.Kind = NoticeKind(data[0])
	if n.Kind < NoticeConfiguration || n.Kind > NoticeHeld {
		return n, fmt.Errorf("%w: notice of kind %d; %d to %d", belfry.ErrUnsupported, n.Kind, NoticeConfiguration, NoticeHeld)
	}
	copy(n.Cluster[:], data[1:])
	copy(n.Repository[:], data[17:])
	n.Epoch = binary.LittleEndian.Uint64(data[33:])
	n.Generation = binary.LittleEndian.Uint64(data[41:])
	copy(n.Digest[:], data[49:])
	return n, nil
}

// version is what the notice names; its ballot is not known.
func (n Notice) version() Version {
	return Version{Repository: n.Repository, Epoch: n.Epoch, Generation: n.Generation, Digest: n.Digest}
}

// An Outcome is what became of a notice, or of a read.
type Outcome uint8

// The outcomes of notices, and at the end those of reads without one.
const (
	OutcomeForeign     Outcome = iota + 1 // of another cluster: no read
	OutcomeNotEnrolled                    // this node is no member: no read
	OutcomeHeld                           // a report: no read
	OutcomeOld                            // not newer than what is held: no read
	OutcomeNotFound                       // names a repository that a scan did not find
	OutcomeConfirmed                      // the read has what it says, or more
	OutcomeUnconfirmed                    // the read does not have what it says
	OutcomeUnread                         // the read failed
	OutcomeLimited                        // more waited for one read than are remembered
)

var outcomeNames = [...]string{
	OutcomeForeign: "foreign", OutcomeNotEnrolled: "not_enrolled", OutcomeHeld: "held", OutcomeOld: "old",
	OutcomeNotFound: "not_found", OutcomeConfirmed: "confirmed", OutcomeUnconfirmed: "unconfirmed",
	OutcomeUnread: "unread", OutcomeLimited: "limited",
}

// Outcomes are all of them.
func Outcomes() (all []Outcome) {
	for o := OutcomeForeign; int(o) < len(outcomeNames); o++ {
		all = append(all, o)
	}
	return all
}

// String is the word in metrics.
func (o Outcome) String() string { return outcomeNames[o] }

package event

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// Status is what `belfry registration list` shows: a copy that shares nothing
// with the machine.
type Status struct {
	Entries   []EntryStatus    // by class, then subject
	Interests []InterestStatus // of peers in this node's events, by name
	Wants     []WantStatus     // of this node in others' events, by class, then subject
}

// EntryStatus describes one entry.
type EntryStatus struct {
	Entry     EntryID
	Class     belfry.Class
	Subject   string
	Instance  string // empty: none
	State     belfry.EntryState
	Since     time.Time // of the state
	Sequence  uint64    // of the last occurrence; 0: none yet
	Held      Holder
	Consumers []ConsumerStatus
	// Pattern: not an entry but what may become entries; Subject is the pattern,
	// empty for all, and of the rest only Consumers has a meaning.
	Pattern bool
}

// Holder says on whose behalf an entry watches. It is derived, never stored:
// the watch belongs to the entry, so a change of holder touches nothing
// (US8756314; events.md 6).
type Holder uint8

// The holders.
const (
	HeldByLocal    Holder = iota // a consumer of this node
	HeldByListener               // only consumers of other nodes
)

// String is the word that listings use.
func (h Holder) String() string {
	if h == HeldByListener {
		return "listener"
	}
	return "local"
}

// ConsumerStatus is one registration of one consumer on an entry.
type ConsumerStatus struct {
	Kind         string // stream, handler, journal, remote
	Name         string
	Registration uint32
	Queued       int    // notifications
	Gaps         uint64 // gap records so far
	Observed     bool   // remote, while a local consumer holds the entry
}

// InterestStatus is what one peer wants of this node's events.
type InterestStatus struct {
	Node           belfry.NodeID
	Name           string
	Version        uint64
	Interests      int
	Live           bool // else parked
	Since          time.Time
	Unacknowledged int // batches
	Queued         int // notifications
}

// WantStatus is what cluster registrations of this node's own consumers ask of
// other nodes, and where it is in force.
type WantStatus struct {
	Number    uint32 // of the want, never used again
	Class     string // may be a pattern, as Subject
	Subject   string
	Consumers []ConsumerStatus // Kind, Name and Registration only
	Coverage  []Coverage       // of the other nodes, by NodeID
}

// Counters only grow. They feed the metrics of ecosystem.md 6.
type Counters struct {
	Posted      map[belfry.Class]uint64 // occurrences
	Coalesced   map[belfry.Class]uint64 // merged into a queued one
	Lost        map[belfry.GapReason]uint64
	Stale       uint64
	Unexplained uint64 // holes in a remote stream that nothing explains; must stay 0
}

package repository

import (
	"bytes"

	"github.com/belfry-ha/belfry"
)

// An EpochBallot orders the attempts to agree on an epoch: by round, then by node.
type EpochBallot struct {
	Round uint64
	Node  belfry.NodeID
}

// Before tells whether b is the smaller one.
func (b EpochBallot) Before(c EpochBallot) bool {
	return b.Round < c.Round || b.Round == c.Round && bytes.Compare(b.Node[:], c.Node[:]) < 0
}

// An EpochState is what a member has promised and accepted of the next epoch. It
// is durable before anything is sent that follows from it.
type EpochState struct {
	// Target is the epoch; zero: nothing was promised. A member that holds a lower
	// one reads and writes no disk of a lower one.
	Target             uint64
	Promised, Accepted EpochBallot
	Value              []byte // document that was accepted, or chosen
	Chosen             bool
}

// Fences tells whether nothing may be done any more in an epoch.
func (s *EpochState) Fences(epoch uint64) bool { return epoch < s.Target }

// A LetterKind says what a member tells another one about the next epoch.
type LetterKind uint8

// The kinds.
const (
	LetterAsk     LetterKind = iota + 1 // has your storage gone as well? It promises nothing.
	LetterStands                        // the answer
	LetterPrepare                       // promise the ballot
	LetterPromise                       // promised: with the newest document, and what was accepted before
	LetterAccept                        // accept the value
	LetterAccepted
	LetterRefuse // with why: what was promised, what is held, whether the storage is read
	LetterChosen // a majority has accepted the value
)

// A Letter is what one member tells another, authenticated as its own. It may be
// lost, late, or there twice.
type Letter struct {
	From, To belfry.NodeID
	Kind     LetterKind
	Target   uint64
	Ballot   EpochBallot
	Held     Version // of the sender
	Document []byte  // of Held, with a promise
	Accepted EpochBallot
	Value    []byte // accepted before, to be accepted, or chosen
	Lost     bool   // the sender reads no majority of the disks
	Seen     []UUID // disks that the sender finds
}

// A Standing is how this node stands. Held is what is on its own disk at this moment:
// who promises says what it holds, and takes over nothing of an earlier epoch from
// then on. So a driver tells it together with each letter, under the lock under
// which it writes the local copy.
type Standing struct {
	Held     Held
	Document []byte // of Held
	Lost     bool   // the storage was not read for long, by this node
	Seen     []UUID // disks that are found here
	Up       []belfry.NodeID
}

// A TakeoverMessage is a [Letter] or a [Standing].
type TakeoverMessage interface{ takeoverMessage() }

func (Letter) takeoverMessage()   {}
func (Standing) takeoverMessage() {}

// TakeoverOutput is what is to be done, in the order of the fields. If Keep fails,
// nothing else of it may be done, ever: the agent ends.
type TakeoverOutput struct {
	Keep     *EpochState // make it durable
	Letters  []Letter
	Complete []byte // bring this document to its disks ([TakeoverMove]), and look for them
	Look     bool   // a member is in a later epoch: look for its disks
}

package repository

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// A Mode is how one node stands to the repository.
type Mode uint8

// The modes. In all but Ready every change is refused; the rest of the agent
// goes on (repository.md, From message to member).
const (
	Blank      Mode = iota // no member: there is nothing to read
	Searching              // a member that has not found the repository yet since it started
	Ready                  // reads, and may change
	Restricted             // runs from its local copy
	Leaving                // the document does not list this node any more
)

var modeNames = [...]string{"blank", "searching", "ready", "restricted", "leaving"}

// Word is how a mode is told, with the reason that goes with it: a repository that is
// read and changed with fewer disks than there should be is degraded.
func (m Mode) Word(why error) string {
	if m == Ready && why != nil {
		return "degraded"
	}
	return m.String()
}

// String is the word in listings and events.
func (m Mode) String() string { return modeNames[m] }

// MachineConfig is what a machine must know of its node. The functions are pure.
type MachineConfig struct {
	Self    belfry.NodeID
	Cluster belfry.ClusterID
	// Held is the generation of the local copy. Zero: the node is no member.
	Held Held
	// Tunables judges that section; see [Document.Validate]. Nil: nobody does.
	Tunables func(map[string]string) error
}

// Held is a generation that this node has on its own disk.
type Held struct {
	Version
	Document Document
}

// A JobID names a job of one machine. Zero is none.
type JobID uint64

// A JobKind says what the driver is to do.
type JobKind uint8

// The kinds. Each ends with a [Done]; there is never more than one at a time.
const (
	JobScan JobKind = iota + 1 // look for the disks of Repository, and open them if it is the node's own
	JobPoll                    // [Backend.Poll]; a value with a digest of Named counts as well
	JobLoad                    // [Backend.Load]
	JobSwap                    // [Backend.CAS] of Document on Base, as Op
	JobKeep                    // write the local copy of Snapshot
	JobMove                    // complete the move that Held's document begins
)

// A Job is I/O that the driver does, off every loop, and answers.
type Job struct {
	ID         JobID
	Kind       JobKind
	Repository UUID
	Named      []Digest
	Base       Version
	Document   []byte
	Op         OpID
	Snapshot   Snapshot
}

// A Message is what a machine is told: [Noticed], [Done], [Propose], [Lead],
// [Clock], [Appeared], [Hint] or [Greeted].
type Message interface{ repositoryMessage() }

type (
	// Noticed is a notice that a member has sent, authenticated as its own.
	Noticed struct {
		From   belfry.NodeID
		Notice Notice
	}
	// Done is the end of a job. Err wraps the sentinel or [Fault] of the backend.
	Done struct {
		Job      JobID
		Snapshot Snapshot // of a poll, load, or move: with its document if it is the one that follows from the move
		Version  Version  // of a swap: what was committed, with ErrConflict what is there
		Err      error
	}
	// Propose asks for a generation. The answer is a [Result].
	Propose struct {
		ID       uint64
		Base     Version
		Document []byte // encoded; its generation is one after the base's
		Op       OpID
		Kind     NoticeKind // that members are told with; zero: NoticeConfiguration
	}
	// Lead says whether this node makes the changes that nobody asks for.
	Lead struct{ On bool }
	// Clock says how far the cluster's time is ahead of this node's.
	Clock struct{ Ahead time.Duration }
	// Appeared says that a block device or file may have come.
	Appeared struct{}
	// Hint says that a backend with a watch has something new.
	Hint struct{}
	// Greeted says that a member has come, and which generation it holds.
	Greeted struct {
		Node       belfry.NodeID
		Generation uint64
	}
)

func (Noticed) repositoryMessage()  {}
func (Done) repositoryMessage()     {}
func (Propose) repositoryMessage()  {}
func (Lead) repositoryMessage()     {}
func (Clock) repositoryMessage()    {}
func (Appeared) repositoryMessage() {}
func (Hint) repositoryMessage()     {}
func (Greeted) repositoryMessage()  {}

// Output is what a machine wants done, in the order of the fields.
type Output struct {
	Changes      []ModeChange
	Notices      []Send
	Jobs         []Job // one at most
	Assimilation *Assimilation
	Reports      []Report
	Results      []Result
	Rollback     *Confirmation // the deadline has passed and nobody confirmed: propose what was before
	Replace      *Replacement
}

type (
	// A Replacement is a disk that has been away for so long that a spare is to take
	// its place: propose the move.
	Replacement struct{ Disk UUID }
	// A ModeChange is repository.state. To is Ready and Why is not nil: it is
	// read and changed, with fewer disks than there should be.
	ModeChange struct {
		From, To Mode
		Was, Why error // of a mode in which changes are refused, or of fewer disks; nil: as it should be
	}
	// A Send is a notice to one member. It may be lost.
	Send struct {
		To     belfry.NodeID
		Notice Notice
	}
	// An Assimilation is a generation that is on this node's disk and comes into
	// force now, part by part.
	Assimilation struct {
		Held
		Writer  belfry.NodeID // who wrote it last
		Removed bool          // it does not list this node
		Unkept  error         // and could not be written here
		Losses  []Loss        // what this node held, and the members did not know when they took over
	}
	// A Report says that a member has a generation in its local copy.
	Report struct {
		Node       belfry.NodeID
		Generation uint64
	}
	// A Result is what a proposal came to.
	Result struct {
		ID      uint64
		Version Version // that is in force here; with ErrConflict what was there
		Err     error   // ErrConflict, ErrUnknown, ErrRestricted, ErrLimit, ErrUsage
	}
)

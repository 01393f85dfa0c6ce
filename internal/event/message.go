package event

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// The identifiers below count up from 1 within one life of a Machine and are
// never used twice.
type (
	// An EntryID names an event registration entry.
	EntryID uint64
	// A WatchID names what a producer was asked to watch.
	WatchID uint64
	// A ConsumerID names a consumer; the driver numbers them.
	ConsumerID uint64
	// A RequestID links a request to its Answer; the driver numbers them. Zero
	// wants no answer.
	RequestID uint64
)

// A Message is one input of the Machine. The set is sealed.
type Message interface{ message() }

// From producers. All messages of one entry come from one producer, in order.
type (
	// Found says that a subject matches a pattern watch. The machine makes or
	// joins an entry and answers with a Watch that names it.
	Found struct {
		Watch   WatchID
		Subject string
	}

	// Post says that something happened Repeat times (0 counts as 1) with the same payload.
	// Occurrence.Event is filled in by the machine but for Instance, which must
	// be the entry's present identifier.
	Post struct {
		Entry      EntryID
		Occurrence belfry.Occurrence
		Repeat     uint64
	}

	// Associate gives the entry its identifier: notification begins or resumes
	// (US8984119, the third message).
	Associate struct {
		Entry     EntryID
		Instance  string
		Exclusive bool // no other entry of the class may hold the same identifier
		// State is the present state of a state class; nil for others. It moves
		// no sequence number.
		State *belfry.Occurrence
	}

	// Invalidate takes the identifier away: notification is blocked until the
	// next Associate.
	Invalidate struct {
		Entry    EntryID
		Instance string
	}

	// End says that the event is gone, or never was (Err wraps ErrNoEvent,
	// ErrUnsupported or ErrPermission). Entry, or Watch of a pattern that the
	// producer can't serve; the other is zero.
	End struct {
		Entry EntryID
		Watch WatchID
		Err   error
	}

	// Sample is a present value of a value class. What crosses somebody's
	// threshold becomes an occurrence.
	Sample struct {
		Entry EntryID
		Time  time.Time
		Value float64
		Data  []byte
	}
)

// Send posts events of classes that users name (user.*), in order. They come
// together because one input for each would cost more than the rest of their way.
// The answer says what became of each.
type Send struct {
	Request RequestID
	Events  []Named // not looked at any more once there is an answer
	Room    []Sent  // for what the answer says; may be nil
}

// A Named event is addressed by name because whoever sends it does not know who
// listens.
type Named struct {
	Class   belfry.Class
	Subject string
	Time    time.Time
	Data    []byte
	Repeat  uint64 // 0 counts as 1
}

// Sent is what became of one of the events of a Send.
type Sent struct {
	Matched int   // registrations
	Err     error // wraps a sentinel
}

// ConsumerKind says who consumes.
type ConsumerKind uint8

// The kinds of consumer. Remote consumers are made by the machine itself.
const (
	ConsumerStream  ConsumerKind = iota // a stream of the API
	ConsumerHandler                     // a sink of this agent
	ConsumerJournal                     // the journal: its registration for "*" only looks on
)

// Limits bound one consumer; a zero field takes the default of events.md 4.
type Limits struct {
	Registrations int // 10,000
	Payload       int // bytes of queued data; 1 MiB
	Window        int // batches unacknowledged; 4
	// BatchNotifications and BatchBytes bound one batch; 1,024 and 256 KiB. A
	// consumer that wants one notification at a time sets the first to 1.
	BatchNotifications, BatchBytes int
	// OnePerEvent: batches of one notification, acknowledged singly, and of each
	// event at most one unacknowledged. Window is then how many events are worked
	// on at a time.
	OnePerEvent bool
	// Reuse: once a batch is acknowledged, and Ready has been said after it came, whoever
	// got it does not look at it any more. It is written over.
	Reuse bool
}

// From consumers.
type (
	// Open makes a consumer.
	Open struct {
		Consumer ConsumerID
		Kind     ConsumerKind
		Name     string // for listings: "pid 812 pgwatch"
		Limits   Limits
	}

	// Close ends it and all its registrations.
	Close struct{ Consumer ConsumerID }

	// Register adds a registration; the Answer comes when it is in force or
	// refused.
	Register struct {
		Request      RequestID
		Consumer     ConsumerID
		Number       uint32 // the consumer's own number, unique among its registrations
		Registration belfry.Registration
		LookOn       bool // for the journal: it counts as nobody's, and is not listed
	}

	// Unregister ends one registration.
	Unregister struct {
		Consumer ConsumerID
		Number   uint32
	}

	// Ready says that the consumer's sender is free: as soon as there is
	// something, exactly one Batch follows, and the next only after the next
	// Ready.
	Ready struct{ Consumer ConsumerID }

	// Ack says that all batches up to and with this number have arrived.
	Ack struct {
		Consumer ConsumerID
		Batch    uint64
	}

	// Lost says that the consumer's stream broke: it goes on coalescing within
	// its limits. The driver closes it when nobody came back in time.
	Lost struct{ Consumer ConsumerID }

	// Resume says that it is back and has all batches up to Batch; what it has
	// not is sent again under the old numbers.
	Resume struct {
		Consumer ConsumerID
		Batch    uint64
	}
)

// From peers (US8694625, US8756314).
type (
	// PeerUp says that frames can be exchanged with a node: a new stream is
	// open. The machine sends it the full set of interests.
	PeerUp struct {
		Node        belfry.NodeID
		Name        string
		Incarnation belfry.Incarnation
	}

	// PeerLost says that the stream broke. The remote consumer is parked.
	PeerLost struct{ Node belfry.NodeID }

	// PeerGone says that the node is down or left: its remote consumer goes
	// (R8) and its entries are no longer covered.
	PeerGone struct{ Node belfry.NodeID }

	// PeerRemoved says that the node is a member no more: it does not come back,
	// and no registration waits for it.
	PeerRemoved struct{ Node belfry.NodeID }

	// PeerReady says that the stream's sender is free for one more Batch.
	// Interests and acknowledgements do not wait for it.
	PeerReady struct{ Node belfry.NodeID }

	// PeerReceived is a frame that a node sent.
	PeerReceived struct {
		Node  belfry.NodeID
		Frame Frame
	}
)

// A Frame is what two event machines say to each other over a node-to-node
// stream. The set is sealed.
type Frame interface{ frame() }

type (
	// Interests is what a node wants of its peer's events: the whole set when
	// Full, else a difference to version Base.
	Interests struct {
		Version, Base uint64
		Full          bool
		Add           []Interest
		Remove        []uint32 // numbers
	}

	// InterestsAck answers Interests. Full asks for the full set because Base
	// is not what this node holds.
	InterestsAck struct {
		Version uint64
		Full    bool
		Refused []InterestRefused
		Placed  []Placed
	}

	// Positions is sent before the full Interests to an incarnation seen before:
	// what has already arrived of each entry, so that nothing comes twice or is
	// lost. It must come first, or something could be sent in between.
	Positions struct {
		Incarnation belfry.Incarnation
		Positions   []Position
	}

	// PeerBatch carries notifications of entries whose origin is the sender.
	// They are never forwarded again.
	PeerBatch struct{ Batch Batch }

	// PeerAck acknowledges all batches up to and with this number.
	PeerAck struct{ Batch uint64 }
)

type (
	// An Interest is one deduplicated wish of a node. Filters stay at the
	// consumer's node. Detailed: they look at the data or the value, so that
	// occurrences that differ in it come by themselves.
	Interest struct {
		Number             uint32
		Class, Subject     string
		Threshold          belfry.Threshold
		OnlyWhereMonitored bool
		Snapshot           bool
		Detailed           bool
	}

	// InterestRefused says why an interest is not in force.
	InterestRefused struct {
		Number uint32
		Err    error
	}

	// Placed says where the notifications of an entry begin that an interest is
	// on from now: where the node had stopped before it went.
	Placed struct {
		Entry EntryID
		From  uint64 // the number before the first one
		// Until is the last number of what happened before the node's present life
		// asked; From: nothing is.
		Until  uint64
		Lapsed bool // nobody watched while the node was away
	}

	// Position is the last sequence number that arrived of an entry.
	Position struct {
		Entry EntryID
		Last  uint64
	}
)

// Output is what the driver has to do. Slices are given away.
type Output struct {
	Watch   []Watch      // begin or change, in order
	Unwatch []Unwatch    // end
	Batches []Batch      // to local consumers
	Peers   []PeerFrame  // to other nodes
	Answers []Answer     // to Register and Send
	Refused []Refused    // inputs that were refused and counted
	Closed  []ConsumerID // closed by the machine: every registration has ended
}

type (
	// A Watch asks the producer of Class. The same ID again changes it.
	Watch struct {
		ID      WatchID
		Class   belfry.Class
		Subject string
		// Entry is the entry to post to. Zero: Subject is a pattern, to be answered with
		// Found for each subject there is and comes to be.
		Entry EntryID
		// Wait: when nothing of that name is there, keep looking; else End with ErrNoEvent.
		Wait bool
		// Threshold is the lowest Hi, the highest Lo and the greatest Hysteresis of
		// all registrations: how closely to sample, and until when. A value below Hi
		// by Hysteresis is past nobody's upper threshold. Value classes only.
		Threshold belfry.Threshold
	}

	// Unwatch ends a Watch.
	Unwatch struct {
		ID    WatchID
		Class belfry.Class
	}

	// A Batch is what one consumer's queue held when its sender was free.
	Batch struct {
		Consumer      ConsumerID // zero in a PeerBatch
		Number        uint64     // from 1
		Notifications []belfry.Notification
		// Drained: nothing else was queued for the consumer when it was made.
		Drained bool
	}

	// PeerFrame is a frame for one node.
	PeerFrame struct {
		Node  belfry.NodeID
		Frame Frame
	}

	// An Answer is the outcome of a request.
	Answer struct {
		Request  RequestID
		Consumer ConsumerID // of Register
		Number   uint32     // of Register
		Sent     []Sent     // of Send: one for each event
		Coverage []Coverage // of Register with scope cluster
		Err      error      // wraps a sentinel
	}

	// Coverage is the state of a cluster registration at one node.
	Coverage struct {
		Node  belfry.NodeID
		State CoverageState
		Since time.Time // of the state; zero: this node itself, or one never heard of
		Err   error     // of CoverageRefused
	}

	// Refused is an input that had no effect. Err wraps the sentinel.
	Refused struct {
		Entry EntryID
		Node  belfry.NodeID
		Err   error
	}
)

// CoverageState says whether a node's events reach a registration. A
// notification of KindCoverage has it as its Code.
type CoverageState uint8

// The states of coverage.
const (
	CoveragePending CoverageState = iota
	CoverageInstalled
	CoverageRefused
	CoverageUnreachable
)

func (Found) message()        {}
func (Post) message()         {}
func (Associate) message()    {}
func (Invalidate) message()   {}
func (End) message()          {}
func (Sample) message()       {}
func (Send) message()         {}
func (Open) message()         {}
func (Close) message()        {}
func (Register) message()     {}
func (Unregister) message()   {}
func (Ready) message()        {}
func (Ack) message()          {}
func (Lost) message()         {}
func (Resume) message()       {}
func (PeerUp) message()       {}
func (PeerLost) message()     {}
func (PeerGone) message()     {}
func (PeerRemoved) message()  {}
func (PeerReady) message()    {}
func (PeerReceived) message() {}

func (Interests) frame()    {}
func (InterestsAck) frame() {}
func (Positions) frame()    {}
func (PeerBatch) frame()    {}
func (PeerAck) frame()      {}

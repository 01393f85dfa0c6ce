package cluster

import (
	"net/netip"
	"time"

	"github.com/belfry-ha/belfry"
)

// A LinkID names one link of a watched pair, as this node counts them.
type LinkID struct {
	Peer  belfry.NodeID
	Index uint8 // 0 to 15
}

// A Message is an input of the machine: one of the types below that have the
// method, and no others.
type Message interface{ message() }

// A Datagram has been opened and is authentic.
type Datagram struct {
	From        belfry.NodeID
	Incarnation belfry.Incarnation
	Boot        belfry.Boot // of the sender
	Link        uint8       // index of the link it came on
	At          time.Time   // kernel receive time; zero: now
	Proven      bool        // bound to this node's present boot, so no recording from before it
	Body        Body
}

// StreamEvent is what happened to the stream of a pair.
type StreamEvent uint8

// The stream events.
const (
	StreamUp       StreamEvent = iota // the handshake is done
	StreamReset                       // it ended and nobody had said goodbye
	GoodbyeLeave                      // the peer leaves the cluster
	GoodbyeRestart                    // the peer is about to start again
	GoodbyeRekey                      // the peer dials again with a new certificate: no evidence
)

// A Stream tells what happened to the stream of a pair.
type Stream struct {
	Peer        belfry.NodeID
	Incarnation belfry.Incarnation // whose process held the other end; 0: not known
	Event       StreamEvent
}

// DialResult is how the attempt to reach a peer's stream port ended.
type DialResult uint8

// The dial results.
const (
	DialAccepted DialResult = iota // its kernel lives and something listens
	DialRefused                    // its kernel lives, its process is gone
	DialTimeout                    // nothing came back: proves nothing
	DialAnswered                   // its agent proved who it is, by TLS; comes after DialAccepted, if at all
)

// Dialed answers a Dial of Output.
type Dialed struct {
	Peer   belfry.NodeID
	Link   uint8
	Result DialResult
}

// Refused is an ICMP port unreachable on the connected socket of a link.
type Refused struct {
	Peer belfry.NodeID
	Link uint8
}

// Members is the member table, this node included. A table of a lower
// generation than the last is ignored.
type Members struct{ Table *Table }

// A Link is one way from this node to a member.
type Link struct {
	Index         uint8  // 0 to 15, unique within the pair
	Network       string // for people, and to group links of one interface
	Local, Remote netip.AddrPort
}

// Settings are new tunables; they hold from now on. They must be valid.
type Settings struct{ Tunables }

// Suspended says that the boot clock ran ahead of the monotonic clock: the
// machine as a whole was asleep for D.
type Suspended struct{ D time.Duration }

// Dropped says that this node's own socket overflowed N times.
type Dropped struct{ N uint64 }

// Interests are the peers that programs of this node have registered links of:
// the whole set. Those that are no neighbours are watched besides, at most 16.
type Interests struct{ Peers []belfry.NodeID }

// Unreachable says that the kernel found no way to a peer on one link.
type Unreachable struct {
	Peer belfry.NodeID
	Link uint8
}

// Congested says that this node's own kernel dropped N datagrams that it was
// to send: what is not answered may not have been asked.
type Congested struct{ N uint64 }

func (Datagram) message() {}
func (Stream) message()   {}
func (Dialed) message()   {}
func (Refused) message()  {}
func (Members) message()  {}
func (Settings) message() {}

func (Interface) message()   {}
func (Interests) message()   {}
func (Unreachable) message() {}
func (Congested) message()   {}
func (Suspended) message()   {}
func (Dropped) message()     {}

// A Body is what a datagram carries: *Heartbeat, *RelayAsk, *RelayResult,
// *Claims or *View. The structs are field by field those of package wire, so that a
// pointer to one converts to a pointer to the other.
type Body interface{ body() }

// A Heartbeat is sent on every link of a watched pair. Probes and answers are
// heartbeats with a flag. Layout and ranges: cluster.md 3.
type Heartbeat struct {
	Echo, Probe, Answer bool
	Wanted              bool             // the sender watches the receiver because somebody asked it to
	Link                uint8            // sender's link index
	LinkState           belfry.LinkState // sender's state of this link
	Seq                 uint16           // of (pair, link), 1 to 65,535; 0 on unwatched pairs
	SentAt              uint32           // sender's clock, 4 µs units, 24 bits
	Announced           time.Duration    // until the sender's next heartbeat on this link; ms steps
	Loss                uint8            // loss the sender measures inbound, 1/255
	EchoOf              uint32           // newest send clock received on this link; only with Echo
	Hold                time.Duration    // from that arrival to this send; only with Echo
	View                uint32           // view hash, 24 bits
	Health              uint8            // sender's health score, 0 to 8
	Pause               uint8            // its longest own pause, 0.7 s steps rounded up, 0 to 15
	Fresh               belfry.Freshness
	Claims              []belfry.Claim
	ExactPause          time.Duration // its newest own pause, once per link; zero: none

	Others    [belfry.MaxLinks - 1]belfry.LinkView // what it holds of the other links of the pair
	NumOthers uint8                                // of them that count

	OneWays []belfry.OneWay // links that work in one direction, of the sender's and by its peers' own word
}

// A RelayAsk asks a co-watcher to probe the subject by itself.
type RelayAsk struct {
	Link      uint8
	LinkState belfry.LinkState
	Seq       uint16
	Subject   belfry.NodeNumber
	Burst     uint16 // the asker's number of its burst
}

// A RelayResult answers a RelayAsk, once per round. Counts are cumulative, so
// that a lost one costs a round and no evidence.
type RelayResult struct {
	Link             uint8
	LinkState        belfry.LinkState
	Seq              uint16
	Subject          belfry.NodeNumber
	Burst            uint16
	Unanswered, Loss uint8
	HeardAgo         time.Duration // since the subject was heard; ms steps
	KernelAnswers    bool          // the subject's stream port accepts connections
}

// Claims carries verdicts.
type Claims struct {
	Link      uint8
	LinkState belfry.LinkState
	Seq       uint16
	Claims    []belfry.Claim
}

// A View is the hash of the claims held in each bucket of 64 node numbers; who
// receives it sends its claims in those that differ.
type View struct {
	Link      uint8
	LinkState belfry.LinkState
	Seq       uint16
	First     uint16   // bucket of the first hash
	Buckets   []uint32 // 24 bits each
}

func (*Heartbeat) body()   {}
func (*RelayAsk) body()    {}
func (*RelayResult) body() {}
func (*Claims) body()      {}
func (*View) body()        {}

// Output is what the driver has to do, in this order.
type Output struct {
	Send    []Send
	Dial    []Dial
	Changes []Change
	Pauses  []Pause // to keep for the next start (Config.Pauses); one per node
}

// A Pause is the longest one that a node survived, by what it said and by what
// others saw. It is worth keeping over a restart of this agent: the node would
// be declared down in its next one.
type Pause struct {
	Node belfry.NodeID
	D    time.Duration
	At   time.Time // when it was seen; what exceeds 2 s halves each day from then
}

// Send is one datagram to seal and send.
type Send struct {
	To   belfry.NodeID
	Link uint8
	Body Body
}

// Dial asks the driver to try the peer's stream port and to report Dialed.
type Dial struct {
	Peer belfry.NodeID
	Link uint8
}

// A Change is one of the types below that have the method.
type Change interface{ change() }

// A NodeChange is a new verdict. Down is told when it is posted, which
// Tunables.NodeDownDelay can put off.
type NodeChange struct {
	Node        belfry.NodeID
	Name        string
	From, To    belfry.Verdict
	Cause       belfry.Cause
	Incarnation belfry.Incarnation // the one the verdict is about
	Turn        uint16
	Observers   int
	Since       time.Time // when the silence began, or when the proof of life came
	At          time.Time // when the verdict fell here
	View        uint64    // number of the change of the cluster: nodes that fail together share one
	Evidence    []belfry.Evidence
}

// A LinkChange is a new state of one of this node's own link rows.
type LinkChange struct {
	Peer     belfry.NodeID
	Index    uint8
	Network  string
	From, To belfry.LinkState
	Reason   string
	At       time.Time
	Version  uint64 // of the link database

	Rx        bool          // the peer is heard
	Loss      uint8         // over the newest 64 numbers, 1/255; all, while nothing is heard
	Known     bool          // MRT and D come from samples
	MRT, D    time.Duration // mean round trip and its deviation
	Jitter    time.Duration
	PeerState belfry.LinkState // what the peer held of the link last
}

// LinkFailed says that a link that flaps, and worked, works no longer. It is no
// new state: those who are told of states are spared the flapping.
type LinkFailed struct {
	Peer    belfry.NodeID
	Index   uint8
	Network string
	At      time.Time
}

// A ContactChange says that the first link to a peer works, or that the last
// one does so no longer. It is not a verdict: others may hear the peer.
type ContactChange struct {
	Peer                belfry.NodeID
	Name                string
	First               bool // nothing was known of it before
	Up                  bool
	Reason              string // of the link that made the difference
	LinksUp, LinksTotal int
	At                  time.Time
}

// Restarted says that a newer incarnation of a known node is running.
type Restarted struct {
	Node        belfry.NodeID
	Name        string
	Incarnation belfry.Incarnation
	At          time.Time
}

// WasDown says that others held this node to be gone while it ran: it was
// paused, or cut off.
type WasDown struct {
	Verdict     belfry.Verdict // down or left
	Cause       belfry.Cause
	Incarnation belfry.Incarnation // of this start
	By          belfry.NodeID      // who told
	Since       time.Time          // when the silence began, by the claim
	At          time.Time
}

// Isolated says that this node misses most of its peers at once and reaches
// nobody else: the fault is its own, as far as it can tell (On), or no longer.
type Isolated struct {
	On    bool
	Since time.Time // when the first of the peers fell silent
	At    time.Time
}

// NonTransitive says that pairs of nodes do not reach each other although both
// are up: a partition that is none. Nobody is to be blamed for it.
type NonTransitive struct {
	Pairs     [][2]belfry.NodeID // in order of the ids, each pair and all; empty: healed
	Connected []belfry.NodeID    // the largest set of which all reach each other; in a full mesh only
	At        time.Time
}

func (NodeChange) change()    {}
func (LinkChange) change()    {}
func (LinkFailed) change()    {}
func (ContactChange) change() {}
func (Restarted) change()     {}
func (WasDown) change()       {}
func (Isolated) change()      {}
func (NonTransitive) change() {}

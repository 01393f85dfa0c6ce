package wire

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// A Body is what a datagram carries: *Heartbeat, *RelayAsk, *RelayResult,
// *Claims, *Notice or *View. Package cluster declares the same structs, field by
// field, so that a pointer to one converts to a pointer to the other.
//
// Durations are cut to the steps of their field: announced times and pauses
// are rounded up (a deadline is never earlier than meant, a pause never
// shorter than it was), ages and holds down. What is out of range in either
// direction takes the nearest value in it.
type Body interface{ body() }

// A Heartbeat is sent on every link of a watched pair. Probes and answers are
// heartbeats with a flag: one codec, and an answer is never larger than its
// probe (cluster.md 3).
type Heartbeat struct {
	Echo, Probe, Answer bool
	Wanted              bool             // the sender watches the receiver because somebody asked it to
	Link                uint8            // sender's link index, 0 to 15
	LinkState           belfry.LinkState // sender's state of this link
	Seq                 uint16           // of (pair, link); 0 on unwatched pairs
	SentAt              uint32           // sender's clock, 4 µs units, 24 bits
	Announced           time.Duration    // until the sender's next heartbeat on this link; 0 to 65.535 s, ms steps
	Loss                uint8            // loss the sender measures inbound, 1/255
	EchoOf              uint32           // newest send clock received, 24 bits; only with Echo
	Hold                time.Duration    // from that arrival to this send, 4 µs steps; over 60 s there is no Echo
	View                uint32           // view hash, 24 bits
	Health              uint8            // sender's health score, 0 to 8
	Pause               uint8            // its longest own pause, 0.7 s steps rounded up, 0 to 15
	Fresh               belfry.Freshness // one third node; Subject 0: nothing to say
	Claims              []belfry.Claim   // section 1; at most MaxHeartbeatClaims
	ExactPause          time.Duration    // section 2, ms steps; zero: none

	Others    [belfry.MaxLinks - 1]belfry.LinkView // section 3: the other links of the pair
	NumOthers uint8                                // of them that count

	OneWays []belfry.OneWay // section 4: links that work in one direction; at most MaxOneWays
}

// A RelayAsk asks a co-watcher to probe the subject by itself (cluster.md 6).
type RelayAsk struct {
	Link      uint8
	LinkState belfry.LinkState
	Seq       uint16
	Subject   belfry.NodeNumber
	Burst     uint16 // the asker's number of its burst
}

// A RelayResult answers a RelayAsk, once per round. Its count is cumulative,
// so that a lost one costs a round and no evidence (cluster.md 6).
type RelayResult struct {
	Link             uint8
	LinkState        belfry.LinkState
	Seq              uint16
	Subject          belfry.NodeNumber
	Burst            uint16
	Unanswered, Loss uint8         // probes unanswered so far; the loss they were judged with, 1/255
	HeardAgo         time.Duration // since the co-watcher heard the subject; 0 to 65.535 s, ms steps
	KernelAnswers    bool          // the subject's kernel accepts or refuses connections
}

// Claims carries verdicts outside of heartbeats; 1 to MaxClaims of them
// (cluster.md 8).
type Claims struct {
	Link      uint8
	LinkState belfry.LinkState
	Seq       uint16
	Claims    []belfry.Claim
}

// A Notice carries identifiers of the repository or of a license. Its bytes
// mean nothing here; 1 to MaxNotice of them.
type Notice struct {
	Link      uint8
	LinkState belfry.LinkState
	Seq       uint16
	Data      []byte
}

// A View is the hash of the claims that are held in each bucket of 64 node
// numbers, 1 to MaxBuckets of them; it asks for the claims in those that differ.
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
func (*Notice) body()      {}
func (*View) body()        {}

// The most that fits.
const (
	MaxHeartbeatClaims = 255 / claimSize           // a section has one byte of length
	MaxOneWays         = 255 / oneWaySize          // the same; 31
	MaxClaims          = (maxBody - 5) / claimSize // one datagram; 82
	MaxNotice          = maxBody - commonSize      // bytes; 1,160
	MaxBuckets         = (maxBody - 6) / 3         // one datagram; 386
	maxBody            = MaxSize - longSize - tagSize
)

// The first three bits of a body.
const (
	kindHeartbeat   = 1
	kindRelayAsk    = 2
	kindRelayResult = 3
	kindClaims      = 4
	kindNotice      = 5
	kindView        = 6
)

// The flags beside the kind.
const (
	flagEcho   = 1 << 3
	flagProbe  = 1 << 4
	flagAnswer = 1 << 5
	flagMore   = 1 << 6
	flagWanted = 1 << 7
)

// Sections behind a heartbeat: type, length, bytes. Others are skipped.
const (
	sectionClaims  = 1
	sectionPause   = 2
	sectionLinks   = 3
	sectionOneWays = 4
)

// Sizes in bytes.
const (
	commonSize      = 4 // kind, flags, link, state, sequence number
	heartbeatSize   = 24
	relayAskSize    = 8
	relayResultSize = 13
	claimSize       = 14
	linkViewSize    = 2 // link and state, loss
	oneWaySize      = 8 // hearer, heard, links, age
)

// Steps and limits of the fields of time.
const (
	clockUnit = 4 * time.Microsecond
	ageUnit   = 10 * time.Millisecond
	maxHold   = 60 * time.Second // the 24-bit clock comes round after 67 s

	max12 = 1<<12 - 1
	max16 = 1<<16 - 1
	max24 = 1<<24 - 1
	max32 = 1<<32 - 1
)

package event

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/numbered"
)

// The defaults of events.md 4.
const (
	defaultRuns          = 16
	defaultRegistrations = 1_000_000
	defaultLimit         = 256    // notifications in a private queue
	maxLimit             = 65_536 // the most a registration may ask for
	maxHeld              = 64     // runs held while an entry is blocked
	maxData              = 4096   // bytes of data of one occurrence
	maxSubject           = 4096   // bytes
	maxInterests         = 100_000
	maxPositions         = 1_000_000
	maxAsked             = 1 << 20 // bytes of all interests in other nodes, about: one frame has them all
	interestBytes        = 48      // of one on the wire without its texts, at most
	positionChunk        = 40_000  // in one frame
	placedChunk          = 20_000  // in one frame
	refusedChunk         = 1_000   // in one frame
	maxFound             = 65_536  // entries that patterns or sends have made
	maxTallies           = 1024    // classes outside the catalogue that are counted by name
	maxRepeat            = 1_000_000_000
	maxRefused           = 64 // refusals reported in one Output; the rest is only counted
)

// A Machine holds the entries, registrations and queues of one node.
type Machine struct {
	cfg     Config
	rng     *rand.Rand // nothing here is random yet; the one shape asks for it
	classes classTable
	self    *origin
	out     Output

	entries   numbered.Table[*entry]
	nothing   elaborate // of all plain registrations; never written
	never     seldom    // of most entries; never written
	common    *order    // of the plain registration that shared none; others may be alike
	index     index
	last      *entry // of the previous Post: producers post in bursts
	nextEntry EntryID
	made      []*entry // by patterns and sends, oldest first, for eviction
	found     int      // how many of made are alive

	watches   map[WatchID]watched
	nextWatch WatchID
	patterns  map[key]*pattern
	exclusive map[exclusiveKey]*entry

	consumers     map[ConsumerID]*consumer
	registrations int
	globs         []*registration // local ones that may match several entries, oldest first
	wake          []*consumer     // have something and a free sender
	late          [3]lateAnswers  // held back, by reason
	alarms        alarms          // what rules about time hold back

	peers   []*peer                           // by NodeID
	former  map[belfry.NodeID]map[key]*Former // what of it has not been heard of again
	wanted  wanted
	cluster clusterIndex

	counters Counters
	tallies  map[belfry.Class]*tally
	foreign  int                   // of tallies: classes outside the catalogue
	slots    []belfry.Notification // unused
	spares   [][]belfry.Notification
	spared   int // how many there is room for in spares
	written  written
}

// otherClasses is the catalogue's name for all classes that users make up.
const otherClasses belfry.Class = "user.*"

// key names an event of this node, or a pattern.
type key struct {
	class   belfry.Class
	subject string
}

// watched is what a WatchID stands for: exactly one is set.
type watched struct {
	entry   *entry
	pattern *pattern
}

// A tally counts what happens too often for a map. One per class, but users
// and peers make up classes: beyond maxTallies of them, all others share one.
type tally struct{ posted, coalesced uint64 }

func (m *Machine) tallyOf(class belfry.Class) *tally {
	t := m.tallies[class]
	if info := m.classes.find(class); t == nil && (info == nil || info.Custom) && class != otherClasses {
		if m.foreign >= maxTallies {
			return m.tallyOf(otherClasses)
		}
		m.foreign++
	}
	if t == nil {
		t = &tally{}
		m.tallies[class] = t
	}
	return t
}

// New makes a Machine. It does nothing until it receives a message.
func New(cfg Config, _ time.Time, rng *rand.Rand) *Machine {
	if cfg.Runs == 0 {
		cfg.Runs = defaultRuns
	}
	cfg.Runs = min(max(cfg.Runs, 2), 256)
	if cfg.Registrations == 0 {
		cfg.Registrations = defaultRegistrations
	}
	return &Machine{
		cfg:       cfg,
		rng:       rng,
		classes:   newClassTable(cfg.Classes),
		self:      &origin{node: cfg.Node, name: cfg.Name, incarnation: cfg.Incarnation},
		index:     index{classes: map[belfry.Class]*classEntries{}},
		watches:   map[WatchID]watched{},
		patterns:  map[key]*pattern{},
		exclusive: map[exclusiveKey]*entry{},
		consumers: map[ConsumerID]*consumer{},
		late:      newLateAnswers(),
		former:    formerOf(cfg.Former),
		wanted:    newWanted(),
		cluster:   newClusterIndex(),
		counters: Counters{
			Lost: map[belfry.GapReason]uint64{},
		},
		tallies: map[belfry.Class]*tally{},
	}
}

// Receive takes one input. Refusals are values in Output.
func (m *Machine) Receive(now time.Time, msg Message) {
	switch msg := msg.(type) {
	case Post:
		m.post(now, &msg)
	case *Post: // spares a driver in a hurry the allocation
		m.post(now, msg)
	case Sample:
		m.sample(now, &msg)
	case Found:
		m.foundSubject(now, msg)
	case Associate:
		m.associate(now, &msg)
	case Invalidate:
		m.invalidate(now, msg)
	case End:
		m.end(now, msg)
	case Send:
		m.send(now, msg)
	default:
		m.receiveConsumer(now, msg)
	}
}

func (m *Machine) receiveConsumer(now time.Time, msg Message) {
	switch msg := msg.(type) {
	case Open:
		m.open(msg)
	case Close:
		m.close(now, msg.Consumer)
	case Register:
		m.register(now, &msg)
	case Unregister:
		m.unregister(now, msg)
	case Ready:
		m.withConsumer(msg.Consumer, (*consumer).beReady)
	case Ack:
		m.withConsumer(msg.Consumer, func(c *consumer) { c.ack(msg.Batch) })
	case Lost:
		m.withConsumer(msg.Consumer, (*consumer).lose)
	case Resume:
		m.withConsumer(msg.Consumer, func(c *consumer) { c.resume(msg.Batch) })
	case PeerUp:
		m.peerUp(now, msg)
	case PeerLost:
		m.peerLost(now, msg.Node)
	case PeerGone:
		m.peerGone(now, msg.Node)
	case PeerRemoved:
		m.peerRemoved(now, msg.Node)
	case PeerReady:
		m.peerReady(msg.Node)
	case PeerReceived:
		m.peerReceived(now, msg)
	}
}

// Advance gives the answers whose time is over, and what was held back that long.
func (m *Machine) Advance(now time.Time) {
	m.answersDue(now)
	m.alarms.ring(now)
	m.comebacksDue(now)
}

// NextTimeout is the zero time when nothing is due, ever.
func (m *Machine) NextTimeout() (next time.Time) {
	next = m.alarms.next()
	if at := m.nextComeback(); !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	for i := range m.late {
		l := &m.late[i]
		if l.trim(); len(l.queue) > 0 && (next.IsZero() || l.queue[0].deadline.Before(next)) {
			next = l.queue[0].deadline
		}
	}
	return next
}

// Take returns what the driver has to do. The slices are given away.
func (m *Machine) Take() Output {
	m.flushInterests()
	if len(m.wake) > 0 {
		m.out.Batches = slices.Grow(m.out.Batches, len(m.wake))
	}
	for i := 0; i < len(m.wake); i++ { // closing a consumer may wake another
		m.wake[i].send()
	}
	clear(m.wake)
	m.wake = m.wake[:0]
	m.written.forget()
	o := m.out
	m.out = Output{}
	return o
}

func (m *Machine) refuse(e EntryID, n belfry.NodeID, err error) {
	if len(m.out.Refused) < maxRefused {
		m.out.Refused = append(m.out.Refused, Refused{Entry: e, Node: n, Err: err})
	}
}

func (m *Machine) withConsumer(id ConsumerID, do func(*consumer)) {
	if c := m.consumers[id]; c != nil {
		do(c)
		return
	}
	m.refuse(0, belfry.NodeID{}, refusal(belfry.ErrNotFound, "consumer %d is not open; open it first", id))
}

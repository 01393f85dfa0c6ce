package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// clusterID orders the ring; the same in all runs, so that who watches whom
// depends on the number of nodes only.
var clusterID = belfry.ClusterID{0: 0xbe, 15: 1}

// settings are the tunables that a scenario can set.
var settings = map[string]func(*cluster.Tunables, time.Duration){
	"allowance":       func(t *cluster.Tunables, d time.Duration) { t.Allowance, t.AllowanceCap = d, max(d, t.AllowanceCap) },
	"detect_target":   func(t *cluster.Tunables, d time.Duration) { t.DetectTarget = d },
	"interval_max":    func(t *cluster.Tunables, d time.Duration) { t.IntervalMax = d },
	"node_down_delay": func(t *cluster.Tunables, d time.Duration) { t.NodeDownDelay = d },
	"node_timeout":    func(t *cluster.Tunables, d time.Duration) { t.NodeTimeout = d },
	"restart_hold":    func(t *cluster.Tunables, d time.Duration) { t.RestartHold = d },
	"stall_max":       func(t *cluster.Tunables, d time.Duration) { t.StallMax = d },
}

// Options say how a scenario is played.
type Options struct {
	Seed uint64
	// Verdict is called for each verdict that a node posts, as it comes; may be
	// nil.
	Verdict func(Verdict)
	// Stop is asked now and then; its error ends the run. May be nil.
	Stop func() error
}

// A Verdict is what one node posted of another, or of itself.
type Verdict struct {
	Class      string        // of the event: node.state, or one without a verdict
	At         time.Duration // since the start
	Observer   int           // who posted it
	Subject    int
	From, To   belfry.Verdict
	Cause      belfry.Cause
	Since      time.Duration // when the silence began
	Determined time.Duration
	View       uint64 // number of the change at the observer
	Text       string // of changes that are no verdict: what happened
}

// A Failure is an expectation or an invariant that did not hold.
type Failure struct {
	At   time.Duration
	Node int    // where; -1: nowhere in particular
	Text string // what was wanted and what was seen
}

func (f Failure) String() string {
	if f.Node < 0 {
		return fmt.Sprintf("%.3fs %s", f.At.Seconds(), f.Text)
	}
	return fmt.Sprintf("%.3fs %s: %s", f.At.Seconds(), Name(f.Node), f.Text)
}

// A Result is what one run came to.
type Result struct {
	Scenario string
	Seed     uint64
	Hash     string // of all outputs: the same seed gives the same
	Events   uint64
	Verdicts []Verdict // in order of time
	Failures []Failure
	Packets  []uint64 // that each node sent
	Bytes    []uint64 // of IP, with heads and seals
	Forged   uint64   // datagrams of floods, none of which was opened
	Live     []bool   // whose process ran at the end
	Expects  []Outcome
}

// An Outcome is what became of one line that begins with expect.
type Outcome struct {
	Line int
	Text string // of the line, without that word
	Held bool
}

type simulation struct {
	scenario *Scenario
	seed     uint64
	network  *Conditions
	counter  Counter
	warm     bool

	start   time.Time
	now     int64
	order   uint64
	queue   queue
	hosts   []*host
	table   *cluster.Table
	members []cluster.Member // rows of the table; those that joined

	hash    hash.Hash
	scratch []byte
	result  Result
	options Options
	check   checker
}

// stopEvery is after how many events a run looks whether it shall stop.
const stopEvery = 4096

// Run plays a scenario with one seed. Its errors wrap ErrUsage, or are those of
// Options.Stop; what the scenario
// expects and does not come is in the result.
func Run(scenario *Scenario, options Options) (*Result, error) {
	if scenario.Nodes < 1 || scenario.Nodes > maxNodes || len(scenario.Networks) == 0 {
		return nil, fmt.Errorf("%w: %d nodes on %d networks; 1 to %d nodes, a network at least", belfry.ErrUsage, scenario.Nodes, len(scenario.Networks), maxNodes)
	}
	s := &simulation{
		scenario: scenario, seed: options.Seed, network: scenario.Conditions(options.Seed), warm: !scenario.Joins(),
		start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), hash: sha256.New(), options: options,
		result: Result{Scenario: scenario.Name, Seed: options.Seed},
	}
	s.setUp()
	end := int64(scenario.Run)
	for len(s.queue) > 0 && s.queue[0].at <= end {
		e := s.queue.pop()
		s.now = e.at
		s.result.Events++
		s.happen(e)
		if s.result.Events%stopEvery == 0 && options.Stop != nil {
			if err := options.Stop(); err != nil {
				return nil, err
			}
		}
	}
	s.now = end
	s.finish()
	return &s.result, nil
}

func nodeID(n int32) belfry.NodeID {
	var id belfry.NodeID
	binary.BigEndian.PutUint32(id[:], uint32(n+1))
	id[15] = 1
	return id
}

func (s *simulation) member(n int32) cluster.Member {
	m := cluster.Member{ID: nodeID(n), Number: belfry.NodeNumber(n + 1), Name: Name(int(n))}
	for i, network := range s.scenario.Networks {
		addr := netip.AddrFrom4([4]byte{10, byte(i), byte((n + 1) >> 8), byte(n + 1)})
		m.Addresses = append(m.Addresses, cluster.Address{Network: network, Addr: netip.AddrPortFrom(addr, 7431)})
	}
	if s.warm {
		m.Up = 1
	}
	return m
}

func (s *simulation) setUp() {
	for n := range int32(s.scenario.Nodes) {
		s.hosts = append(s.hosts, &host{n: n, id: nodeID(n)})
		if s.warm {
			s.members = append(s.members, s.member(n))
		}
	}
	s.table = cluster.NewTable(clusterID, 1, s.members)
	for i := range s.scenario.Steps {
		if st := &s.scenario.Steps[i]; !st.condition() {
			s.plan(event{at: int64(st.At), kind: eventStep, step: int32(i)})
		}
	}
	s.check.setUp(s)
	if s.warm {
		for _, h := range s.hosts {
			s.begin(h)
		}
	}
}

func (s *simulation) plan(e event) {
	s.order++
	e.order = s.order
	s.queue.push(e)
}

func (s *simulation) happen(e event) {
	if e.kind == eventStep {
		s.step(&s.scenario.Steps[e.step])
		return
	}
	if e.kind == eventPacket {
		s.arrive(e.packet)
		return
	}
	h := s.hosts[e.node]
	switch e.kind {
	case eventWake:
		if e.token == h.token && (h.state == stateRuns || h.state == stateDeaf) {
			s.drive(h)
		}
	case eventMessage:
		s.deliver(h, e.message)
	case eventBoot:
		if !h.alive() {
			s.begin(h)
		}
	case eventResume:
		if e.token == h.incarnation && h.state >= stateStopped && h.state <= stateHeld {
			s.resume(h)
		}
	case eventConnect:
		s.connect(h)
	case eventTable:
		s.deliver(h, cluster.Members{Table: s.table})
	case eventProbe:
		s.check.throw(s, h)
	}
}

// drive lets a machine do what is due and does what it says.
func (s *simulation) drive(h *host) {
	now := s.time(s.now)
	h.machine.Advance(now)
	out := h.machine.Take()
	for _, c := range out.Changes {
		s.changed(h, c)
	}
	for i := range out.Send {
		s.send(h, &out.Send[i])
	}
	for _, d := range out.Dial {
		s.dial(h, d)
	}
	next := h.machine.NextTimeout()
	if next.IsZero() {
		return
	}
	if h.spins++; next.After(now) {
		h.spins = 0
	}
	if h.spins > spinsMost {
		s.fail(int(h.n), fmt.Sprintf("asked to be woken at once %d times in a row", spinsMost))
		s.queue = nil // virtual time would never go on
		return
	}
	h.token++
	s.plan(event{at: max(s.now, int64(next.Sub(s.start))), kind: eventWake, node: h.n, token: h.token})
}

// spinsMost is how often a machine may have more to do at once: in an agent it
// would keep a processor busy.
const spinsMost = 1000

// trace takes one output into the hash.
func (s *simulation) trace(h *host, kind byte, what uint64, data []byte) {
	var head [25]byte
	binary.BigEndian.PutUint64(head[:], uint64(s.now))
	binary.BigEndian.PutUint64(head[8:], uint64(h.n))
	binary.BigEndian.PutUint64(head[16:], what)
	head[24] = kind
	s.hash.Write(head[:])
	s.hash.Write(data)
}

func (s *simulation) fail(node int, text string) {
	if len(s.result.Failures) < maxFailures {
		s.result.Failures = append(s.result.Failures, Failure{At: time.Duration(s.now), Node: node, Text: text})
	}
}

// maxFailures bounds what is kept of a run in which all goes wrong.
const maxFailures = 100

func (s *simulation) finish() {
	s.check.finish(s)
	for _, h := range s.hosts {
		s.result.Packets = append(s.result.Packets, h.packets)
		s.result.Bytes = append(s.result.Bytes, h.bytes)
		s.result.Live = append(s.result.Live, h.state == stateRuns)
	}
	s.result.Hash = fmt.Sprintf("%x", s.hash.Sum(nil)[:16])
}

// numberOf is the number of a node by its id, from 0.
func numberOf(id belfry.NodeID) int { return int(binary.BigEndian.Uint32(id[:4])) - 1 }

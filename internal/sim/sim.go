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
	"github.com/belfry-ha/belfry/internal/wire"
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

// toWire gives a body to the codec; a field that drifts does not compile.
func toWire(b cluster.Body) wire.Body {
	switch b := b.(type) {
	case *cluster.Heartbeat:
		return (*wire.Heartbeat)(b)
	case *cluster.RelayAsk:
		return (*wire.RelayAsk)(b)
	case *cluster.RelayResult:
		return (*wire.RelayResult)(b)
	case *cluster.Claims:
		return (*wire.Claims)(b)
	case *cluster.View:
		return (*wire.View)(b)
	}
	return nil
}

// Sizes of a sealed datagram beside its body: IP and UDP, head, seal.
const (
	ipHead, shortHead, longHead, sealTail = 28, 8, 24, 12
)

// send seals nothing, but counts the bytes as if: the body is encoded, and the
// head is the long one until the peer has shown this host's boot lately.
func (s *simulation) send(h *host, out *cluster.Send) {
	to := int32(binary.BigEndian.Uint32(out.To[:4])) - 1
	body, err := wire.AppendBody(s.scratch[:0], toWire(out.Body))
	if err != nil {
		s.fail(int(h.n), fmt.Sprintf("sends what has no form: %v", err))
		return
	}
	s.scratch = body
	known := s.session(h, to)
	size := len(body) + ipHead + shortHead + sealTail
	if known.boot == 0 || known.proven < 0 || s.now-known.proven > int64(provenFor) {
		size += longHead - shortHead
	}
	h.packets++
	h.bytes += uint64(size)
	if hb, ok := out.Body.(*cluster.Heartbeat); ok && !hb.Probe && !hb.Answer && h.machine.Neighbour(out.To) {
		s.check.beat(s, h)
	}
	s.trace(h, 's', uint64(to)<<8|uint64(out.Link), body)
	network := s.networkOf(out.Link)
	at := time.Duration(s.now)
	f := s.network.Fate(int(h.n), int(to), network, at, s.counter.Next(int(h.n), int(to), network, at))
	if f.Lost {
		return
	}
	p := &packet{
		from: h.n, to: to, link: out.Link, network: uint8(network),
		incarnation: h.incarnation, boot: h.boot, shown: known.boot, body: out.Body,
	}
	s.plan(event{at: s.now + int64(f.Delay), kind: eventPacket, packet: p})
	if f.Copy {
		s.plan(event{at: s.now + int64(f.CopyDelay), kind: eventPacket, packet: p})
	}
}

// networkOf is the network of a link: both ends are on all, in one order.
func (s *simulation) networkOf(link uint8) int { return int(link) % len(s.scenario.Networks) }

// arrive is what a packet does at its receiver's kernel, and then, opened, at
// its driver.
func (s *simulation) arrive(p *packet) {
	h := s.hosts[p.to]
	if !h.alive() {
		if h.state == stateExited && s.watched(p.from, p.to) {
			s.back(p, cluster.Refused{Peer: h.id, Link: p.link})
		}
		return
	}
	known := s.session(h, p.from)
	proven := p.shown == h.boot
	if p.incarnation >= known.incarnation {
		if proven {
			known.proven = s.now
		}
		known.boot, known.incarnation = p.boot, p.incarnation
		h.known[p.from] = known
	}
	s.deliver(h, cluster.Datagram{
		From: nodeID(p.from), Incarnation: belfry.Incarnation(p.incarnation), Boot: belfry.Boot(p.boot),
		Link: p.link, Proven: proven, Body: p.body,
	})
}

// watched tells whether a has a connected socket for b.
func (s *simulation) watched(a, b int32) bool {
	h := s.hosts[a]
	return h.machine != nil && h.machine.Watches(nodeID(b))
}

// back brings the kernel's word on a packet to its sender.
func (s *simulation) back(p *packet, m cluster.Message) {
	at := time.Duration(s.now)
	f := s.network.Fate(int(p.to), int(p.from), int(p.network), at, s.counter.Next(int(p.to), int(p.from), int(p.network), at))
	if !f.Lost {
		s.plan(event{at: s.now + int64(f.Delay), kind: eventMessage, node: p.from, message: m})
	}
}

// reaches tells whether a and b have a way to each other now. Streams and dials
// repeat what is lost, so only cuts stop them.
func (s *simulation) reaches(a, b, network int) bool {
	at := time.Duration(s.now)
	return !s.network.Cut(a, b, network, at) && !s.network.Cut(b, a, network, at)
}

func (s *simulation) reachesOnAny(a, b *host) bool {
	for network := range s.scenario.Networks {
		if s.reaches(int(a.n), int(b.n), network) {
			return true
		}
	}
	return false
}

// dial tries the stream port of a peer: its kernel accepts or refuses, or
// nothing comes back.
func (s *simulation) dial(h *host, d cluster.Dial) {
	to := int32(binary.BigEndian.Uint32(d.Peer[:4])) - 1
	peer, network := s.hosts[to], s.networkOf(d.Link)
	s.trace(h, 'd', uint64(to)<<8|uint64(d.Link), nil)
	result, after := cluster.DialTimeout, time.Second
	if peer.answers() && s.reaches(int(h.n), int(to), network) {
		at := time.Duration(s.now)
		n := s.counter.Next(int(h.n), int(to), network, at)
		after = s.network.Fate(int(h.n), int(to), network, at, n).Delay + s.network.Fate(int(to), int(h.n), network, at, n).Delay
		result = cluster.DialAccepted
		if peer.state == stateExited {
			result = cluster.DialRefused
		}
	}
	answer := cluster.Dialed{Peer: d.Peer, Link: d.Link, Result: result}
	s.plan(event{at: s.now + int64(after), kind: eventMessage, node: h.n, message: answer})
	if result == cluster.DialAccepted && peer.state == stateRuns { // TLS takes one more round trip
		answer.Result = cluster.DialAnswered
		s.plan(event{at: s.now + int64(2*after), kind: eventMessage, node: h.n, message: answer})
	}
}

// peersOf are the nodes that have a stream with h: those that watch each other.
func (s *simulation) peersOf(h *host) []*host {
	var peers []*host
	if h.machine == nil {
		return nil
	}
	for _, id := range h.machine.Watched() {
		n := int32(binary.BigEndian.Uint32(id[:4])) - 1
		if s.watched(n, h.n) {
			peers = append(peers, s.hosts[n])
		}
	}
	return peers
}

// connect opens the streams of h to those that it watches.
func (s *simulation) connect(h *host) {
	if h.state != stateRuns {
		return
	}
	for _, p := range s.peersOf(h) {
		if p.state == stateRuns && s.reachesOnAny(h, p) {
			s.deliver(p, cluster.Stream{Peer: h.id, Incarnation: belfry.Incarnation(h.incarnation), Event: cluster.StreamUp})
			s.deliver(h, cluster.Stream{Peer: p.id, Incarnation: belfry.Incarnation(p.incarnation), Event: cluster.StreamUp})
		}
	}
}

// Latency of the kernel between the end of a process and the end of its
// streams at the peer, as measured under load (cluster.md 7: median 1.3 ms).
const (
	resetLeast = 300 * time.Microsecond
	resetMean  = 1400 * time.Microsecond
)

// end ends the streams of h; its peers learn it, where their network lets them.
func (s *simulation) end(h *host, what cluster.StreamEvent) {
	for _, p := range s.peersOf(h) {
		if !s.reachesOnAny(h, p) {
			continue
		}
		delay := resetLeast + s.network.exponential(resetMean, chain(s.seed, 0xe4d, uint64(h.n), uint64(p.n), uint64(s.now)))
		s.plan(event{
			at: s.now + int64(delay), kind: eventMessage, node: p.n,
			message: cluster.Stream{Peer: h.id, Incarnation: belfry.Incarnation(h.incarnation), Event: what},
		})
	}
}

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

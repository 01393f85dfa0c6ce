package cluster

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A network plays several machines on virtual time: datagrams with delay, loss
// and cuts, streams that are reset, kernels that refuse. Same seed, same run.
type network struct {
	start, now time.Time
	order      uint64
	events     events
	hosts      []*host
	rng        *rand.Rand
	delay      time.Duration
	paths      map[string]*condition // "a>b"
	streams    map[string]bool       // "a b", sorted
	sent       int
	trace      func(h *host, c Change)
	keep       func(h *host, p Pause)
	watch      func(from *host, s Send)
	record     bool // every datagram, in digest
	digest     []string
	stopped    map[string]bool // by the configuration
	generation uint64
	cfg        func(*Config)
	networks   int // at least 1
	lateness   int // number of the newest command about it; older ones end
}

type condition struct {
	cut   bool
	loss  int // per cent
	delay time.Duration
}

type host struct {
	name        string
	number      belfry.NodeNumber
	incarnation belfry.Incarnation
	boot        belfry.Boot
	m           *Machine
	running     bool // a process exists
	dying       bool // it is killed, but its ports are still open
	frozen      bool // it is stopped: reads nothing
	dead        bool // the whole host
	seen        map[string]belfry.Boot
	inbox       []Message
	clock       hostClock
	wakeup      uint64
	stuck       int // times in a row that it wanted to be woken at once
}

// stuckMax is how often in a row a machine may want to be woken at once: one
// that always does would keep virtual time from passing.
const stuckMax = 1000

type event struct {
	at    time.Time
	order uint64
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if c := e[i].at.Compare(e[j].at); c != 0 {
		return c < 0
	}
	return e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newNetwork(seed uint64, names ...string) *network {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	n := &network{
		start: start, now: start, rng: rand.New(rand.NewPCG(seed, 1)), delay: 500 * time.Microsecond,
		paths: map[string]*condition{}, streams: map[string]bool{}, stopped: map[string]bool{},
		trace: func(*host, Change) {}, keep: func(*host, Pause) {}, watch: func(*host, Send) {}, cfg: func(*Config) {}, generation: 1, networks: 1,
	}
	for i, name := range names {
		n.hosts = append(n.hosts, &host{name: name, number: belfry.NodeNumber(i + 1)})
	}
	return n
}

func nodeID(number belfry.NodeNumber) belfry.NodeID {
	return belfry.NodeID{0: byte(number >> 8), 1: byte(number), 15: 1}
}

func (n *network) host(name string) *host {
	i := slices.IndexFunc(n.hosts, func(h *host) bool { return h.name == name })
	if i < 0 {
		panic("no host " + name)
	}
	return n.hosts[i]
}

func (n *network) byID(id belfry.NodeID) *host {
	return n.hosts[slices.IndexFunc(n.hosts, func(h *host) bool { return nodeID(h.number) == id })]
}

func (n *network) at(d time.Duration, do func()) {
	n.order++
	heap.Push(&n.events, event{n.now.Add(d), n.order, do})
}

func (n *network) run(d time.Duration) {
	end := n.now.Add(d)
	for len(n.events) > 0 && !n.events[0].at.After(end) {
		e := heap.Pop(&n.events).(event)
		n.now = e.at
		e.do()
	}
	n.now = end
}

// boot starts a new incarnation of h's agent.
func (n *network) boot(h *host) {
	h.incarnation++
	h.boot = belfry.Boot(n.rng.Uint32() | 1)
	h.running, h.frozen, h.dead, h.inbox = true, false, false, nil
	h.seen = map[string]belfry.Boot{}
	cfg := Default()
	cfg.Self, cfg.Number, cfg.Name, cfg.Incarnation = nodeID(h.number), h.number, h.name, h.incarnation
	n.cfg(&cfg)
	h.m = New(cfg, h.clock.at(n.now), rand.New(rand.NewPCG(n.rng.Uint64(), uint64(h.number))))
	n.deliver(h, n.members())
	for _, p := range n.hosts {
		if p != h {
			n.at(3*time.Millisecond, func() { n.connect(h, p) })
		}
	}
}

// members is the member table of the moment; all machines share it.
func (n *network) members() Members { return Members{Table: n.table(len(n.hosts))} }

// table is one of the first few hosts.
func (n *network) table(hosts int) *Table {
	var rows []Member
	for _, p := range n.hosts[:hosts] {
		row := Member{ID: nodeID(p.number), Number: p.number, Name: p.name, Stopped: n.stopped[p.name]}
		for i := range n.networks {
			addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), byte(p.number)}), 7946)
			row.Addresses = append(row.Addresses, Address{Network: fmt.Sprintf("net%d", i+1), Addr: addr})
		}
		rows = append(rows, row)
	}
	return NewTable(belfry.ClusterID{}, n.generation, rows)
}

func pair(a, b *host) string {
	return min(a.name, b.name) + " " + max(a.name, b.name)
}

func (n *network) path(from, to *host) *condition {
	key := from.name + ">" + to.name
	if n.paths[key] == nil {
		n.paths[key] = &condition{}
	}
	return n.paths[key]
}

// wire is the path of one link; with one network it is that of the pair.
func (n *network) wire(from, to *host, link uint8) *condition {
	if n.networks == 1 {
		return n.path(from, to)
	}
	key := fmt.Sprintf("%s>%s@net%d", from.name, to.name, link+1)
	if n.paths[key] == nil {
		n.paths[key] = &condition{}
	}
	return n.paths[key]
}

func (n *network) reachable(a, b *host) bool {
	return !n.path(a, b).cut && !n.path(b, a).cut && !a.dead && !b.dead
}

func (n *network) connect(a, b *host) {
	if !a.running || !b.running || b.frozen || !n.reachable(a, b) || n.streams[pair(a, b)] {
		return
	}
	n.streams[pair(a, b)] = true
	n.deliver(a, Stream{Peer: nodeID(b.number), Incarnation: b.incarnation, Event: StreamUp})
	n.deliver(b, Stream{Peer: nodeID(a.number), Incarnation: a.incarnation, Event: StreamUp})
}

// end closes h's streams; peers learn event.
func (n *network) end(h *host, what StreamEvent) {
	h.running = false
	for _, p := range n.hosts {
		if p == h || !n.streams[pair(h, p)] {
			continue
		}
		delete(n.streams, pair(h, p))
		if n.reachable(h, p) {
			inc := h.incarnation
			n.at(time.Millisecond, func() {
				n.deliver(p, Stream{Peer: nodeID(h.number), Incarnation: inc, Event: what})
			})
		}
	}
}

// deliver hands one message to a running process, or queues it.
func (n *network) deliver(h *host, msg Message) {
	switch {
	case !h.running || h.dead:
	case h.frozen:
		h.inbox = append(h.inbox, msg)
	default:
		h.m.Receive(h.clock.at(n.now), stamped(h, msg))
		n.drive(h)
	}
}

// stamped puts a host's own time on a datagram that arrived.
func stamped(h *host, msg Message) Message {
	if d, ok := msg.(Datagram); ok {
		d.At = h.clock.at(d.At)
		return d
	}
	return msg
}

// thaw lets a stopped process read its mail and go on.
func (n *network) thaw(h *host) {
	h.frozen = false
	for _, msg := range h.inbox {
		h.m.Receive(h.clock.at(n.now), stamped(h, msg))
	}
	h.inbox = nil
	n.drive(h)
}

// late makes a process come late by d, each period, as on a busy machine.
func (n *network) late(h *host, d, period time.Duration, token int) {
	n.at(period-d, func() {
		if n.lateness != token {
			return
		}
		if !h.running || h.frozen || h.dead {
			n.late(h, d, period+d, token)
			return
		}
		h.frozen = true
		n.at(d, func() {
			n.late(h, d, period, token)
			if h.running && !h.dead {
				n.thaw(h)
			}
		})
	})
}

// wake lets a suspended host go on: nothing was queued for it.
func (n *network) wake(h *host, d time.Duration) {
	h.dead = false
	h.m.Receive(h.clock.at(n.now), Suspended{D: d})
	n.drive(h)
}

func (n *network) drive(h *host) {
	h.m.Advance(h.clock.at(n.now))
	out := h.m.Take()
	for _, c := range out.Changes {
		n.trace(h, c)
	}
	for _, p := range out.Pauses {
		n.keep(h, p)
	}
	for _, s := range out.Send {
		n.transmit(h, n.byID(s.To), s)
	}
	for _, d := range out.Dial {
		n.dial(h, n.byID(d.Peer), d)
	}
	n.schedule(h)
}

func (n *network) schedule(h *host) {
	next := h.m.NextTimeout()
	if next.IsZero() {
		return
	}
	if h.stuck++; next.After(h.clock.at(n.now)) {
		h.stuck = 0
	} else if h.stuck > stuckMax {
		panic(fmt.Sprintf("at %s %s wants to be woken at %s, again and again; want what is due done", n.elapsed(n.now), h.name, n.elapsed(next)))
	}
	h.wakeup++
	token, m := h.wakeup, h.m
	n.at(h.clock.until(n.now, next), func() {
		if h.wakeup == token && h.m == m && h.running && !h.frozen && !h.dead {
			n.drive(h)
		}
	})
}

func (n *network) transmit(from, to *host, s Send) {
	n.sent++
	n.watch(from, s)
	if n.record {
		n.digest = append(n.digest, fmt.Sprintf("%d %s>%s %+v", n.now.Sub(n.start), from.name, to.name, s.Body))
	}
	shown, inc, boot := from.seen[to.name], from.incarnation, from.boot
	c := n.wire(from, to, s.Link)
	if n.path(from, to).cut || c.cut || n.rng.IntN(100) < c.loss {
		return
	}
	n.at(n.delay+c.delay, func() {
		if to.dead {
			return
		}
		if to.dying {
			return
		}
		if !to.running {
			n.at(n.delay, func() {
				if n.reachable(from, to) {
					n.deliver(from, Refused{Peer: nodeID(to.number), Link: s.Link})
				}
			})
			return
		}
		if inc >= from.incarnation {
			to.seen[from.name] = boot
		}
		n.deliver(to, Datagram{
			From: nodeID(from.number), Incarnation: inc, Boot: boot, Link: s.Link, At: n.now,
			Proven: shown == to.boot, Body: s.Body,
		})
	})
}

func (n *network) dial(from, to *host, d Dial) {
	result, after := DialTimeout, time.Second
	if n.reachable(from, to) {
		result, after = DialAccepted, 4*n.delay
		if !to.running && !to.dying {
			result = DialRefused
		}
	}
	n.at(after, func() { n.deliver(from, Dialed{Peer: d.Peer, Link: d.Link, Result: result}) })
	if result == DialAccepted && to.running && !to.dying && !to.frozen {
		n.at(2*after, func() { n.deliver(from, Dialed{Peer: d.Peer, Link: d.Link, Result: DialAnswered}) })
	}
}

package main

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/belfry-ha/belfry/internal/sim"
)

// A fate decides what the network does to a packet: [sim.Conditions], the same
// for every system that plays the scenario with this seed.
type fate interface {
	Fate(src, dst, network int, at time.Duration, nth int) sim.Fate
	Cut(src, dst, network int, at time.Duration) bool
}

const (
	// datagramOverhead is an IPv4 and a UDP header; segmentOverhead an IPv4 and
	// a TCP header without options, segmentSize what fits beside them into 1,500.
	datagramOverhead = 28
	segmentOverhead  = 40
	segmentSize      = 1460

	// queueLimit is how many datagrams wait for a node that does not read: a
	// receive buffer of 2 MiB, which is what memberlist asks for, holds about as
	// many small ones. More are dropped, as the kernel does.
	queueLimit = 2048
	// backlogLimit is how many streams wait to be accepted.
	backlogLimit = 128

	// onlyNetwork is the network that memberlist is on; it has one address.
	onlyNetwork = 0
	// firstSegment is where the numbers of stream segments begin in their 10 ms,
	// so that streams do not change the fate of datagrams.
	firstSegment = 1 << 20

	memberlistPort = 7946
)

// A network carries the datagrams and streams of the nodes of one run, inside
// a synctest bubble. Before the scenario begins it delays and loses nothing.
type network struct {
	fate  fate
	delay time.Duration // before the scenario begins
	end   chan struct{} // closed when the run is over

	mu      sync.Mutex
	begin   time.Time // of the scenario; zero: not yet
	counter sim.Counter
	nodes   []*endpoint
	byAddr  map[string]*endpoint
	streams map[*stream]struct{}
	segment int // number of the next stream segment
}

// traffic is what a node has sent since it counts.
type traffic struct {
	Packets int `json:"packets"` // datagrams, and the segments of streams
	Bytes   int `json:"bytes"`   // with their IP headers
}

func (t *traffic) add(packets, bytes int) {
	t.Packets += packets
	t.Bytes += bytes
}

func newNetwork(nodes int, f fate, delay time.Duration) *network {
	n := &network{fate: f, delay: delay, end: make(chan struct{}), byAddr: map[string]*endpoint{}, streams: map[*stream]struct{}{}}
	for i := range nodes {
		e := &endpoint{
			net: n, index: i, addr: address(i),
			packets: make(chan *memberlist.Packet, queueLimit), accepted: make(chan net.Conn, backlogLimit),
		}
		n.nodes = append(n.nodes, e)
		n.byAddr[e.addr.String()] = e
	}
	return n
}

// address is the same for a node in every run; four bytes, as on the wire.
func address(node int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(node >> 8), byte(node)}), memberlistPort)
}

// start makes the scenario begin now.
func (n *network) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.begin = time.Now()
}

// count makes what is sent count from now on.
func (n *network) count() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.nodes {
		e.sent = traffic{}
	}
}

// close ends all streams and lets go of everyone who waits.
func (n *network) close() {
	close(n.end)
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.streams {
		s.close()
	}
}

// closed tells whether the run is over.
func (n *network) closed() bool {
	select {
	case <-n.end:
		return true
	default:
		return false
	}
}

// sleep returns false when the run is over.
func (n *network) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-n.end:
		return false
	}
}

// An endpoint is the transport of one node.
type endpoint struct {
	net      *network
	index    int
	addr     netip.AddrPort
	packets  chan *memberlist.Packet
	accepted chan net.Conn

	// Under net.mu.
	sent    traffic
	dropped int // datagrams that found their queue full
	gone    absence
	pause   pause
	held    []*memberlist.Packet // until the pause ends
	waiting []net.Conn           // likewise
}

// An absence says how a node is not there.
type absence uint8

const (
	present     absence = iota
	hostGone            // nothing answers
	processGone         // the kernel refuses
)

// A pause ends by itself.
type pause struct {
	until  time.Time
	silent bool // nothing leaves the node
	kernel bool // but its kernel accepts streams
}

var _ memberlist.NodeAwareTransport = (*endpoint)(nil)

// FinalAdvertiseAddr is always this node's own.
func (e *endpoint) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	ip := e.addr.Addr().As4()
	return ip[:], memberlistPort, nil
}

func (e *endpoint) PacketCh() <-chan *memberlist.Packet { return e.packets }

func (e *endpoint) StreamCh() <-chan net.Conn { return e.accepted }

// Shutdown leaves the channels open: memberlist reads them until it ends.
func (e *endpoint) Shutdown() error { return nil }

// WriteTo sends a datagram; like UDP it does not learn what becomes of it.
func (e *endpoint) WriteTo(b []byte, addr string) (time.Time, error) {
	return e.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress is WriteTo; names are not needed.
func (e *endpoint) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	e.thaw()
	now := time.Now()
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	to := e.net.byAddr[a.Addr]
	if to == nil {
		return now, &net.OpError{Op: "write", Net: "udp", Err: syscall.EHOSTUNREACH}
	}
	if e.gone != present {
		return now, nil
	}
	e.sent.add(1, len(b)+datagramOverhead)
	f := sim.Fate{Delay: e.net.delay}
	if !e.net.begin.IsZero() {
		at := now.Sub(e.net.begin)
		f = e.net.fate.Fate(e.index, to.index, onlyNetwork, at, e.net.counter.Next(e.index, to.index, onlyNetwork, at))
	}
	p := &memberlist.Packet{Buf: slices.Clone(b), From: net.UDPAddrFromAddrPort(e.addr)}
	if !f.Lost {
		time.AfterFunc(f.Delay, func() { to.deliver(p) })
	}
	if f.Copy {
		again := &memberlist.Packet{Buf: slices.Clone(b), From: p.From}
		time.AfterFunc(f.CopyDelay, func() { to.deliver(again) })
	}
	return now, nil
}

// deliver puts a datagram before the node.
func (e *endpoint) deliver(p *memberlist.Packet) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	switch {
	case e.gone != present:
	case !e.pause.over():
		if len(e.held) < queueLimit {
			e.held = append(e.held, p)
		} else {
			e.dropped++
		}
	default:
		e.push(p)
	}
}

func (e *endpoint) push(p *memberlist.Packet) {
	p.Timestamp = time.Now()
	select {
	case e.packets <- p:
	default:
		e.dropped++
	}
}

func (p pause) over() bool { return !time.Now().Before(p.until) }

// thaw waits until nothing keeps the node from sending. A process that is
// stopped cannot be stopped within a bubble, but each of memberlist's loops
// comes to a stop at the next thing it sends.
func (e *endpoint) thaw() {
	for {
		e.net.mu.Lock()
		p := e.pause
		e.net.mu.Unlock()
		if !p.silent || p.over() || !e.net.sleep(time.Until(p.until)) {
			return
		}
	}
}

// stop pauses the node; what comes in the meantime it finds afterwards.
func (e *endpoint) stop(d time.Duration, silent, kernel bool) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	e.pause = pause{until: time.Now().Add(d), silent: silent, kernel: kernel}
	time.AfterFunc(d, e.resume)
}

func (e *endpoint) resume() {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	if !e.pause.over() {
		return // another pause began
	}
	for _, p := range e.held {
		e.push(p)
	}
	for _, c := range e.waiting {
		e.accept(c)
	}
	e.held, e.waiting = nil, nil
}

// accept hands a stream to the node, or closes it when too many wait.
func (e *endpoint) accept(c net.Conn) {
	select {
	case e.accepted <- c:
	default:
		_ = c.Close()
	}
}

// leave takes the node off the network. Its streams end when the kernel lives
// to say so.
func (e *endpoint) leave(how absence) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	e.gone = how
	e.held, e.waiting = nil, nil
	for s := range e.net.streams {
		if how == processGone && (s.from == e || s.to == e) {
			s.close()
		}
	}
}

// enter puts it back, with nothing of what came in between.
func (e *endpoint) enter() {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	e.gone, e.pause = present, pause{}
	e.packets, e.accepted = make(chan *memberlist.Packet, queueLimit), make(chan net.Conn, backlogLimit)
}

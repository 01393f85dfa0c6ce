// Package transporttest is the network in memory, for agents that run on
// virtual time (testing/synctest), and the conformance test of everything that
// carries datagrams and frames.
package transporttest

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/transport"
)

// A Packet is one datagram on its way. Number counts the datagrams of this
// direction from 1, so that a fate can be a pure function.
type Packet struct {
	From, To netip.AddrPort
	Number   uint64
	Size     int // bytes
}

// A Fate is what becomes of a packet.
type Fate struct {
	Lost  bool
	Delay time.Duration
}

// userTimeout is how long a stream survives a cut, as TCP_USER_TIMEOUT has it.
const userTimeout = 3 * time.Second

// redial is the wait after the end of a stream.
const redial = 100 * time.Millisecond

// A Network connects what listens in it. Nothing leaves the process, and
// nothing waits on the operating system, so a bubble of synctest may hold it.
// Safe for concurrent use.
type Network struct {
	fate func(Packet) Fate

	mu      sync.Mutex
	sockets map[netip.AddrPort]*datagrams
	sent    map[[2]netip.AddrPort]uint64 // datagrams so far
	nodes   map[belfry.NodeID]*streams
	ports   map[netip.AddrPort]bool
	cuts    map[[2]belfry.NodeID]bool // from, to
	pairs   map[[2]belfry.NodeID]*pair
	next    uint16 // free port
}

// New makes a network. fate judges each datagram and may be nil: all arrive
// at once. It is called under a lock and must not call the network.
func New(fate func(Packet) Fate) *Network {
	if fate == nil {
		fate = func(Packet) Fate { return Fate{} }
	}
	return &Network{
		fate:    fate,
		sockets: map[netip.AddrPort]*datagrams{},
		sent:    map[[2]netip.AddrPort]uint64{},
		nodes:   map[belfry.NodeID]*streams{},
		ports:   map[netip.AddrPort]bool{},
		cuts:    map[[2]belfry.NodeID]bool{},
		pairs:   map[[2]belfry.NodeID]*pair{},
		next:    30000,
	}
}

// Cut loses everything from one node to another. Streams between the two
// stall, and end after 3 s if the cut lasts.
func (n *Network) Cut(from, to belfry.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]belfry.NodeID{from, to}] = true
	if p := n.pairs[pairOf(from, to)]; p != nil {
		time.AfterFunc(userTimeout, func() { n.expire(p) })
	}
}

// Heal undoes Cut. What a stream held back arrives.
func (n *Network) Heal(from, to belfry.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cuts, [2]belfry.NodeID{from, to})
	if n.cutLocked(from, to) {
		return
	}
	if p := n.pairs[pairOf(from, to)]; p != nil {
		p.flush()
	}
	n.connect(from, to)
}

// cutLocked tells whether a stream between two nodes makes no progress: TCP
// needs both directions.
func (n *Network) cutLocked(a, b belfry.NodeID) bool {
	return n.cuts[[2]belfry.NodeID{a, b}] || n.cuts[[2]belfry.NodeID{b, a}]
}

// Kill ends a node as SIGKILL does: its streams are reset, its ports refuse,
// and it delivers nothing from now on. The caller still stops what it runs.
func (n *Network) Kill(node belfry.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr, d := range n.sockets {
		if d.self == node {
			delete(n.sockets, addr)
		}
	}
	if s := n.nodes[node]; s != nil {
		n.removeLocked(s, func(peer belfry.NodeID) transport.StreamEvent {
			return transport.Reset{Peer: node, Err: net.ErrClosed}
		})
	}
}

// Listen takes a stream port; port 0 takes a free one. The listener accepts
// nothing: it stands for the address in StreamsConfig. ErrExist if it is
// taken.
func (n *Network) Listen(addr netip.AddrPort) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	addr = n.freeLocked(addr)
	if n.ports[addr] {
		return nil, fmt.Errorf("%w: %s is taken", belfry.ErrExist, addr)
	}
	n.ports[addr] = true
	return &listener{network: n, addr: addr}, nil
}

func (n *Network) freeLocked(addr netip.AddrPort) netip.AddrPort {
	if addr.Port() != 0 {
		return addr
	}
	n.next++
	return netip.AddrPortFrom(addr.Addr(), n.next)
}

type listener struct {
	network *Network
	addr    netip.AddrPort
}

func (l *listener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (l *listener) Addr() net.Addr            { return net.TCPAddrFromAddrPort(l.addr) }

func (l *listener) Close() error {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	delete(l.network.ports, l.addr)
	return nil
}

// pairOf names two nodes in the order of their ids.
func pairOf(a, b belfry.NodeID) [2]belfry.NodeID {
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	return [2]belfry.NodeID{a, b}
}

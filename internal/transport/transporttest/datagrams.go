package transporttest

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

// socketQueue is how many datagrams wait for a reader; more are dropped, as a
// kernel does.
const socketQueue = 4096

// datagrams is transport.Datagrams in memory. The datagrams are sealed and
// opened like real ones.
type datagrams struct {
	network *Network
	cfg     transport.UDPConfig
	self    belfry.NodeID
	addrs   []netip.AddrPort
	in      chan arrived
	bell    chan struct{}
	asides  chan func() // for functions of cfg that may wait
	done    chan struct{}
	group   sync.WaitGroup

	mu     sync.Mutex                  // guards the endpoint and what follows
	twins  map[belfry.NodeID]time.Time // when cfg.Duplicate was called last
	links  map[linkID]transport.PeerLink
	stats  transport.UDPStats
	closed bool
}

type linkID struct {
	peer  belfry.NodeID
	index uint8
}

type arrived struct {
	data     []byte
	from, to netip.AddrPort
	at       time.Time
	refused  *linkID // instead of a datagram
}

// ListenUDP is [transport.ListenUDP] in this network.
func (n *Network) ListenUDP(self belfry.NodeID, cfg transport.UDPConfig) (transport.Datagrams, error) {
	d := &datagrams{
		network: n, cfg: cfg, self: self, in: make(chan arrived, socketQueue), bell: make(chan struct{}, 1),
		asides: make(chan func(), socketQueue), done: make(chan struct{}),
		twins: map[belfry.NodeID]time.Time{},
		links: map[linkID]transport.PeerLink{}, stats: transport.UDPStats{Rejected: map[wire.Reason]uint64{}},
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, addr := range cfg.Local {
		addr = n.freeLocked(addr)
		if n.sockets[addr] != nil {
			return nil, &belfry.Error{Op: "udp.listen", Subject: "udp " + addr.String(), Err: fmt.Errorf("%w: another agent runs there", belfry.ErrExist)}
		}
		d.addrs = append(d.addrs, addr)
	}
	for _, addr := range d.addrs {
		n.sockets[addr] = d
	}
	d.group.Go(d.tell)
	return d, nil
}

func (d *datagrams) Addrs() []netip.AddrPort { return d.addrs }

func (d *datagrams) Keys(f func(*wire.Endpoint) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f(d.cfg.Endpoint)
}

func (d *datagrams) SetPeers(peers []transport.Peer) error {
	var members []wire.Member
	links := map[linkID]transport.PeerLink{}
	for _, p := range peers {
		members = append(members, wire.Member{ID: p.ID, Number: p.Number})
		for _, l := range p.Links {
			links[linkID{p.ID, l.Index}] = l
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.cfg.Endpoint.SetMembers(members); err != nil {
		return err
	}
	d.links = links
	return nil
}

func (d *datagrams) Send(to belfry.NodeID, link uint8, body wire.Body) error {
	d.mu.Lock()
	id := linkID{to, link}
	l, ok := d.links[id]
	if !ok {
		d.mu.Unlock()
		return &belfry.Error{Op: "udp.send", Node: to, Err: fmt.Errorf("%w: no link %d to this peer", belfry.ErrNotFound, link)}
	}
	data, err := d.cfg.Endpoint.Seal(time.Now(), nil, to, body)
	if err == nil {
		d.stats.Sent++
		d.stats.SentBytes += uint64(len(data))
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	d.network.carry(d, id, l, data)
	return nil
}

// carry gives a packet its fate.
func (n *Network) carry(from *datagrams, id linkID, l transport.PeerLink, data []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	way := [2]netip.AddrPort{l.Local, l.Remote}
	n.sent[way]++
	fate := n.fate(Packet{From: l.Local, To: l.Remote, Number: n.sent[way], Size: len(data)})
	if fate.Lost || n.sockets[l.Local] != from || n.cuts[[2]belfry.NodeID{from.self, id.peer}] {
		return
	}
	if fate.Delay <= 0 {
		n.arriveLocked(from, id, l, data)
		return
	}
	time.AfterFunc(fate.Delay, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.arriveLocked(from, id, l, data)
	})
}

func (n *Network) arriveLocked(from *datagrams, id linkID, l transport.PeerLink, data []byte) {
	target, a := n.sockets[l.Remote], arrived{data: data, from: l.Local, to: l.Remote, at: time.Now()}
	if target == nil { // ICMP takes the way back
		if n.cuts[[2]belfry.NodeID{id.peer, from.self}] || n.sockets[l.Local] != from {
			return
		}
		target, a = from, arrived{refused: &id}
	}
	select {
	case target.in <- a:
	default:
	}
}

func (d *datagrams) Wait(until time.Time) error {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case a := <-d.in:
		d.receive(a)
	case <-d.bell:
	case <-due:
	case <-d.done:
		return &belfry.Error{Op: "udp.wait", Err: net.ErrClosed}
	}
	for range len(d.in) {
		d.receive(<-d.in)
	}
	return nil
}

func (d *datagrams) Wake() {
	select {
	case d.bell <- struct{}{}:
	default:
	}
}

func (d *datagrams) tell() {
	for {
		select {
		case f := <-d.asides:
			f()
		case <-d.done:
			return
		}
	}
}

func (d *datagrams) aside(f func()) {
	select {
	case d.asides <- f:
	case <-d.done:
	}
}

func (d *datagrams) receive(a arrived) {
	if a.refused != nil {
		d.mu.Lock()
		d.stats.Refused++
		d.mu.Unlock()
		if d.cfg.Refused != nil {
			d.aside(func() { d.cfg.Refused(a.refused.peer, a.refused.index) })
		}
		return
	}
	var on uint8
	d.mu.Lock()
	opened, reason := d.cfg.Endpoint.Open(time.Now(), a.data, func(from belfry.NodeID) wire.Reason {
		for index := range uint8(16) {
			if l, ok := d.links[linkID{from, index}]; ok && l.Local == a.to && l.Remote == a.from {
				on = index
				return wire.Accepted
			}
		}
		return wire.RejectSource
	})
	_ = d.cfg.Endpoint.Wants()
	d.stats.Received++
	d.stats.ReceivedBytes += uint64(len(a.data))
	if reason != wire.Accepted {
		d.stats.Rejected[reason]++
	}
	twin := reason == wire.RejectDuplicate && d.cfg.Duplicate != nil && time.Since(d.twins[opened.From]) >= time.Second
	if twin {
		d.twins[opened.From] = time.Now()
	}
	d.mu.Unlock()
	if twin {
		d.aside(func() { d.cfg.Duplicate(opened.From) })
	}
	if reason == wire.Accepted {
		d.cfg.Deliver(transport.Received{
			From: opened.From, Incarnation: opened.Incarnation, Boot: opened.Boot,
			Link: on, At: a.at, Proven: opened.Proven, Body: opened.Body,
		})
	}
}

func (d *datagrams) Stats() transport.UDPStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Rejected = map[wire.Reason]uint64{}
	for _, r := range wire.Reasons() {
		s.Rejected[r] = d.stats.Rejected[r]
	}
	return s
}

func (d *datagrams) Close() error {
	d.network.mu.Lock()
	for _, addr := range d.addrs {
		if d.network.sockets[addr] == d {
			delete(d.network.sockets, addr)
		}
	}
	d.network.mu.Unlock()
	d.mu.Lock()
	first := !d.closed
	d.closed = true
	d.mu.Unlock()
	if first {
		close(d.done)
	}
	d.group.Wait()
	return nil
}

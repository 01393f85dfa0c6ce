package transporttest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/transport"
)

// streams is transport.Peers in memory: no TLS, no encoding, the same events.
type streams struct {
	network    *Network
	cfg        transport.StreamsConfig
	addr       netip.AddrPort
	generation atomic.Uint64

	// Guarded by Network.mu.
	peers map[belfry.NodeID][]netip.AddrPort
	gone  bool
	out   []delivery

	wake  chan struct{}
	done  chan struct{}
	group sync.WaitGroup
}

// A delivery is an event, and what follows when it was taken.
type delivery struct {
	event transport.StreamEvent
	after func() // called under Network.mu; may be nil
}

// A pair is one stream. Guarded by Network.mu.
type pair struct {
	network *Network
	ends    [2]*streams
	held    []func() // in order, while the pair is cut
	ended   bool
}

var (
	errNoStream = fmt.Errorf("%w: no stream to that node", belfry.ErrUnknown)
	errTimeout  = errors.New("connection timed out")
)

// NewStreams is [transport.NewStreams] in this network; cfg.Listener is one of
// [Network.Listen].
func (n *Network) NewStreams(cfg transport.StreamsConfig) transport.Peers {
	s := &streams{
		network: n, cfg: cfg, addr: cfg.Listener.(*listener).addr,
		peers: map[belfry.NodeID][]netip.AddrPort{},
		wake:  make(chan struct{}, 1), done: make(chan struct{}),
	}
	s.generation.Store(cfg.Self.Generation)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[cfg.Self.Node] = s
	s.group.Go(s.deliver)
	return s
}

func (s *streams) id() belfry.NodeID { return s.cfg.Self.Node }

func (s *streams) hello() transport.Hello {
	h := s.cfg.Self
	h.Generation = s.generation.Load()
	return h
}

// put queues an event for a node. Called under Network.mu.
func (s *streams) put(d delivery) {
	if s.gone {
		return
	}
	s.out = append(s.out, d)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// deliver is the one goroutine that calls Deliver.
func (s *streams) deliver() {
	for {
		select {
		case <-s.wake:
		case <-s.done:
			return
		}
		for {
			s.network.mu.Lock()
			if len(s.out) == 0 || s.gone {
				s.network.mu.Unlock()
				break
			}
			d := s.out[0]
			s.out = s.out[1:]
			s.network.mu.Unlock()
			s.cfg.Deliver(d.event)
			if d.after != nil {
				s.network.mu.Lock()
				d.after()
				s.network.mu.Unlock()
			}
		}
	}
}

func (s *streams) SetPeers(peers []transport.StreamPeer) {
	n := s.network
	n.mu.Lock()
	defer n.mu.Unlock()
	s.peers = map[belfry.NodeID][]netip.AddrPort{}
	for _, p := range peers {
		if p.ID != s.id() {
			s.peers[p.ID] = slices.Clone(p.Addrs)
			n.connect(s.id(), p.ID)
		}
	}
	for key, p := range n.pairs {
		if i := slices.Index(p.ends[:], s); i >= 0 {
			if peer := key[1-i]; s.peers[peer] == nil {
				p.end(func(to belfry.NodeID, peer belfry.NodeID) transport.StreamEvent {
					return transport.Goodbye{Peer: peer, Reason: cluster.GoodbyeRekey}
				})
			}
		}
	}
}

func (s *streams) SetGeneration(generation uint64) { s.generation.Store(generation) }

func (s *streams) Wake(peer belfry.NodeID) {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	s.network.connect(s.id(), peer)
}

func (s *streams) Disconnect(peer belfry.NodeID) {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	if p := s.network.pairs[pairOf(s.id(), peer)]; p != nil && !s.gone {
		p.end(func(_, peer belfry.NodeID) transport.StreamEvent {
			return transport.Goodbye{Peer: peer, Reason: cluster.GoodbyeRekey}
		})
	}
}

// connect makes the stream of two nodes if nothing is in the way. Called
// under mu; it must not iterate what it changes.
func (n *Network) connect(a, b belfry.NodeID) {
	key := pairOf(a, b)
	low, high := n.nodes[key[0]], n.nodes[key[1]]
	if low == nil || high == nil || low.gone || high.gone || n.pairs[key] != nil || n.cutLocked(a, b) ||
		high.peers[low.id()] == nil || !slices.Contains(low.peers[high.id()], high.addr) {
		return
	}
	n.pairs[key] = &pair{network: n, ends: [2]*streams{low, high}}
	for _, way := range [][2]*streams{{low, high}, {high, low}} {
		way[0].put(delivery{event: transport.Up{Peer: way[1].id(), Hello: way[1].hello()}})
		way[0].put(delivery{event: transport.Ready{Peer: way[1].id()}})
	}
}

// end ends a stream and plans the next dial. Called under mu.
func (p *pair) end(how func(to, peer belfry.NodeID) transport.StreamEvent) {
	if p.ended {
		return
	}
	p.ended = true
	key := [2]belfry.NodeID{p.ends[0].id(), p.ends[1].id()}
	delete(p.network.pairs, key)
	for i, s := range p.ends {
		event := how(key[i], key[1-i])
		incarnation := p.ends[1-i].cfg.Self.Incarnation
		switch e := event.(type) {
		case transport.Reset:
			e.Incarnation = incarnation
			event = e
		case transport.Goodbye:
			e.Incarnation = incarnation
			event = e
		}
		s.put(delivery{event: event})
	}
	time.AfterFunc(redial, func() {
		p.network.mu.Lock()
		defer p.network.mu.Unlock()
		p.network.connect(key[0], key[1])
	})
}

// expire ends a stream that a cut has held up for too long.
func (n *Network) expire(p *pair) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.cutLocked(p.ends[0].id(), p.ends[1].id()) {
		return
	}
	p.end(func(_, peer belfry.NodeID) transport.StreamEvent { return transport.Reset{Peer: peer, Err: errTimeout} })
}

// carry does what a frame does at the other end, now or after the cut.
func (p *pair) carry(arrive func()) {
	if p.network.cutLocked(p.ends[0].id(), p.ends[1].id()) {
		p.held = append(p.held, arrive)
		return
	}
	arrive()
}

func (p *pair) flush() {
	for _, arrive := range p.held {
		arrive()
	}
	p.held = nil
}

func (s *streams) SendFrame(peer belfry.NodeID, f event.Frame) error {
	n := s.network
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pairs[pairOf(s.id(), peer)]
	if p == nil || s.gone {
		return &belfry.Error{Op: "stream.send", Node: peer, Err: errNoStream}
	}
	to := n.nodes[peer]
	d := delivery{event: transport.Frame{Peer: s.id(), Frame: f}}
	if _, batch := f.(event.PeerBatch); batch {
		d.after = func() {
			if !p.ended {
				s.put(delivery{event: transport.Ready{Peer: peer}})
			}
		}
	}
	p.carry(func() { to.put(d) })
	return nil
}

// Probe tells what a dial would: who listens at addr, if anybody, and whether
// it is the peer's agent.
func (s *streams) Probe(peer belfry.NodeID, link uint8, addr netip.AddrPort, timeout time.Duration) {
	n := s.network
	n.mu.Lock()
	defer n.mu.Unlock()
	answer := func(result cluster.DialResult) {
		s.put(delivery{event: transport.Dialed{Peer: peer, Link: link, Result: result}})
	}
	switch {
	case n.cutLocked(s.id(), peer):
		time.AfterFunc(timeout, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			answer(cluster.DialTimeout)
		})
	case n.ports[addr]:
		answer(cluster.DialAccepted)
		if n.nodes[peer] != nil {
			answer(cluster.DialAnswered)
		}
	default:
		answer(cluster.DialRefused)
	}
}

func (s *streams) Call(ctx context.Context, peer belfry.NodeID, method string, request []byte) ([]byte, error) {
	n := s.network
	n.mu.Lock()
	p, to, cut := n.pairs[pairOf(s.id(), peer)], n.nodes[peer], n.cutLocked(s.id(), peer)
	n.mu.Unlock()
	response, err := []byte(nil), errNoStream
	switch {
	case p == nil:
	case cut:
		<-ctx.Done()
		err = ctx.Err()
	case to.cfg.Serve == nil:
		err = fmt.Errorf("%w: this node answers no calls of others", belfry.ErrUnsupported)
	default:
		response, err = to.cfg.Serve(ctx, s.id(), method, request)
	}
	if err != nil {
		return nil, &belfry.Error{Op: "peer.call", Node: peer, Subject: method, Err: err}
	}
	return response, nil
}

// Stop says goodbye and waits for Deliver to return.
func (s *streams) Stop(_ context.Context, reason cluster.StreamEvent) error {
	n := s.network
	n.mu.Lock()
	n.removeLocked(s, func(peer belfry.NodeID) transport.StreamEvent {
		return transport.Goodbye{Peer: s.id(), Reason: reason}
	})
	n.mu.Unlock()
	s.group.Wait()
	return nil
}

// removeLocked takes a node out of the network; its peers learn it by how.
func (n *Network) removeLocked(s *streams, how func(peer belfry.NodeID) transport.StreamEvent) {
	if s.gone {
		return
	}
	s.gone = true
	close(s.done)
	delete(n.ports, s.addr)
	if n.nodes[s.id()] == s {
		delete(n.nodes, s.id())
	}
	for _, p := range n.pairs {
		if slices.Contains(p.ends[:], s) {
			p.end(func(to, _ belfry.NodeID) transport.StreamEvent { return how(to) })
		}
	}
}

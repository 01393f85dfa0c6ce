package sim

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/wire"
)

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

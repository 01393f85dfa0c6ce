package event

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/numbered"
)

// A peer is another node, in both roles: what it wants of this node's events
// (a remote consumer, remote.go) and what it reports of its own (mirrors,
// mirror.go). It is kept when the node goes, because positions and batch
// numbers must survive that.
type peer struct {
	origin
	live  bool // a stream is open
	since time.Time
	lost  time.Time // when the last stream ended

	// what it wants of this node
	consumer *consumer // nil: nothing
	version  uint64    // of its interests
	number   uint64    // of the last batch, also of consumers before this one
	held     map[uint32]*interest
	exact    map[key][]*interest
	globs    []*interest
	places   map[EntryID]uint64 // what it has, until its full interests come
	comeback *comeback          // of what it wanted before it went; nil: nothing
	placing  []Placed           // where the interests that are being added go on

	// what this node wants of it
	asked     uint64 // version of the interests sent
	everAsked bool
	add       []*want
	drop      []uint32
	full      bool
	waiting   []asked
	lastBatch uint64
	placed    map[EntryID]Placed      // of entries that nothing has come of yet
	mirrors   numbered.Table[*mirror] // by entry
	events    map[key]*mirror         // the newest of each event, of any incarnation
}

// asked is an interest that was sent and not acknowledged.
type asked struct {
	version uint64
	want    *want
}

func (m *Machine) peer(node belfry.NodeID) *peer {
	if i, ok := m.findPeer(node); ok {
		return m.peers[i]
	}
	return nil
}

func (m *Machine) findPeer(node belfry.NodeID) (int, bool) {
	return slices.BinarySearchFunc(m.peers, node, func(p *peer, n belfry.NodeID) int { return p.node.Compare(n) })
}

// peerUp begins to exchange frames with a node.
func (m *Machine) peerUp(now time.Time, msg PeerUp) {
	i, known := m.findPeer(msg.Node)
	if !known {
		m.peers = slices.Insert(m.peers, i, &peer{origin: origin{node: msg.Node}})
	}
	p := m.peers[i]
	if msg.Incarnation < p.incarnation {
		m.refuse(0, msg.Node, refusal(belfry.ErrStale, "incarnation %d of %s; %d is known", msg.Incarnation, msg.Name, p.incarnation))
		return
	}
	again := known && msg.Incarnation == p.incarnation
	if !again {
		m.expect(now, p)
		m.dropRemote(now, p)
		p.placed = map[EntryID]Placed{}
		p.origin = origin{node: msg.Node, name: msg.Name, incarnation: msg.Incarnation}
		p.held, p.exact, p.globs, p.version = map[uint32]*interest{}, map[key][]*interest{}, nil, 0
		p.mirrors, p.lastBatch, p.everAsked, p.asked = numbered.Table[*mirror]{}, 0, false, 0
		for _, w := range m.wanted.list {
			if c := w.atPeer(p); c != nil {
				c.ever = false
			}
		}
		if p.events == nil {
			p.events = map[key]*mirror{}
		}
	}
	if b := p.comeback; again && b != nil {
		b.until = now.Add(comebackKeep)
	}
	p.live, p.since, p.places = true, now, nil
	if p.consumer != nil {
		p.consumer.resume(0)
	}
	if again && p.mirrors.Len() > 0 {
		for _, f := range p.positions() {
			m.tellPeer(p, f)
		}
	}
	m.askAll(now, p)
}

// positions says what has arrived of each entry of the peer, in frames of
// less than a megabyte.
func (p *peer) positions() (frames []Positions) {
	var list []Position
	for id, v := range p.mirrors.All() {
		list = append(list, Position{Entry: EntryID(id), Last: v.sequence})
	}
	for chunk := range slices.Chunk(list, positionChunk) {
		frames = append(frames, Positions{Incarnation: p.incarnation, Positions: chunk})
	}
	return frames
}

// peerLost parks the remote consumer: it goes on coalescing within its limits.
func (m *Machine) peerLost(now time.Time, node belfry.NodeID) {
	p := m.peer(node)
	if p == nil || !p.live {
		return
	}
	p.live, p.since, p.lost = false, now, now
	if p.consumer != nil {
		p.consumer.lose()
	}
	m.uncover(now, p)
}

// peerGone ends the remote consumer of a node that is down or left (R8). What
// has arrived of the node's own events stays known: it may come back with
// the same incarnation, when only the network was cut.
func (m *Machine) peerGone(now time.Time, node belfry.NodeID) {
	p := m.peer(node)
	if p == nil {
		return
	}
	if p.live {
		p.lost = now
	}
	p.live, p.since = false, now
	m.remember(p)
	m.dropRemote(now, p)
	m.letGo(now, p)
	m.uncover(now, p)
}

// peerRemoved forgets a node that is no member any more. What its events have
// told stays with the registrations that were told; new ones hear nothing of it.
func (m *Machine) peerRemoved(now time.Time, node belfry.NodeID) {
	m.peerGone(now, node)
	delete(m.former, node)
	if i, known := m.findPeer(node); known {
		m.peers = slices.Delete(m.peers, i, i+1)
	}
}

func (m *Machine) peerReady(node belfry.NodeID) {
	if p := m.peer(node); p != nil && p.live {
		m.remoteConsumer(p).beReady()
	}
}

func (m *Machine) peerReceived(now time.Time, msg PeerReceived) {
	p := m.peer(msg.Node)
	if p == nil || !p.live {
		m.refuse(0, msg.Node, refusal(belfry.ErrStale, "a frame of a node that is not up; open a stream first"))
		return
	}
	switch f := msg.Frame.(type) {
	case Interests:
		m.interests(now, p, &f)
	case InterestsAck:
		m.interestsAck(now, p, &f)
	case Positions:
		m.positions(p, &f)
	case PeerBatch:
		m.peerBatch(now, p, &f.Batch)
	case PeerAck:
		if p.consumer != nil {
			p.consumer.ack(f.Batch)
		}
	}
}

func (m *Machine) tellPeer(p *peer, f Frame) {
	m.out.Peers = append(m.out.Peers, PeerFrame{Node: p.node, Frame: f})
}

package transporttest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

// An Implementation is what [Run] tests: one network with room for two nodes.
type Implementation interface {
	// Nodes are the two identities; the first has the lower id.
	Nodes() [2]belfry.NodeID
	// Listen takes a free stream port.
	Listen(t *testing.T) net.Listener
	// NewStreams starts the streams of cfg.Self.Node. What concerns TLS is filled
	// in here.
	NewStreams(t *testing.T, cfg transport.StreamsConfig) transport.Peers
	// Kill ends the streams of a node as SIGKILL would.
	Kill(node belfry.NodeID)
	// ListenUDP opens the datagrams of a node on loopback.
	ListenUDP(self belfry.NodeID, cfg transport.UDPConfig) (transport.Datagrams, error)
}

// patience bounds the wait for what must come.
const patience = 10 * time.Second

// Run tests one implementation; start makes a new one for each case. The
// explanation of a case is printed when it fails.
func Run(t *testing.T, start func(t *testing.T) Implementation) {
	for _, c := range []struct {
		name, explanation string
		run               func(*testing.T, *bench)
	}{
		{"hello", "both sides learn who the other is before anything else, and may send one batch", hello},
		{"frames", "frames arrive in order; after each batch the sender is told that it may send one more", inOrder},
		{"goodbye", "a stream that ends with a goodbye is no sign of a dead process", goodbye},
		{"reset", "a process that ends without a goodbye is a Reset at its peer", reset},
		{"return", "a peer that starts anew is connected again without anyone's help", comeBack},
		{"dropped", "a node that is not listed any more is closed at both ends, and that is no sign either", dropped},
		{"disconnect", "either side may close a stream; that is no sign, and the streams come back by themselves", disconnect},
		{"nobody", "what is sent to a node without stream is refused with ErrUnknown", nobody},
		{"calls", "a node answers what its peer asks for, in either direction, errors included", call},
		{"probe", "a listening port is told from a closed one", probe},
		{"datagram", "a datagram arrives with sender, link and time", datagram},
		{"stranger", "a node that is not in the table is not heard", stranger},
		{"refused", "a datagram to a closed socket is told as refused", refused},
		{"taken", "a second agent on one address is refused", taken},
		{"duplicate", "two agents that run as one node are told from each other, once a second", duplicate},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if t.Failed() {
					t.Log("what is wanted: " + c.explanation)
				}
			}()
			c.run(t, newBench(t, start(t)))
		})
	}
}

// A bench is two nodes of one implementation.
type bench struct {
	impl  Implementation
	ports [2]net.Listener
	nodes [2]*node
}

type node struct {
	transport.Peers
	id     belfry.NodeID
	events chan transport.StreamEvent
}

func newBench(t *testing.T, impl Implementation) *bench {
	b := &bench{impl: impl}
	for i := range b.ports {
		b.ports[i] = impl.Listen(t)
	}
	return b
}

func (b *bench) peers() (peers []transport.StreamPeer) {
	for i, id := range b.impl.Nodes() {
		addr := b.ports[i].Addr().(*net.TCPAddr).AddrPort()
		peers = append(peers, transport.StreamPeer{ID: id, Addrs: []netip.AddrPort{addr}})
	}
	return peers
}

// start starts the streams of one node that knows both.
func (b *bench) start(t *testing.T, i int, incarnation belfry.Incarnation) *node {
	t.Helper()
	n := &node{id: b.impl.Nodes()[i], events: make(chan transport.StreamEvent, 1024)}
	n.Peers = b.impl.NewStreams(t, transport.StreamsConfig{
		Listener: b.ports[i],
		Self: transport.Hello{
			Node: n.id, Name: []string{"low", "high"}[i], Incarnation: incarnation, Boot: belfry.Boot(incarnation),
			Generation: 3, PID: uint32(i + 1), Version: "v", Started: time.Unix(9, 0),
		},
		Deliver: func(e transport.StreamEvent) { n.events <- e },
		Serve: func(_ context.Context, from belfry.NodeID, method string, request []byte) ([]byte, error) {
			if method != "/echo" {
				return nil, belfry.ErrUsage
			}
			return slices.Concat(from[:], request), nil
		},
	})
	t.Cleanup(func() { _ = n.Stop(context.Background(), cluster.GoodbyeLeave) })
	n.SetPeers(b.peers())
	b.nodes[i] = n
	return n
}

// pair starts both nodes and waits for their hellos.
func (b *bench) pair(t *testing.T) (low, high *node) {
	t.Helper()
	low, high = b.start(t, 0, 1), b.start(t, 1, 1)
	low.up(t, high.id, 1)
	high.up(t, low.id, 1)
	return low, high
}

func (n *node) next(t *testing.T) transport.StreamEvent {
	t.Helper()
	select {
	case e := <-n.events:
		return e
	case <-time.After(patience):
		t.Fatalf("node %s: no event", n.id)
		return nil
	}
}

func (n *node) want(t *testing.T, want transport.StreamEvent) {
	t.Helper()
	got := n.next(t)
	if r, ok := got.(transport.Reset); ok {
		got = transport.Reset{Peer: r.Peer, Incarnation: r.Incarnation} // the text is the implementation's
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("node %s: event (-want +got):\n%s", n.id, diff)
	}
}

func (n *node) up(t *testing.T, peer belfry.NodeID, incarnation belfry.Incarnation) {
	t.Helper()
	up, ok := n.next(t).(transport.Up)
	if !ok || up.Peer != peer || up.Hello.Incarnation != incarnation {
		t.Fatalf("node %s: event %+v; want Up of %s, incarnation %d", n.id, up, peer, incarnation)
	}
	n.want(t, transport.Ready{Peer: peer})
}

func hello(t *testing.T, b *bench) {
	low, high := b.start(t, 0, 4), b.start(t, 1, 7)
	high.up(t, low.id, 4)
	low.want(t, transport.Up{Peer: high.id, Hello: transport.Hello{
		Node: high.id, Name: "high", Incarnation: 7, Boot: 7, Generation: 3, PID: 2, Version: "v", Started: time.Unix(9, 0),
	}})
	low.want(t, transport.Ready{Peer: high.id})
}

func inOrder(t *testing.T, b *bench) {
	low, high := b.pair(t)
	for _, way := range [][2]*node{{low, high}, {high, low}} {
		from, to := way[0], way[1]
		name := map[*node]string{low: "low", high: "high"}[from]
		sent := []event.Frame{
			event.Interests{Version: 2, Full: true, Add: []event.Interest{{Number: 1, Class: "user.*", Subject: "x"}}},
			event.PeerBatch{Batch: event.Batch{Number: 1, Notifications: []belfry.Notification{{
				Node: from.id, NodeName: name, Incarnation: 1, Entry: 5, Event: belfry.EventID{Class: "user.x", Subject: "x"},
				First: 1, Last: 3, Count: 3, FirstTime: time.Unix(1, 1), Time: time.Unix(2, 2), Data: []byte("d"),
			}}}},
			event.PeerAck{Batch: 1},
		}
		for _, f := range sent {
			if err := from.SendFrame(to.id, f); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range sent {
			to.want(t, transport.Frame{Peer: from.id, Frame: f})
		}
		from.want(t, transport.Ready{Peer: to.id})
	}
}

func goodbye(t *testing.T, b *bench) {
	for i, reason := range []cluster.StreamEvent{cluster.GoodbyeLeave, cluster.GoodbyeRestart} {
		low, high := b.pair(t)
		gone, stays := []*node{low, high}[i], []*node{high, low}[i]
		if err := gone.Stop(t.Context(), reason); err != nil {
			t.Fatal(err)
		}
		stays.want(t, transport.Goodbye{Peer: gone.id, Incarnation: 1, Reason: reason})
		if len(gone.events) != 0 {
			t.Errorf("the stopped node delivered %v", <-gone.events)
		}
		_ = stays.Stop(t.Context(), reason)
		b.ports = newBench(t, b.impl).ports
	}
}

func reset(t *testing.T, b *bench) {
	low, high := b.pair(t)
	b.impl.Kill(high.id)
	low.want(t, transport.Reset{Peer: high.id, Incarnation: 1})
}

func comeBack(t *testing.T, b *bench) {
	low, high := b.pair(t)
	b.impl.Kill(high.id)
	low.want(t, transport.Reset{Peer: high.id, Incarnation: 1})
	_ = high.Stop(t.Context(), cluster.GoodbyeRestart)
	b.ports[1] = b.impl.Listen(t)
	again := b.start(t, 1, 2)
	low.SetPeers(b.peers()) // it has another port now
	low.up(t, high.id, 2)
	again.up(t, low.id, 1)
}

func dropped(t *testing.T, b *bench) {
	low, high := b.pair(t)
	high.SetPeers(nil)
	low.want(t, transport.Goodbye{Peer: high.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
	high.want(t, transport.Goodbye{Peer: low.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
	high.SetPeers(b.peers())
	low.Wake(high.id)
	low.up(t, high.id, 1)
}

func disconnect(t *testing.T, b *bench) {
	low, high := b.pair(t)
	for _, way := range [][2]*node{{low, high}, {high, low}} {
		closer, peer := way[0], way[1]
		closer.Disconnect(peer.id)
		peer.want(t, transport.Goodbye{Peer: closer.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
		closer.want(t, transport.Goodbye{Peer: peer.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
		closer.up(t, peer.id, 1)
		peer.up(t, closer.id, 1)
	}
	low.Disconnect(belfry.NodeID{200}) // nobody: nothing happens
}

func nobody(t *testing.T, b *bench) {
	low := b.start(t, 0, 1)
	for _, peer := range []belfry.NodeID{b.impl.Nodes()[1], {200}, low.id} {
		if err := low.SendFrame(peer, event.PeerAck{Batch: 1}); !errors.Is(err, belfry.ErrUnknown) {
			t.Errorf("send to %s: %v; want ErrUnknown", peer, err)
		}
		if _, err := low.Call(t.Context(), peer, "/echo", nil); !errors.Is(err, belfry.ErrUnknown) {
			t.Errorf("question to %s: %v; want ErrUnknown", peer, err)
		}
	}
}

func call(t *testing.T, b *bench) {
	low, high := b.pair(t)
	for _, way := range [][2]*node{{low, high}, {high, low}} {
		got, err := way[0].Call(t.Context(), way[1].id, "/echo", []byte("hello"))
		if want := slices.Concat(way[0].id[:], []byte("hello")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("answer %q, %v; want %q", got, err, want)
		}
		_, err = way[0].Call(t.Context(), way[1].id, "/other", nil)
		if !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("error %v; want the peer's ErrUsage", err)
		}
	}
}

func probe(t *testing.T, b *bench) {
	low := b.start(t, 0, 1)
	peer, addr := b.impl.Nodes()[1], b.ports[1].Addr().(*net.TCPAddr).AddrPort()
	low.SetPeers(nil) // so that nothing else happens
	low.Probe(peer, 3, addr, patience)
	low.want(t, transport.Dialed{Peer: peer, Link: 3, Result: cluster.DialAccepted})
	high := b.start(t, 1, 1) // now somebody speaks there
	for got := (transport.Dialed{}); got.Result != cluster.DialAnswered; {
		low.Probe(peer, 3, addr, patience)
		got = low.next(t).(transport.Dialed)
	}
	if err := high.Stop(t.Context(), cluster.GoodbyeLeave); err != nil {
		t.Fatal(err)
	}
	_ = b.ports[1].Close()
	for got := (transport.Dialed{}); got.Result != cluster.DialRefused; {
		low.Probe(peer, 3, addr, patience)
		got = low.next(t).(transport.Dialed)
	}
}

// A socket is the datagrams of one node.
type socket struct {
	transport.Datagrams
	id       belfry.NodeID
	received chan transport.Received
	refused  chan uint8
	twins    chan belfry.NodeID
}

func (b *bench) socket(t *testing.T, i int) *socket {
	t.Helper()
	s := &socket{id: b.impl.Nodes()[i], received: make(chan transport.Received, 64), refused: make(chan uint8, 64), twins: make(chan belfry.NodeID, 64)}
	var err error
	s.Datagrams, err = b.impl.ListenUDP(s.id, s.config(t, i, netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for err := error(nil); err == nil; err = s.Wait(time.Time{}) {
		}
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-ended
	})
	return s
}

func (s *socket) config(t *testing.T, i int, local netip.AddrPort) transport.UDPConfig {
	t.Helper()
	endpoint, err := wire.New(wire.Config{
		Cluster: belfry.ClusterID{1}, Self: s.id, Number: belfry.NodeNumber(i + 1), Incarnation: 1, Boot: belfry.Boot(i + 1),
		Epoch: 1, Secrets: map[uint32]wire.Secret{1: {1}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return transport.UDPConfig{
		Local: []netip.AddrPort{local}, Endpoint: endpoint,
		Deliver:   func(r transport.Received) { s.received <- r },
		Refused:   func(_ belfry.NodeID, link uint8) { s.refused <- link },
		Duplicate: func(peer belfry.NodeID) { s.twins <- peer },
	}
}

// knows makes another socket the only peer.
func (s *socket) knows(t *testing.T, i int, peer *socket) {
	t.Helper()
	err := s.SetPeers([]transport.Peer{{
		ID: peer.id, Number: belfry.NodeNumber(i + 1),
		Links: []transport.PeerLink{{Index: 2, Local: s.Addrs()[0], Remote: peer.Addrs()[0]}},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) sockets(t *testing.T) (low, high *socket) {
	t.Helper()
	low, high = b.socket(t, 0), b.socket(t, 1)
	low.knows(t, 1, high)
	high.knows(t, 0, low)
	return low, high
}

func datagram(t *testing.T, b *bench) {
	low, high := b.sockets(t)
	before := time.Now()
	if err := low.Send(high.id, 2, &wire.Heartbeat{Seq: 8}); err != nil {
		t.Fatal(err)
	}
	got := high.receive(t)
	if got.At.Before(before) || got.At.After(time.Now()) {
		t.Errorf("arrived at %v; want between %v and now", got.At, before)
	}
	got.At = time.Time{}
	want := transport.Received{From: low.id, Incarnation: 1, Boot: 1, Link: 2, Body: &wire.Heartbeat{Seq: 8}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
	if err := low.Send(high.id, 0, &wire.Heartbeat{}); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("send on a link that is not there: %v; want ErrNotFound", err)
	}
}

func (s *socket) receive(t *testing.T) transport.Received {
	t.Helper()
	select {
	case r := <-s.received:
		return r
	case <-time.After(patience):
		t.Fatalf("node %s: no datagram; rejected %v", s.id, s.Stats().Rejected)
		return transport.Received{}
	}
}

func stranger(t *testing.T, b *bench) {
	low, high := b.sockets(t)
	if err := high.SetPeers(nil); err != nil {
		t.Fatal(err)
	}
	if err := low.Send(high.id, 2, &wire.Heartbeat{Seq: 1}); err != nil {
		t.Fatal(err)
	}
	tick, end := time.NewTicker(time.Millisecond), time.After(patience)
	defer tick.Stop()
	for high.Stats().Rejected[wire.RejectSender] == 0 {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("rejected %v; want one for its sender", high.Stats().Rejected)
		}
	}
	if len(high.received) != 0 {
		t.Errorf("delivered %+v", <-high.received)
	}
}

func refused(t *testing.T, b *bench) {
	low, high := b.sockets(t)
	_ = high.Close()
	if err := low.Send(high.id, 2, &wire.Heartbeat{Seq: 1}); err != nil {
		t.Fatal(err)
	}
	select {
	case link := <-low.refused:
		if link != 2 {
			t.Errorf("link %d; want 2", link)
		}
	case <-time.After(patience):
		t.Error("nothing was refused")
	}
}

// duplicate clones a node while it runs; the clone draws a new boot, and the
// original goes on.
func duplicate(t *testing.T, b *bench) {
	watcher, original := b.socket(t, 0), b.socket(t, 1)
	clone := b.socket(t, 1)
	err := watcher.SetPeers([]transport.Peer{{
		ID: original.id, Number: 2, Links: []transport.PeerLink{
			{Index: 0, Local: watcher.Addrs()[0], Remote: original.Addrs()[0]},
			{Index: 1, Local: watcher.Addrs()[0], Remote: clone.Addrs()[0]},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	original.knows(t, 0, watcher)
	clone.knows(t, 0, watcher)
	exchange := func(peer *socket, link uint8) {
		t.Helper()
		for range 2 { // each side shows the other its boot
			if err := peer.Send(watcher.id, 2, &wire.Heartbeat{}); err != nil {
				t.Fatal(err)
			}
			watcher.receive(t)
			if err := watcher.Send(peer.id, link, &wire.Heartbeat{}); err != nil {
				t.Fatal(err)
			}
			peer.receive(t)
		}
	}
	exchange(original, 0)
	if err := clone.Keys(func(e *wire.Endpoint) error { return e.Reboot(99) }); err != nil {
		t.Fatal(err)
	}
	exchange(clone, 1)
	tick, end := time.NewTicker(20*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := original.Send(watcher.id, 2, &wire.Heartbeat{}); err != nil {
				t.Fatal(err)
			}
		case id := <-watcher.twins:
			if id != original.id {
				t.Errorf("duplicate of %s; want %s", id, original.id)
			}
			if n := watcher.Stats().Rejected[wire.RejectDuplicate]; n == 0 || len(watcher.received) != 0 {
				t.Errorf("%d counted, %d delivered; want some and none", n, len(watcher.received))
			}
			return
		case <-end:
			t.Fatalf("nobody noticed; rejected %v", watcher.Stats().Rejected)
		}
	}
}

func taken(t *testing.T, b *bench) {
	low := b.socket(t, 0)
	high := &socket{id: b.impl.Nodes()[1]}
	if _, err := b.impl.ListenUDP(high.id, high.config(t, 1, low.Addrs()[0])); !errors.Is(err, belfry.ErrExist) {
		t.Errorf("error %v; want ErrExist", err)
	}
}

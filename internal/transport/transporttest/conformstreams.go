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
)

type node struct {
	transport.Peers
	id     belfry.NodeID
	events chan transport.StreamEvent
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

package transporttest

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

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

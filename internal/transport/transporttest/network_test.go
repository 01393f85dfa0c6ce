package transporttest_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/transport/transporttest"
	"github.com/belfry-ha/belfry/internal/wire"
)

type memory struct{ *transporttest.Network }

func (memory) Nodes() [2]belfry.NodeID { return [2]belfry.NodeID{{1}, {2}} }

func (m memory) Listen(t *testing.T) net.Listener { return listen(t, m.Network) }

func listen(t *testing.T, n *transporttest.Network) net.Listener {
	t.Helper()
	l, err := n.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (m memory) NewStreams(_ *testing.T, cfg transport.StreamsConfig) transport.Peers {
	return m.Network.NewStreams(cfg)
}

func TestTheNetworkInMemoryConforms(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(*testing.T) transporttest.Implementation { return memory{transporttest.New(nil)} })
}

// A side is one node on virtual time.
type side struct {
	id       belfry.NodeID
	streams  transport.Peers
	udp      transport.Datagrams
	events   []transport.StreamEvent
	received []time.Duration // since the start of the bubble
}

// sides starts two nodes that know each other; stop ends them.
func sides(t *testing.T, n *transporttest.Network) (a, b *side, stop func()) {
	t.Helper()
	began := time.Now()
	nodes := [2]*side{{id: belfry.NodeID{1}}, {id: belfry.NodeID{2}}}
	var peers []transport.StreamPeer
	for i, s := range nodes {
		l := listen(t, n)
		peers = append(peers, transport.StreamPeer{ID: s.id, Addrs: []netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()}})
		s.streams = n.NewStreams(transport.StreamsConfig{
			Listener: l, Self: transport.Hello{Node: s.id, Incarnation: 1, Boot: 1},
			Deliver: func(e transport.StreamEvent) { s.events = append(s.events, e) },
		})
		endpoint, err := wire.New(wire.Config{
			Cluster: belfry.ClusterID{1}, Self: s.id, Number: belfry.NodeNumber(i + 1), Incarnation: 1, Boot: 5,
			Epoch: 1, Secrets: map[uint32]wire.Secret{1: {1}},
		}, began)
		if err != nil {
			t.Fatal(err)
		}
		s.udp, err = n.ListenUDP(s.id, transport.UDPConfig{
			Local: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Endpoint: endpoint,
			Deliver: func(r transport.Received) { s.received = append(s.received, r.At.Sub(began)) },
		})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for err := error(nil); err == nil; err = s.udp.Wait(time.Time{}) {
			}
		}()
	}
	for i, s := range nodes {
		s.streams.SetPeers(peers)
		peer := nodes[1-i]
		err := s.udp.SetPeers([]transport.Peer{{
			ID: peer.id, Number: belfry.NodeNumber(2 - i),
			Links: []transport.PeerLink{{Local: s.udp.Addrs()[0], Remote: peer.udp.Addrs()[0]}},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
	for _, s := range nodes {
		s.events = nil // the hellos
	}
	return nodes[0], nodes[1], func() {
		for _, s := range nodes {
			_ = s.streams.Stop(context.Background(), cluster.GoodbyeLeave)
			_ = s.udp.Close()
		}
		pass(time.Second)
	}
}

func TestFateDelaysAndLosesDatagrams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, stop := sides(t, transporttest.New(func(p transporttest.Packet) transporttest.Fate {
			return transporttest.Fate{Lost: p.Number == 2, Delay: time.Duration(p.Number) * time.Second}
		}))
		defer stop()
		for range 3 {
			if err := a.udp.Send(b.id, 0, &wire.Heartbeat{}); err != nil {
				t.Fatal(err)
			}
		}
		pass(4 * time.Second)
		if diff := cmp.Diff([]time.Duration{time.Second, 3 * time.Second}, b.received); diff != "" {
			t.Errorf("arrivals (-want +got):\n%s", diff)
		}
	})
}

func TestACutHasADirectionForDatagrams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.New(nil)
		a, b, stop := sides(t, n)
		defer stop()
		n.Cut(a.id, b.id)
		for _, way := range [][2]*side{{a, b}, {b, a}} {
			if err := way[0].udp.Send(way[1].id, 0, &wire.Heartbeat{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if len(b.received) != 0 || len(a.received) != 1 {
			t.Errorf("%d arrived over the cut, %d the other way; want 0 and 1", len(b.received), len(a.received))
		}
	})
}

func TestAShortCutHoldsAStreamUpAndALongOneEndsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.New(nil)
		a, b, stop := sides(t, n)
		defer stop()
		frame := event.PeerAck{Batch: 1}

		n.Cut(b.id, a.id)
		if err := a.streams.SendFrame(b.id, frame); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if len(b.events) != 0 {
			t.Errorf("events during the cut: %v", b.events)
		}
		n.Heal(b.id, a.id)
		synctest.Wait()
		if diff := cmp.Diff([]transport.StreamEvent{transport.Frame{Peer: a.id, Frame: frame}}, b.events); diff != "" {
			t.Errorf("events after the cut (-want +got):\n%s", diff)
		}

		a.events = nil
		pass(2 * time.Second)
		n.Cut(a.id, b.id)
		pass(4 * time.Second)
		if _, ok := a.events[0].(transport.Reset); !ok || len(a.events) != 1 {
			t.Errorf("events %v; want one Reset", a.events)
		}
		n.Heal(a.id, b.id)
		synctest.Wait()
		if up, ok := a.events[1].(transport.Up); !ok || up.Peer != b.id {
			t.Errorf("events %v; want Up after the cut", a.events)
		}
	})
}

// pass lets virtual time go by, and everything happen that is due.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble
	synctest.Wait()
}

package transport_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

// A streamCluster is a set of identities under one authority, in the order of
// their NodeIDs, and where each listens.
type streamCluster struct {
	ids   []belfry.NodeID
	keys  []*security.Keys
	addrs []netip.AddrPort
	ports []net.Listener // until the node starts
	ca    *security.CA
	dirs  []string // of keys

	services func(*grpc.Server) // of the nodes that start next
	options  []grpc.ServerOption

	letIn func(client ed25519.PublicKey) error // nil: all clients; safe for concurrent use
}

func newStreamCluster(t testing.TB, n int) *streamCluster {
	t.Helper()
	c := &streamCluster{}
	opts := security.CreateOptions{}
	for i := range n {
		opts.Nodes = append(opts.Nodes, security.NewNode{
			Dir:  filepath.Join(t.TempDir(), fmt.Sprint("keys", i)),
			Node: belfry.NodeID{byte(i + 1), 15: byte(i + 1)},
		})
	}
	made, err := security.CreateCluster(opts)
	if err != nil {
		t.Fatal(err)
	}
	c.ca = made.CA
	for i := range n {
		c.dirs = append(c.dirs, opts.Nodes[i].Dir)
		keys, err := security.Load(opts.Nodes[i].Dir)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.ids, c.keys = append(c.ids, keys.Node), append(c.keys, keys)
		c.addrs, c.ports = append(c.addrs, l.Addr().(*net.TCPAddr).AddrPort()), append(c.ports, l)
	}
	return c
}

func (c *streamCluster) peers(not int) (peers []transport.StreamPeer) {
	for i := range c.ids {
		if i != not {
			peers = append(peers, transport.StreamPeer{ID: c.ids[i], Addrs: []netip.AddrPort{c.addrs[i]}})
		}
	}
	return peers
}

// A streamNode is one agent's streams and what they delivered.
type streamNode struct {
	*transport.Streams
	id     belfry.NodeID
	conns  *trackedListener
	events chan transport.StreamEvent
}

// trackedListener can end like a process that is killed.
type trackedListener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *trackedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, conn)
		l.mu.Unlock()
	}
	return conn, err
}

// kill closes all that the kernel would close.
func (l *trackedListener) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.Close()
	for _, c := range l.conns {
		_ = c.Close()
	}
}

type startOptions struct {
	incarnation belfry.Incarnation
	boot        belfry.Boot
	alone       bool // SetPeers is the test's
}

func (c *streamCluster) start(t *testing.T, i int, opts startOptions) *streamNode {
	t.Helper()
	listener := c.ports[i]
	c.ports[i] = nil
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp4", c.addrs[i].String()); err != nil {
			t.Fatal(err)
		}
	}
	opts.incarnation, opts.boot = max(opts.incarnation, 1), max(opts.boot, 1)
	n := &streamNode{id: c.ids[i], conns: &trackedListener{Listener: listener}, events: make(chan transport.StreamEvent, 4096)}
	tlsOptions := c.tlsOptions(n.id)
	n.Streams = transport.NewStreams(transport.StreamsConfig{
		Listener:  n.conns,
		ServerTLS: security.NodeServerConfig(tlsOptions),
		ClientTLS: func(peer belfry.NodeID) *tls.Config { return security.NodeClientConfig(tlsOptions, peer) },
		Identify:  identify,
		Self: transport.Hello{
			Node: c.ids[i], Name: fmt.Sprint("n", i), Incarnation: opts.incarnation, Boot: opts.boot,
			Generation: 3, PID: uint32(1000 + i), Version: "test", Started: time.Unix(5, 0),
		},
		Deliver:  func(e transport.StreamEvent) { n.events <- e },
		Services: c.services, ServerOptions: c.options,
	})
	t.Cleanup(func() { _ = n.Stop(context.Background(), cluster.GoodbyeLeave) })
	if !opts.alone {
		n.SetPeers(c.peers(i))
	}
	return n
}

func identify(state tls.ConnectionState) (belfry.NodeID, error) {
	id, err := security.Peer(state)
	if err == nil && id.Client != "" {
		err = fmt.Errorf("%w: a client", belfry.ErrPermission)
	}
	return id.Node, err
}

func (n *streamNode) next(t *testing.T) transport.StreamEvent {
	t.Helper()
	select {
	case e := <-n.events:
		return e
	case <-time.After(patience):
		t.Fatal("no event of a stream")
		panic("unreachable")
	}
}

// want takes the next event and compares it, without the text of errors.
func (n *streamNode) want(t *testing.T, want transport.StreamEvent) {
	t.Helper()
	got := n.next(t)
	if r, ok := got.(transport.Reset); ok {
		if r.Err == nil {
			t.Error("reset without error")
		}
		got = transport.Reset{Peer: r.Peer, Incarnation: r.Incarnation}
	}
	if up, ok := got.(transport.Up); ok {
		got = transport.Up{Peer: up.Peer, Hello: transport.Hello{Incarnation: up.Hello.Incarnation}}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("event (-want +got):\n%s", diff)
	}
}

func (n *streamNode) wantUp(t *testing.T, peer belfry.NodeID, incarnation belfry.Incarnation) {
	t.Helper()
	n.want(t, transport.Up{Peer: peer, Hello: transport.Hello{Incarnation: incarnation}})
	n.want(t, transport.Ready{Peer: peer})
}

// pair starts two nodes that have said hello.
func pair(t *testing.T) (c *streamCluster, low, high *streamNode) {
	t.Helper()
	c = newStreamCluster(t, 2)
	low, high = c.start(t, 0, startOptions{}), c.start(t, 1, startOptions{})
	low.wantUp(t, high.id, 1)
	high.wantUp(t, low.id, 1)
	return c, low, high
}

func TestAGoodbyeIsNoReset(t *testing.T) {
	t.Parallel()
	for name, leaver := range map[string]int{"from the dialler": 0, "from the acceptor": 1} {
		for _, reason := range []cluster.StreamEvent{cluster.GoodbyeLeave, cluster.GoodbyeRestart, cluster.GoodbyeRekey} {
			t.Run(fmt.Sprint(name, reason), func(t *testing.T) {
				t.Parallel()
				_, low, high := pair(t)
				nodes := []*streamNode{low, high}
				went, stays := nodes[leaver], nodes[1-leaver]
				began := time.Now()
				if err := went.Stop(t.Context(), reason); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > 400*time.Millisecond {
					t.Errorf("stop took %v: it did not see the peer's answer", took)
				}
				stays.want(t, transport.Goodbye{Peer: went.id, Incarnation: 1, Reason: reason})
				if len(went.events) != 0 {
					t.Errorf("the stopped node delivered %v", <-went.events)
				}
			})
		}
	}
}

func TestARestartedPeerIsBackSoon(t *testing.T) {
	t.Parallel()
	c, low, high := pair(t)
	high.conns.kill()
	low.want(t, transport.Reset{Peer: high.id, Incarnation: 1})
	_ = high.Stop(t.Context(), cluster.GoodbyeRestart)
	began := time.Now()
	again := c.start(t, 1, startOptions{incarnation: 2, boot: 2})
	low.Wake(high.id)
	low.wantUp(t, high.id, 2)
	again.wantUp(t, low.id, 1)
	t.Logf("back after %v", time.Since(began))
}

func TestAPeerThatIsNoMemberAnyMoreIsClosed(t *testing.T) {
	t.Parallel()
	for name, keeper := range map[string]int{"by the dialler": 0, "by the acceptor": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, low, high := pair(t)
			nodes := []*streamNode{low, high}
			kept, dropped := nodes[keeper], nodes[1-keeper]
			began := time.Now()
			kept.SetPeers(nil)
			dropped.want(t, transport.Goodbye{Peer: kept.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
			kept.want(t, transport.Goodbye{Peer: dropped.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("closed after %v; want 2 s at most", took)
			}
			if err := kept.SendFrame(dropped.id, event.PeerAck{}); !errors.Is(err, belfry.ErrUnknown) {
				t.Errorf("send to a dropped peer: %v; want ErrUnknown", err)
			}
		})
	}
}

// TestAStreamLeavesALinkThatHasFailed: at either end, once, with a goodbye. A
// stream that came later, or runs over another link, stays.
func TestAStreamLeavesALinkThatHasFailed(t *testing.T) {
	t.Parallel()
	for name, leaver := range map[string]int{"at the dialler": 0, "at the acceptor": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, low, high := pair(t)
			nodes := []*streamNode{low, high}
			leaves, stays := nodes[leaver], nodes[1-leaver]
			dialed, elsewhere := c.addrs[1].Addr(), netip.MustParseAddr("192.0.2.1")
			before := time.Now()
			leaves.Reroute(stays.id, elsewhere, elsewhere, before)
			leaves.Reroute(stays.id, dialed, dialed, before.Add(-time.Hour))
			leaves.Reroute(belfry.NodeID{9}, dialed, dialed, before)
			if err := leaves.SendConfiguration(stays.id, 7, []byte("{}")); err != nil {
				t.Fatal(err)
			}
			stays.want(t, transport.Configuration{Peer: leaves.id, Document: []byte("{}")})

			leaves.Reroute(stays.id, dialed, dialed, before)
			stays.want(t, transport.Goodbye{Peer: leaves.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
			leaves.want(t, transport.Goodbye{Peer: stays.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
			leaves.wantUp(t, stays.id, 1)
			stays.wantUp(t, leaves.id, 1)
			leaves.Reroute(stays.id, dialed, dialed, before)
			if err := leaves.SendConfiguration(stays.id, 8, []byte("{}")); err != nil {
				t.Fatal(err)
			}
			stays.want(t, transport.Configuration{Peer: leaves.id, Document: []byte("{}")})
		})
	}
}

// TestADialerGoesOnToTheNextAddress: also when a stream over the first one has
// lasted, since it may be that one which failed.
func TestADialerGoesOnToTheNextAddress(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	second, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	low := c.start(t, 0, startOptions{alone: true})
	high := c.start(t, 1, startOptions{})
	low.SetPeers([]transport.StreamPeer{{ID: high.id, Addrs: []netip.AddrPort{c.addrs[1], second.Addr().(*net.TCPAddr).AddrPort()}}})
	low.wantUp(t, high.id, 1)
	low.Disconnect(high.id)
	low.want(t, transport.Goodbye{Peer: high.id, Incarnation: 1, Reason: cluster.GoodbyeRekey})
	conn, err := second.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// TestADialerLeavesAnAddressThatDoesNotAnswer: its network may have gone away
// after the connection was there, and the acknowledgements with it.
func TestADialerLeavesAnAddressThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	silent, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	low := c.start(t, 0, startOptions{alone: true})
	high := c.start(t, 1, startOptions{})
	began := time.Now()
	low.SetPeers([]transport.StreamPeer{{ID: high.id, Addrs: []netip.AddrPort{silent.Addr().(*net.TCPAddr).AddrPort(), c.addrs[1]}}})
	low.wantUp(t, high.id, 1)
	if took := time.Since(began); took >= 8*time.Second {
		t.Errorf("a stream after %v, want about 2 s", took)
	}
}

// TestABatchThatIsTooLargeHoldsUpNoLaterOne: it is lost, and what is lost with
// it is the introduction of its entry too.
func TestABatchThatIsTooLargeHoldsUpNoLaterOne(t *testing.T) {
	t.Parallel()
	_, low, high := pair(t)
	occurrence := belfry.Notification{
		Node: low.id, NodeName: "n0", Incarnation: 1, Entry: 5, Event: belfry.EventID{Class: "user.x", Subject: "x"},
		First: 1, Last: 1, Count: 1, FirstTime: time.Unix(1, 0), Time: time.Unix(1, 0), Data: make([]byte, 5<<20),
	}
	if err := low.SendFrame(high.id, event.PeerBatch{Batch: event.Batch{Number: 1, Notifications: []belfry.Notification{occurrence}}}); err != nil {
		t.Fatal(err)
	}
	low.want(t, transport.Ready{Peer: high.id})
	occurrence.Data = []byte("d")
	small := event.PeerBatch{Batch: event.Batch{Number: 2, Notifications: []belfry.Notification{occurrence}}}
	if err := low.SendFrame(high.id, small); err != nil {
		t.Fatal(err)
	}
	high.want(t, transport.Frame{Peer: low.id, Frame: small})
	low.want(t, transport.Ready{Peer: high.id})
}

func TestAConnectionWithoutCertificateIsNotServed(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 1)
	c.start(t, 0, startOptions{})
	conn, err := tls.Dial("tcp", c.addrs[0].String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err == nil { // without a certificate the server ends TLS 1.3 after the client's part
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, err = io.ReadAll(conn)
		_ = conn.Close()
	}
	if err == nil {
		t.Error("a connection without a certificate was served")
	}
}

func TestAConfigurationReachesThePeer(t *testing.T) {
	t.Parallel()
	_, low, high := pair(t)
	for _, way := range []struct{ from, to *streamNode }{{low, high}, {high, low}} {
		if err := way.from.SendConfiguration(way.to.id, 7, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		way.to.want(t, transport.Configuration{Peer: way.from.id, Document: []byte("{}")})
	}
	if err := low.SendConfiguration(belfry.NodeID{9}, 7, nil); !errors.Is(err, belfry.ErrUnknown) {
		t.Errorf("to a stranger: %v; want ErrUnknown", err)
	}
}

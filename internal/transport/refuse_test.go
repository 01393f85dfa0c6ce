package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

type peerStream = grpc.BidiStreamingClient[belfryv1.ConnectRequest, belfryv1.ConnectResponse]

// connect opens a peer stream as whoever holds the configuration, and says
// nothing yet.
func connect(t *testing.T, addr string, cfg *tls.Config) peerStream {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	stream, err := belfryv1.NewPeerServiceClient(cc).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func send(t *testing.T, s peerStream, f *belfryv1.PeerFrame) {
	t.Helper()
	if err := s.Send(&belfryv1.ConnectRequest{Frame: f}); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func helloFrame(h *belfryv1.PeerHello) *belfryv1.PeerFrame {
	return &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Hello{Hello: h}}
}

// helloAs is a hello of node i as it should be.
func (c *streamCluster) helloAs(i int, incarnation, boot uint32) *belfryv1.PeerHello {
	return &belfryv1.PeerHello{Version: 1, NodeId: c.ids[i][:], Incarnation: incarnation, Boot: boot}
}

func TestWhoMayNotHaveAStreamIsToldWhy(t *testing.T) {
	t.Parallel()
	// Node 1 serves; 0 may dial it, 2 must wait to be dialled.
	c := newStreamCluster(t, 3)
	n := c.start(t, 1, startOptions{alone: true})
	n.SetPeers(c.peers(1))
	as := func(i int) *tls.Config { return security.NodeClientConfig(c.tlsOptions(c.ids[i]), c.ids[1]) }
	change := func(f func(*belfryv1.PeerHello)) *belfryv1.PeerFrame {
		h := c.helloAs(0, 1, 1)
		f(h)
		return helloFrame(h)
	}
	for name, try := range map[string]struct {
		as    *tls.Config
		first *belfryv1.PeerFrame
		code  codes.Code
		text  string
	}{
		"a client's certificate": {c.client(t), change(func(*belfryv1.PeerHello) {}), codes.PermissionDenied, "client"},
		"the higher id":          {as(2), helloFrame(c.helloAs(2, 1, 1)), codes.FailedPrecondition, "the lower id"},
		"no hello":               {as(0), &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Ack{Ack: &belfryv1.Ack{}}}, codes.FailedPrecondition, "hello"},
		"another version":        {as(0), change(func(h *belfryv1.PeerHello) { h.Version = 2 }), codes.FailedPrecondition, "version 2"},
		"another node's name":    {as(0), change(func(h *belfryv1.PeerHello) { h.NodeId = c.ids[2][:] }), codes.PermissionDenied, "certificate"},
		"no incarnation":         {as(0), change(func(h *belfryv1.PeerHello) { h.Incarnation = 0 }), codes.FailedPrecondition, "incarnation 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := connect(t, c.addrs[1].String(), try.as)
			send(t, s, try.first)
			_, err := s.Recv()
			if status.Code(err) != try.code || !strings.Contains(err.Error(), try.text) {
				t.Errorf("error %v; want %s with %q", err, try.code, try.text)
			}
		})
	}
	if len(n.events) != 0 {
		t.Errorf("delivered %v", <-n.events)
	}
}

func TestANodeThatIsNotListedIsRefused(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	c.start(t, 1, startOptions{alone: true}) // lists nobody
	s := connect(t, c.addrs[1].String(), security.NodeClientConfig(c.tlsOptions(c.ids[0]), c.ids[1]))
	send(t, s, helloFrame(c.helloAs(0, 1, 1)))
	if _, err := s.Recv(); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "member table") {
		t.Errorf("error %v; want PermissionDenied with the reason", err)
	}
}

func TestTwoAgentsWithOneIdentityAreToldApart(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	n := c.start(t, 1, startOptions{})
	dial := func(incarnation, boot uint32) peerStream {
		s := connect(t, c.addrs[1].String(), security.NodeClientConfig(c.tlsOptions(c.ids[0]), c.ids[1]))
		send(t, s, helloFrame(c.helloAs(0, incarnation, boot)))
		return s
	}
	hello := func(s peerStream) {
		t.Helper()
		if m, err := s.Recv(); err != nil || m.GetFrame().GetHello() == nil {
			t.Fatalf("%v, %v; want a hello", m, err)
		}
	}
	first := dial(5, 1)
	hello(first)
	n.wantUp(t, c.ids[0], 5)

	if _, err := dial(4, 1).Recv(); !strings.Contains(err.Error(), "incarnation 4, 5 was seen") {
		t.Errorf("older start: %v; want it refused by its number", err)
	}
	if _, err := dial(5, 2).Recv(); status.Code(err) != codes.AlreadyExists {
		t.Errorf("same start, other boot: %v; want AlreadyExists", err)
	}
	send(t, first, &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Ack{Ack: &belfryv1.Ack{Batch: 3}}})
	n.want(t, transport.Frame{Peer: c.ids[0], Frame: event.PeerAck{Batch: 3}}) // the first keeps its stream

	same := dial(5, 1) // it lost its connection, this end has not seen it
	hello(same)
	n.want(t, transport.Goodbye{Peer: c.ids[0], Incarnation: 5, Reason: cluster.GoodbyeRekey})
	n.wantUp(t, c.ids[0], 5)
	if _, err := first.Recv(); err == nil {
		t.Error("the replaced stream is still there")
	}

	hello(dial(6, 3)) // a new start: the old process is gone
	n.want(t, transport.Reset{Peer: c.ids[0], Incarnation: 5})
	n.wantUp(t, c.ids[0], 6)
}

func TestAPeerThatSendsGarbageLosesItsStreamOnPurpose(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	n := c.start(t, 1, startOptions{})
	s := connect(t, c.addrs[1].String(), security.NodeClientConfig(c.tlsOptions(c.ids[0]), c.ids[1]))
	send(t, s, helloFrame(c.helloAs(0, 1, 1)))
	n.wantUp(t, c.ids[0], 1)
	send(t, s, helloFrame(c.helloAs(0, 1, 1)))
	if m, err := s.Recv(); err != nil || m.GetFrame().GetHello() == nil {
		t.Fatalf("%v, %v; want a hello", m, err)
	}
	if m, err := s.Recv(); err != nil || m.GetFrame().GetGoodbye() == nil {
		t.Fatalf("%v, %v; want a goodbye", m, err)
	}
	// It never reads the end, so the connection is closed for it.
	if _, err := s.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	n.want(t, transport.Goodbye{Peer: c.ids[0], Incarnation: 1, Reason: cluster.GoodbyeRekey})
}

// client is the configuration of a client of the cluster.
func (c *streamCluster) client(t *testing.T) *tls.Config {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "client")
	if err := security.CreateClient(dir, c.ca, time.Now(), "web"); err != nil {
		t.Fatal(err)
	}
	opts, err := security.LoadClient(dir)
	if err != nil {
		t.Fatal(err)
	}
	return security.ClientConfig(opts)
}

func TestAClientReachesTheServicesBesideTheStreams(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 1)
	c.services = func(g *grpc.Server) {
		belfryv1.RegisterNodeServiceServer(g, belfryv1.UnimplementedNodeServiceServer{})
	}
	var judged []string
	c.options = []grpc.ServerOption{grpc.ChainUnaryInterceptor(
		func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			judged = append(judged, info.FullMethod)
			return next(ctx, req)
		})}
	c.start(t, 0, startOptions{})
	cc, err := grpc.NewClient("passthrough:///"+c.addrs[0].String(), grpc.WithTransportCredentials(credentials.NewTLS(c.client(t))))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }()
	_, err = belfryv1.NewNodeServiceClient(cc).ListNodes(t.Context(), &belfryv1.ListNodesRequest{})
	if status.Code(err) != codes.Unimplemented || len(judged) != 1 {
		t.Errorf("error %v, judged %v; want the service's own answer after its interceptor", err, judged)
	}
}

func TestPendingHandshakesAreBoundedPerAddress(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	c.start(t, 0, startOptions{alone: true})
	var idle []net.Conn
	for range 16 {
		conn, err := net.Dial("tcp", c.addrs[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		idle = append(idle, conn)
	}
	over, err := net.Dial("tcp", c.addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = over.Close() }()
	_ = over.SetReadDeadline(time.Now().Add(patience))
	if _, err := over.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !isReset(err) {
		t.Errorf("the 17th connection: %v; want it closed at once", err)
	}
	// One of the idle ones goes: there is room again.
	_ = idle[0].Close()
	waitFor(t, func() bool {
		conn, err := tls.Dial("tcp", c.addrs[0].String(), c.client(t))
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

func isReset(err error) bool { return err != nil && strings.Contains(err.Error(), "reset") }

func TestAStalledPeerFillsABoundedQueue(t *testing.T) {
	t.Parallel()
	c := newStreamCluster(t, 2)
	n := c.start(t, 1, startOptions{})
	s := connect(t, c.addrs[1].String(), security.NodeClientConfig(c.tlsOptions(c.ids[0]), c.ids[1]))
	send(t, s, helloFrame(c.helloAs(0, 1, 1)))
	n.wantUp(t, c.ids[0], 1)
	// The peer reads nothing. Sending never waits; in the end it is refused.
	big := event.Interests{Full: true, Add: []event.Interest{{Class: "user.x", Subject: strings.Repeat("x", 60<<10)}}}
	refused := 0
	for range 10_000 {
		if err := n.SendFrame(c.ids[0], big); errors.Is(err, belfry.ErrLimit) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused < 5_000 || refused > 6_000 {
		t.Errorf("%d of 10,000 frames were refused; want all beyond the 4,096 queued and what is under way", refused)
	}
	if len(n.events) != 0 {
		t.Errorf("a peer that does not read is no event, got %v", <-n.events)
	}
}

package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/codec"
)

// Back-off of dials: at once, then a while as fast as a restart takes, then
// doubling (each ± 25 %).
const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 2 * time.Second
	quickDials   = 10
	dialTimeout  = time.Second // of TCP, per address
	// handshakeFirst is how long the first dial in a row waits for TLS and the
	// hello: a network may go away in the middle, and the next address is of
	// another one. Later dials are more patient, for a peer that is busy.
	handshakeFirst = 2 * time.Second
	// settled is how long a stream lasts that is worth a quick dial after it.
	settled = time.Second
)

// backOff is how long to wait before dial number n in a row, from 0.
func backOff(n int) time.Duration {
	if n == 0 {
		return rand.N(10 * time.Millisecond)
	}
	d := backoffFirst
	for range n - quickDials {
		d = min(2*d, backoffLast)
	}
	return d*3/4 + rand.N(d/2)
}

// handshakePatience is how long dial number n in a row waits, from 1.
func handshakePatience(n int) time.Duration {
	d := handshakeFirst
	for range n - 1 {
		d = min(2*d, handshakeTimeout)
	}
	return d
}

// dialLoop keeps a stream to the peer until ctx ends.
func (r *remote) dialLoop(ctx context.Context) {
	timer := time.NewTimer(backOff(0))
	defer timer.Stop()
	turn := 0 // goes on when a stream has ended: its address may be the one that failed
	var told complaints
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		lasted, err := r.dial(ctx, turn, handshakePatience(n))
		turn++
		if err != nil && ctx.Err() == nil {
			r.troubled(err)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			told = complaints{}
		case told.news(time.Now(), err.Error()):
			r.log.Info("no stream", "err", err)
		}
		if lasted > settled {
			n = 0
		}
		timer.Reset(backOff(n))
	}
}

// Complaints of dials that fail one after the other: a peer may be off for days,
// has several addresses, and some errors name a port that is another one each time.
const (
	complaintsFirst = 4 // different ones, as they come
	complaintsEvery = 10 * time.Minute
)

// complaints are the failures that the log has since the last stream.
type complaints struct {
	texts []string
	last  time.Time
}

// news tells whether a failure is to be told.
func (c *complaints) news(now time.Time, text string) bool {
	if slices.Contains(c.texts, text) || len(c.texts) == complaintsFirst && now.Sub(c.last) < complaintsEvery {
		return false
	}
	if len(c.texts) == complaintsFirst {
		c.texts = slices.Delete(c.texts, 0, 1)
	}
	c.texts, c.last = append(c.texts, text), now
	return true
}

// dial tries one address, on which the peer has to answer within patience. It
// returns nil when a stream was there and has ended, and how long it was.
func (r *remote) dial(ctx context.Context, turn int, patience time.Duration) (lasted time.Duration, err error) {
	conn, cc, err := r.reach(ctx, turn)
	if err != nil {
		return 0, err
	}
	defer func() { _, _ = cc.Close(), conn.Close() }()

	// The stream outlives ctx, to say goodbye; until there is one ctx ends it.
	streaming, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	timer := time.AfterFunc(patience, abort)
	stop := context.AfterFunc(ctx, abort)
	s, err := r.greet(streaming, cc, hostOf(conn.RemoteAddr()), func() { abort(); _ = conn.Close() })
	late, left := !timer.Stop(), !stop()
	switch {
	case late:
		return 0, fmt.Errorf("no answer from %v within %v", conn.RemoteAddr(), patience)
	case left:
		return 0, context.Canceled
	case err != nil:
		return 0, err
	}
	if err := r.install(s, nil); err != nil {
		return 0, err
	}
	began := time.Now()
	s.run()
	return time.Since(began), nil
}

// reach connects to one of the peer's addresses.
func (r *remote) reach(ctx context.Context, turn int) (net.Conn, *grpc.ClientConn, error) {
	r.mu.Lock()
	addrs := r.addrs
	r.mu.Unlock()
	if len(addrs) == 0 {
		return nil, nil, fmt.Errorf("%w: the peer has no address", belfry.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dialTCP(ctx, addrs[turn%len(addrs)])
	if err != nil {
		return nil, nil, err
	}
	cc, err := r.client(conn)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, cc, nil
}

// client makes the gRPC side of a connection that is there.
func (r *remote) client(conn net.Conn) (*grpc.ClientConn, error) {
	var once sync.Once
	return grpc.NewClient("passthrough:///"+r.id.String(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			err := error(syscall.ECONNABORTED) // the back-off is ours: no second dial
			once.Do(func() { err = nil })
			return conn, err
		}),
		grpc.WithTransportCredentials(credentials.NewTLS(r.streams.cfg.ClientTLS(r.id))),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: handshakeTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage), grpc.ForceCodecV2(codec.New())),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithStaticStreamWindowSize(flowWindow),
		grpc.WithStaticConnWindowSize(2*flowWindow),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(),
		grpc.WithIdleTimeout(0),
	)
}

// greet exchanges hellos.
func (r *remote) greet(ctx context.Context, cc *grpc.ClientConn, at netip.Addr, abort func()) (*session, error) {
	stream, err := belfryv1.NewPeerServiceClient(cc).Connect(ctx)
	if err != nil {
		return nil, plain(err)
	}
	f := dialedFrames{stream, &belfryv1.ConnectResponse{}}
	if err := f.send(r.streams.helloFrame()); err != nil {
		if _, said := f.recv(); said != nil { // the status says why
			err = said
		}
		return nil, plain(err)
	}
	frame, err := f.recv()
	if err != nil {
		return nil, plain(err)
	}
	hello, err := helloOf(frame, r.id)
	if err != nil {
		return nil, err
	}
	return newSession(r, hello, f, at, abort), nil
}

// plain is the text of a status without its wrapping.
func plain(err error) error {
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Message())
	}
	return err
}

// dialedFrames is the dialling end.
type dialedFrames struct {
	stream grpc.BidiStreamingClient[belfryv1.ConnectRequest, belfryv1.ConnectResponse]
	in     *belfryv1.ConnectResponse
}

func (f dialedFrames) send(frame *belfryv1.PeerFrame) error {
	return f.stream.Send(&belfryv1.ConnectRequest{Frame: frame})
}

func (f dialedFrames) recv() (*belfryv1.PeerFrame, error) {
	err := f.stream.RecvMsg(f.in)
	return f.in.GetFrame(), err
}

func (f dialedFrames) closeSend() { _ = f.stream.CloseSend() }

// Probe dials a peer's stream port and delivers Dialed: is its kernel alive, is
// its process gone (cluster.md 6)? A second Dialed follows if the agent itself
// answers too, which a process that is stopped does not (cluster.md 7). While a
// probe of the same link is under way another one is not started.
func (s *Streams) Probe(peer belfry.NodeID, link uint8, addr netip.AddrPort, timeout time.Duration) {
	id := linkID{peer, link}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.probing[id] {
		return
	}
	s.probing[id] = true
	s.group.Go(func() {
		ctx, cancel := context.WithTimeout(s.running, timeout)
		defer cancel()
		conn, result := probe(ctx, addr)
		s.dialed(Dialed{Peer: peer, Link: link, Result: result})
		answers := conn != nil && s.answers(ctx, conn, peer)
		s.mu.Lock()
		delete(s.probing, id)
		s.mu.Unlock()
		if answers {
			s.dialed(Dialed{Peer: peer, Link: link, Result: cluster.DialAnswered})
		}
	})
}

func (s *Streams) dialed(d Dialed) {
	s.mu.Lock()
	stopped := s.stopped
	s.mu.Unlock()
	if !stopped {
		s.cfg.Deliver(d)
	}
}

// probe has a connection if the dial is accepted.
func probe(ctx context.Context, addr netip.AddrPort) (net.Conn, cluster.DialResult) {
	conn, err := dialTCP(ctx, addr)
	switch {
	case err == nil:
		return conn, cluster.DialAccepted
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, cluster.DialRefused
	}
	return nil, cluster.DialTimeout // no route, no answer: nothing is proven
}

// answers tells whether the peer's agent proves who it is, and closes conn.
func (s *Streams) answers(ctx context.Context, conn net.Conn, peer belfry.NodeID) bool {
	defer func() { _ = conn.Close() }()
	return tls.Client(conn, s.cfg.ClientTLS(peer)).HandshakeContext(ctx) == nil
}

// helloFrame is what this node says first.
func (s *Streams) helloFrame() *belfryv1.PeerFrame {
	h := s.cfg.Self
	h.Generation = s.generation.Load()
	return helloTo(h)
}

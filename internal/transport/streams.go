package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/codec"
	"github.com/belfry-ha/belfry/internal/event"
)

// Limits of security.md and cluster.md 12.
const (
	maxMessage       = 4 << 20 // bytes
	maxStreams       = 128     // per connection
	maxHeaders       = 16 << 10
	handshakeTimeout = 10 * time.Second // TLS, and again until the first frame
	guestTime        = 15 * time.Second // a join, with its waits
	userTimeout      = 3 * time.Second  // TCP_USER_TIMEOUT, for what is sent and not acknowledged
	clientTimeout    = 20 * time.Second // the same of clients, whose hosts may be slow
	goodbyeTimeout   = 500 * time.Millisecond

	// flowWindow is what one side may send before the other has read. Fixed and
	// below what TCP buffers, so that a stopped reader stalls the frames and not
	// the connection: a closed TCP window would end it after userTimeout.
	flowWindow = 256 << 10

	// readBuffer is of each connection, busy or not. More of it saves copies and no
	// system call: TLS reads whole records.
	readBuffer = 8 << 10
)

// StreamsConfig is what Streams is made with.
type StreamsConfig struct {
	// Listener is the stream port; it is closed by Stop.
	Listener net.Listener

	// ServerTLS demands a certificate of a node or client of this cluster.
	ServerTLS *tls.Config
	// ClientTLS accepts no other than that node.
	ClientTLS func(peer belfry.NodeID) *tls.Config
	// Guest tells whether a connection is of somebody without a certificate, whom
	// ServerTLS lets in for one purpose. Such a connection counts as a pending
	// handshake for as long as it is open, which is guestTime at most. Nil: there
	// are none.
	Guest func(tls.ConnectionState) bool
	// Identify says which node holds the certificate of a verified connection;
	// an error means that it is not a node's.
	Identify func(tls.ConnectionState) (belfry.NodeID, error)

	Self Hello

	// Deliver takes what happens. Events of one peer come in order, those of
	// several peers from several goroutines. It may wait: then the peer's
	// stream does.
	Deliver func(StreamEvent)

	// Duplicate is told of a peer for which a second agent asks for a stream again
	// and again, at most every 5 s. Nil: nobody is told.
	Duplicate func(peer belfry.NodeID)

	// Serve answers a peer's call of a method, by name and encoded message. It
	// runs on a goroutine of its own, at most 8 for one peer, and ctx bounds it
	// by 5 s. Nil answers ErrUnsupported.
	Serve func(ctx context.Context, from belfry.NodeID, method string, request []byte) ([]byte, error)

	// Services adds the services that clients may use, with the ServerOptions
	// that judge their calls. Both may be nil.
	Services      func(*grpc.Server)
	ServerOptions []grpc.ServerOption

	Logger *slog.Logger // nil: no log
}

// Hello is what each side says first.
type Hello struct {
	Node        belfry.NodeID
	Name        string
	Incarnation belfry.Incarnation
	Boot        belfry.Boot
	Generation  uint64 // of the member table
	PID         uint32
	Version     string // of the agent
	Started     time.Time
}

// A StreamEvent is something that happened with a peer. The set is sealed.
type StreamEvent interface{ streamEvent() }

type (
	// Up says that both sides have said hello: frames can be exchanged.
	Up struct {
		Peer  belfry.NodeID
		Hello Hello
	}

	// Reset says that the stream ended and nobody had said goodbye: a sign that
	// the peer's process ended, to be confirmed.
	Reset struct {
		Peer        belfry.NodeID
		Incarnation belfry.Incarnation // of the process that had the stream
		Err         error
	}

	// Goodbye says that the stream was closed on purpose, by the peer with its
	// reason, or by this node (GoodbyeRekey): no sign of anything.
	Goodbye struct {
		Peer        belfry.NodeID
		Incarnation belfry.Incarnation // of the process that had the stream
		Reason      cluster.StreamEvent
	}

	// Frame is a frame of the peer's event machine.
	Frame struct {
		Peer  belfry.NodeID
		Frame event.Frame
	}

	// A Configuration is what the peer holds of what all nodes share.
	Configuration struct {
		Peer     belfry.NodeID
		Document []byte
	}

	// Ready says that the sender is free for one more event.PeerBatch: after Up,
	// and after each one that was sent.
	Ready struct{ Peer belfry.NodeID }

	// Dialed is the outcome of a Probe.
	Dialed struct {
		Peer   belfry.NodeID
		Link   uint8
		Result cluster.DialResult
	}
)

func (Up) streamEvent()      {}
func (Reset) streamEvent()   {}
func (Goodbye) streamEvent() {}
func (Frame) streamEvent()   {}
func (Ready) streamEvent()   {}
func (Dialed) streamEvent()  {}

func (Configuration) streamEvent() {}

// A StreamPeer is one member as the streams see it.
type StreamPeer struct {
	ID    belfry.NodeID
	Addrs []netip.AddrPort // of its stream port, tried in turn
}

// Streams keeps one stream to each peer, dialled by the node with the lower
// NodeID, and serves the stream port. Its methods are safe for concurrent use
// and none but Stop and Call waits.
type Streams struct {
	cfg    StreamsConfig
	log    *slog.Logger
	server *grpc.Server
	doors  *doors

	generation atomic.Uint64 // of the member table, for the next hello

	running context.Context // ends with Stop: the parent of what its goroutines do, no caller's
	cancel  context.CancelFunc
	group   sync.WaitGroup // dialers, probes, answers, the server

	mu      sync.Mutex
	remotes map[belfry.NodeID]*remote
	probing map[linkID]bool
	stopped bool
}

// NewStreams serves the listener and dials nobody yet.
func NewStreams(cfg StreamsConfig) *Streams {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Streams{
		cfg:     cfg,
		log:     cfg.Logger,
		doors:   newDoors(cfg.Listener),
		running: ctx,
		cancel:  cancel,
		remotes: map[belfry.NodeID]*remote{},
		probing: map[linkID]bool{},
	}
	s.generation.Store(cfg.Self.Generation)
	s.server = grpc.NewServer(append(slices.Clone(cfg.ServerOptions),
		grpc.ForceServerCodecV2(codec.New()),
		grpc.Creds(s.credentials()),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.ReadBufferSize(readBuffer),
		grpc.StaticStreamWindowSize(flowWindow),
		grpc.StaticConnWindowSize(2*flowWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: math.MaxInt64}), // no periodic bytes
		grpc.WaitForHandlers(true),
	)...)
	belfryv1.RegisterPeerServiceServer(s.server, &peerService{streams: s})
	if cfg.Services != nil {
		cfg.Services(s.server)
	}
	s.group.Go(func() {
		if err := s.server.Serve(s.doors); err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
			s.log.Error("stream port is not served any more", "err", err)
		}
	})
	return s
}

// SetGeneration is what the next hellos say of the member table.
func (s *Streams) SetGeneration(generation uint64) { s.generation.Store(generation) }

// SetPeers replaces the peers. Streams to nodes that are not in it any more
// are closed with a goodbye; what they send is not read from now on.
func (s *Streams) SetPeers(peers []StreamPeer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	listed, from := map[belfry.NodeID]bool{}, map[netip.Addr]bool{}
	for _, p := range peers {
		if p.ID == s.cfg.Self.Node {
			continue
		}
		listed[p.ID] = true
		for _, addr := range p.Addrs {
			from[addr.Addr().Unmap()] = true
		}
		r := s.remotes[p.ID]
		if r == nil {
			r = newRemote(s, p.ID)
			s.remotes[p.ID] = r
			dialing, cancel := context.WithCancel(s.running)
			r.stopDialing = cancel
			if r.dials() {
				s.group.Go(func() { r.dialLoop(dialing) })
			} else {
				s.group.Go(func() { r.knockLoop(dialing) })
			}
		}
		r.setAddrs(p.Addrs)
	}
	s.doors.expect(from)
	for id, r := range s.remotes {
		if !listed[id] {
			delete(s.remotes, id)
			r.drop()
		}
	}
}

func (s *Streams) remote(id belfry.NodeID) *remote {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remotes[id]
}

// Connected tells whether there is a stream to a peer.
func (s *Streams) Connected(peer belfry.NodeID) bool {
	r := s.remote(peer)
	return r != nil && r.session() != nil
}

// A StreamStatus tells of the stream to one peer.
type StreamStatus struct {
	Up        bool
	Since     time.Time // there is none; zero: there is one
	Error     string    // why the last attempt failed; empty: none has been made or seen
	PeerDials bool      // the peer opens it
}

// Status tells of the stream to a peer; the zero value of one that is not listed.
func (s *Streams) Status(peer belfry.NodeID) StreamStatus {
	r := s.remote(peer)
	if r == nil {
		return StreamStatus{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return StreamStatus{Up: r.current != nil, Since: r.gone, Error: r.trouble, PeerDials: !r.dials()}
}

// Seen is the newest incarnation that agents of a peer have shown on a stream,
// and what the one that has a stream now said of itself; zero: none had, none has.
func (s *Streams) Seen(peer belfry.NodeID) (newest belfry.Incarnation, connected Hello) {
	r := s.remote(peer)
	if r == nil {
		return 0, Hello{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil && !r.current.ended() {
		connected = r.current.hello
	}
	return r.incarnation, connected
}

// Wake dials a peer at once instead of when its back-off ends, for example
// because its datagrams say that it has started anew, or arrive again. Where the
// peer dials, and there is no stream, it is asked to soon.
func (s *Streams) Wake(peer belfry.NodeID) {
	if r := s.remote(peer); r != nil {
		r.poke()
	}
}

// Disconnect closes the stream to a peer, if there is one, with a goodbye: it
// is no sign of anything, and the side that dials does so again by itself. It
// does not wait, not even for a peer that does not read.
func (s *Streams) Disconnect(peer belfry.NodeID) {
	if r := s.remote(peer); r != nil {
		if session := r.session(); session != nil {
			session.dismiss(cluster.GoodbyeRekey)
		}
	}
}

// Reroute closes the stream to a peer as Disconnect does, if it runs over the
// link between these two addresses and is older than failed: one that came
// later has shown that the link carries it. The side that dials goes on to the
// peer's next address. A connection that is idle outlives its network unnoticed,
// or at one end only, so that somebody has to say so.
func (s *Streams) Reroute(peer belfry.NodeID, local, remote netip.Addr, failed time.Time) {
	r := s.remote(peer)
	if r == nil {
		return
	}
	session := r.session()
	if session != nil && session.began.Before(failed) && (session.at == local || session.at == remote) {
		session.dismiss(cluster.GoodbyeRekey)
	}
}

// SendFrame queues a frame. It wraps ErrUnknown if there is no stream, and
// ErrLimit if the queue is full, which only a peer that does not read can
// bring about.
func (s *Streams) SendFrame(peer belfry.NodeID, f event.Frame) error {
	err := errNoStream
	if r := s.remote(peer); r != nil {
		err = r.send(item{frame: f})
	}
	if err != nil {
		return &belfry.Error{Op: "stream.send", Node: peer, Err: err}
	}
	return nil
}

// SendConfiguration queues what all nodes share. Errors are those of SendFrame.
func (s *Streams) SendConfiguration(peer belfry.NodeID, generation uint64, document []byte) error {
	err := errNoStream
	if r := s.remote(peer); r != nil {
		err = r.send(item{raw: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Configuration{
			Configuration: &belfryv1.Configuration{Generation: generation, Document: document},
		}}})
	}
	if err != nil {
		return &belfry.Error{Op: "stream.send", Node: peer, Err: err}
	}
	return nil
}

var errNoStream = fmt.Errorf("%w: no stream to that node; it is down, starting or not a member", belfry.ErrUnknown)

// Call asks a peer (StreamsConfig.Serve there) and waits for its answer. It
// wraps ErrUnknown if there is no stream or it ends meanwhile, the error of ctx,
// else what the peer says.
func (s *Streams) Call(ctx context.Context, peer belfry.NodeID, method string, request []byte) ([]byte, error) {
	err := errNoStream
	if r := s.remote(peer); r != nil {
		if session := r.session(); session != nil {
			var response []byte
			if response, err = session.calls.call(ctx, session, method, request); err == nil {
				return response, nil
			}
		}
	}
	return nil, &belfry.Error{Op: "peer.call", Node: peer, Subject: method, Err: err}
}

// Stop says goodbye to all peers, waits for their answers for 500 ms or until
// ctx ends, and closes everything, the services too. Afterwards Deliver is
// not called any more; so it must not be Deliver that calls Stop.
func (s *Streams) Stop(ctx context.Context, reason cluster.StreamEvent) error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return nil
	}
	s.stopped = true
	remotes := s.remotes
	s.remotes = map[belfry.NodeID]*remote{}
	s.mu.Unlock()

	patience, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	for _, r := range remotes { // the order can be seen by nobody
		r.leave(reason)
	}
	for _, r := range remotes {
		r.wait(patience)
	}
	s.cancel()
	s.server.Stop() // closes the listener and all connections, and waits for the handlers
	s.group.Wait()
	return nil
}

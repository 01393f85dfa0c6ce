// Package api serves the agent's gRPC services to local processes over a unix
// socket and to remote ones over TLS, and the same as JSON and server-sent
// events to browsers. It knows who calls, what that caller may do, and how
// much of it; what the answers are comes from [Events] and [Cluster].
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/codec"
)

// Limits of security.md.
const (
	maxRequest   = 1 << 20 // bytes
	maxResponse  = 4 << 20 // bytes
	maxStreams   = 128     // per connection
	maxHeaders   = 16 << 10
	flowWindow   = 256 << 10 // bytes of a stream not read yet; fixed, since finding a better one takes a ping for each message
	callRate     = 2000      // requests a second and local connection, or remote client
	callBurst    = 4000
	denialRate   = 10              // denials logged in a second
	helloTimeout = 5 * time.Second // for the first request of a stream or connection
)

// Options are what a Server needs.
type Options struct {
	Events   Events
	Cluster  Cluster
	Config   Configuration
	Members  Members
	Handlers Handlers
	Journal  Journal
	Witness  Witness // nil: this agent is no witness

	Declarations Declarations // nil: there are none

	// WitnessStatus is how the witness of this node is doing. Nil: nobody knows.
	WitnessStatus func(context.Context) *belfryv1.WitnessStatus
	Leader        Leader // nil: this node makes all changes

	// Documents is the configuration as a whole. Nil: there is only what Config has.
	Documents ConfigDocuments
	// Relocator brings the repository elsewhere. Nil: there is none.
	Relocator Relocator

	// Licenses is how products stand on this node. Nil: there are none.
	Licenses Licenses

	// Producers says how what watches the operating system is doing. It is called
	// from many goroutines. Nil: it is not told.
	Producers func() *belfryv1.ProducersStatus

	// Repository says how this node stands to the repository. It is called from
	// many goroutines. Nil: there is none.
	Repository func() *belfryv1.RepositoryStatus

	// Joins lets in who has no certificate, on connections that are a Guest's.
	// Nil Guest: there are none.
	Joins Joins
	Guest func(tls.ConnectionState) bool

	// Identify says who is at the other end of the unix socket. It is called once
	// for each connection, from many goroutines. An error refuses the connection.
	Identify func(net.Conn) (Subject, error)

	// IdentifyTLS says who holds a verified client certificate. An error
	// refuses the request. Nil refuses all.
	IdentifyTLS func(tls.ConnectionState) (Subject, error)

	// Decide says whether a subject has the right to one part of a request, and
	// as which role, the most powerful of those that it has. It is called for each
	// part, from many goroutines. Nil refuses everything.
	Decide func(Subject, Ask) (belfry.Role, bool)

	// Owns says whether what a class and a subject name is a local caller's own.
	// It may read the file system, and is called from many goroutines. What it
	// can not tell is not. Nil: nothing is.
	Owns func(s Subject, class, subject string) bool

	// Audit keeps what was done and what was refused. It never waits, and is
	// called from many goroutines. Nil keeps nothing.
	Audit func(AuditRecord)

	Logger *slog.Logger

	// ResumeFor is how long the consumer of a broken stream is kept. Zero means
	// 60 s, negative not at all.
	ResumeFor time.Duration
}

// A Server is the API of one agent. Its methods are safe for concurrent use.
type Server struct {
	opts      Options
	log       *slog.Logger
	consumers *consumers
	streams   judgedStreams
	senders   senders      // rate of user events, per subject
	callers   buckets      // rate of requests, per remote client
	calls     atomic.Int64 // under way, but for streams
	answered  atomic.Int64 // when the last of them ended, unix ns: its answer may not be out yet
	denied    atomic.Uint64
	limited   atomic.Uint64
	malformed atomic.Uint64

	denials    *bucket // that are logged
	suppressed atomic.Uint64

	mu      sync.Mutex
	stops   []func(context.Context) // of what Serve… started, run backwards
	stopped bool
	group   sync.WaitGroup
}

// New makes a Server that serves nothing yet.
func New(opts Options) *Server {
	if opts.ResumeFor == 0 {
		opts.ResumeFor = 60 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Decide == nil {
		opts.Decide = func(s Subject, _ Ask) (belfry.Role, bool) { return s.Role, false }
	}
	if opts.Owns == nil {
		opts.Owns = func(Subject, string, string) bool { return false }
	}
	if opts.Audit == nil {
		opts.Audit = func(AuditRecord) {}
	}
	if opts.Journal == nil {
		opts.Journal = noJournal{}
	}
	if opts.WitnessStatus == nil {
		opts.WitnessStatus = func(context.Context) *belfryv1.WitnessStatus { return nil }
	}
	if opts.Declarations == nil {
		opts.Declarations = noDeclarations{}
	}
	if opts.Producers == nil {
		opts.Producers = func() *belfryv1.ProducersStatus { return nil }
	}
	if opts.Repository == nil {
		opts.Repository = func() *belfryv1.RepositoryStatus { return nil }
	}
	if opts.Witness == nil {
		opts.Witness = noWitness{}
	}
	if opts.Leader == nil {
		opts.Leader = alone{}
	}
	return &Server{
		opts:      opts,
		log:       opts.Logger.With("component", "api"),
		consumers: newConsumers(opts.ResumeFor),
		senders:   senders{buckets{rate: sendRate, burst: sendBurst}},
		callers:   buckets{rate: callRate, burst: callBurst},
		denials:   newBucket(denialRate, denialRate, time.Now()),
	}
}

// Counters only grow.
type Counters struct {
	Denied    uint64 // connections, requests and registrations refused for want of a right
	Limited   uint64 // connections and requests refused because a limit was reached
	Malformed uint64 // requests that could not be read: too large, or not what they should be
}

// Counters is a copy.
func (s *Server) Counters() Counters {
	return Counters{Denied: s.denied.Load(), Limited: s.limited.Load(), Malformed: s.malformed.Load()}
}

// Register adds the services to a gRPC server that was made with
// [Server.ServerOptions].
func (s *Server) Register(g *grpc.Server) {
	for service, implementation := range s.services() {
		g.RegisterService(service, implementation)
	}
}

// services are all that this package implements.
func (s *Server) services() map[*grpc.ServiceDesc]any {
	return map[*grpc.ServiceDesc]any{
		&belfryv1.EventService_ServiceDesc:   &eventService{s: s},
		&belfryv1.NodeService_ServiceDesc:    &nodeService{s: s},
		&belfryv1.LinkService_ServiceDesc:    &linkService{s: s},
		&belfryv1.ConfigService_ServiceDesc:  &configService{s: s},
		&belfryv1.HandlerService_ServiceDesc: &handlerService{s: s},
		&belfryv1.MemberService_ServiceDesc:  &memberService{s: s},
		&belfryv1.WitnessService_ServiceDesc: &witnessService{s: s},
		&belfryv1.LicenseService_ServiceDesc: &licenseService{s: s},
	}
}

// ServerOptions are the interceptors that judge each call of this package's
// services, and the limits. Calls of other services pass them untouched.
func (s *Server) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.ForceServerCodecV2(lenient{codec.New()}),
		grpc.StatsHandler(unreadable{s}),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxSendMsgSize(maxResponse),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(helloTimeout),
		grpc.StaticStreamWindowSize(flowWindow),
		grpc.StaticConnWindowSize(2 * flowWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// ServeUnix listens on a unix socket and returns when it does; [Server.Stop]
// ends it and removes the socket. group may be empty: the process's own. The
// error says what is in the way.
func (s *Server) ServeUnix(path, group string) error {
	l, err := listenUnix(path, group)
	if err != nil {
		return err
	}
	options := append(s.ServerOptions(), grpc.Creds(newLocalCredentials(s.identifyLocal, &s.limited)), grpc.WaitForHandlers(true))
	g := grpc.NewServer(options...)
	s.Register(g)
	return s.serve(func() error { return g.Serve(l) }, func(context.Context) { s.end(g) })
}

// lastAnswers bounds the wait for requests that are being answered when the
// agent stops: a node that leaves is answered and stops at once.
const lastAnswers = 200 * time.Millisecond

// end stops a server. Streams never end by themselves, and are cut.
func (s *Server) end(g *grpc.Server) {
	if s.calls.Load() > 0 || time.Since(time.Unix(0, s.answered.Load())) < lastAnswers {
		answered := make(chan struct{})
		go func() { g.GracefulStop(); close(answered) }()
		select {
		case <-answered:
		case <-time.After(lastAnswers):
		}
	}
	g.Stop()
}

// identifyLocal counts and logs who is not let in.
func (s *Server) identifyLocal(conn net.Conn) (Subject, error) {
	subject, err := s.opts.Identify(conn)
	if err != nil {
		err = s.deny(subject, "connect", "", err)
	}
	return subject, err
}

// serve runs one listener until Stop.
func (s *Server) serve(run func() error, stop func(context.Context)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		stop(context.Background())
		return errors.New("the API has been stopped; make a new one")
	}
	s.stops = append(s.stops, stop)
	s.group.Go(func() {
		if err := run(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, grpc.ErrServerStopped) {
			s.log.Error("listener ended", "err", err)
		}
	})
	return nil
}

// Stop ends every listener, stream and consumer, and waits for their
// goroutines until ctx is done.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	stops := s.stops
	s.stops, s.stopped = nil, true
	s.mu.Unlock()
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i](ctx)
	}
	s.consumers.closeAll()
	done := make(chan struct{})
	go func() {
		s.group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

package transport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// peerService is the accepting end of the streams. Other services on the same
// port have their own judge (StreamsConfig.ServerOptions); this one is for
// nodes only.
type peerService struct {
	belfryv1.UnimplementedPeerServiceServer
	streams *Streams
}

// Connect is one stream, from the dialler's hello to its end.
func (p *peerService) Connect(stream grpc.BidiStreamingServer[belfryv1.ConnectRequest, belfryv1.ConnectResponse]) error {
	s := p.streams
	r, conn, err := s.caller(stream.Context())
	if err != nil {
		return s.refuse(nil, err)
	}
	if err := quiet(conn); err != nil {
		return s.refuse(r, err)
	}
	abort := func() { _ = conn.Close() }
	timer := time.AfterFunc(handshakeTimeout, abort)
	f := acceptedFrames{stream, &belfryv1.ConnectRequest{}}
	first, err := f.recv()
	if !timer.Stop() || err != nil {
		return s.refuse(r, fmt.Errorf("%w: no hello; it is the first frame", belfry.ErrUsage))
	}
	hello, err := helloOf(first, r.id)
	if err != nil {
		return s.refuse(r, err)
	}
	if r.dials() {
		return s.refuse(r, r.knocked(hello))
	}
	session := newSession(r, hello, f, hostOf(conn.LocalAddr()), abort)
	if err := r.install(session, func() error { return f.send(s.helloFrame()) }); err != nil {
		return s.refuse(r, err)
	}
	session.run()
	return nil
}

// caller identifies the dialler by its certificate and judges whether it may
// have a stream at all.
func (s *Streams) caller(ctx context.Context) (*remote, *doorConn, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return nil, nil, fmt.Errorf("%w: the caller is unknown", belfry.ErrPermission)
	}
	auth, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, nil, fmt.Errorf("%w: no certificate; streams need TLS", belfry.ErrPermission)
	}
	id, err := s.cfg.Identify(auth.State)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", belfry.ErrPermission, err)
	}
	if id == s.cfg.Self.Node {
		return nil, nil, fmt.Errorf("%w: this node connects to itself, or another agent runs as it; one agent per identity", belfry.ErrExist)
	}
	r := s.remote(id)
	if r == nil {
		return nil, nil, errNotListed
	}
	conn := s.doors.connection(from.Addr.String())
	if conn == nil {
		return nil, nil, fmt.Errorf("%w: the connection is closed", belfry.ErrUnknown)
	}
	return r, conn, nil
}

// refuse ends a call. The dialler logs the text, which it tells once.
func (s *Streams) refuse(r *remote, err error) error {
	log := s.log
	if r != nil {
		log = r.log
	}
	code := codes.FailedPrecondition
	switch {
	case errors.Is(err, belfry.ErrPermission), errors.Is(err, belfry.ErrNotMember):
		code = codes.PermissionDenied
	case errors.Is(err, belfry.ErrExist):
		code = codes.AlreadyExists
		log.Warn("stream refused", "err", err)
	}
	log.Debug("stream refused", "err", err)
	return status.Error(code, err.Error())
}

// acceptedFrames is the accepting end.
type acceptedFrames struct {
	stream grpc.BidiStreamingServer[belfryv1.ConnectRequest, belfryv1.ConnectResponse]
	in     *belfryv1.ConnectRequest
}

func (f acceptedFrames) send(frame *belfryv1.PeerFrame) error {
	return f.stream.Send(&belfryv1.ConnectResponse{Frame: frame})
}

func (f acceptedFrames) recv() (*belfryv1.PeerFrame, error) {
	err := f.stream.RecvMsg(f.in)
	return f.in.GetFrame(), err
}

// closeSend does nothing: the dialler closes when it has read the goodbye.
func (f acceptedFrames) closeSend() {}

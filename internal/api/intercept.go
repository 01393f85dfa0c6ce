package api

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// admit identifies the caller, charges its connection and judges the method.
// Every call passes here, from whichever listener. req is nil of a stream.
func (s *Server) admit(ctx context.Context, method string, req any) (context.Context, error) {
	op := operation(method)
	if seen, ok := ctx.Value(seenKey{}).(*atomic.Bool); ok {
		seen.Store(true)
	}
	if _, inside := ctx.Value(subjectKey{}).(Subject); !inside { // else the web handler has identified it
		subject, calls, err := s.identify(ctx)
		if err != nil {
			s.denied.Add(1)
			s.auditDenied(subject, op, wanted(req), err)
			return nil, statusOf(&belfry.Error{Op: op, Err: err})
		}
		if !calls.take(time.Now(), 1) {
			s.limited.Add(1)
			err := fmt.Errorf("%w: more than %d requests a second from one caller; slow down", belfry.ErrLimit, callRate)
			return nil, statusOf(&belfry.Error{Op: op, Err: err})
		}
		ctx = withSubject(ctx, subject)
	}
	if err := s.judge(subjectFrom(ctx), method, wanted(req)); err != nil {
		return nil, statusOf(err)
	}
	return ctx, nil
}

// deny counts a refusal, and logs it unless there are too many to read. target
// is for the audit log; empty: the subject of err. It returns err.
func (s *Server) deny(subject Subject, op, target string, err error) error {
	s.denied.Add(1)
	s.auditDenied(subject, op, target, err)
	if !s.denials.take(time.Now(), 1) {
		s.suppressed.Add(1)
		return err
	}
	s.log.Info("denied", "suppressed", s.suppressed.Swap(0), "subject", subject.String(), "role", subject.Role.String(), "op", op, "err", err)
	return err
}

// identify takes the subject from the connection, never from the request. The
// bucket is that of a local connection, or of a remote client: nothing else
// bounds how many connections that one has.
func (s *Server) identify(ctx context.Context) (Subject, *bucket, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Subject{}, nil, fmt.Errorf("%w: the caller is unknown", belfry.ErrPermission)
	}
	switch auth := p.AuthInfo.(type) {
	case localAuth:
		return auth.subject, auth.calls, nil
	case credentials.TLSInfo:
		if s.opts.IdentifyTLS == nil {
			break
		}
		subject, err := s.opts.IdentifyTLS(auth.State)
		if err != nil {
			return Subject{}, nil, fmt.Errorf("%w: %w", belfry.ErrPermission, err)
		}
		return subject, s.callers.of(subject, time.Now()), nil
	}
	return Subject{}, nil, fmt.Errorf("%w: the caller is not identified; use the unix socket or a client certificate", belfry.ErrPermission)
}

// ours tells whether a method belongs to the services of this package.
func ours(method string) bool {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	switch service {
	case belfryv1.EventService_ServiceDesc.ServiceName, belfryv1.NodeService_ServiceDesc.ServiceName, belfryv1.LinkService_ServiceDesc.ServiceName,
		belfryv1.ConfigService_ServiceDesc.ServiceName, belfryv1.MemberService_ServiceDesc.ServiceName,
		belfryv1.HandlerService_ServiceDesc.ServiceName, belfryv1.WitnessService_ServiceDesc.ServiceName,
		belfryv1.LicenseService_ServiceDesc.ServiceName:
		return true
	}
	return false
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !ours(info.FullMethod) {
		return handler(ctx, req)
	}
	s.calls.Add(1)
	defer func() { s.answered.Store(time.Now().UnixNano()); s.calls.Add(-1) }()
	ctx, err := s.admit(ctx, info.FullMethod, req)
	if err != nil {
		return nil, err
	}
	resp, err := handler(ctx, req)
	return resp, statusOf(err)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !ours(info.FullMethod) {
		return handler(srv, stream)
	}
	ctx, err := s.admit(stream.Context(), info.FullMethod, nil)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	o := &judgedStream{subject: subjectFrom(ctx), method: info.FullMethod, end: end}
	defer s.streams.add(o)()
	if err := s.judge(o.subject, o.method, ""); err != nil { // a right that was lost before it was among those that are judged again
		return statusOf(err)
	}
	err = handler(srv, &identifiedStream{ServerStream: stream, ctx: ctx, malformed: &s.malformed})
	return statusOf(endedBy(ctx, err))
}

// identifiedStream carries the context that knows the subject.
type identifiedStream struct {
	grpc.ServerStream
	malformed *atomic.Uint64

	ctx context.Context // grpc hands a stream's context out by its method Context
}

func (s *identifiedStream) Context() context.Context { return s.ctx }

// RecvMsg counts what can not be read; grpc ends the stream with it.
func (s *identifiedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if code := status.Code(err); code == codes.ResourceExhausted || code == codes.Internal {
		s.malformed.Add(1)
	}
	return err
}

// An unreadable counts requests that end before the interceptors see them:
// too large, or not the message they should be. It is a [stats.Handler],
// because grpc tells nobody else.
type unreadable struct{ s *Server }

// seenKey is the key of an *atomic.Bool in a context: the interceptors saw it.
type seenKey struct{}

// TagRPC marks a call of ours.
func (unreadable) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if !ours(info.FullMethodName) {
		return ctx
	}
	return context.WithValue(ctx, seenKey{}, new(atomic.Bool))
}

// HandleRPC looks at how a call ended.
func (u unreadable) HandleRPC(ctx context.Context, event stats.RPCStats) {
	end, ok := event.(*stats.End)
	if !ok || end.Error == nil {
		return
	}
	if seen, ok := ctx.Value(seenKey{}).(*atomic.Bool); ok && !seen.Load() {
		u.s.malformed.Add(1)
	}
}

// TagConn and HandleConn have nothing to do.
func (unreadable) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn has nothing to do.
func (unreadable) HandleConn(context.Context, stats.ConnStats) {}

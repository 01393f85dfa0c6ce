package api

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// inside is a connection of this process to its own services: the web handler
// calls them through it, and so through the same interceptors as everybody.
// Its calls carry their Subject in the context, which no other caller can do.
type inside struct {
	s       *Server
	methods map[string]insideMethod
}

type insideMethod struct {
	service any
	unary   *grpc.MethodDesc
	stream  *grpc.StreamDesc
}

func newInside(s *Server) *inside {
	c := &inside{s: s, methods: map[string]insideMethod{}}
	for desc, service := range s.services() {
		for i := range desc.Methods {
			c.methods["/"+desc.ServiceName+"/"+desc.Methods[i].MethodName] = insideMethod{service: service, unary: &desc.Methods[i]}
		}
		for i := range desc.Streams {
			c.methods["/"+desc.ServiceName+"/"+desc.Streams[i].StreamName] = insideMethod{service: service, stream: &desc.Streams[i]}
		}
	}
	return c
}

// Invoke is [grpc.ClientConnInterface].
func (c *inside) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m := c.methods[method]
	if m.unary == nil {
		return status.Error(codes.Unimplemented, "no method "+method)
	}
	decode := func(req any) error { return transfer(req, args) }
	resp, err := m.unary.Handler(m.service, ctx, decode, c.s.unary)
	if err != nil {
		return err
	}
	return transfer(reply, resp)
}

// transfer copies a message, as the wire would.
func transfer(to, from any) error {
	dst, ok := to.(proto.Message)
	src, ok2 := from.(proto.Message)
	if !ok || !ok2 {
		return fmt.Errorf("%T to %T: not messages", from, to)
	}
	proto.Reset(dst)
	proto.Merge(dst, src)
	return nil
}

// NewStream is [grpc.ClientConnInterface]; the stream ends with ctx.
func (c *inside) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	m := c.methods[method]
	if m.stream == nil {
		return nil, status.Error(codes.Unimplemented, "no method "+method)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &pipe{ctx: ctx, up: make(chan proto.Message), closed: make(chan struct{}), down: make(chan proto.Message), over: make(chan struct{})}
	info := &grpc.StreamServerInfo{FullMethod: method, IsClientStream: m.stream.ClientStreams, IsServerStream: m.stream.ServerStreams}
	c.s.group.Go(func() {
		defer cancel()
		p.err = c.s.stream(m.service, serverEnd{p}, info, func(srv any, stream grpc.ServerStream) error {
			return m.stream.Handler(srv, stream)
		})
		close(p.over)
	})
	return clientEnd{p}, nil
}

// A pipe joins the two ends of a stream inside the process.
type pipe struct {
	ctx      context.Context // both ends hand it out by grpc's method Context
	up, down chan proto.Message
	closed   chan struct{} // the client sends no more
	over     chan struct{} // the handler has returned err
	err      error
}

func (p *pipe) pass(ctx context.Context, to chan<- proto.Message, m any) error {
	message, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a message", m)
	}
	select {
	case to <- proto.Clone(message): // whoever sends it may use it again
		return nil
	case <-p.over:
		return io.EOF
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

type serverEnd struct{ *pipe }

func (e serverEnd) Context() context.Context     { return e.ctx }
func (e serverEnd) SetHeader(metadata.MD) error  { return nil }
func (e serverEnd) SendHeader(metadata.MD) error { return nil }
func (e serverEnd) SetTrailer(metadata.MD)       {}
func (e serverEnd) SendMsg(m any) error          { return e.pass(e.ctx, e.down, m) }
func (e serverEnd) RecvMsg(m any) error {
	select {
	case got := <-e.up:
		return transfer(m, got)
	case <-e.closed:
		return io.EOF
	case <-e.ctx.Done():
		return status.FromContextError(e.ctx.Err()).Err()
	}
}

type clientEnd struct{ *pipe }

func (e clientEnd) Context() context.Context     { return e.ctx }
func (e clientEnd) Header() (metadata.MD, error) { return metadata.MD{}, nil }
func (e clientEnd) Trailer() metadata.MD         { return metadata.MD{} }
func (e clientEnd) SendMsg(m any) error          { return e.pass(e.ctx, e.up, m) }
func (e clientEnd) CloseSend() error             { close(e.closed); return nil }
func (e clientEnd) RecvMsg(m any) error {
	select {
	case got := <-e.down:
		return transfer(m, got)
	case <-e.over:
		if e.err == nil {
			return io.EOF
		}
		return e.err
	}
}

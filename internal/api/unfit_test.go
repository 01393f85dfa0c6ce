package api

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/codec"
)

// careless writes what a client writes that does not look at its text: where a name
// says so, the byte 0xff, which is in no UTF-8.
type careless struct{ encoding.CodecV2 }

const notUTF8 = "NOT-UTF-8"

func (c careless) Marshal(v any) (mem.BufferSlice, error) {
	b, err := c.CodecV2.Marshal(v)
	if err != nil {
		return nil, err
	}
	text := strings.ReplaceAll(string(b.Materialize()), notUTF8, strings.Repeat("\xff", len(notUTF8)))
	return mem.BufferSlice{mem.SliceBuffer([]byte(text))}, nil
}

func (a *agent) careless(t *testing.T, ctx context.Context) subscriber {
	t.Helper()
	stream, err := belfryv1.NewEventServiceClient(a.conn(t)).Subscribe(ctx, grpc.ForceCodecV2(careless{codec.New()}))
	if err != nil {
		t.Fatal(err)
	}
	return subscriber{t, stream}
}

type subscriber struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[belfryv1.SubscribeRequest, belfryv1.SubscribeResponse]
}

func (s subscriber) hello(h *belfryv1.Hello) *belfryv1.Welcome {
	s.t.Helper()
	s.send(&belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Hello{Hello: h}})
	return s.next().GetWelcome()
}

func (s subscriber) send(m *belfryv1.SubscribeRequest) {
	s.t.Helper()
	if err := s.stream.Send(m); err != nil {
		s.t.Fatal(err)
	}
}

func (s subscriber) register(number uint32, r *belfryv1.Registration) *belfryv1.SubscribeResponse {
	s.t.Helper()
	s.send(&belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Register{Register: &belfryv1.Register{Number: number, Registration: r}}})
	return s.next()
}

func (s subscriber) next() *belfryv1.SubscribeResponse {
	s.t.Helper()
	m, err := s.stream.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// TestTextThatIsNotUTF8IsRefusedAlone: the stream goes on, with the registrations
// before and after it.
func TestTextThatIsNotUTF8IsRefusedAlone(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	s := a.careless(t, t.Context())
	s.hello(&belfryv1.Hello{})
	if s.register(1, &belfryv1.Registration{Class: "process.exit", Subject: "exe=/bin/x"}).GetRegistered() == nil {
		t.Fatal("the first one is refused")
	}
	c := <-a.events.opened
	for number, r := range map[uint32]*belfryv1.Registration{
		7: {Class: "process.exit", Subject: "exe=/" + notUTF8},
		8: {Class: notUTF8},
		9: {Class: "process.exit", Since: &belfryv1.Since{Kind: &belfryv1.Since_Cursor{Cursor: notUTF8}}},
	} {
		refused := s.register(number, r).GetRefused()
		field := map[uint32]string{7: `subject "exe=/\xff`, 8: `class "\xff`, 9: `since.cursor "\xff`}[number]
		if refused.GetNumber() != number || refused.GetRefusal().GetCode() != belfry.Code(belfry.ErrUsage) || refused.GetRefusal().GetOp() != opRegister {
			t.Errorf("%d: %+v; want wrong use of it", number, refused)
		}
		if text := refused.GetRefusal().GetMessage(); !strings.HasPrefix(text, field) || !strings.Contains(text, "encode it so") {
			t.Errorf("%d: %q; want the field and the remedy", number, text)
		}
	}
	if s.register(2, &belfryv1.Registration{Class: "node.state"}).GetRegistered() == nil {
		t.Error("the one after it is refused")
	}
	c.post(exit(1, 1, 3))
	if n := s.next().GetBatch().GetNotifications(); len(n) != 1 || n[0].GetRegistration() != 1 || n[0].GetSequence() != 3 {
		t.Errorf("%+v; want what happened, for the first one", n)
	}
}

// TestTextThatEndsAStreamIsNamed, with the remedy; and where a message is no message
// the stream ends, but who comes again has lost nothing.
func TestTextThatEndsAStreamIsNamed(t *testing.T) {
	t.Parallel()
	a := startAgent(t, admin)
	bad := a.careless(t, t.Context())
	bad.send(&belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Hello{Hello: &belfryv1.Hello{Name: notUTF8}}})
	_, err := bad.stream.Recv()
	if text := status.Convert(err).Message(); status.Code(err) != codes.Internal || !strings.Contains(text, "hello.name \"") || !strings.Contains(text, "is not UTF-8; encode it so") {
		t.Errorf("%v; want the field and the remedy", err)
	}

	first := a.careless(t, t.Context())
	welcome := first.hello(&belfryv1.Hello{})
	if first.register(1, &belfryv1.Registration{Class: "process.exit", Subject: "exe=/bin/x"}).GetRegistered() == nil {
		t.Fatal("it is refused")
	}
	c := <-a.events.opened
	c.expect(t, "register 1 process.exit:exe=/bin/x")
	broken := &belfryv1.SubscribeRequest{}
	broken.ProtoReflect().SetUnknown([]byte{0x12, 0x7f}) // a registration of 127 bytes, of which none is there
	first.send(broken)
	if _, err := first.stream.Recv(); err == nil {
		t.Error("the stream goes on after what is no message")
	}
	c.expect(t, "lost")
	c.post(exit(1, 1, 3))
	again := a.careless(t, t.Context())
	if w := again.hello(&belfryv1.Hello{ResumeToken: welcome.GetToken()}); !w.GetResumed() {
		t.Error("the stream is not known any more")
	}
	if n := again.next().GetBatch().GetNotifications(); len(n) != 1 || n[0].GetRegistration() != 1 || n[0].GetSequence() != 3 {
		t.Errorf("%+v; want what happened meanwhile", n)
	}
}

// FuzzUnfitRegister: whatever is in a request, what is let through is one
// registration that is refused, and no message that protobuf takes is.
func FuzzUnfitRegister(f *testing.F) {
	for _, subject := range []string{"x", "\xff"} {
		m := &belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Register{Register: &belfryv1.Register{
			Number: 3, Registration: &belfryv1.Registration{Class: "user.x", Subject: notUTF8, Nodes: []string{"a"}},
		}}}
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(strings.ReplaceAll(string(b), notUTF8, strings.Repeat(subject, len(notUTF8)))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := unfitRegister(b)
		if r == nil {
			return
		}
		if fit(r.GetRegistration()) == nil {
			t.Error("it is not refused")
		}
		if _, err := proto.Marshal(r); err != nil {
			t.Errorf("it can not be written: %v", err)
		}
	})
}

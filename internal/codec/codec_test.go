package codec

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// fresh is an empty message of each kind that this package reads.
var fresh = []func() proto.Message{
	func() proto.Message { return &belfryv1.SubscribeResponse{} },
	func() proto.Message { return &belfryv1.SubscribeRequest{} },
	func() proto.Message { return &belfryv1.ConnectRequest{} },
	func() proto.Message { return &belfryv1.ConnectResponse{} },
	func() proto.Message { return &belfryv1.SendEventsRequest{} },
	func() proto.Message { return &belfryv1.SendEventsResponse{} },
}

// drawNumber is often zero, and often at an edge.
func drawNumber(t *rapid.T, name string) uint64 {
	return rapid.OneOf(rapid.SampledFrom([]uint64{0, 0, 1, 127, 128, 1<<31 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1}), rapid.Uint64()).Draw(t, name)
}

func drawBatch(t *rapid.T) *belfryv1.Batch {
	number := func(name string) uint64 { return drawNumber(t, name) }
	text := func(name string) string { return rapid.String().Draw(t, name) }
	b := &belfryv1.Batch{Number: number("batch"), JournalPosition: number("position")}
	for range rapid.IntRange(0, 3).Draw(t, "entries") {
		b.Entries = append(b.Entries, &belfryv1.Entry{
			Id: uint32(number("id")), NodeId: rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, "node"), NodeName: text("name"),
			Incarnation: uint32(number("incarnation")), Entry: number("entry"), Class: text("class"), Subject: text("subject"), Instance: text("instance"),
		})
	}
	for range rapid.IntRange(0, 5).Draw(t, "notifications") {
		n := &belfryv1.Notification{
			Kind: belfryv1.Kind(number("kind")), Registration: uint32(number("registration")), Entry: uint32(number("entry")),
			Sequence: number("sequence"), FirstSequence: number("first"), Count: number("count"), Skipped: number("skipped"),
			FirstTime: int64(number("first time")), Time: int64(number("time")), Code: int32(number("code")), Edge: belfryv1.Edge(number("edge")),
			Value: rapid.Float64().Draw(t, "value"), Data: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"),
			LowerBound: rapid.Bool().Draw(t, "lower bound"), Mixed: rapid.Bool().Draw(t, "mixed"), Unmonitored: rapid.Bool().Draw(t, "unmonitored"), Reason: text("reason"), JournalPosition: number("position"),
		}
		if rapid.Bool().Draw(t, "gap") {
			n.Gap = &belfryv1.Gap{
				Total: number("total"), Known: rapid.Bool().Draw(t, "known"), Resync: rapid.Bool().Draw(t, "resync"),
				Reason: belfryv1.GapReason(number("reason")), From: int64(number("from")), To: int64(number("to")),
			}
		}
		b.Notifications = append(b.Notifications, n)
	}
	return b
}

// drawMessage is one of those of events.
func drawMessage(t *rapid.T) proto.Message {
	switch rapid.IntRange(0, 6).Draw(t, "message") {
	case 0:
		return &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: drawBatch(t)}}
	case 1:
		return &belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Ack{Ack: &belfryv1.Ack{Batch: drawNumber(t, "ack")}}}
	case 2:
		return &belfryv1.ConnectRequest{Frame: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Batch{Batch: drawBatch(t)}}}
	case 3:
		return &belfryv1.ConnectResponse{Frame: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Batch{Batch: drawBatch(t)}}}
	case 4:
		return &belfryv1.ConnectResponse{Frame: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Ack{Ack: &belfryv1.Ack{Batch: drawNumber(t, "ack")}}}}
	case 5:
		m := &belfryv1.SendEventsRequest{}
		for range rapid.IntRange(0, 5).Draw(t, "events") {
			m.Events = append(m.Events, &belfryv1.SendEventRequest{
				Class: rapid.String().Draw(t, "class"), Subject: rapid.String().Draw(t, "subject"), Repeat: drawNumber(t, "repeat"),
			})
		}
		return m
	}
	m := &belfryv1.SendEventsResponse{}
	for range rapid.IntRange(0, 5).Draw(t, "results") {
		m.Results = append(m.Results, &belfryv1.SendResult{Matched: uint32(drawNumber(t, "matched"))})
	}
	return m
}

func TestWhatIsWrittenIsProtobufToTheByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		if about(m) == 0 {
			t.Fatalf("left to the library: %v", m)
		}
		got, ok := write(nil, m)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil || !ok || !bytes.Equal(got, want) {
			t.Fatalf("wrote %x, %t\nwant  %x, %v\nof %v", got, ok, want, err, m)
		}
	})
}

func TestWhatIsReadIsWhatProtobufReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawMessage(t)
		b, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := want.ProtoReflect().New().Interface()
		ok := read(b, got)
		clear(b) // nothing may share its memory
		if empty := len(b) == 0; ok == empty && !isSend(want) || ok && !proto.Equal(got, want) {
			t.Fatalf("read %t %v\nwant %v", ok, got, want)
		}
	})
}

func isSend(m proto.Message) bool {
	switch m.(type) {
	case *belfryv1.SendEventsRequest, *belfryv1.SendEventsResponse:
		return true
	}
	return false
}

// fill sets every field of a message, and of those in it, but what the library
// is left with.
func fill(m protoreflect.Message, left map[protoreflect.FullName]bool) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case left[f.FullName()]:
		case f.IsList():
			list := m.Mutable(f).List()
			fill(list.AppendMutable().Message(), left)
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), left)
		default:
			m.Set(f, map[protoreflect.Kind]protoreflect.Value{
				protoreflect.Uint32Kind: protoreflect.ValueOf(uint32(i + 1)), protoreflect.Uint64Kind: protoreflect.ValueOf(uint64(i + 1)),
				protoreflect.Int32Kind: protoreflect.ValueOf(int32(i + 1)), protoreflect.Int64Kind: protoreflect.ValueOf(int64(i + 1)),
				protoreflect.BoolKind: protoreflect.ValueOf(true), protoreflect.DoubleKind: protoreflect.ValueOf(float64(i + 1)),
				protoreflect.StringKind: protoreflect.ValueOf(string(f.Name())), protoreflect.BytesKind: protoreflect.ValueOf([]byte(f.Name())),
				protoreflect.EnumKind: protoreflect.ValueOf(protoreflect.EnumNumber(1)),
			}[f.Kind()])
		}
	}
}

// A field that is added to one of these messages would be lost on the wire. Here
// it is found.
func TestEveryFieldIsWrittenAndRead(t *testing.T) {
	left := map[protoreflect.FullName]bool{ // messages with these are the library's: TestTheRestIsTheLibrarys
		"belfry.v1.Batch.replay": true, "belfry.v1.SendEventRequest.data": true, "belfry.v1.SendResult.refusal": true,
	}
	batch, ack := &belfryv1.Batch{}, &belfryv1.Ack{}
	posts, results := &belfryv1.SendEventsRequest{}, &belfryv1.SendEventsResponse{}
	for _, m := range []proto.Message{batch, ack, posts, results} {
		fill(m.ProtoReflect(), left)
	}
	for _, want := range []proto.Message{
		&belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: batch}},
		&belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Ack{Ack: ack}},
		&belfryv1.ConnectRequest{Frame: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Batch{Batch: batch}}},
		&belfryv1.ConnectResponse{Frame: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Ack{Ack: ack}}},
		posts, results,
	} {
		b, ok := write(nil, want)
		got := want.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(b, got); !ok || err != nil || !proto.Equal(got, want) {
			t.Errorf("wrote %t, %v: %v\nwant %v", ok, err, got, want)
		}
		got = want.ProtoReflect().New().Interface()
		if ok := read(b, got); !ok || !proto.Equal(got, want) {
			t.Errorf("read %t %v\nwant %v", ok, got, want)
		}
	}
}

// What this package does not know goes through the library, both ways.
func TestTheRestIsTheLibrarys(t *testing.T) {
	data, err := structpb.NewStruct(map[string]any{"key": "value"})
	if err != nil {
		t.Fatal(err)
	}
	refusal := &belfryv1.Refusal{Code: "limit", Message: "too many"}
	for _, want := range []proto.Message{
		&belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Welcome{Welcome: &belfryv1.Welcome{NodeName: "a"}}},
		&belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: &belfryv1.Batch{Replay: &belfryv1.Replay{Registration: 3}}}},
		&belfryv1.SubscribeResponse{},
		&belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Hello{Hello: &belfryv1.Hello{Name: "x"}}},
		&belfryv1.ConnectRequest{Frame: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Goodbye{Goodbye: &belfryv1.Goodbye{Reason: 1}}}},
		&belfryv1.ConnectResponse{},
		&belfryv1.SendEventsRequest{Events: []*belfryv1.SendEventRequest{{Class: "user.a"}, {Class: "user.b", Data: data}}},
		&belfryv1.SendEventsResponse{Results: []*belfryv1.SendResult{{Matched: 1}, {Refusal: refusal}}},
		&belfryv1.ListClassesRequest{Class: "node.state"},
	} {
		c := New()
		b, err := c.Marshal(want)
		if err != nil {
			t.Fatalf("%v: %v", want, err)
		}
		got := want.ProtoReflect().New().Interface()
		if err := c.Unmarshal(b, got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%T: got %v, %v; want %v", want, got, err, want)
		}
	}
}

// Fields of a later version are kept, as the library keeps them.
func TestFieldsOfALaterVersionAreTheLibrarys(t *testing.T) {
	b := []byte{4<<3 | 2, 4, 1 << 3, 7, 14 << 3, 1}
	got, want := &belfryv1.SubscribeResponse{}, &belfryv1.SubscribeResponse{}
	if err := errors.Join(New().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, got), proto.Unmarshal(b, want)); err != nil || !proto.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestWhatIsNoTextIsRefused(t *testing.T) {
	c := New()
	m := &belfryv1.SendEventsRequest{Events: []*belfryv1.SendEventRequest{{Class: "user.\xff"}}}
	if _, err := c.Marshal(m); err == nil {
		t.Error("a class that is not UTF-8 was written")
	}
	for _, b := range [][]byte{
		{1<<3 | 2, 3, 1<<3 | 2, 1, 0xff}, // the same class
		{1<<3 | 2, 3, 1<<3 | 2, 9, 'x'},  // a text that ends too early
		{1<<3 | 2},                       // no length
		{0x80},                           // no key
	} {
		if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &belfryv1.SendEventsRequest{}); err == nil {
			t.Errorf("%x was read", b)
		}
	}
}

// A large message is written into a buffer of the pool, which goes back there.
func TestLargeBatchesArrive(t *testing.T) {
	c := New()
	for _, n := range []int{1, 15, 16, 17, 1000, 4096} {
		batch := &belfryv1.Batch{Number: uint64(n)}
		for i := range n {
			batch.Notifications = append(batch.Notifications, &belfryv1.Notification{
				Kind: 1, Entry: uint32(i), Sequence: 1 << 60, FirstSequence: 1 << 60, Count: 1 << 60, Skipped: 1 << 60,
				FirstTime: 1 << 60, Time: 1 << 60, Code: -1, Value: 1, JournalPosition: 1 << 60,
			})
		}
		want := &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: batch}}
		b, err := c.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := &belfryv1.SubscribeResponse{}
		if err := c.Unmarshal(b, got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%d notifications: %v", n, err)
		}
		b.Free()
	}
}

// FuzzRead holds read to the library: what it accepts is what that reads.
func FuzzRead(f *testing.F) {
	f.Add(0, []byte{4<<3 | 2, 8, 3<<3 | 2, 6, 1 << 3, 1, 15<<3 | 2, 2, 1 << 3, 5})
	f.Add(2, []byte{1<<3 | 2, 4, 7<<3 | 2, 2, 1 << 3, 5})
	f.Add(4, []byte{1<<3 | 2, 3, 1<<3 | 2, 1, 'x'})
	f.Add(5, []byte{1<<3 | 2, 2, 1 << 3, 5})
	f.Fuzz(func(t *testing.T, kind int, b []byte) {
		made := fresh[uint(kind)%uint(len(fresh))]
		got, want := made(), made()
		if !read(bytes.Clone(b), got) {
			return
		}
		if err := proto.Unmarshal(b, want); err != nil || !proto.Equal(got, want) {
			t.Fatalf("%x: read %v\nwant %v, %v", b, got, want, err)
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	for _, n := range []int{1, 1000} {
		batch := &belfryv1.Batch{Number: 7}
		for i := range n {
			batch.Notifications = append(batch.Notifications, &belfryv1.Notification{
				Kind: 1, Registration: 1, Entry: uint32(i + 1), Sequence: uint64(i), Time: 1_764_000_000_000_000_000,
			})
		}
		m := &belfryv1.SubscribeResponse{Kind: &belfryv1.SubscribeResponse_Batch{Batch: batch}}
		own := New()
		library := own.(codec).library
		for name, c := range map[string]interface {
			Marshal(any) (mem.BufferSlice, error)
			Unmarshal(mem.BufferSlice, any) error
		}{"own": own, "library": library} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					data, err := c.Marshal(m)
					if err = errors.Join(err, c.Unmarshal(data, &belfryv1.SubscribeResponse{})); err != nil {
						b.Fatal(err)
					}
					data.Free()
				}
			})
		}
	}
}

// A message of a stream is read into the one before it, and nothing of that is left.
func TestAMessageIsReadOverAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		got := drawMessage(t)
		used := proto.Clone(got)
		for range 4 {
			want := drawMessage(t)
			for want.ProtoReflect().Descriptor() != got.ProtoReflect().Descriptor() {
				want = drawMessage(t)
			}
			b, err := proto.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if err := New().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, used); err != nil || !proto.Equal(used, want) {
				t.Fatalf("read %v, %v\nwant %v", used, err, want)
			}
		}
	})
}

// A buffer is as long as it was asked for, however long it was before, and the next
// size above serves it.
func TestBuffersComeBackInTheirSize(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p buffers
		for range rapid.IntRange(1, 30).Draw(t, "buffers") {
			n := rapid.OneOf(rapid.IntRange(0, 5000), rapid.SampledFrom([]int{1 << 10, 1<<10 + 1, 1 << 15, 1<<15 + 1, 1 << 22, 1<<22 + 1})).Draw(t, "length")
			b := p.Get(n)
			if len(*b) != n || n <= 1<<22 && cap(*b) > 4*max(1<<10, n) {
				t.Fatalf("asked for %d, got %d of %d", n, len(*b), cap(*b))
			}
			*b = append(*b, make([]byte, rapid.IntRange(0, 3000).Draw(t, "grown"))...)
			p.Put(b)
		}
	})
}

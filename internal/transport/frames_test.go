package transport

import (
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

var origin = Hello{Node: belfry.NodeID{9}, Name: "b", Incarnation: 4, Boot: 7}

func drawTime(t *rapid.T, label string) time.Time {
	return timeOf(rapid.Int64Range(0, 1<<60).Draw(t, label))
}

func drawNotification(t *rapid.T) belfry.Notification {
	last := rapid.Uint64Range(1, 1<<40).Draw(t, "last")
	first := last - rapid.Uint64Range(0, last-1).Draw(t, "range")
	n := belfry.Notification{
		Kind: belfry.Kind(rapid.IntRange(0, int(belfry.KindEnded)).Draw(t, "kind")),
		Node: origin.Node, NodeName: origin.Name, Incarnation: origin.Incarnation,
		Entry: rapid.Uint64Range(1, 5).Draw(t, "entry"),
		Event: belfry.EventID{
			Class:    belfry.Class(rapid.SampledFrom([]string{"user.x", "process.exit"}).Draw(t, "class")),
			Subject:  rapid.String().Draw(t, "subject"),
			Instance: rapid.SampledFrom([]string{"", "1@2", "3@4"}).Draw(t, "instance"),
		},
		First: first, Last: last,
		Count:   rapid.Uint64Range(1, last-first+1).Draw(t, "count"),
		Skipped: rapid.Uint64().Draw(t, "skipped"),
		Time:    drawTime(t, "time"),
		Code:    rapid.Int32().Draw(t, "code"), Edge: belfry.Edge(rapid.IntRange(0, 2).Draw(t, "edge")),
		Value: rapid.Float64().Draw(t, "value"), LowerBound: rapid.Bool().Draw(t, "lower bound"), Mixed: rapid.Bool().Draw(t, "mixed"), Unmonitored: rapid.Bool().Draw(t, "unmonitored"),
	}
	n.FirstTime = n.Time
	if !n.Time.IsZero() && rapid.Bool().Draw(t, "earlier") {
		n.FirstTime = n.Time.Add(-time.Nanosecond)
	}
	if n.FirstTime.UnixNano() == 0 {
		n.FirstTime = n.Time // 0 on the wire is "equal to time"
	}
	if data := rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "data"); len(data) > 0 {
		n.Data = data
	}
	if n.Kind == belfry.KindGap {
		n.Gap = &belfry.Gap{
			Total: rapid.Uint64().Draw(t, "total"), Known: rapid.Bool().Draw(t, "known"), Resync: rapid.Bool().Draw(t, "resync"),
			Reason: belfry.GapReason(rapid.IntRange(0, int(belfry.GapMerged)).Draw(t, "reason")),
			From:   drawTime(t, "from"), To: drawTime(t, "to"),
		}
	}
	return n
}

func drawFrame(t *rapid.T) event.Frame {
	switch rapid.IntRange(0, 4).Draw(t, "frame") {
	case 0:
		f := event.Interests{Version: rapid.Uint64().Draw(t, "version"), Base: rapid.Uint64().Draw(t, "base"), Full: rapid.Bool().Draw(t, "full")}
		for range rapid.IntRange(0, 3).Draw(t, "interests") {
			i := event.Interest{
				Number: rapid.Uint32().Draw(t, "number"), Class: "user.*", Subject: rapid.String().Draw(t, "subject"),
				OnlyWhereMonitored: rapid.Bool().Draw(t, "only"), Snapshot: rapid.Bool().Draw(t, "snapshot"),
				Detailed: rapid.Bool().Draw(t, "detailed"),
			}
			if i.Threshold.HasHi = rapid.Bool().Draw(t, "hi"); i.Threshold.HasHi {
				i.Threshold.Hi = rapid.Float64().Draw(t, "hi value")
			}
			if i.Threshold.HasLo = rapid.Bool().Draw(t, "lo"); i.Threshold.HasLo {
				i.Threshold.Lo = rapid.Float64().Draw(t, "lo value")
			}
			f.Add = append(f.Add, i)
		}
		if r := rapid.SliceOfN(rapid.Uint32(), 0, 3).Draw(t, "remove"); len(r) > 0 {
			f.Remove = r
		}
		return f
	case 1:
		f := event.InterestsAck{Version: rapid.Uint64().Draw(t, "version"), Full: rapid.Bool().Draw(t, "full")}
		for range rapid.IntRange(0, 3).Draw(t, "placed") {
			f.Placed = append(f.Placed, event.Placed{
				Entry: event.EntryID(rapid.Uint64().Draw(t, "entry")), From: rapid.Uint64().Draw(t, "from"),
				Until: rapid.Uint64().Draw(t, "until"), Lapsed: rapid.Bool().Draw(t, "lapsed"),
			})
		}
		return f
	case 2:
		f := event.Positions{Incarnation: belfry.Incarnation(rapid.Uint32().Draw(t, "incarnation"))}
		for range rapid.IntRange(0, 3).Draw(t, "positions") {
			f.Positions = append(f.Positions, event.Position{
				Entry: event.EntryID(rapid.Uint64().Draw(t, "entry")), Last: rapid.Uint64().Draw(t, "last"),
			})
		}
		return f
	case 3:
		return event.PeerAck{Batch: rapid.Uint64().Draw(t, "batch")}
	}
	f := event.PeerBatch{Batch: event.Batch{Number: rapid.Uint64().Draw(t, "batch")}}
	for range rapid.IntRange(0, 5).Draw(t, "notifications") {
		f.Batch.Notifications = append(f.Batch.Notifications, drawNotification(t))
	}
	return f
}

func TestFramesSurviveTheStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var enc encoder
		dec := decoder{origin: origin}
		for range rapid.IntRange(1, 5).Draw(t, "frames") {
			want := drawFrame(t)
			bytes, err := proto.Marshal(enc.frame(want))
			if err != nil {
				t.Skip("text that is no UTF-8")
			}
			var m belfryv1.PeerFrame
			if err := proto.Unmarshal(bytes, &m); err != nil {
				t.Fatal(err)
			}
			got, err := dec.frame(&m)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("frame (-want +got):\n%s", diff)
			}
		}
	})
}

func TestAnEntryIsNamedOncePerStream(t *testing.T) {
	t.Parallel()
	var enc encoder
	batch := func(instance string) event.PeerBatch {
		return event.PeerBatch{Batch: event.Batch{Notifications: []belfry.Notification{{
			Entry: 1, First: 1, Last: 1, Count: 1,
			Event: belfry.EventID{Class: "user.x", Subject: "x", Instance: instance},
		}}}}
	}
	var introduced []int
	for _, instance := range []string{"1", "1", "2", "2", "1"} {
		introduced = append(introduced, len(enc.frame(batch(instance)).GetBatch().GetEntries()))
	}
	if diff := cmp.Diff([]int{1, 0, 1, 0, 1}, introduced); diff != "" {
		t.Errorf("introductions in each batch (-want +got):\n%s", diff)
	}
}

func TestIntroductionsBeginAgainBeforeTheirNumberRunsOut(t *testing.T) {
	t.Parallel()
	var enc encoder
	dec := decoder{origin: origin}
	for number := range uint64(maxIntroduced/1000 + 3) {
		f := event.PeerBatch{Batch: event.Batch{Number: number + 1}}
		for i := range uint64(1000) {
			f.Batch.Notifications = append(f.Batch.Notifications, belfry.Notification{
				Node: origin.Node, NodeName: origin.Name, Incarnation: origin.Incarnation,
				Entry: number*1000 + i + 1, First: 1, Last: 1, Count: 1, Event: belfry.EventID{Class: "user.x"},
			})
		}
		got, err := dec.frame(enc.frame(f))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(event.Frame(f), got) { // a diff of them all would take seconds
			t.Fatalf("batch %d (-want +got):\n%s", number, cmp.Diff(event.Frame(f), got))
		}
	}
}

func TestARefusalKeepsItsSentinelAndItsText(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"plain":  belfry.ErrLimit,
		"nested": &belfry.Error{Op: "watch", Node: belfry.NodeID{1}, Subject: "/x", Err: belfry.ErrNoEvent},
	} {
		got := errorOf(refusalOf(err))
		if diff := cmp.Diff(err.Error(), got.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if belfry.Code(got) != belfry.Code(err) {
			t.Errorf("%s: code %s; want %s", name, belfry.Code(got), belfry.Code(err))
		}
	}
	if err := errorOf(refusalOf(nil)); err != nil {
		t.Errorf("no error became %v", err)
	}
}

func TestMalformedFramesAreRefused(t *testing.T) {
	t.Parallel()
	batch := func(n *belfryv1.Notification, entries ...*belfryv1.Entry) *belfryv1.PeerFrame {
		return &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Batch{Batch: &belfryv1.Batch{
			Entries: entries, Notifications: []*belfryv1.Notification{n},
		}}}
	}
	const occurrence = belfryv1.Kind_KIND_OCCURRENCE
	for name, f := range map[string]*belfryv1.PeerFrame{
		"hello again":        helloTo(origin),
		"unknown kind":       batch(&belfryv1.Notification{Kind: 99}),
		"no kind":            batch(&belfryv1.Notification{}),
		"negative kind":      batch(&belfryv1.Notification{Kind: -1}),
		"unknown edge":       batch(&belfryv1.Notification{Kind: occurrence, Edge: 9}),
		"unknown reason":     batch(&belfryv1.Notification{Kind: occurrence, Gap: &belfryv1.Gap{Reason: 9}}),
		"falling range":      batch(&belfryv1.Notification{Kind: occurrence, FirstSequence: 3, Sequence: 2}),
		"not introduced":     batch(&belfryv1.Notification{Kind: occurrence, Entry: 1}),
		"introduction zero":  batch(&belfryv1.Notification{Kind: occurrence}, &belfryv1.Entry{}),
		"introduction large": batch(&belfryv1.Notification{Kind: occurrence}, &belfryv1.Entry{Id: maxIntroduced + 1}),
	} {
		dec := decoder{origin: origin}
		if got, err := dec.frame(f); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s: %v, %v; want ErrUsage", name, got, err)
		}
	}
}

func TestAFrameOfALaterVersionIsPassedOver(t *testing.T) {
	t.Parallel()
	dec := decoder{origin: origin}
	if f, err := dec.frame(&belfryv1.PeerFrame{}); f != nil || err != nil {
		t.Errorf("%v, %v; want nothing", f, err)
	}
}

func TestHelloIsChecked(t *testing.T) {
	t.Parallel()
	good := func() *belfryv1.PeerHello { return helloTo(origin).GetHello() }
	for name, change := range map[string]func(*belfryv1.PeerHello){
		"version": func(h *belfryv1.PeerHello) { h.Version = 2 },
		"node":    func(h *belfryv1.PeerHello) { h.NodeId[0]++ },
		"short":   func(h *belfryv1.PeerHello) { h.NodeId = h.NodeId[:15] },
		"start":   func(h *belfryv1.PeerHello) { h.Incarnation = 0 },
		"boot":    func(h *belfryv1.PeerHello) { h.Boot = 0 },
		"name":    func(h *belfryv1.PeerHello) { h.Name = string(make([]byte, maxText+1)) },
	} {
		h := proto.Clone(good()).(*belfryv1.PeerHello)
		change(h)
		if _, err := helloOf(&belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Hello{Hello: h}}, origin.Node); err == nil {
			t.Errorf("hello with wrong %s was accepted", name)
		}
	}
	if _, err := helloOf(&belfryv1.PeerFrame{}, origin.Node); err == nil {
		t.Error("another frame was taken for a hello")
	}
	got, err := helloOf(helloTo(origin), origin.Node)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(origin, got); diff != "" {
		t.Errorf("hello (-want +got):\n%s", diff)
	}
}

// FuzzPeerStream feeds two frames to one decoder, as a peer would: no panic,
// and what is accepted says only what that peer may say.
func FuzzPeerStream(f *testing.F) {
	var enc encoder
	for _, frame := range []event.Frame{
		event.Interests{Version: 2, Full: true, Add: []event.Interest{{Number: 1, Class: "user.*", Subject: "x", Threshold: belfry.Threshold{Hi: 90, HasHi: true}}}},
		event.InterestsAck{Version: 2, Placed: []event.Placed{{Entry: 1, From: 3, Until: 9, Lapsed: true}}, Refused: []event.InterestRefused{{Number: 1, Err: belfry.ErrUnsupported}}},
		event.Positions{Incarnation: 3, Positions: []event.Position{{Entry: 1, Last: 9}}},
		event.PeerAck{Batch: 4},
		event.PeerBatch{Batch: event.Batch{Number: 1, Notifications: []belfry.Notification{{
			Entry: 1, First: 1, Last: 3, Count: 3, Event: belfry.EventID{Class: "user.x", Subject: "x"}, Value: math.Pi, Data: []byte{1},
			Gap: &belfry.Gap{Total: 2, Known: true, Reason: belfry.GapLink},
		}}}},
	} {
		b, err := proto.Marshal(enc.frame(frame))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	f.Add([]byte{}, []byte{0xff})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		dec := decoder{origin: origin}
		for _, b := range [][]byte{first, second} {
			var m belfryv1.PeerFrame
			if proto.Unmarshal(b, &m) != nil {
				return
			}
			frame, err := dec.frame(&m)
			if err != nil {
				if !errors.Is(err, belfry.ErrUsage) {
					t.Fatalf("error %v; want ErrUsage", err)
				}
				return
			}
			if batch, ok := frame.(event.PeerBatch); ok {
				for _, n := range batch.Batch.Notifications {
					if n.Node != origin.Node || n.Incarnation != origin.Incarnation || n.First > n.Last {
						t.Fatalf("accepted %+v", n)
					}
				}
			}
		}
	})
}

package api

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

func TestAnEventIsIntroducedOnceAndAfterAChange(t *testing.T) {
	t.Parallel()
	e := newEncoder()
	same, changed := exit(1, 1, 1), exit(1, 2, 2)
	changed.Event.Instance = "other"
	introduced := func(ns ...belfry.Notification) (n int, ids []uint32) {
		b := e.encode(event.Batch{Notifications: ns}).GetBatch()
		for _, p := range b.GetNotifications() {
			ids = append(ids, p.GetEntry())
		}
		return len(b.GetEntries()), ids
	}
	if n, ids := introduced(same, same, changed, same); n != 3 || ids[0] != ids[1] || ids[0] == ids[2] || ids[2] == ids[3] {
		t.Errorf("%d introductions, numbers %v; want three, a new number for each change", n, ids)
	}
	if n, _ := introduced(same, same); n != 0 {
		t.Errorf("%d introductions of what is known", n)
	}
	if n, ids := introduced(belfry.Notification{Kind: belfry.KindGap, Gap: &belfry.Gap{}}); n != 0 || ids[0] != 0 {
		t.Errorf("a gap over several events introduced %d", n)
	}
}

func TestAnEncoderForgetsWithoutConfusion(t *testing.T) {
	t.Parallel()
	e := newEncoder()
	e.most = 100
	known := map[uint32]string{}
	for i := range 30 {
		var b event.Batch
		for j := range 30 {
			n := exit(1, 1, 1)
			n.Entry = uint64(i*30 + j + 1)
			n.Event.Subject = fmt.Sprint(n.Entry)
			b.Notifications = append(b.Notifications, n, n)
		}
		out := e.encode(b).GetBatch()
		for _, p := range out.GetEntries() {
			known[p.GetId()] = p.GetSubject()
		}
		for k, p := range out.GetNotifications() {
			if got, want := known[p.GetEntry()], b.Notifications[k].Event.Subject; got != want {
				t.Fatalf("batch %d: notification of %s stands under %s", i, want, got)
			}
		}
	}
	if len(known) != 120 {
		t.Errorf("%d numbers were used; want 100 and the rest of a batch", len(known))
	}
}

func TestEncodingAllocatesNothing(t *testing.T) { // not parallel: it counts allocations
	e := newEncoder()
	b := event.Batch{Notifications: make([]belfry.Notification, 1024)}
	for i := range b.Notifications {
		b.Notifications[i] = exit(1, uint64(i+1), uint64(i+1))
	}
	e.encode(b)
	if got := testing.AllocsPerRun(100, func() { e.encode(b) }); got > 0 {
		t.Errorf("%.0f allocations for a batch of %d; want none", got, len(b.Notifications))
	}
	size := proto.Size(e.encode(b)) / len(b.Notifications)
	if size > 60 {
		t.Errorf("%d bytes for a notification; want at most 60", size)
	}
}

func BenchmarkEncode(b *testing.B) {
	e := newEncoder()
	batch := event.Batch{Notifications: make([]belfry.Notification, 1024)}
	for i := range batch.Notifications {
		batch.Notifications[i] = exit(1, uint64(i+1), uint64(i+1))
	}
	var buffer []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buffer, err = (proto.MarshalOptions{}).MarshalAppend(buffer[:0], e.encode(batch)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(batch.Notifications)), "ns/notification")
	b.ReportMetric(float64(len(buffer))/float64(len(batch.Notifications)), "bytes/notification")
	var back belfryv1.SubscribeResponse
	if err := proto.Unmarshal(buffer, &back); err != nil {
		b.Fatal(err)
	}
}

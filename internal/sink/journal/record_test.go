package journal

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func drawNotification(t *rapid.T) belfry.Notification {
	number := func(name string) uint64 {
		return rapid.OneOf(rapid.SampledFrom([]uint64{0, 0, 1, 127, 128, 1 << 32, 1<<64 - 1}), rapid.Uint64()).Draw(t, name)
	}
	at := func(name string) time.Time { return timeOf(int64(number(name))) }
	n := belfry.Notification{
		Kind:     rapid.SampledFrom([]belfry.Kind{belfry.KindOccurrence, belfry.KindGap, belfry.KindSettled}).Draw(t, "kind"),
		NodeName: rapid.String().Draw(t, "name"), Incarnation: belfry.Incarnation(number("incarnation")), Entry: number("entry"),
		Event: belfry.EventID{
			Class: belfry.Class(rapid.String().Draw(t, "class")), Subject: string(rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "subject")),
			Instance: rapid.String().Draw(t, "instance"),
		},
		First: number("first"), Last: number("last"), Count: number("count"), Skipped: number("skipped"),
		FirstTime: at("first time"), Time: at("time"),
		Code: int32(number("code")), Edge: belfry.Edge(rapid.IntRange(0, 2).Draw(t, "edge")), Value: rapid.Float64().Draw(t, "value"),
		Data: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"), LowerBound: rapid.Bool().Draw(t, "lower bound"), Mixed: rapid.Bool().Draw(t, "mixed"), Unmonitored: rapid.Bool().Draw(t, "unmonitored"),
	}
	n.Node[3] = byte(number("node"))
	if rapid.Bool().Draw(t, "gap") {
		n.Gap = &belfry.Gap{
			Total: number("total"), Known: rapid.Bool().Draw(t, "known"), Resync: rapid.Bool().Draw(t, "resync"),
			Reason: belfry.GapReason(rapid.IntRange(0, 5).Draw(t, "reason")), From: at("from"), To: at("to"),
		}
	}
	return n
}

// libraryRecord is the record for a notification as a message.
func libraryRecord(n *belfry.Notification, id uint32, introduce, begin bool) *belfryv1.JournalRecord {
	b := &belfryv1.Notification{
		Kind: belfryv1.Kind(n.Kind) + belfryv1.Kind_KIND_OCCURRENCE, Entry: id,
		Sequence: n.Last, Skipped: n.Skipped, Time: nanoseconds(n.Time), Code: n.Code, Edge: belfryv1.Edge(n.Edge),
		Value: n.Value, Data: n.Data, Mixed: n.Mixed, Unmonitored: n.Unmonitored, LowerBound: n.LowerBound,
	}
	if n.First != n.Last {
		b.FirstSequence = n.First
	}
	if n.Kind != belfry.KindOccurrence || n.Count != n.Last-n.First+1 {
		b.Count = n.Count
	}
	if first := nanoseconds(n.FirstTime); first != b.Time {
		b.FirstTime = first
	}
	if g := n.Gap; g != nil {
		b.Gap = &belfryv1.Gap{
			Total: g.Total, Known: g.Known, Resync: g.Resync, Reason: belfryv1.GapReason(g.Reason) + belfryv1.GapReason_GAP_REASON_SLOW,
			From: nanoseconds(g.From), To: nanoseconds(g.To),
		}
	}
	record := &belfryv1.JournalRecord{Begin: begin, Kind: &belfryv1.JournalRecord_Notification{Notification: b}}
	if introduce {
		record.Events = []*belfryv1.Entry{{
			Id: id, NodeId: n.Node[:], NodeName: text(n.NodeName), Incarnation: uint32(n.Incarnation), Entry: n.Entry,
			Class: text(string(n.Event.Class)), Subject: text(n.Event.Subject), Instance: text(n.Event.Instance),
		}}
	}
	return record
}

func TestARecordIsProtobufToTheByte(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := drawNotification(t)
		id, introduce, begin := rapid.Uint32().Draw(t, "id"), rapid.Bool().Draw(t, "introduce"), rapid.Bool().Draw(t, "begin")
		got := appendNotification([]byte("x"), &n, id, introduce, begin)[1:]
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(libraryRecord(&n, id, introduce, begin))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("wrote %x\nwant  %x, %v\nof %v", got, want, err, n)
		}
	})
}

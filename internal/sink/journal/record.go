package journal

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// chunk is how many bytes of a head or an index go into one record, about.
const chunk = 64 << 10

// An encoder turns notifications into bodies. It uses its messages again.
type encoder struct {
	record belfryv1.JournalRecord
	kind   belfryv1.JournalRecord_Notification
	body   belfryv1.Notification
	gap    belfryv1.Gap
	entry  belfryv1.Entry
	events [1]*belfryv1.Entry
}

// notification appends the body for n, whose event has the number id in this
// file, with its introduction if introduce.
func (e *encoder) notification(dst []byte, n *belfry.Notification, id uint32, introduce, begin bool) ([]byte, error) {
	b := &e.body
	b.Kind, b.Entry = belfryv1.Kind(n.Kind)+belfryv1.Kind_KIND_OCCURRENCE, id
	b.Sequence, b.FirstSequence, b.Count, b.Skipped = n.Last, 0, 0, n.Skipped
	if n.First != n.Last {
		b.FirstSequence = n.First
	}
	if n.Kind != belfry.KindOccurrence || n.Count != n.Last-n.First+1 {
		b.Count = n.Count
	}
	b.Time, b.FirstTime = nanoseconds(n.Time), 0
	if !n.FirstTime.Equal(n.Time) {
		b.FirstTime = nanoseconds(n.FirstTime)
	}
	b.Code, b.Edge, b.Value = n.Code, belfryv1.Edge(n.Edge), n.Value
	b.Data, b.LowerBound, b.Gap = n.Data, n.LowerBound, nil
	if g := n.Gap; g != nil {
		e.gap.Total, e.gap.Known, e.gap.Resync = g.Total, g.Known, g.Resync
		e.gap.Reason = belfryv1.GapReason(g.Reason) + belfryv1.GapReason_GAP_REASON_SLOW
		e.gap.From, e.gap.To = nanoseconds(g.From), nanoseconds(g.To)
		b.Gap = &e.gap
	}
	e.kind.Notification, e.record.Kind = b, &e.kind
	e.record.Events, e.record.Begin = nil, begin
	if introduce {
		setEntry(&e.entry, id, n)
		e.events[0] = &e.entry
		e.record.Events = e.events[:]
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, &e.record)
}

func setEntry(e *belfryv1.Entry, id uint32, n *belfry.Notification) {
	e.Id, e.NodeId, e.NodeName, e.Incarnation = id, n.Node[:], text(n.NodeName), uint32(n.Incarnation)
	e.Entry, e.Class, e.Subject, e.Instance = n.Entry, text(string(n.Event.Class)), text(n.Event.Subject), text(n.Event.Instance)
}

// text is s as a protobuf string may have it.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// entryOf introduces an event of the table.
func entryOf(e *event, id uint32) *belfryv1.Entry {
	return &belfryv1.Entry{
		Id: id, NodeId: e.Node[:], NodeName: text(e.nodeName), Incarnation: uint32(e.Incarnation),
		Entry: e.Entry, Class: text(string(e.class)), Subject: text(e.subject),
	}
}

// keyOf refuses what no journal introduces.
func keyOf(e *belfryv1.Entry) (Key, error) {
	if e.GetId() == 0 || len(e.GetNodeId()) != len(belfry.NodeID{}) {
		return Key{}, fmt.Errorf("event %d of a node id of %d bytes", e.GetId(), len(e.GetNodeId()))
	}
	return Key{belfry.NodeID(e.GetNodeId()), belfry.Incarnation(e.GetIncarnation()), e.GetEntry()}, nil
}

// notificationOf is the inverse of encoder.notification, but for the event.
func notificationOf(b *belfryv1.Notification) (belfry.Notification, error) {
	n := belfry.Notification{
		Kind:  belfry.Kind(b.GetKind() - belfryv1.Kind_KIND_OCCURRENCE),
		First: b.GetFirstSequence(), Last: b.GetSequence(), Count: b.GetCount(), Skipped: b.GetSkipped(),
		FirstTime: timeOf(b.GetFirstTime()), Time: timeOf(b.GetTime()),
		Code: b.GetCode(), Edge: belfry.Edge(b.GetEdge()), Value: b.GetValue(), Data: b.GetData(), LowerBound: b.GetLowerBound(),
	}
	if n.First == 0 {
		n.First = n.Last
	}
	if n.FirstTime.IsZero() {
		n.FirstTime = n.Time
	}
	if n.Count == 0 && n.Kind == belfry.KindOccurrence {
		n.Count = n.Last - n.First + 1
	}
	if g := b.GetGap(); g != nil {
		n.Gap = &belfry.Gap{
			Total: g.GetTotal(), Known: g.GetKnown(), Resync: g.GetResync(),
			Reason: belfry.GapReason(g.GetReason() - belfryv1.GapReason_GAP_REASON_SLOW), From: timeOf(g.GetFrom()), To: timeOf(g.GetTo()),
		}
	}
	if !recorded(&n) || (n.Kind == belfry.KindGap) != (n.Gap != nil) || n.First > n.Last {
		return n, fmt.Errorf("a notification of kind %d from %d to %d", b.GetKind(), n.First, n.Last)
	}
	return n, nil
}

// recorded tells what is journaled: what stands for occurrences. States and
// coverage are of the moment in which they were told.
func recorded(n *belfry.Notification) bool {
	return n.Kind == belfry.KindOccurrence || n.Kind == belfry.KindGap
}

// total is how many occurrences a notification accounts for.
func total(n *belfry.Notification) uint64 {
	if n.Gap != nil {
		return n.Skipped + n.Gap.Total
	}
	return n.Skipped + n.Count
}

// before is the number before the first that a notification accounts for.
func before(n *belfry.Notification) uint64 { return n.Last - min(n.Last, total(n)) }

// appendRecord appends a whole frame.
func appendRecord(dst []byte, seed uint32, position uint64, r *belfryv1.JournalRecord) ([]byte, error) {
	start := len(dst)
	dst, err := proto.MarshalOptions{}.MarshalAppend(append(dst, make([]byte, frameSize)...), r)
	if err != nil {
		return dst, err
	}
	closeFrame(dst, start, seed, position)
	return dst, nil
}

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

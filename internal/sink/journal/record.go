package journal

import (
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// chunk is how many bytes of a head or an index go into one record, about.
const chunk = 64 << 10

// The keys of the fields of a record, one byte each: number and form.
const (
	keyEvent, keyBegin, keyNotification = 1<<3 | asBytes, 2 << 3, 3<<3 | asBytes

	asBytes = byte(protowire.BytesType)
	asFixed = byte(protowire.Fixed64Type)
)

// A writer appends messages field by field, in the order of their numbers, and a
// zero value is left out: the bytes are those of the protobuf library, without its
// tables. A disk takes hundreds of thousands of records a second.
type writer struct{ b []byte }

// appendNotification appends the body for n, whose event has the number id in this
// file, with its introduction if introduce.
func appendNotification(dst []byte, n *belfry.Notification, id uint32, introduce, begin bool) []byte {
	w := writer{dst}
	if introduce {
		at := w.open(keyEvent)
		w.entry(id, n)
		w.close(at)
	}
	if begin {
		w.b = append(w.b, keyBegin, 1)
	}
	at := w.open(keyNotification)
	w.notification(n, id)
	w.close(at)
	return w.b
}

func (w *writer) notification(n *belfry.Notification, id uint32) {
	w.uint(1, uint64(belfryv1.Kind(n.Kind)+belfryv1.Kind_KIND_OCCURRENCE))
	w.uint(3, uint64(id))
	w.uint(4, n.Last)
	if n.First != n.Last {
		w.uint(5, n.First)
	}
	if n.Kind != belfry.KindOccurrence || n.Count != n.Last-n.First+1 {
		w.uint(6, n.Count)
	}
	w.uint(7, n.Skipped)
	first, last := nanoseconds(n.FirstTime), nanoseconds(n.Time)
	if first != last {
		w.uint(8, uint64(first))
	}
	w.uint(9, uint64(last))
	w.uint(10, uint64(int64(n.Code)))
	w.uint(11, uint64(n.Edge))
	if bits := math.Float64bits(n.Value); bits != 0 {
		w.b = protowire.AppendFixed64(append(w.b, 12<<3|asFixed), bits)
	}
	w.bytes(13, n.Data)
	w.bool(14, n.LowerBound)
	if g := n.Gap; g != nil {
		at := w.open(15<<3 | asBytes)
		w.uint(1, g.Total)
		w.bool(2, g.Known)
		w.bool(3, g.Resync)
		w.uint(4, uint64(belfryv1.GapReason(g.Reason)+belfryv1.GapReason_GAP_REASON_SLOW))
		w.uint(5, uint64(nanoseconds(g.From)))
		w.uint(6, uint64(nanoseconds(g.To)))
		w.close(at)
	}
	for i, v := range [...]bool{n.Mixed, n.Unmonitored} {
		if v {
			w.b = append(protowire.AppendTag(w.b, 18+protowire.Number(i), protowire.VarintType), 1)
		}
	}
}

func (w *writer) entry(id uint32, n *belfry.Notification) {
	w.uint(1, uint64(id))
	w.bytes(2, n.Node[:])
	w.text(3, n.NodeName)
	w.uint(4, uint64(n.Incarnation))
	w.uint(5, n.Entry)
	w.text(6, string(n.Event.Class))
	w.text(7, n.Event.Subject)
	w.text(8, n.Event.Instance)
}

// open begins a message within the message, whose length is not known yet.
func (w *writer) open(key byte) (at int) {
	w.b = append(w.b, key, 0)
	return len(w.b)
}

// close puts the length in its place. Most have one byte; of others what is
// behind it moves.
func (w *writer) close(at int) {
	n := len(w.b) - at
	if n < 1<<7 {
		w.b[at-1] = byte(n)
		return
	}
	more := protowire.SizeVarint(uint64(n)) - 1
	for range more {
		w.b = append(w.b, 0)
	}
	copy(w.b[at+more:], w.b[at:at+n])
	protowire.AppendVarint(w.b[:at-1], uint64(n))
}

// Fields up to 15 have a key of one byte, and these take no others.

func (w *writer) uint(field byte, v uint64) {
	if v != 0 {
		w.b = protowire.AppendVarint(append(w.b, field<<3), v)
	}
}

func (w *writer) bool(field byte, v bool) {
	if v {
		w.b = append(w.b, field<<3, 1)
	}
}

func (w *writer) bytes(field byte, v []byte) {
	if len(v) > 0 {
		w.b = protowire.AppendBytes(append(w.b, field<<3|asBytes), v)
	}
}

func (w *writer) text(field byte, v string) {
	if v != "" {
		w.b = protowire.AppendString(append(w.b, field<<3|asBytes), text(v))
	}
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

// notificationOf is the inverse of appendNotification, but for the event.
func notificationOf(b *belfryv1.Notification) (belfry.Notification, error) {
	n := belfry.Notification{
		Kind:  belfry.Kind(b.GetKind() - belfryv1.Kind_KIND_OCCURRENCE),
		First: b.GetFirstSequence(), Last: b.GetSequence(), Count: b.GetCount(), Skipped: b.GetSkipped(),
		FirstTime: timeOf(b.GetFirstTime()), Time: timeOf(b.GetTime()),
		Code: b.GetCode(), Edge: belfry.Edge(b.GetEdge()), Value: b.GetValue(), Data: b.GetData(), Mixed: b.GetMixed(), Unmonitored: b.GetUnmonitored(), LowerBound: b.GetLowerBound(),
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

package codec

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// What one message of a kind takes, about, beside its texts and data.
const (
	aboutNotification = 64
	aboutEntry        = 48
	aboutPosted       = 16
	aboutResult       = 8
	aboutRest         = 32 // what is around them
)

// about is how much room a message takes; 0: the library writes it. It decides
// too what write is given.
func about(v any) int {
	switch m := v.(type) {
	case *belfryv1.SubscribeResponse:
		if k, ok := m.Kind.(*belfryv1.SubscribeResponse_Batch); ok {
			return aboutBatch(k.Batch)
		}
	case *belfryv1.SubscribeRequest:
		if k, ok := m.Kind.(*belfryv1.SubscribeRequest_Ack); ok && k.Ack != nil {
			return aboutRest
		}
	case *belfryv1.ConnectRequest:
		return aboutFrame(m.Frame)
	case *belfryv1.ConnectResponse:
		return aboutFrame(m.Frame)
	case *belfryv1.SendEventsRequest:
		size := aboutRest
		for _, e := range m.Events {
			if e == nil || e.Data != nil {
				return 0
			}
			size += aboutPosted + len(e.Class) + len(e.Subject)
		}
		return size
	case *belfryv1.SendEventsResponse:
		for _, r := range m.Results {
			if r == nil || r.Refusal != nil {
				return 0
			}
		}
		return aboutRest + aboutResult*len(m.Results)
	}
	return 0
}

func aboutFrame(f *belfryv1.PeerFrame) int {
	if f == nil {
		return 0
	}
	switch k := f.Kind.(type) {
	case *belfryv1.PeerFrame_Batch:
		return aboutBatch(k.Batch)
	case *belfryv1.PeerFrame_Ack:
		if k.Ack != nil {
			return aboutRest
		}
	}
	return 0
}

func aboutBatch(m *belfryv1.Batch) int {
	if m == nil || m.Replay != nil {
		return 0
	}
	size := aboutRest
	for _, e := range m.Entries {
		if e == nil {
			return 0
		}
		size += aboutEntry + len(e.NodeName) + len(e.Class) + len(e.Subject) + len(e.Instance)
	}
	for _, n := range m.Notifications {
		if n == nil {
			return 0
		}
		size += aboutNotification + len(n.Data) + len(n.Reason)
	}
	return size
}

// A writer appends a message field by field, in the order of their numbers. A
// zero value is left out, as proto3 wants it.
type writer struct {
	b   []byte
	bad bool // a text is not UTF-8
}

// write appends a message that about has accepted; false: it can not be sent.
func write(b []byte, v any) ([]byte, bool) {
	w := writer{b: b}
	switch m := v.(type) {
	case *belfryv1.SubscribeResponse:
		at := w.open(4)
		w.batch(m.GetBatch())
		w.close(at)
	case *belfryv1.SubscribeRequest:
		at := w.open(4)
		w.uint(1, m.GetAck().GetBatch())
		w.close(at)
	case *belfryv1.ConnectRequest:
		w.frame(m.Frame)
	case *belfryv1.ConnectResponse:
		w.frame(m.Frame)
	case *belfryv1.SendEventsRequest:
		for _, e := range m.Events {
			at := w.open(1)
			w.text(1, e.Class)
			w.text(2, e.Subject)
			w.uint(4, e.Repeat)
			w.close(at)
		}
	case *belfryv1.SendEventsResponse:
		for _, r := range m.Results {
			at := w.open(1)
			w.uint(1, uint64(r.Matched))
			w.close(at)
		}
	}
	return w.b, !w.bad
}

func (w *writer) frame(f *belfryv1.PeerFrame) {
	outer := w.open(1)
	switch k := f.Kind.(type) {
	case *belfryv1.PeerFrame_Batch:
		at := w.open(6)
		w.batch(k.Batch)
		w.close(at)
	case *belfryv1.PeerFrame_Ack:
		at := w.open(7)
		w.uint(1, k.Ack.Batch)
		w.close(at)
	}
	w.close(outer)
}

func (w *writer) batch(m *belfryv1.Batch) {
	w.uint(1, m.Number)
	for _, e := range m.Entries {
		at := w.open(2)
		w.entry(e)
		w.close(at)
	}
	for _, n := range m.Notifications {
		at := w.open(3)
		w.notification(n)
		w.close(at)
	}
	w.uint(4, m.JournalPosition)
}

func (w *writer) entry(m *belfryv1.Entry) {
	w.uint(1, uint64(m.Id))
	w.bytes(2, m.NodeId)
	w.text(3, m.NodeName)
	w.uint(4, uint64(m.Incarnation))
	w.uint(5, m.Entry)
	w.text(6, m.Class)
	w.text(7, m.Subject)
	w.text(8, m.Instance)
}

func (w *writer) notification(m *belfryv1.Notification) {
	w.uint(1, uint64(int64(m.Kind)))
	w.uint(2, uint64(m.Registration))
	w.uint(3, uint64(m.Entry))
	w.uint(4, m.Sequence)
	w.uint(5, m.FirstSequence)
	w.uint(6, m.Count)
	w.uint(7, m.Skipped)
	w.uint(8, uint64(m.FirstTime))
	w.uint(9, uint64(m.Time))
	w.uint(10, uint64(int64(m.Code)))
	w.uint(11, uint64(int64(m.Edge)))
	w.double(12, m.Value)
	w.bytes(13, m.Data)
	w.bool(14, m.LowerBound)
	if m.Gap != nil {
		at := w.open(15)
		w.gap(m.Gap)
		w.close(at)
	}
	w.text(16, m.Reason)
	w.uint(17, m.JournalPosition)
	w.bool(18, m.Mixed)
	w.bool(19, m.Unmonitored)
}

func (w *writer) gap(m *belfryv1.Gap) {
	w.uint(1, m.Total)
	w.bool(2, m.Known)
	w.bool(3, m.Resync)
	w.uint(4, uint64(int64(m.Reason)))
	w.uint(5, uint64(m.From))
	w.uint(6, uint64(m.To))
}

// open begins a message within the message, whose length is not known yet.
func (w *writer) open(field protowire.Number) (at int) {
	w.b = append(protowire.AppendTag(w.b, field, protowire.BytesType), 0)
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

func (w *writer) uint(field protowire.Number, v uint64) {
	if v != 0 {
		w.b = protowire.AppendVarint(protowire.AppendTag(w.b, field, protowire.VarintType), v)
	}
}

func (w *writer) bool(field protowire.Number, v bool) {
	if v {
		w.uint(field, 1)
	}
}

func (w *writer) double(field protowire.Number, v float64) {
	if bits := math.Float64bits(v); bits != 0 {
		w.b = protowire.AppendFixed64(protowire.AppendTag(w.b, field, protowire.Fixed64Type), bits)
	}
}

func (w *writer) bytes(field protowire.Number, v []byte) {
	if len(v) > 0 {
		w.b = protowire.AppendBytes(protowire.AppendTag(w.b, field, protowire.BytesType), v)
	}
}

func (w *writer) text(field protowire.Number, v string) {
	if v == "" {
		return
	}
	w.bad = w.bad || !utf8.ValidString(v)
	w.b = protowire.AppendString(protowire.AppendTag(w.b, field, protowire.BytesType), v)
}

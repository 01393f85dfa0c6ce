package codec

import (
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// The key before a field is its number, shifted by three, and one of these.
const (
	isVarint  = uint64(protowire.VarintType)
	isFixed64 = uint64(protowire.Fixed64Type)
	isBytes   = uint64(protowire.BytesType)
)

// known tells whether read may be asked.
func known(v any) bool {
	switch v.(type) {
	case *belfryv1.SubscribeResponse, *belfryv1.SubscribeRequest, *belfryv1.ConnectRequest, *belfryv1.ConnectResponse,
		*belfryv1.SendEventsRequest, *belfryv1.SendEventsResponse:
		return true
	}
	return false
}

// read fills a message. It answers false for what it does not know, be it
// another kind, a field of a later version or no protobuf at all: the library
// has the last word on it. Nothing that it fills shares memory with b. A message
// that was read before may be read anew: a batch, events or results in it are
// written over, and what they lie in is not made again for each message of a
// stream.
func read(b []byte, v any) bool {
	switch m := v.(type) {
	case *belfryv1.SubscribeResponse:
		if batch := batchIn(b, 4, m.GetBatch()); batch != nil {
			m.Kind = &belfryv1.SubscribeResponse_Batch{Batch: batch}
			return true
		}
	case *belfryv1.SubscribeRequest:
		if ack := ackIn(b, 4); ack != nil {
			m.Kind = &belfryv1.SubscribeRequest_Ack{Ack: ack}
			return true
		}
	case *belfryv1.ConnectRequest:
		m.Frame = frameIn(b, m.Frame.GetBatch())
		return m.Frame != nil
	case *belfryv1.ConnectResponse:
		m.Frame = frameIn(b, m.Frame.GetBatch())
		return m.Frame != nil
	case *belfryv1.SendEventsRequest:
		return readPosted(b, m)
	case *belfryv1.SendEventsResponse:
		return readResults(b, m)
	}
	return false
}

// only is the content of the one field that b consists of.
func only(b []byte, field protowire.Number) (inside []byte, ok bool) {
	r := reader{b: b}
	inside, ok = nil, r.next() && r.key == protowire.EncodeTag(field, protowire.BytesType)
	if ok {
		inside = r.bytes()
	}
	return inside, ok && !r.bad && r.at == len(r.b)
}

func frameIn(b []byte, used *belfryv1.Batch) *belfryv1.PeerFrame {
	inside, ok := only(b, 1)
	if !ok {
		return nil
	}
	if batch := batchIn(inside, 6, used); batch != nil {
		return &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Batch{Batch: batch}}
	}
	if ack := ackIn(inside, 7); ack != nil {
		return &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Ack{Ack: ack}}
	}
	return nil
}

func ackIn(b []byte, field protowire.Number) *belfryv1.Ack {
	inside, ok := only(b, field)
	if !ok {
		return nil
	}
	ack := &belfryv1.Ack{}
	r := reader{b: inside}
	for r.next() {
		switch r.key {
		case 1<<3 | isVarint:
			ack.Batch = r.uint()
		default:
			return nil
		}
	}
	if r.bad {
		return nil
	}
	return ack
}

// chunk is how many notifications are made in one piece: fewer pieces cost less,
// and one of above 32 KiB costs more than many small ones.
const chunk = 100

// batchIn writes over a batch that is not used any more; nil: there is none.
func batchIn(b []byte, field protowire.Number, used *belfryv1.Batch) *belfryv1.Batch {
	inside, ok := only(b, field)
	if !ok {
		return nil
	}
	batch := used
	if batch == nil {
		entries, notifications := countParts(inside)
		batch = &belfryv1.Batch{
			Entries: make([]*belfryv1.Entry, 0, entries), Notifications: make([]*belfryv1.Notification, 0, notifications),
		}
	}
	room := cap(batch.Notifications)
	batch.Entries, batch.Notifications = batch.Entries[:0], batch.Notifications[:0]
	batch.Number, batch.JournalPosition, batch.Replay = 0, 0, nil
	var slab []belfryv1.Notification
	r := reader{b: inside}
	for r.next() {
		switch r.key {
		case 1<<3 | isVarint:
			batch.Number = r.uint()
		case 2<<3 | isBytes:
			e := &belfryv1.Entry{}
			if !readEntry(r.bytes(), e) {
				return nil
			}
			batch.Entries = append(batch.Entries, e)
		case 3<<3 | isBytes:
			n := reused(&batch.Notifications)
			if n == nil {
				if len(slab) == 0 {
					slab = make([]belfryv1.Notification, max(1, min(chunk, room-len(batch.Notifications))))
				}
				n, slab = &slab[0], slab[1:]
				batch.Notifications = append(batch.Notifications, n)
			} else {
				n.Reset()
			}
			if !readNotification(r.bytes(), n) {
				return nil
			}
		case 4<<3 | isVarint:
			batch.JournalPosition = r.uint()
		default:
			return nil
		}
	}
	if r.bad {
		return nil
	}
	return batch
}

// reused is the next element of a slice that lies in it already, from an earlier
// message; nil: there is none, and the slice is as it was.
func reused[T any](all *[]*T) *T {
	n := len(*all)
	if n == cap(*all) || (*all)[:n+1][n] == nil {
		return nil
	}
	*all = (*all)[:n+1]
	return (*all)[n]
}

// countParts is what there is to make room for.
func countParts(b []byte) (entries, notifications int) {
	r := reader{b: b}
	for r.next() {
		switch r.key {
		case 2<<3 | isBytes:
			entries++
		case 3<<3 | isBytes:
			notifications++
		}
		r.skip()
	}
	return entries, notifications
}

func readEntry(b []byte, m *belfryv1.Entry) bool {
	r := reader{b: b}
	for r.next() {
		switch r.key {
		case 1<<3 | isVarint:
			m.Id = uint32(r.uint())
		case 2<<3 | isBytes:
			m.NodeId = slices.Clone(r.bytes())
		case 3<<3 | isBytes:
			m.NodeName = r.text()
		case 4<<3 | isVarint:
			m.Incarnation = uint32(r.uint())
		case 5<<3 | isVarint:
			m.Entry = r.uint()
		case 6<<3 | isBytes:
			m.Class = r.text()
		case 7<<3 | isBytes:
			m.Subject = r.text()
		case 8<<3 | isBytes:
			m.Instance = r.text()
		default:
			return false
		}
	}
	return !r.bad
}

func readNotification(b []byte, m *belfryv1.Notification) bool {
	r := reader{b: b}
	for r.next() {
		switch r.key {
		case 1<<3 | isVarint:
			m.Kind = belfryv1.Kind(int32(r.uint()))
		case 2<<3 | isVarint:
			m.Registration = uint32(r.uint())
		case 3<<3 | isVarint:
			m.Entry = uint32(r.uint())
		case 4<<3 | isVarint:
			m.Sequence = r.uint()
		case 5<<3 | isVarint:
			m.FirstSequence = r.uint()
		case 6<<3 | isVarint:
			m.Count = r.uint()
		case 7<<3 | isVarint:
			m.Skipped = r.uint()
		case 8<<3 | isVarint:
			m.FirstTime = int64(r.uint())
		case 9<<3 | isVarint:
			m.Time = int64(r.uint())
		case 10<<3 | isVarint:
			m.Code = int32(r.uint())
		case 11<<3 | isVarint:
			m.Edge = belfryv1.Edge(int32(r.uint()))
		case 12<<3 | isFixed64:
			m.Value = r.double()
		case 13<<3 | isBytes:
			m.Data = slices.Clone(r.bytes())
		case 14<<3 | isVarint:
			m.LowerBound = r.uint() != 0
		case 15<<3 | isBytes:
			if m.Gap == nil { // of two parts of one gap protobuf makes one
				m.Gap = &belfryv1.Gap{}
			}
			if !readGap(r.bytes(), m.Gap) {
				return false
			}
		case 16<<3 | isBytes:
			m.Reason = r.text()
		case 17<<3 | isVarint:
			m.JournalPosition = r.uint()
		case 18<<3 | isVarint:
			m.Mixed = r.uint() != 0
		case 19<<3 | isVarint:
			m.Unmonitored = r.uint() != 0
		default:
			return false
		}
	}
	return !r.bad
}

func readGap(b []byte, m *belfryv1.Gap) bool {
	r := reader{b: b}
	for r.next() {
		switch r.key {
		case 1<<3 | isVarint:
			m.Total = r.uint()
		case 2<<3 | isVarint:
			m.Known = r.uint() != 0
		case 3<<3 | isVarint:
			m.Resync = r.uint() != 0
		case 4<<3 | isVarint:
			m.Reason = belfryv1.GapReason(int32(r.uint()))
		case 5<<3 | isVarint:
			m.From = int64(r.uint())
		case 6<<3 | isVarint:
			m.To = int64(r.uint())
		default:
			return false
		}
	}
	return !r.bad
}

// countOnly is how often field 1 is there, as far as there is nothing else.
func countOnly(b []byte) (n int) {
	for r := (reader{b: b}); r.next() && r.key == 1<<3|isBytes; n++ {
		r.skip()
	}
	return n
}

// readPosted takes one string for the texts of all events: they are as many as
// there are events, and most are read and forgotten.
func readPosted(b []byte, m *belfryv1.SendEventsRequest) bool {
	n := countOnly(b)
	text := string(b)
	m.Events = slices.Grow(m.Events[:0], n)
	var slab []belfryv1.SendEventRequest
	r := reader{b: b}
	for r.next() {
		if r.key != 1<<3|isBytes {
			return false
		}
		e := reused(&m.Events)
		if e == nil {
			if len(slab) == 0 {
				slab = make([]belfryv1.SendEventRequest, max(1, n-len(m.Events)))
			}
			e, slab = &slab[0], slab[1:]
			m.Events = append(m.Events, e)
		} else {
			e.Reset()
		}
		inside := r.bytes()
		if r.bad || !readOnePosted(inside, text[r.at-len(inside):r.at], e) {
			return false
		}
	}
	return !r.bad
}

// readOnePosted is given the same bytes as text.
func readOnePosted(b []byte, text string, m *belfryv1.SendEventRequest) bool {
	r := reader{b: b}
	for r.next() {
		switch r.key {
		case 1<<3 | isBytes:
			m.Class = r.textOf(text)
		case 2<<3 | isBytes:
			m.Subject = r.textOf(text)
		case 4<<3 | isVarint:
			m.Repeat = r.uint()
		default: // data is the library's
			return false
		}
	}
	return !r.bad
}

func readResults(b []byte, m *belfryv1.SendEventsResponse) bool {
	n := countOnly(b)
	m.Results = slices.Grow(m.Results[:0], n)
	var slab []belfryv1.SendResult
	r := reader{b: b}
	for r.next() {
		if r.key != 1<<3|isBytes {
			return false
		}
		one := reused(&m.Results)
		if one == nil {
			if len(slab) == 0 {
				slab = make([]belfryv1.SendResult, max(1, n-len(m.Results)))
			}
			one, slab = &slab[0], slab[1:]
			m.Results = append(m.Results, one)
		} else {
			one.Reset()
		}
		inside := reader{b: r.bytes()}
		for inside.next() {
			if inside.key != 1<<3|isVarint { // refusals are the library's
				return false
			}
			one.Matched = uint32(inside.uint())
		}
		if inside.bad {
			return false
		}
	}
	return !r.bad
}

// A reader takes a message apart. After a mistake it finds nothing more.
type reader struct {
	b   []byte
	at  int    // of b; to move it is no work for the garbage collector
	key uint64 // of the field whose value comes next
	bad bool
}

// next reads the key of a field; false at the end, and after a mistake.
func (r *reader) next() bool {
	if r.at >= len(r.b) || r.bad {
		return false
	}
	r.key = r.uint()
	return !r.bad
}

func (r *reader) uint() uint64 {
	if r.at < len(r.b) && r.b[r.at] < 1<<7 { // most
		r.at++
		return uint64(r.b[r.at-1])
	}
	v, n := protowire.ConsumeVarint(r.b[r.at:])
	r.pass(n)
	return v
}

func (r *reader) double() float64 {
	v, n := protowire.ConsumeFixed64(r.b[r.at:])
	r.pass(n)
	return math.Float64frombits(v)
}

// bytes shares memory with the message.
func (r *reader) bytes() []byte {
	v, n := protowire.ConsumeBytes(r.b[r.at:])
	r.pass(n)
	return v
}

func (r *reader) text() string { return string(r.valid()) }

// valid is text, and shares memory with the message.
func (r *reader) valid() []byte {
	v := r.bytes()
	r.bad = r.bad || !utf8.Valid(v)
	return v
}

// textOf is text, cut out of the whole.
func (r *reader) textOf(whole string) string {
	v := r.valid()
	return whole[r.at-len(v) : r.at]
}

// skip passes over the value of a field.
func (r *reader) skip() {
	field, t := protowire.DecodeTag(r.key)
	r.pass(protowire.ConsumeFieldValue(field, t, r.b[r.at:]))
}

// pass goes on behind n bytes; below zero they were none of protobuf's.
func (r *reader) pass(n int) {
	if n < 0 {
		r.bad, r.at = true, len(r.b)
		return
	}
	r.at += n
}

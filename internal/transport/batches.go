package transport

import (
	"fmt"
	"sync"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/numbered"
)

// maxIntroduced bounds what both ends of a stream remember of entries. Beyond
// it numbers begin again: an introduction replaces what had the number before.
const maxIntroduced = 1 << 16

// A batchEncoder names each entry once on a stream and by number afterwards.
// It owns the message and its parts and uses them again: at hundreds of
// thousands of notifications a second making them anew would cost more than
// sending them. All entries are this node's own, so the node is not named.
type batchEncoder struct {
	introduced numbered.Table[*introduction] // by entry
	next       uint32                        // number of the newest introduction
	bytes      int                           // that the batch takes, at most

	out  belfryv1.Batch
	slab []belfryv1.Notification
	gaps []belfryv1.Gap
	refs []*belfryv1.Notification
}

// introduction is what the peer knows under a number.
type introduction struct {
	id    uint32
	entry uint64
	event belfry.EventID
}

// encode is valid until the next call.
func (e *batchEncoder) encode(b event.Batch) *belfryv1.Batch {
	n := len(b.Notifications)
	if int(e.next)+n > maxIntroduced {
		e.introduced, e.next = numbered.Table[*introduction]{}, 0
	}
	e.reserve(n)
	e.bytes = overhead + n*mostOfNotification
	clear(e.out.Entries)
	e.out.Entries = e.out.Entries[:0]
	e.out.Number = b.Number
	e.out.Notifications = e.refs[:n]
	for i := range b.Notifications {
		e.notification(&b.Notifications[i], &e.slab[i], &e.gaps[i])
	}
	return &e.out
}

func (e *batchEncoder) reserve(n int) {
	if n <= len(e.slab) {
		return
	}
	size := max(n, 2*len(e.slab))
	e.slab, e.gaps, e.refs = make([]belfryv1.Notification, size), make([]belfryv1.Gap, size), make([]*belfryv1.Notification, size)
	for i := range e.slab {
		e.refs[i] = &e.slab[i]
	}
}

func (e *batchEncoder) notification(n *belfry.Notification, to *belfryv1.Notification, gap *belfryv1.Gap) {
	to.Kind = belfryv1.Kind(n.Kind) + belfryv1.Kind_KIND_OCCURRENCE
	to.Entry = e.introduce(n)
	to.Sequence, to.FirstSequence = n.Last, 0
	if n.First != n.Last {
		to.FirstSequence = n.First
	}
	to.Count = n.Count
	if n.Kind == belfry.KindOccurrence && n.Count == n.Last-n.First+1 {
		to.Count = 0
	}
	to.Skipped = n.Skipped
	to.Time, to.FirstTime = nanoseconds(n.Time), 0
	if !n.FirstTime.Equal(n.Time) {
		to.FirstTime = nanoseconds(n.FirstTime)
	}
	to.Code, to.Edge, to.Value = n.Code, belfryv1.Edge(n.Edge), n.Value
	to.Data, to.Mixed, to.Unmonitored, to.LowerBound = n.Data, n.Mixed, n.Unmonitored, n.LowerBound
	e.bytes += len(n.Data)
	to.Gap = nil
	if n.Gap != nil {
		gap.Total, gap.Known, gap.Resync = n.Gap.Total, n.Gap.Known, n.Gap.Resync
		gap.Reason = belfryv1.GapReason(n.Gap.Reason) + belfryv1.GapReason_GAP_REASON_SLOW
		gap.From, gap.To = nanoseconds(n.Gap.From), nanoseconds(n.Gap.To)
		to.Gap = gap
	}
}

// introduce is the number of the entry on this stream; 0 where a notification
// is about none.
func (e *batchEncoder) introduce(n *belfry.Notification) uint32 {
	if n.Entry == 0 && n.Event == (belfry.EventID{}) {
		return 0
	}
	known, ok := e.introduced.Get(n.Entry)
	if !ok || known.event != n.Event {
		// A change takes a new number: others of this batch may stand under the old one.
		e.next++
		known = &introduction{id: e.next, entry: n.Entry, event: n.Event}
		e.introduced.Set(n.Entry, known)
		e.bytes += mostOfEntry + len(n.Event.Class) + len(n.Event.Subject) + len(n.Event.Instance)
		e.out.Entries = append(e.out.Entries, &belfryv1.Entry{
			Id: known.id, Entry: n.Entry,
			Class: string(n.Event.Class), Subject: n.Event.Subject, Instance: n.Event.Instance,
		})
	}
	return known.id
}

// What one of them takes on the wire at most, beside its texts and data.
const (
	mostOfNotification = 192
	mostOfEntry        = 96
)

// A batchDecoder remembers what the peer has introduced. The zero value is
// ready.
type batchDecoder struct {
	introduced []introduction // by number; the one with number 0 was not introduced
	none       introduction   // of what is about no event
}

// decode wraps ErrUsage when the batch does not keep to the protocol.
func (d *batchDecoder) decode(m *belfryv1.Batch, origin Hello) (event.Batch, error) {
	b := event.Batch{Number: m.GetNumber()}
	for _, in := range m.GetEntries() {
		if err := d.introduce(in); err != nil {
			return b, fmt.Errorf("batch %d: %w", b.Number, err)
		}
	}
	if n := len(m.GetNotifications()); n > 0 {
		b.Notifications = roomFor(n)
	}
	for i, n := range m.GetNotifications() {
		if err := d.notification(n, &b.Notifications[i], origin); err != nil {
			return event.Batch{}, fmt.Errorf("batch %d, notification %d: %w", b.Number, i, err)
		}
	}
	return b, nil
}

// released are slices of notifications that nobody looks at.
var released sync.Pool

// Release says that a frame that was delivered is not looked at any more: what it
// lies in is written over. What its notifications point to stays. Not to do so costs
// no more than memory.
func Release(f event.Frame) {
	if b, ok := f.(event.PeerBatch); ok && len(b.Batch.Notifications) > 0 {
		all := b.Batch.Notifications
		clear(all)
		released.Put(&all)
	}
}

func roomFor(n int) []belfry.Notification {
	if all, ok := released.Get().(*[]belfry.Notification); ok && cap(*all) >= n {
		return (*all)[:n]
	}
	return make([]belfry.Notification, n, max(n, 64))
}

func (d *batchDecoder) introduce(m *belfryv1.Entry) error {
	id := m.GetId()
	if id == 0 || id > maxIntroduced || len(m.GetClass())+len(m.GetSubject())+len(m.GetInstance()) > maxText {
		return fmt.Errorf("%w: introduction %d; 1 to %d, with at most %d bytes of text", belfry.ErrUsage, id, maxIntroduced, maxText)
	}
	if more := int(id) + 1 - len(d.introduced); more > 0 {
		d.introduced = append(d.introduced, make([]introduction, more)...)
	}
	d.introduced[id] = introduction{id: id, entry: m.GetEntry(), event: belfry.EventID{
		Class: belfry.Class(m.GetClass()), Subject: m.GetSubject(), Instance: m.GetInstance(),
	}}
	return nil
}

func (d *batchDecoder) notification(m *belfryv1.Notification, to *belfry.Notification, origin Hello) error {
	known := &d.none
	if id := m.GetEntry(); id > 0 && int(id) < len(d.introduced) {
		known = &d.introduced[id]
	}
	first := m.GetFirstSequence()
	if first == 0 {
		first = m.GetSequence()
	}
	switch {
	case m.GetEntry() != known.id:
		return fmt.Errorf("%w: entry %d was not introduced", belfry.ErrUsage, m.GetEntry())
	case m.GetKind() < belfryv1.Kind_KIND_OCCURRENCE || m.GetKind() > belfryv1.Kind_KIND_ENDED:
		return fmt.Errorf("%w: kind %d is not known", belfry.ErrUsage, m.GetKind())
	case m.GetEdge() < belfryv1.Edge_EDGE_UNSPECIFIED || m.GetEdge() > belfryv1.Edge_EDGE_RECOVERED:
		return fmt.Errorf("%w: edge %d is not known", belfry.ErrUsage, m.GetEdge())
	case first > m.GetSequence():
		return fmt.Errorf("%w: range %d to %d; it does not fall", belfry.ErrUsage, first, m.GetSequence())
	}
	gap, err := gapOf(m.GetGap())
	if err != nil {
		return err
	}
	*to = belfry.Notification{
		Kind: belfry.Kind(m.GetKind() - belfryv1.Kind_KIND_OCCURRENCE),
		Node: origin.Node, NodeName: origin.Name, Incarnation: origin.Incarnation,
		Entry: known.entry, Event: known.event,
		First: first, Last: m.GetSequence(), Count: m.GetCount(), Skipped: m.GetSkipped(),
		FirstTime: timeOf(m.GetFirstTime()), Time: timeOf(m.GetTime()),
		Code: m.GetCode(), Edge: belfry.Edge(m.GetEdge()), Value: m.GetValue(),
		Data: m.GetData(), Mixed: m.GetMixed(), Unmonitored: m.GetUnmonitored(), LowerBound: m.GetLowerBound(), Gap: gap,
	}
	if to.Kind == belfry.KindOccurrence && to.Count == 0 {
		to.Count = to.Last - to.First + 1
	}
	if m.GetFirstTime() == 0 {
		to.FirstTime = to.Time
	}
	return nil
}

func gapOf(m *belfryv1.Gap) (*belfry.Gap, error) {
	if m == nil {
		return nil, nil
	}
	if m.GetReason() < belfryv1.GapReason_GAP_REASON_SLOW || m.GetReason() > belfryv1.GapReason_GAP_REASON_MERGED {
		return nil, fmt.Errorf("%w: gap reason %d is not known", belfry.ErrUsage, m.GetReason())
	}
	return &belfry.Gap{
		Total: m.GetTotal(), Known: m.GetKnown(), Resync: m.GetResync(),
		Reason: belfry.GapReason(m.GetReason() - belfryv1.GapReason_GAP_REASON_SLOW),
		From:   timeOf(m.GetFrom()), To: timeOf(m.GetTo()),
	}, nil
}

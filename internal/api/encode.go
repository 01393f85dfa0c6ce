package api

import (
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/numbered"
)

// maxIntroduced bounds what an encoder and the client's decoder remember.
// Beyond it the next batch begins again: an introduction replaces what had the
// number before.
const maxIntroduced = 65536

// An encoder turns the batches of one stream into messages. It owns the
// message and its parts, and uses them again for the next batch: at
// hundreds of thousands of notifications a second, making them anew would cost
// more than sending them. Not safe for concurrent use.
type encoder struct {
	introduced map[origin]*numbered.Table[*introduction] // by entry
	next       uint32                                    // number of the newest introduction
	most       uint32                                    // of them
	last       origin                                    // neighbours are mostly of one node
	of         *numbered.Table[*introduction]            // that one's; nil: there was none yet

	response belfryv1.SubscribeResponse
	kind     belfryv1.SubscribeResponse_Batch
	batch    belfryv1.Batch
	slab     []belfryv1.Notification
	gaps     []belfryv1.Gap
}

// An origin is a node in one of its incarnations: entries have numbers within it.
type origin struct {
	node        belfry.NodeID
	incarnation belfry.Incarnation
}

// introduction is what the client knows under a number.
type introduction struct {
	id       uint32
	nodeName string
	event    belfry.EventID
}

func newEncoder() *encoder {
	e := &encoder{introduced: map[origin]*numbered.Table[*introduction]{}, most: maxIntroduced}
	e.kind.Batch = &e.batch
	e.response.Kind = &e.kind
	return e
}

// encode is valid until the next call.
func (e *encoder) encode(b event.Batch) *belfryv1.SubscribeResponse {
	e.batch.Number = b.Number
	clear(e.batch.Entries)
	e.batch.Entries = e.batch.Entries[:0]
	if e.next >= e.most {
		clear(e.introduced)
		e.next, e.of = 0, nil
	}
	e.reserve(len(b.Notifications))
	for i := range b.Notifications {
		e.notification(&b.Notifications[i], &e.slab[i], &e.gaps[i])
	}
	return &e.response
}

// reserve makes room for n notifications in one piece.
func (e *encoder) reserve(n int) {
	if n > len(e.slab) {
		size := max(n, 2*len(e.slab))
		e.slab, e.gaps = make([]belfryv1.Notification, size), make([]belfryv1.Gap, size)
		e.batch.Notifications = make([]*belfryv1.Notification, size)
		for i := range e.slab {
			e.batch.Notifications[i] = &e.slab[i]
		}
	}
	e.batch.Notifications = e.batch.Notifications[:n]
}

func (e *encoder) notification(n *belfry.Notification, to *belfryv1.Notification, gap *belfryv1.Gap) {
	to.Kind = belfryv1.Kind(n.Kind) + belfryv1.Kind_KIND_OCCURRENCE
	to.Registration = n.Registration
	to.Entry = e.introduce(n)
	to.Sequence, to.FirstSequence = n.Last, 0
	if n.First != n.Last {
		to.FirstSequence = n.First
	}
	to.Count = 0
	if n.Kind != belfry.KindOccurrence || n.Count != n.Last-n.First+1 {
		to.Count = n.Count
	}
	to.Skipped = n.Skipped
	to.Time, to.FirstTime = nanoseconds(n.Time), 0
	if !n.FirstTime.Equal(n.Time) {
		to.FirstTime = nanoseconds(n.FirstTime)
	}
	to.Code, to.Edge, to.Value = n.Code, belfryv1.Edge(n.Edge), n.Value
	to.Data, to.Mixed, to.LowerBound, to.Reason = n.Data, n.Mixed, n.LowerBound, n.Reason
	to.Gap, to.JournalPosition = nil, 0
	if n.Gap != nil {
		gap.Total, gap.Known, gap.Resync = n.Gap.Total, n.Gap.Known, n.Gap.Resync
		gap.Reason = belfryv1.GapReason(n.Gap.Reason) + belfryv1.GapReason_GAP_REASON_SLOW
		gap.From, gap.To = nanoseconds(n.Gap.From), nanoseconds(n.Gap.To)
		to.Gap = gap
	}
}

// introduce is the number of the event on this stream; 0 where a notification
// is about none.
func (e *encoder) introduce(n *belfry.Notification) uint32 {
	from := origin{n.Node, n.Incarnation}
	if n.Entry == 0 && from == (origin{}) && n.Event == (belfry.EventID{}) {
		return 0
	}
	if e.of == nil || from != e.last {
		e.entriesOf(from)
	}
	known, _ := e.of.Get(n.Entry)
	if known == nil || known.event != n.Event || known.nodeName != n.NodeName {
		// A change takes a new number: others of this batch may stand under the old one.
		e.next++
		known = &introduction{id: e.next, nodeName: n.NodeName, event: n.Event}
		e.of.Set(n.Entry, known)
		e.batch.Entries = append(e.batch.Entries, &belfryv1.Entry{
			Id: known.id, NodeId: n.Node[:], NodeName: n.NodeName, Incarnation: uint32(n.Incarnation),
			Entry: n.Entry, Class: string(n.Event.Class), Subject: n.Event.Subject, Instance: n.Event.Instance,
		})
	}
	return known.id
}

// entriesOf makes what is known of one origin the present table.
func (e *encoder) entriesOf(from origin) {
	t := e.introduced[from]
	if t == nil {
		t = &numbered.Table[*introduction]{}
		e.introduced[from] = t
	}
	e.last, e.of = from, t
}

// nanoseconds is 0 for the zero time.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

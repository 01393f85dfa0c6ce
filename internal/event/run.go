package event

import (
	"bytes"
	"time"

	"github.com/belfry-ha/belfry"
)

// An origin is a node in one of its incarnations. Sources share it.
type origin struct {
	node        belfry.NodeID
	name        string
	incarnation belfry.Incarnation
}

// A source is one event of one node: what a notification says of where it
// comes from. It outlives its entry for as long as something queued names it.
type source struct {
	*origin
	entry   EntryID
	class   belfry.Class
	subject string
}

// notification begins a notification of this source for one registration.
func (s *source) notification(kind belfry.Kind, r *registration) (n belfry.Notification) {
	s.begin(&n, kind, r)
	return n
}

// begin does the same with a zero notification where it lies.
func (s *source) begin(n *belfry.Notification, kind belfry.Kind, r *registration) {
	n.Kind, n.Registration = kind, r.number
	n.Node, n.NodeName, n.Incarnation = s.node, s.name, s.incarnation
	n.Entry, n.Event.Class, n.Event.Subject = uint64(s.entry), s.class, s.subject
}

// A body is the part of an occurrence that queues share: it is written once.
type body struct {
	instance string
	value    float64
	data     []byte
	gap      *belfry.Gap // of a gap that another node reported
}

// A run is what consecutive occurrences of one payload class become. Times
// are nanoseconds since 1970. A run of 10 million takes as much as a run of one.
type run struct {
	first, last     uint64 // sequence numbers
	firstTime, time int64  // of the oldest and the newest occurrence
	code            int32
	edge            belfry.Edge
	lowerBound      bool
	unmonitored     bool // no consumer of this node was on the event
	mixed           bool // its occurrences may differ in data or value
	*body                // of the newest
}

// sameClass tells whether an occurrence belongs to the run's payload class
// (events.md 2): nothing merges across an identifier change.
func (r *run) sameClass(o *belfry.Occurrence) bool {
	return r.code == o.Code && r.edge == o.Edge && r.instance == o.Event.Instance
}

// extend takes in count more occurrences of the same payload class. What they
// carry is for renew.
func (r *run) extend(o *belfry.Occurrence, at int64, count uint64) {
	r.last += count
	r.time = at
	r.lowerBound = r.lowerBound || o.LowerBound
}

// mayDiffer is a first look, without a call: most duplicates carry nothing.
func (r *run) mayDiffer(o *belfry.Occurrence) bool {
	return len(o.Data)+len(r.data) > 0 || o.Value != r.value
}

// renew takes the body of the newest occurrence, if it is another one.
func (r *run) renew(o *belfry.Occurrence, how manner) {
	if how == ofMerged || o.Value != r.value || !bytes.Equal(o.Data, r.data) {
		r.body, r.mixed = newBody(o), true
	}
}

// same tells whether two occurrences of one payload class differ in nothing.
func (b *body) same(o *body) bool {
	return b == o || b.value == o.value && bytes.Equal(b.data, o.data)
}

func newBody(o *belfry.Occurrence) *body {
	return &body{instance: o.Event.Instance, value: o.Value, data: o.Data}
}

func newRun(o *belfry.Occurrence, from, at int64, first, count uint64) run {
	return run{
		first: first, last: first + count - 1, firstTime: from, time: at,
		code: o.Code, edge: o.Edge, lowerBound: o.LowerBound, body: newBody(o),
	}
}

// fill copies the payload of the run into a notification.
func (r *run) fill(n *belfry.Notification) {
	n.First, n.Last = r.first, r.last
	n.FirstTime, n.Time = unix(r.firstTime), unix(r.time)
	n.Code, n.Edge, n.LowerBound = r.code, r.edge, r.lowerBound
	n.Event.Instance, n.Value, n.Data, n.Mixed = r.instance, r.value, r.data, r.mixed
}

func unix(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// stamp is the time of an occurrence; a producer that gives none means now.
func stamp(now, t time.Time) int64 {
	if t.IsZero() {
		t = now
	}
	return t.UnixNano()
}

package journal

import (
	"cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/numbered"
)

// A Key names an event of a node in one of its incarnations: its numbers count
// within that.
type Key struct {
	Node        belfry.NodeID
	Incarnation belfry.Incarnation
	Entry       uint64
}

// KeyOf is the key of a notification's event.
func KeyOf(n *belfry.Notification) Key { return Key{n.Node, n.Incarnation, n.Entry} }

func (k Key) compare(o Key) int {
	return cmp.Or(k.Node.Compare(o.Node), cmp.Compare(k.Incarnation, o.Incarnation), cmp.Compare(k.Entry, o.Entry))
}

// maxEvents is how many events a journal knows the last number of; the least
// recently recorded is forgotten first.
const maxEvents = 65536

// An event is what the journal holds of one event.
type event struct {
	Key
	nodeName string
	class    belfry.Class
	subject  string

	base uint64 // the number before the first one that was recorded
	last uint64 // the last number that is durable
	at   uint64 // position of its record; 0: none is durable

	staged     uint64 // the last number in the commit that is being made; 0: none
	id         uint32 // in that commit; 0: not introduced
	instance   string // as it was introduced
	in         *index // that knew it last
	inIndex    uint32 // its number there
	prev, next *event
}

// A table knows the last number of each event, in the order in which they
// were recorded.
type table struct {
	by   map[origin]*numbered.Table[*event] // by entry
	last origin                             // neighbours are mostly of one node
	of   *numbered.Table[*event]            // that one's; nil: it has none
	n    int                                // events
	head event                              // ring: head.next is the newest
}

// An origin is a node in one of its incarnations: entries have numbers within it.
type origin struct {
	node        belfry.NodeID
	incarnation belfry.Incarnation
}

func newTable() *table {
	t := &table{by: map[origin]*numbered.Table[*event]{}}
	t.head.prev, t.head.next = &t.head, &t.head
	return t
}

// entries are those of the key's origin; nil: there are none.
func (t *table) entries(k Key) *numbered.Table[*event] {
	if o := (origin{k.Node, k.Incarnation}); t.of == nil || o != t.last {
		t.last, t.of = o, t.by[o]
	}
	return t.of
}

// find is nil for an event that is not known.
func (t *table) find(k Key) *event {
	entries := t.entries(k)
	if entries == nil {
		return nil
	}
	e, _ := entries.Get(k.Entry)
	return e
}

func (t *table) put(k Key, e *event) {
	if t.entries(k) == nil {
		t.of = &numbered.Table[*event]{}
		t.by[t.last] = t.of
	}
	t.of.Set(k.Entry, e)
	t.n++
}

// touch finds or makes an event and makes it the newest.
func (t *table) touch(k Key) *event {
	e := t.find(k)
	if e == nil {
		if t.n >= maxEvents {
			t.forget(t.head.prev)
		}
		e = &event{Key: k}
		t.put(k, e)
	} else {
		e.prev.next, e.next.prev = e.next, e.prev
	}
	e.prev, e.next = &t.head, t.head.next
	e.prev.next, e.next.prev = e, e
	return e
}

func (t *table) forget(e *event) {
	e.prev.next, e.next.prev = e.next, e.prev
	entries := t.entries(e.Key)
	entries.Delete(e.Entry)
	t.n--
	if entries.Len() == 0 {
		delete(t.by, t.last)
		t.of = nil
	}
}

// prune forgets the events of which no file says anything any more, but for
// those of the present incarnation: they may be recorded again.
func (t *table) prune(oldest uint64, node belfry.NodeID, incarnation belfry.Incarnation) {
	for e := t.head.prev; e != &t.head; {
		older := e
		e = e.prev
		if older.at < oldest && (older.Node != node || older.Incarnation != incarnation) {
			t.forget(older)
		}
	}
}

// durable lists the events with a number, the least recent first.
func (t *table) durable() []*event {
	list := make([]*event, 0, t.n)
	for e := t.head.prev; e != &t.head; e = e.prev {
		if e.at > 0 {
			list = append(list, e)
		}
	}
	return list
}

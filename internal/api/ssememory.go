package api

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/belfry-ha/belfry"
)

const (
	// maxTold bounds an id; what falls out may be told again at an agent that was
	// restarted. A burst of more events within one commit of the journal is rare.
	maxTold = 64
	// lookTold is from how many on the stream finds out what it may forget.
	lookTold = 8
)

// A memory is what a client of server-sent events has that its cursor does not
// say: the last number of each event that was told behind the cursor, and how many
// occurrences gaps over several events stood for. It travels in the id of each
// event, so that an agent that was restarted tells nothing twice.
type memory struct {
	told   []telling // the least recent first
	claims []claim
}

// A telling is up to which number an event was told.
type telling struct {
	registration uint32
	entryKey
	first, last uint64 // all of them are accounted for
	old         bool   // told before the journal was asked how far it is
}

// A claim is how many occurrences of a registration gaps stood for. Which they were
// nobody can say: the first ones that nothing else accounts for.
type claim struct {
	registration uint32
	count        uint64
	old          bool
}

func (m *memory) find(registration uint32, n *belfry.Notification) int {
	k := entryKey{n.Node, n.Incarnation, n.Entry}
	return slices.IndexFunc(m.told, func(t telling) bool { return t.registration == registration && t.entryKey == k })
}

// note takes up what is being written.
func (m *memory) note(n *belfry.Notification) {
	switch {
	case !accounts(n.Kind):
	case n.Entry == 0 && n.Gap != nil && n.Gap.Known:
		for i := range m.claims {
			if c := &m.claims[i]; c.registration == n.Registration && !c.old {
				c.count += n.Gap.Total
				return
			}
		}
		m.claims = append(m.claims, claim{registration: n.Registration, count: n.Gap.Total})
	case n.Entry > 0 && n.Last > 0:
		from := n.Last - min(n.Last, accounted(n))
		one := telling{registration: n.Registration, entryKey: entryKey{n.Node, n.Incarnation, n.Entry}, first: from + 1}
		if i := m.find(n.Registration, n); i >= 0 {
			one = m.told[i]
			m.told = slices.Delete(m.told, i, i+1)
			m.less(n.Registration, from-min(from, one.last)) // a gap had those between
		} else if len(m.told) == maxTold {
			m.told = slices.Delete(m.told, 0, 1)
		}
		one.last, one.old = max(one.last, n.Last), false
		m.told = append(m.told, one)
	}
}

// less takes off the claims what is known to be in them.
func (m *memory) less(registration uint32, count uint64) {
	for i := range m.claims {
		if c := &m.claims[i]; c.registration == registration {
			part := min(c.count, count)
			c.count -= part
			count -= part
		}
	}
	m.claims = slices.DeleteFunc(m.claims, func(c claim) bool { return c.count == 0 })
}

// claimed is how many occurrences of a registration gaps stood for.
func (m *memory) claimed(registration uint32) (count uint64) {
	for _, c := range m.claims {
		if c.registration == registration {
			count += c.count
		}
	}
	return count
}

// again cuts off what the past tells again; false: all of it was told or counted.
func (m *memory) again(n *belfry.Notification) bool {
	if !accounts(n.Kind) || n.Entry == 0 || n.Last == 0 {
		return true
	}
	from := n.Last - min(n.Last, accounted(n))
	if i := m.find(n.Registration, n); i >= 0 {
		one := m.told[i]
		if from+1 < one.first {
			m.less(n.Registration, min(n.Last, one.first-1)-from)
		}
		if n.Last <= one.last {
			return false
		}
		if from < one.last {
			curtail(n, one.last-from)
			n.First = max(n.First, one.last+1)
		}
	}
	left := m.claimed(n.Registration)
	if left == 0 {
		return true
	}
	all := accounted(n)
	m.less(n.Registration, all)
	if all <= left {
		return false
	}
	curtail(n, left)
	n.First = max(n.First, n.Last-accounted(n)+1)
	return true
}

// age begins to find out what may be forgotten: what was told until now.
func (m *memory) age() {
	for i := range m.told {
		m.told[i].old = true
	}
	for i := range m.claims {
		m.claims[i].old = true
	}
}

// forget leaves out what was told before age.
func (m *memory) forget() {
	m.told = slices.DeleteFunc(m.told, func(t telling) bool { return t.old })
	m.claims = slices.DeleteFunc(m.claims, func(c claim) bool { return c.old })
}

// append is the form in an id; node is that of its cursor.
func (m *memory) append(b []byte, node belfry.NodeID) []byte {
	if len(m.told) == 0 && len(m.claims) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(m.told)))
	for _, t := range m.told {
		b = binary.AppendUvarint(b, uint64(t.registration))
		if t.node == node {
			b = append(b, 0)
		} else {
			b = append(append(b, 1), t.node[:]...)
		}
		for _, number := range []uint64{uint64(t.incarnation), t.entry, t.first, t.last - min(t.first, t.last)} {
			b = binary.AppendUvarint(b, number)
		}
	}
	for _, c := range m.claims {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(c.registration)), c.count)
	}
	return b
}

// A fieldReader takes an id apart.
type fieldReader struct {
	b   []byte
	bad bool
}

func (r *fieldReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *fieldReader) take(n int) []byte {
	if len(r.b) < n {
		r.b, r.bad = nil, true
		return make([]byte, n)
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *fieldReader) memory(node belfry.NodeID) (m memory) {
	if len(r.b) == 0 {
		return m
	}
	n := r.uint()
	if n > maxTold {
		r.bad = true
		return m
	}
	for range n {
		t := telling{registration: uint32(r.uint()), entryKey: entryKey{node: node}}
		if r.take(1)[0] != 0 {
			t.node = belfry.NodeID(r.take(len(t.node)))
		}
		t.incarnation, t.entry, t.first = belfry.Incarnation(r.uint()), r.uint(), r.uint()
		t.last = t.first + r.uint()
		r.bad = r.bad || t.last < t.first
		m.told = append(m.told, t)
	}
	for len(r.b) > 0 && len(m.claims) < 2*maxClasses { // old ones and others
		m.claims = append(m.claims, claim{registration: uint32(r.uint()), count: r.uint()})
	}
	return m
}

// A position is a notification in a consumer's batches: how many of a batch
// have been written.
type position struct {
	batch, index uint64        // zero while the past is told
	cursor       belfry.Cursor // where to begin without the consumer; zero: not known
	memory       memory        // what was told behind the cursor
}

func appendEventID(dst []byte, t token, at position) []byte {
	b := append([]byte(nil), t[:]...)
	b = binary.AppendUvarint(b, at.batch)
	b = binary.AppendUvarint(b, at.index)
	if c := at.cursor; !c.IsZero() {
		b = append(b, c.Node[:]...)
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(c.Incarnation)), c.Position)
		b = at.memory.append(b, c.Node)
	}
	return base64.RawURLEncoding.AppendEncode(dst, b)
}

func parseEventID(s string) (t token, at position, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	r := fieldReader{b: b, bad: err != nil}
	t = token(r.take(len(t)))
	at.batch, at.index = r.uint(), r.uint()
	if len(r.b) > 0 {
		at.cursor.Node = belfry.NodeID(r.take(len(at.cursor.Node)))
		incarnation := r.uint()
		at.cursor.Incarnation, at.cursor.Position = belfry.Incarnation(incarnation), r.uint()
		r.bad = r.bad || uint64(at.cursor.Incarnation) != incarnation || at.cursor.IsZero()
		at.memory = r.memory(at.cursor.Node)
	}
	if r.bad || len(r.b) > 0 {
		return token{}, position{}, fmt.Errorf("%w: event id %q is not one of ours", belfry.ErrUsage, s)
	}
	return t, at, nil
}

package client

import "github.com/belfry-ha/belfry"

// maxSeen is how many events a stream remembers; the least recently heard of
// is forgotten first (events.md 5).
const maxSeen = 65536

// seen remembers the last sequence number of each event that Next returned,
// across streams and agents, so that each occurrence is returned once however
// often it was sent.
type seen struct {
	byKey map[seenKey]*seenEntry
	head  seenEntry // ring: head.next is the newest, head.prev the oldest
}

// seenKey tells registrations apart: two of one stream may both be for the
// same event, and each gets its own notifications.
type seenKey struct {
	node         belfry.NodeID
	incarnation  belfry.Incarnation
	registration uint32
	entry        uint64
}

type seenEntry struct {
	key        seenKey
	last       uint64
	prev, next *seenEntry
}

func newSeen() *seen {
	s := &seen{byKey: map[seenKey]*seenEntry{}}
	s.head.prev, s.head.next = &s.head, &s.head
	return s
}

// admit tells whether n says something new, and cuts off what is not. The
// count of a notification whose numbers are contiguous is cut with its range;
// of another one nobody can say which part is new, so it stays whole.
func (s *seen) admit(n *belfry.Notification) bool { return s.admitAt(new(*seenEntry), n) }

// admitAt is told where the event was found last: mostly it is there again, and
// thousands of different events need no look into the map. Whoever was forgotten
// meanwhile is another's place.
func (s *seen) admitAt(place **seenEntry, n *belfry.Notification) bool {
	if n.Last == 0 || n.Entry == 0 || n.Kind != belfry.KindOccurrence && n.Kind != belfry.KindGap {
		return true
	}
	e := s.entry(seenKey{n.Node, n.Incarnation, n.Registration, n.Entry}, place)
	if n.Last <= e.last {
		return false
	}
	if n.First <= e.last {
		whole, fresh := n.Last-n.First+1, n.Last-e.last
		switch {
		case n.Gap != nil && n.Gap.Total == whole:
			n.First, n.Gap.Total = e.last+1, fresh
		case n.Gap == nil && n.Count == whole:
			n.First, n.Count = e.last+1, fresh
		}
	}
	e.last = n.Last
	return true
}

// entry finds or makes the entry and moves it to the front.
func (s *seen) entry(key seenKey, place **seenEntry) *seenEntry {
	e := *place
	if e == nil || e.key != key {
		e = s.byKey[key]
	}
	switch {
	case e != nil:
		e.prev.next, e.next.prev = e.next, e.prev
	case len(s.byKey) < maxSeen:
		e = &seenEntry{key: key}
		s.byKey[key] = e
	default:
		e = s.head.prev
		e.prev.next, e.next.prev = e.next, e.prev
		delete(s.byKey, e.key)
		e.key, e.last = key, 0
		s.byKey[key] = e
	}
	e.prev, e.next = &s.head, s.head.next
	e.prev.next, e.next.prev = e, e
	*place = e
	return e
}

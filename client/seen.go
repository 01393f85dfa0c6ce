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

	// Of the last notification that was looked at: how many numbers were never told
	// or counted by themselves, between it and the one before, and of those that it has below the
	// first one that was told.
	between, below uint64
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
	first      uint64 // the lowest number that was told or counted
	last       uint64
	prev, next *seenEntry
}

func newSeen() *seen {
	s := &seen{byKey: map[seenKey]*seenEntry{}}
	s.head.prev, s.head.next = &s.head, &s.head
	return s
}

// admit tells whether n says something new, and cuts off what is not. The
// count of a notification whose numbers are contiguous is cut with its range, and
// the number of any gap; of other occurrences nobody can say which part is new, so
// they stay whole.
func (s *seen) admit(n *belfry.Notification) bool { return s.admitAt(new(*seenEntry), n) }

// admitAt is told where the event was found last: mostly it is there again, and
// thousands of different events need no look into the map. Whoever was forgotten
// meanwhile is another's place.
func (s *seen) admitAt(place **seenEntry, n *belfry.Notification) bool {
	s.between, s.below = 0, 0
	if n.Last == 0 || n.Entry == 0 || !accounts(n.Kind) {
		return true
	}
	e := s.entry(seenKey{n.Node, n.Incarnation, n.Registration, n.Entry}, place)
	from := n.Last - min(n.Last, total(n)) // all behind it are accounted for by n
	if n.Kind != belfry.KindOccurrence && n.Kind != belfry.KindGap {
		// About flapping: it is news each time, but what was silenced counts once.
		n.Skipped -= min(n.Skipped, e.last-min(from, e.last))
		if e.last == 0 {
			e.first = from + 1
		}
		e.last = max(e.last, n.Last)
		return true
	}
	switch {
	case e.last == 0:
		e.first = from + 1
	case from >= e.last:
		s.between = from - e.last
	case from+1 < e.first:
		s.below = min(n.Last, e.first-1) - from
	}
	if n.Last <= e.last {
		return false
	}
	if n.First <= e.last {
		whole, fresh := n.Last-n.First+1, n.Last-e.last
		switch {
		case n.Gap != nil && n.Gap.Total == whole:
			n.First, n.Gap.Total = e.last+1, fresh
		case n.Gap != nil && n.Gap.Known: // the rest of its range was refused, and comes first
			excess := e.last - min(from, e.last)
			skipped := min(excess, n.Skipped)
			n.Skipped -= skipped
			n.First, n.Gap.Total = e.last+1, n.Gap.Total-min(excess-skipped, n.Gap.Total)
		case n.Gap == nil && n.Count == whole:
			n.First, n.Count = e.last+1, fresh
		}
	}
	e.last = n.Last
	return true
}

// accounts tells whether notifications of a kind say what was refused before them.
func accounts(kind belfry.Kind) bool {
	switch kind {
	case belfry.KindOccurrence, belfry.KindGap, belfry.KindFlapping, belfry.KindSettled:
		return true
	}
	return false
}

// total is how many occurrences n accounts for.
func total(n *belfry.Notification) uint64 {
	t := n.Count + n.Skipped
	if n.Gap != nil {
		t += n.Gap.Total
	}
	return t
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
		e.key, e.first, e.last = key, 0, 0
		s.byKey[key] = e
	}
	e.prev, e.next = &s.head, s.head.next
	e.prev.next, e.next.prev = e, e
	*place = e
	return e
}

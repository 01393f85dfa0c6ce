package event

import "github.com/belfry-ha/belfry"

// A written batch is the last one that plain registrations filled, with what
// each part of it was made of. Of a thousand consumers of one event most have
// had the same of it and get the same batch, so the next ones take the slice as
// far as they agree instead of writing it again. Whoever gets a batch only reads
// it. It lives for one Take.
type written struct {
	notifications []belfry.Notification
	parts         []part
}

// A part is what one registration put into the batch.
type part struct {
	partKey
	upTo      int    // notifications, with all parts before
	bytes     int    // as the basket counts them, likewise
	coalesced uint64 // occurrences that came together with another one
}

// partKey is all that the notifications of a part are made of.
type partKey struct {
	entry  *entry
	number uint32 // of the registration
	look   int
	taken  uint64 // before it
	since  int64
	last   uint64 // the entry's newest number
	most   int    // notifications in the basket
	bytes  int
}

func (r *registration) partKey(b *basket) partKey {
	return partKey{
		entry: r.entry, number: r.number, look: r.spec.Limit, taken: r.taken, since: r.since, last: r.entry.sequence,
		most: b.most, bytes: b.mostBytes,
	}
}

// upTo is where the part with an index begins.
func (w *written) upTo(index int) int {
	if index == 0 {
		return 0
	}
	return w.parts[index-1].upTo
}

// share gives a basket its next part from what is written, if all before it was
// from there and the part is this registration's too.
func (w *written) share(b *basket, r *registration) bool {
	if b.shared >= len(w.parts) || len(b.notifications) != w.upTo(b.shared) || w.parts[b.shared].partKey != r.partKey(b) {
		return false
	}
	p := &w.parts[b.shared]
	b.shared++
	b.notifications, b.bytes = w.notifications[:p.upTo:p.upTo], p.bytes // an append copies it
	r.taken = p.last
	r.entry.tally.coalesced += p.coalesced
	r.entry.clean(r)
	return true
}

// keep notes what a registration has put into a basket after its first before
// notifications, if it is the whole of it and all before is noted. A gap is not:
// it is counted at whom it meets.
func (w *written) keep(b *basket, r *registration, key partKey, before int) {
	if before == 0 {
		w.parts, b.writes = w.parts[:0], true
	}
	b.writes = b.writes && !r.dirty && before == w.upTo(len(w.parts))
	p := part{partKey: key, upTo: len(b.notifications), bytes: b.bytes}
	for i := before; i < len(b.notifications) && b.writes; i++ {
		n := &b.notifications[i]
		b.writes = n.Kind == belfry.KindOccurrence
		p.coalesced += n.Count - 1
	}
	if b.writes {
		w.notifications, w.parts = b.notifications, append(w.parts, p)
		b.written = true
	}
}

// forget lets go of the batch, not of the room.
func (w *written) forget() {
	w.notifications = nil
	clear(w.parts)
	w.parts = w.parts[:0]
}

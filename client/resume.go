package client

import (
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// Cursor is where to begin again after the last notification that Next
// returned: a [belfry.Since] with it gives what came after, and perhaps some of
// what came just before. It is zero where nobody can say: the agent has no
// journal, or the past of one of several registrations is still being told.
func (s *Stream) Cursor() belfry.Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wishes {
		if w.telling && len(s.wishes) > 1 {
			return belfry.Cursor{}
		}
	}
	return s.cursor
}

// reach notes how far Next has come; 0: that is not known.
func (s *Stream) reach(a *arrival, position uint64) {
	if position == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = at(a.origin, position)
}

// admit tells whether n says something that was neither told nor counted before.
func (s *Stream) admit(a *arrival, entry uint32, n *belfry.Notification) bool {
	admitted := s.seen.admitAt(a.table.place(entry), n)
	if a.batch.GetReplay() != nil {
		s.counted.less(n.Registration, s.seen.below)
		return admitted && s.counted.again(n)
	}
	s.counted.less(n.Registration, s.seen.between)
	if admitted {
		s.counted.tell(n)
	}
	return admitted
}

func at(origin belfry.Cursor, position uint64) belfry.Cursor {
	origin.Position = position
	return origin
}

// pass is the end of a batch.
func (s *Stream) pass(a *arrival) {
	if a.batch == nil {
		return
	}
	defer a.done()
	s.reach(a, a.batch.GetJournalPosition())
	r := a.batch.GetReplay()
	if to := at(a.origin, a.batch.GetJournalPosition()); r == nil && to.Position > 0 && to != s.told {
		s.told = to // what the gaps before stand for is not told again
		clear(s.counted)
	}
	if r.GetLast() {
		delete(s.counted, r.GetRegistration()) // the rest is in no journal
		s.mu.Lock()
		defer s.mu.Unlock()
		if w := s.wishes[r.GetRegistration()]; w != nil {
			w.telling = false
		}
	}
}

// arrivedUpTo notes how far a batch goes, for the next link. It is called with
// the lock held.
func (k *keeper) arrivedUpTo(b *belfryv1.Batch) {
	position := b.GetJournalPosition()
	r := b.GetReplay()
	switch w := k.wishes[r.GetRegistration()]; {
	case position == 0:
	case r == nil:
		k.got = at(k.origin, position)
		k.ruledUpTo(b)
	case w != nil:
		w.got = at(k.origin, position)
		w.replaying = w.replaying && !r.GetLast()
	}
}

// ruledUpTo does the same for registrations whose rules may have refused or held back
// something: only what comes of one accounts for what came before it, so until then an
// agent that was restarted has to look at it again.
func (k *keeper) ruledUpTo(b *belfryv1.Batch) {
	if len(k.ruled) == 0 {
		return
	}
	for _, n := range b.GetNotifications() {
		if w := k.ruled[n.GetRegistration()]; w != nil && !w.replaying && accounts(belfry.Kind(n.GetKind()-belfryv1.Kind_KIND_OCCURRENCE)) {
			w.got = k.got
		}
	}
}

// ruled tells whether a registration may not be told of everything that it is for.
func ruled(r belfry.Registration) bool {
	return r.Edge != belfry.EdgeBoth || r.Filter != "" || !r.Threshold.IsZero() || r.Hold != 0 || r.MinInterval != 0 || !r.Flap.IsZero()
}

// from is where a registration goes on at an agent that does not know it any
// more; zero: nobody can say. It is called with the lock held.
func (k *keeper) from(w *wish) belfry.Cursor {
	switch {
	case w.got.IsZero():
		return belfry.Cursor{}
	case w.replaying, ruled(w.registration), k.got.Incarnation < w.got.Incarnation, k.got.Incarnation == w.got.Incarnation && k.got.Position < w.got.Position:
		return w.got
	}
	return k.got
}

// resumeWithout registers again where the journal can not help: the agent that
// is there now may be another's. It is called with the lock held.
func (k *keeper) resumeWithout(number uint32, w *wish) {
	now := time.Now()
	r := w.registration
	w.resuming, w.replaying, w.telling, w.got = false, false, false, belfry.Cursor{}
	k.enqueue(&arrival{own: []belfry.Notification{w.gap(number, k.lost, now)}, table: &table{}})
	r.Since, r.Wait = belfry.Since{}, r.Wait || !r.NoFollow
	l := k.link
	go k.send(l, registerRequest(number, r)) // whoever reads must not wait for the agent to read
}

func unregisterRequest(number uint32) *belfryv1.SubscribeRequest {
	return &belfryv1.SubscribeRequest{Kind: &belfryv1.SubscribeRequest_Unregister{Unregister: &belfryv1.Unregister{Number: number}}}
}

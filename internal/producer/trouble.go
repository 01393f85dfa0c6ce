package producer

import (
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry/internal/event"
)

// Trouble is of a producer that does not work: from its first failure until it
// has run again for as long as it was paused before, a second at least, so that
// one that fails at each start is not called well in between.
type Trouble struct {
	Reason   string // of the last failure
	Since    time.Time
	Failures uint64        // since then, at least 1
	Next     time.Time     // when it is started again; zero: it has been
	Watched  []event.Watch // of what stands, the first by class and subject, at most 10; Status.Watches are all
}

// maxWatched bounds Trouble.Watched.
const maxWatched = 10

// leastProof is how long a producer must run after a failure to work again.
const leastProof = time.Second

// failures are those that have not been made good.
type failures struct {
	since  time.Time // zero: there is none
	count  uint64
	reason string
	next   time.Time
	pause  time.Duration // after the last one
}

// note takes a failure after which the producer pauses.
func (f *failures) note(now time.Time, reason string, pause time.Duration) {
	if f.since.IsZero() {
		f.since = now
	}
	f.count++
	f.reason, f.pause, f.next = reason, pause, now.Add(pause)
}

// ended takes the end of a run, whatever the reason.
func (f *failures) ended(ran time.Duration) {
	if f.proven(ran) {
		*f = failures{}
	}
}

// proven tells whether a run of that length shows that the producer works again.
func (f *failures) proven(ran time.Duration) bool { return ran >= max(f.pause, leastProof) }

// trouble is nil while the producer works, or while nobody watches. It is
// called with the lock held.
func (s *supervised) trouble(now time.Time) *Trouble {
	f := &s.failures
	if f.since.IsZero() || len(s.standing) == 0 || s.up && f.proven(now.Sub(s.began)) {
		return nil
	}
	t := &Trouble{Reason: f.reason, Since: f.since, Failures: f.count}
	if !s.up {
		t.Next = f.next
	}
	for _, w := range s.standing { // sorted: the order can not be seen
		i, _ := slices.BinarySearchFunc(t.Watched, w, compareWatches)
		if i == maxWatched {
			continue
		}
		t.Watched = slices.Insert(t.Watched, i, w)
		t.Watched = t.Watched[:min(len(t.Watched), maxWatched)]
	}
	return t
}

func compareWatches(a, b event.Watch) int {
	return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.ID, b.ID))
}

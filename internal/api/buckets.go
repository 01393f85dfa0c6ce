package api

import (
	"sync"
	"time"
)

// maxBuckets is how many subjects are remembered.
const maxBuckets = 4096

// buckets are one bucket for each subject, safe for concurrent use.
type buckets struct {
	rate, burst float64 // of each bucket

	mu        sync.Mutex
	bySubject map[bucketKey]*bucket
}

// A bucketKey is what tells subjects apart, whatever their process.
type bucketKey struct {
	uid    uint32
	client string
}

// of is the bucket of a subject; a new one is full.
func (l *buckets) of(subject Subject, now time.Time) *bucket {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := bucketKey{subject.UID, subject.Client}
	b := l.bySubject[key]
	if b == nil {
		if len(l.bySubject) >= maxBuckets || l.bySubject == nil {
			l.bySubject = map[bucketKey]*bucket{} // forgiving all at once is cheaper than an order of age
		}
		b = newBucket(l.rate, l.burst, now)
		l.bySubject[key] = b
	}
	return b
}

// senders limit how fast each subject may send. Equal events that are sent at
// once count once, because they cost once.
type senders struct{ buckets }

// take charges one event. Local root is not limited: it could stop the agent.
func (s *senders) take(subject Subject, now time.Time) bool {
	return subject.Client == "" && subject.UID == 0 || s.of(subject, now).take(now, 1)
}

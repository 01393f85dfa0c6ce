package witness

import (
	"container/heap"
	"time"
)

// A ringer has something to do at times of its own. It says so again after each
// ring, so that an alarm that is not needed any more costs one look.
type ringer interface {
	// ring does what is due and returns when it wants to be rung next; zero: never.
	ring(m *Machine, now time.Time) time.Time
	alarm() *alarm
}

// An alarm is the earliest time for which its ringer stands in the heap.
type alarm struct{ at time.Time }

type ringing struct {
	at    time.Time
	order uint64 // equal times ring in the order in which they were set
	who   ringer
}

type alarms struct {
	heap  ringings
	order uint64
}

// set makes sure that who is rung at or before a time; zero: no wish.
func (a *alarms) set(who ringer, at time.Time) {
	mark := who.alarm()
	if at.IsZero() || !mark.at.IsZero() && !at.Before(mark.at) {
		return
	}
	mark.at = at
	a.order++
	heap.Push(&a.heap, ringing{at, a.order, who})
}

// next is zero when nothing is set.
func (a *alarms) next() time.Time {
	for len(a.heap) > 0 {
		if first := a.heap[0]; first.who.alarm().at.Equal(first.at) {
			return first.at
		}
		heap.Pop(&a.heap) // an earlier one has rung for it
	}
	return time.Time{}
}

// ring rings everybody who is due.
func (a *alarms) ring(m *Machine, now time.Time) {
	for next := a.next(); !next.IsZero() && !next.After(now); next = a.next() {
		r, ok := heap.Pop(&a.heap).(ringing)
		if !ok {
			return // it holds nothing else
		}
		*r.who.alarm() = alarm{}
		a.set(r.who, r.who.ring(m, now))
	}
}

type ringings []ringing

func (r ringings) Len() int { return len(r) }

func (r ringings) Less(i, j int) bool {
	if !r[i].at.Equal(r[j].at) {
		return r[i].at.Before(r[j].at)
	}
	return r[i].order < r[j].order
}

func (r ringings) Swap(i, j int) { r[i], r[j] = r[j], r[i] }

// Push is for [heap]; it takes a ringing.
func (r *ringings) Push(x any) { *r = append(*r, x.(ringing)) }

// Pop is for [heap].
func (r *ringings) Pop() any {
	last := len(*r) - 1
	x := (*r)[last]
	(*r)[last] = ringing{}
	*r = (*r)[:last]
	return x
}

// sooner is the earlier of two times of which zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

package event

import (
	"container/heap"
	"time"
)

// An alarm is the place of a gate among those that wait for a time.
type alarm struct {
	gate   *gate
	number uint64 // decides between equal times
	at     time.Time
	index  int // in the heap, plus 1; 0: not there
}

// alarms are the gates that wait, the next one first.
type alarms struct {
	heap   alarmHeap
	number uint64
}

func (l *alarms) alarm() alarm {
	l.number++
	return alarm{number: l.number}
}

// setAlarm follows what a gate has to wait for.
func (m *Machine) setAlarm(g *gate) {
	m.alarms.set(&g.due, g.next())
}

func (l *alarms) set(a *alarm, at time.Time) {
	a.at = at
	switch {
	case at.IsZero() && a.index > 0:
		heap.Remove(&l.heap, a.index-1)
	case at.IsZero():
	case a.index > 0:
		heap.Fix(&l.heap, a.index-1)
	default:
		heap.Push(&l.heap, a)
	}
}

// dropGate forgets a gate, which may be none.
func (m *Machine) dropGate(g *gate) {
	if g != nil {
		m.alarms.set(&g.due, time.Time{})
	}
}

// next is the zero time when no gate waits.
func (l *alarms) next() time.Time {
	if len(l.heap) == 0 {
		return time.Time{}
	}
	return l.heap[0].at
}

// ring lets all gates out whose time has come.
func (l *alarms) ring(now time.Time) {
	for len(l.heap) > 0 && !l.heap[0].at.After(now) {
		l.heap[0].gate.advance(now)
	}
}

type alarmHeap []*alarm

func (h alarmHeap) Len() int { return len(h) }

func (h alarmHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].number < h[j].number
}

func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push is for container/heap.
func (h *alarmHeap) Push(x any) {
	a := x.(*alarm)
	*h = append(*h, a)
	a.index = len(*h)
}

// Pop is for container/heap.
func (h *alarmHeap) Pop() any {
	last := len(*h) - 1
	a := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	a.index = 0
	return a
}

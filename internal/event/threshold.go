package event

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// level is where a value is with regard to one threshold: on its good side
// or past one of its ends. The value must come back by the hysteresis before
// the same end can be crossed again.
type level struct {
	threshold belfry.Threshold
	side      int8 // -1 past Lo, 0 good, 1 past Hi
	known     bool // a value has been seen
}

// next is the side that a value is on. A value equal to a threshold is past
// it: 100 % can be reached, but not passed.
func (l *level) next(value float64) int8 {
	t := &l.threshold
	switch {
	case t.HasHi && value >= t.Hi:
		return 1
	case t.HasLo && value <= t.Lo:
		return -1
	case l.side > 0 && value > t.Hi-t.Hysteresis:
		return 1
	case l.side < 0 && value < t.Lo+t.Hysteresis:
		return -1
	}
	return 0
}

// move takes a value and tells whether it crosses the threshold, and which way.
func (l *level) move(value float64) (crossed bool, edge belfry.Edge) {
	side := l.next(value)
	crossed = l.known && side != l.side
	l.side, l.known = side, true
	if side == 0 {
		return crossed, belfry.EdgeRecovered
	}
	return crossed, belfry.EdgeFailing
}

// judge moves all levels of an attachment. The first value of a registration
// crosses nothing; if it is past a threshold already, that is told.
func (a *attachment) judge(f *feed, value float64) {
	a.hit = false
	already, told := false, len(a.levels) > 0
	for i := range a.levels {
		l := &a.levels[i]
		fresh := !l.known
		crossed, edge := l.move(value)
		if crossed && !a.hit {
			a.hit, a.hitEdge = true, edge
		}
		already = already || fresh && l.side != 0
		told = told && !fresh
	}
	switch {
	case a.hit:
	case already:
		a.already(f)
	case !told && a.reg.consumer.remote(): // it may believe otherwise from before
		a.recovered(f)
	}
}

// begin lets a new attachment know the present value.
func (a *attachment) begin(f *feed) {
	if f.sampled != nil {
		a.judge(f, f.sampled.value)
	}
}

func (a *attachment) already(f *feed) {
	a.show(&state{
		kind: belfry.KindAlready, time: f.sampled.at(), edge: belfry.EdgeFailing, body: f.sampled.body(),
	})
}

// recovered tells the present value as a state: nothing is past a threshold.
func (a *attachment) recovered(f *feed) {
	a.show(&state{
		kind: belfry.KindState, sequence: f.sequence, time: f.sampled.at(), edge: belfry.EdgeRecovered, body: f.sampled.body(),
	})
}

// body and at are of nothing where there was no sample.
func (s *sampled) body() *body {
	if s == nil {
		return &body{}
	}
	return &body{instance: s.instance, value: s.value, data: s.data}
}

func (s *sampled) at() int64 {
	if s == nil {
		return 0
	}
	return s.time
}

// sample takes a present value. It is an occurrence if it crosses somebody's
// threshold.
func (m *Machine) sample(now time.Time, msg *Sample) {
	e := m.entry(msg.Entry)
	switch {
	case e == nil:
		m.stale(msg.Entry, "entry %d has ended", msg.Entry)
		return
	case e.state != belfry.EntryActive:
		m.stale(e.entry, "%s: a sample while no identifier is associated", label(e.class, e.subject))
		return
	case !finite(msg.Value):
		m.refuse(e.entry, belfry.NodeID{}, refusal(belfry.ErrUsage, "%s: the sample is not a number; send one", label(e.class, e.subject)))
		return
	}
	at := stamp(now, msg.Time)
	e.sampled = &sampled{value: msg.Value, time: at, instance: e.instance, data: msg.Data}
	crossed, edge := false, belfry.EdgeNone
	for _, a := range e.private {
		a.judge(&e.feed, msg.Value)
		if a.hit && !crossed {
			crossed, edge = true, a.hitEdge
		}
	}
	if !crossed {
		return
	}
	e.happened(now, &belfry.Occurrence{
		Event: belfry.EventID{Instance: e.instance}, Time: msg.Time, Edge: edge, Value: msg.Value, Data: msg.Data,
	}, at, at, 1, ofSample)
}

// tuneWatch tells the producer how closely to sample: the lowest Hi, the
// highest Lo and the greatest hysteresis of all registrations.
func (m *Machine) tuneWatch(e *entry) {
	if e.info.Kind != belfry.Value || e.watch == 0 {
		return
	}
	var t belfry.Threshold
	for _, a := range e.private {
		for i := range a.levels {
			u := &a.levels[i].threshold
			if u.HasHi && (!t.HasHi || u.Hi < t.Hi) {
				t.HasHi, t.Hi = true, u.Hi
			}
			if u.HasLo && (!t.HasLo || u.Lo > t.Lo) {
				t.HasLo, t.Lo = true, u.Lo
			}
			t.Hysteresis = max(t.Hysteresis, u.Hysteresis)
		}
	}
	if t == e.threshold || e.holds == 0 {
		return
	}
	e.own().threshold = t
	if i := slices.IndexFunc(m.out.Watch, func(w Watch) bool { return w.ID == e.watch }); i >= 0 {
		m.out.Watch[i] = e.asWatch() // not given away yet
		return
	}
	m.out.Watch = append(m.out.Watch, e.asWatch())
}

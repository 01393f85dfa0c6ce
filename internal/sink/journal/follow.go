package journal

import (
	"slices"

	"github.com/belfry-ha/belfry"
)

// takeHead compares the numbers of a file's head with what has been read: if
// they are ahead, records are damaged or gone.
func (r *Reader) takeHead(rec *record) {
	n := numbers{events: map[Key]*event{}}
	n.takeHead(rec, rec.position)
	r.begun = r.begun || r.q.From > 0 && rec.position > r.q.From
	if r.begun && r.placed {
		r.compare(n.events, r.files[r.file].made, rec.position-1)
		return
	}
	for k, e := range n.events {
		r.numbers[k] = e
	}
}

// compare makes a gap of each event that is further than what has been read.
func (r *Reader) compare(events map[Key]*event, at int64, position uint64) {
	ahead := make([]*event, 0)
	for _, e := range events {
		own := r.numbers[e.Key]
		if own == nil {
			own = &event{Key: e.Key, nodeName: e.nodeName, class: e.class, subject: e.subject, base: e.base, last: e.base}
			r.numbers[e.Key] = own
		}
		if e.last > own.last {
			ahead = append(ahead, e)
		}
	}
	slices.SortFunc(ahead, func(a, b *event) int { return a.compare(b.Key) })
	for _, e := range ahead {
		own := r.numbers[e.Key]
		r.gap(own, e.last-own.last, at, position)
		own.last = e.last
	}
}

// gap says that n occurrences of an event are missing after those that were
// read.
func (r *Reader) gap(e *event, n uint64, to int64, position uint64) {
	from := timeOf(min(r.time, to))
	r.ready = append(r.ready, Item{Position: position, Notification: belfry.Notification{
		Kind: belfry.KindGap, Node: e.Node, NodeName: e.nodeName, Incarnation: e.Incarnation, Entry: e.Entry,
		Event: belfry.EventID{Class: e.class, Subject: e.subject},
		First: e.last + 1, Last: e.last + n, FirstTime: from, Time: timeOf(to),
		Gap: &belfry.Gap{Total: n, Known: true, Reason: belfry.GapJournal, From: from, To: timeOf(to)},
	}})
}

// take takes a record that is not of a head.
func (r *Reader) take(rec *record) {
	if r.placed = true; r.gone {
		r.time, r.gone = max(r.time, r.before()), false
	}
	defer func() { r.at = rec.position }()
	switch {
	case rec.start != nil:
		r.beginWith(rec.position, *rec.start)
		if r.begun && rec.position > 1 {
			r.ready = append(r.ready, Item{Position: rec.position, Boundary: &Boundary{
				From: timeOf(min(r.time, *rec.start)), To: timeOf(*rec.start), Complete: r.stopped,
			}})
		}
		r.time, r.stopped = max(r.time, *rec.start), false
	case rec.stop != nil:
		r.beginWith(rec.position, *rec.stop)
		r.time, r.stopped = max(r.time, *rec.stop), true
	case rec.notification != nil:
		r.beginWith(rec.position, rec.notification.GetTime())
		r.stopped = false
		r.takeNotification(rec)
		r.time = max(r.time, rec.notification.GetTime())
	}
}

// before is when the file ended that stands before the present one.
func (r *Reader) before() int64 {
	if r.file == 0 {
		return 0
	}
	return r.files[r.file-1].ended
}

// beginWith tells whether the record is behind the beginning.
func (r *Reader) beginWith(position uint64, at int64) {
	if !r.begun {
		r.begun = r.q.From > 0 && position > r.q.From || r.q.From == 0 && at >= r.q.Since.UnixNano()
	}
}

func (r *Reader) takeNotification(rec *record) {
	about := rec.about
	if about != nil && !about.wanted {
		return
	}
	n, err := rec.notificationOf()
	if err != nil {
		return // as if it were damaged: the number that follows tells
	}
	if about == nil || n.Last == 0 { // no numbers of its own
		if r.begun {
			r.ready = append(r.ready, Item{Position: rec.position, Notification: n})
		}
		return
	}
	e := r.numbers[about.Key]
	if e == nil {
		e = about.asEvent()
		e.base = before(&n)
		e.last = e.base
		r.numbers[about.Key] = e
	}
	if !trim(&n, e.last) {
		return
	}
	if hole := n.Last - e.last - min(n.Last-e.last, total(&n)); hole > 0 && r.begun {
		r.gap(e, hole, rec.notification.GetTime(), rec.position-1)
	}
	e.last = n.Last
	if r.begun {
		r.ready = append(r.ready, Item{Position: rec.position, Notification: n})
	}
}

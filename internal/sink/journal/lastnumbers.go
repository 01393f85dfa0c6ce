package journal

import (
	"errors"
	"io"
)

// numbers are the last numbers of events up to some position.
type numbers struct {
	events  map[Key]*event
	records int // that the file has
}

// lastNumbers reads an index: the last number of each wanted event at a
// position, which is one of this file or behind it.
func (j *Journal) lastNumbers(f *file, position uint64, match func(*introduction) bool) (numbers, error) {
	n := numbers{events: map[Key]*event{}}
	in, err := j.fs.Open(f.indexName())
	if err != nil {
		return n, err
	}
	defer in.Close()
	d, err := newDecoder(in, magicIndex, nil)
	if err != nil {
		return n, err
	}
	d.match = match
	for {
		r, err := d.next()
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		case r.head != nil:
			n.takeHead(&r, f.base)
		case r.index != nil:
			n.takeIndex(&r, f.base, position, d.known)
		}
	}
}

func (n *numbers) takeHead(r *record, base uint64) {
	for i, about := range r.events {
		if about.wanted {
			e := about.asEvent()
			e.last, e.base, e.at = r.head.GetLast()[i], r.head.GetBase()[i], max(1, base-min(base, r.head.GetAge()[i]))
			n.events[e.Key] = e
		}
	}
}

func (n *numbers) takeIndex(r *record, base, upto uint64, known map[uint32]*introduction) {
	bases := map[Key]uint64{}
	for i, about := range r.events {
		bases[about.Key] = r.index.GetBase()[i]
	}
	for i, id := range r.index.GetEvent() {
		position, about := r.position+uint64(i), known[id]
		if position > upto {
			break
		}
		if about == nil || !about.wanted {
			continue
		}
		e := n.events[about.Key]
		if e == nil {
			e = about.asEvent()
			e.base = bases[about.Key]
			n.events[about.Key] = e
		}
		e.last, e.at = max(e.last, r.index.GetLast()[i]), position
	}
	n.records = int(r.position - base + uint64(len(r.index.GetEvent())))
}

package journal

import (
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// An index says of each record of a segment which event it is about and up to
// which number. It is a fiftieth of the segment and stays longer, so that who
// comes with a cursor into a segment that is gone can be told exactly how many
// occurrences of each event went with it.
type index struct {
	ids    map[Key]uint32
	events []*belfryv1.Entry // by id, from 1 on
	bases  []uint64          // likewise
	heads  int               // of events: they stand in the head
	head   []byte            // the records of the head

	event []uint32 // of each position from the base on; 0: about none
	last  []uint64
}

func newIndex() *index { return &index{ids: map[Key]uint32{}} }

// introduce gives an event its number.
func (x *index) introduce(e *event) uint32 {
	if e.in == x {
		return e.inIndex
	}
	id := x.ids[e.Key] // the event may have been forgotten meanwhile
	if id == 0 {
		id = uint32(len(x.events)) + 1
		x.ids[e.Key] = id
		x.events, x.bases = append(x.events, entryOf(e, id)), append(x.bases, e.base)
	}
	e.in, e.inIndex = x, id
	return id
}

// note adds a record. Positions that were passed over are damaged records.
func (x *index) note(offset uint64, id uint32, last uint64) {
	for uint64(len(x.event)) < offset {
		x.event, x.last = append(x.event, 0), append(x.last, 0)
	}
	x.event, x.last = append(x.event, id), append(x.last, last)
}

// setHead makes the records with which segment and index begin.
func (x *index) setHead(events []*event, h *header) error {
	for _, e := range events {
		x.introduce(e)
	}
	x.heads = len(x.events)
	for from := 0; from < len(events); {
		part, head, bytes := []*belfryv1.Entry(nil), &belfryv1.JournalHead{}, 0
		for ; from < len(events) && bytes < chunk; from++ {
			e := events[from]
			part = append(part, x.events[from])
			head.Last, head.Age, head.Base = append(head.Last, e.last), append(head.Age, h.base-e.at), append(head.Base, e.base)
			bytes += weight(x.events[from])
		}
		var err error
		x.head, err = appendRecord(x.head, h.seed, h.base, &belfryv1.JournalRecord{Events: part, Kind: &belfryv1.JournalRecord_Head{Head: head}})
		if err != nil {
			return err
		}
	}
	clear(x.events) // their introductions stand there
	return nil
}

// weight is about how many bytes an introduction takes.
func weight(e *belfryv1.Entry) int {
	return 48 + len(e.GetSubject()) + len(e.GetClass()) + len(e.GetNodeName())
}

// file is the whole content of the index file.
func (x *index) file(of header) ([]byte, error) {
	of.magic = magicIndex
	b := append(of.append(nil), x.head...)
	known := uint32(x.heads)
	for from := 0; from < len(x.event); {
		position, bytes := of.base+uint64(from), 0
		part := &belfryv1.JournalIndex{}
		record := &belfryv1.JournalRecord{Kind: &belfryv1.JournalRecord_Index{Index: part}}
		for ; from < len(x.event) && bytes < chunk; from++ {
			id := x.event[from]
			if id > known { // numbers are given in the order of first use
				known = id
				record.Events, part.Base = append(record.Events, x.events[id-1]), append(part.Base, x.bases[id-1])
				bytes += weight(x.events[id-1])
			}
			part.Event, part.Last = append(part.Event, id), append(part.Last, x.last[from])
			bytes += 6
		}
		var err error
		if b, err = appendRecord(b, of.seed, position, record); err != nil {
			return nil, err
		}
	}
	return b, nil
}

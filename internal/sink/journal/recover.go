package journal

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// recover lists what is in the directory and takes up behind the last record.
func (j *Journal) recover() error {
	names, err := j.fs.Names()
	if err != nil {
		return err
	}
	slices.Sort(names) // by position: the numbers have leading zeros
	for _, name := range names {
		var base uint64
		if n, _ := fmt.Sscanf(strings.TrimSuffix(strings.TrimSuffix(name, ".seg"), ".idx"), "%020d", &base); n != 1 {
			continue
		}
		f := &file{header: header{base: base}}
		switch name {
		case f.segmentName(), f.indexName():
			if k := len(j.files); k == 0 || j.files[k-1].base != base {
				j.files = append(j.files, f)
			}
		}
	}
	newest := len(j.files) - 1
	for i, f := range j.files {
		if !j.look(f) {
			j.discard(f)
			j.files[i] = nil
			if i < newest { // else a crash came before it had one
				j.opts.Trouble(fmt.Errorf("%s: %w; removed, its events are a gap", f.segmentName(), errHeader))
			}
		}
	}
	j.files = slices.DeleteFunc(j.files, func(f *file) bool { return f == nil })
	for len(j.files) > 0 {
		newest := j.files[len(j.files)-1]
		records, err := j.takeUp(newest)
		if err != nil {
			return err
		}
		if records > 0 {
			break
		}
		j.discard(newest)
		j.files = j.files[:len(j.files)-1]
		j.table = newTable()
	}
	for i, f := range j.files[:max(0, len(j.files)-1)] {
		f.ended = j.files[i+1].made
		if f.size > 0 && f.indexed == 0 { // it ended with a crash, or its index could not be written
			j.index(f)
		}
	}
	return nil
}

// look reads the headers of a file; false: neither can be read. Segment and
// index have the same one, so that each can stand in for the other's.
func (j *Journal) look(f *file) bool {
	segment, size, segmentErr := j.headerOf(f.segmentName(), magicSegment)
	index, indexed, indexErr := j.headerOf(f.indexName(), magicIndex)
	base := f.base
	switch {
	case indexErr == nil && index.base == base:
		f.header, f.indexed = index, indexed
		if size > headerSize {
			f.size = size
		}
	case indexed > 0:
		_ = j.fs.Remove(f.indexName())
	}
	if segmentErr == nil && segment.base == base {
		f.header, f.size = segment, size
	}
	f.magic, f.ended = magicSegment, f.made
	return f.size > 0 || f.indexed > 0
}

// headerOf has the size of a file also when its header is damaged; 0: there is
// no such file.
func (j *Journal) headerOf(name string, magic [4]byte) (h header, size int64, err error) {
	r, err := j.fs.Open(name)
	if err != nil {
		return h, 0, err
	}
	defer r.Close()
	if size, err = r.Size(); err != nil {
		return h, 0, err
	}
	b := make([]byte, headerSize)
	n, _ := r.ReadAt(b, 0)
	h, err = parseHeader(b[:n], magic)
	return h, size, err
}

func (j *Journal) discard(f *file) {
	_ = j.fs.Remove(f.segmentName())
	_ = j.fs.Remove(f.indexName())
}

// takeUp reads the newest file: its last numbers, and what a crash left at its
// end, which is cut off. What is behind a damaged record stays. It tells how
// many records there are.
func (j *Journal) takeUp(f *file) (records int, err error) {
	if f.size == 0 {
		return j.takeUpIndex(f)
	}
	s, err := j.scan(f, j.table)
	if err != nil || len(s.index.event) == 0 {
		return 0, err
	}
	if err := j.fs.Truncate(f.segmentName(), s.valid); err != nil {
		return 0, err
	}
	f.size, f.ended = s.valid, max(f.made, s.time)
	j.next = f.base + uint64(len(s.index.event))
	j.writeIndex(f, s.index)
	return len(s.index.event), nil
}

// takeUpIndex is takeUp where only the index is left.
func (j *Journal) takeUpIndex(f *file) (records int, err error) {
	last, err := j.lastNumbers(f, ^uint64(0), func(*introduction) bool { return true })
	if err != nil {
		return 0, err
	}
	for _, e := range last.events {
		own := j.table.touch(e.Key)
		own.nodeName, own.class, own.subject, own.base, own.last, own.at = e.nodeName, e.class, e.subject, e.base, e.last, e.at
	}
	j.next = f.base + uint64(last.records)
	return last.records, nil
}

// index writes the index that a segment has not got.
func (j *Journal) index(f *file) {
	if s, err := j.scan(f, newTable()); err == nil {
		j.writeIndex(f, s.index)
	}
}

// A scanned is what a whole segment holds.
type scanned struct {
	index *index
	valid int64 // where its last record ends
	time  int64 // of the newest record
}

// scan reads a whole segment, and its last numbers into t.
func (j *Journal) scan(f *file, t *table) (s scanned, err error) {
	in, err := j.fs.Open(f.segmentName())
	if err != nil {
		return s, err
	}
	defer in.Close()
	d, err := newDecoder(in, magicSegment, &f.header)
	if err != nil {
		return s, err
	}
	s.index = newIndex()
	headed := false
	for {
		r, err := d.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return s, err
		}
		if r.head != nil {
			t.takeHead(&r, f.base)
			continue
		}
		if !headed {
			headed = true
			if err := s.index.setHead(t.durable(), &f.header); err != nil {
				return s, err
			}
		}
		if err != nil {
			return s, nil
		}
		s.valid = d.valid
		switch {
		case r.notification != nil:
			s.time = max(s.time, r.notification.GetTime())
			s.index.note(r.position-f.base, t.take(&r, s.index), t.lastOf(&r))
		case r.start != nil:
			s.time = max(s.time, *r.start)
			s.index.note(r.position-f.base, 0, 0)
		case r.stop != nil:
			s.time = max(s.time, *r.stop)
			s.index.note(r.position-f.base, 0, 0)
		}
	}
}

// takeHead takes the last numbers with which a segment begins.
func (t *table) takeHead(r *record, base uint64) {
	for i, about := range r.events {
		e := t.touch(about.Key)
		e.nodeName, e.class, e.subject = about.nodeName, about.event.Class, about.event.Subject
		e.last, e.base = r.head.GetLast()[i], r.head.GetBase()[i]
		e.at = max(1, base-min(base, r.head.GetAge()[i]))
	}
}

// take takes the numbers of a record; 0: it is about no one event.
func (t *table) take(r *record, x *index) (id uint32) {
	n, err := r.notificationOf()
	if err != nil || r.about == nil {
		return 0
	}
	e := t.touch(r.about.Key)
	e.nodeName, e.class, e.subject = r.about.nodeName, r.about.event.Class, r.about.event.Subject
	if e.at == 0 {
		e.base = before(&n)
		e.last = e.base
	}
	e.last, e.at = max(e.last, n.Last), r.position
	return x.introduce(e)
}

func (t *table) lastOf(r *record) uint64 {
	if r.about == nil || t.find(r.about.Key) == nil {
		return 0
	}
	return t.find(r.about.Key).last
}

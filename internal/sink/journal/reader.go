package journal

import (
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A Query says what to read. From and Since are zero to read everything.
type Query struct {
	// From is the position behind which to begin, and Incarnation that of the
	// agent that gave it out: a journal may have been lost meanwhile. Zero: any.
	From        uint64
	Incarnation belfry.Incarnation
	// Since is the time at which to begin, if From is zero.
	Since time.Time
	// Until is the last position to read; zero: all that is durable now.
	Until uint64
	// Match chooses events; nil: all.
	Match func(class belfry.Class, subject string, node belfry.NodeID) bool
}

// An Item is what a Reader gives: a notification, or a boundary.
type Item struct {
	// Position is what to read on from after this.
	Position     uint64
	Notification belfry.Notification // Registration is 0
	Boundary     *Boundary           // not nil: it is this
}

// A Boundary is where one incarnation of this node's agent ends and another
// begins: between them nobody watched.
type Boundary struct {
	From, To time.Time // the last that the old one wrote, and the start of the new one
	Complete bool      // everything that happened before From is in the journal
}

// A Reader reads a journal from old to new. What is missing in it, because it
// was damaged or is older than what is kept, comes as a gap with the exact
// number for each event, or with Known unset where nobody can know it. It is
// for one goroutine, and independent of whoever appends.
type Reader struct {
	j     *Journal
	q     Query
	files []file
	file  int

	in      ReadFile
	decoder *decoder
	limit   uint64 // the last position of the file that counts

	numbers map[Key]*event // as far as it has read
	placed  bool           // numbers are those of the beginning
	begun   bool           // it is behind the beginning
	gone    bool           // nothing of the files before has been read
	at      uint64         // position
	time    int64          // of the last record
	stopped bool           // that was a stop
	ready   []Item
}

// Read begins to read. A Reader that is given up must be closed.
func (j *Journal) Read(q Query) (*Reader, error) {
	if durable := j.Durable(); q.Until == 0 || q.Until > durable {
		q.Until = durable
	}
	if q.Match == nil {
		q.Match = func(belfry.Class, string, belfry.NodeID) bool { return true }
	}
	r := &Reader{j: j, q: q, numbers: map[Key]*event{}}
	j.mu.Lock()
	for _, f := range j.files {
		r.files = append(r.files, *f)
	}
	j.mu.Unlock()
	if q.From > 0 {
		return r, r.beginAt(q.From)
	}
	r.beginSince(q.Since)
	return r, nil
}

// beginSince chooses the file in which the first record since then stands.
func (r *Reader) beginSince(since time.Time) {
	r.file = r.firstWhole()
	if r.file == len(r.files) {
		return
	}
	for i := r.file + 1; i < len(r.files) && r.files[i].made < since.UnixNano() && !since.IsZero(); i++ {
		if r.files[i].size > 0 {
			r.file = i
		}
	}
	first := &r.files[r.file]
	r.gone = true
	r.begun = since.IsZero()
	r.at = first.base - 1
	if first.base > 1 && first.made > since.UnixNano() && !since.IsZero() {
		r.unknown(since)
	}
}

// firstWhole is the oldest file that is more than an index.
func (r *Reader) firstWhole() int {
	i := slices.IndexFunc(r.files, func(f file) bool { return f.size > 0 })
	if i < 0 {
		return len(r.files)
	}
	return i
}

// beginAt begins behind a position.
func (r *Reader) beginAt(from uint64) error {
	at := -1
	for i := range r.files {
		if r.files[i].base <= from {
			at = i
		}
	}
	switch {
	case from > r.q.Until, at < 0, r.another(at, from):
		// Older than all that is known, or of a journal that is gone.
		r.file, r.begun = r.firstWhole(), true
		if r.file < len(r.files) {
			r.at = r.files[r.file].base - 1
		}
		if from > r.q.Until {
			r.begun, r.q.From = false, r.q.Until
		}
		r.unknown(time.Time{})
		return nil
	case r.files[at].size > 0:
		r.file = at
		return nil
	}
	return r.beginGone(at, from)
}

// another tells whether the position is one of another journal: of one that
// was lost, and this one begun anew. An agent gives out also places that its earlier
// lives have written; what it wrote itself says that it did so of this journal.
func (r *Reader) another(at int, from uint64) bool {
	if r.q.Incarnation == 0 {
		return false
	}
	next := at
	if at+1 < len(r.files) && r.files[at+1].base == from+1 {
		next = at + 1
	}
	if r.files[at].incarnation > r.q.Incarnation {
		return true
	}
	wrote := slices.ContainsFunc(r.files, func(f file) bool { return f.incarnation == r.q.Incarnation })
	return r.files[next].incarnation < r.q.Incarnation && from < r.q.Until && !wrote
}

// beginGone begins in a segment of which only the index is left: that has the
// numbers at the position, and what has gone since then becomes gaps.
func (r *Reader) beginGone(at int, from uint64) error {
	n, err := r.j.lastNumbers(&r.files[at], from, r.match)
	if errors.Is(err, os.ErrNotExist) { // it went this moment
		r.file, r.begun = r.firstWhole(), true
		r.unknown(time.Time{})
		return nil
	}
	if err != nil {
		return err
	}
	r.numbers, r.placed, r.begun, r.gone, r.at = n.events, true, true, true, from
	r.time = r.files[at].made
	r.file = r.firstWhole()
	r.lives(at+1, r.file)
	if r.file < len(r.files) {
		return nil
	}
	// Nothing but indexes: the newest has the numbers that there are.
	newest := &r.files[len(r.files)-1]
	if n, err = r.j.lastNumbers(newest, r.q.Until, r.match); err == nil {
		r.compare(n.events, newest.ended, r.q.Until)
	}
	return err
}

// lives gives the boundaries that stood in segments that are gone, from one file
// up to another. Nobody knows any more whether the life before ended in order. To
// read on from them is to begin again: what is missing of before them follows.
func (r *Reader) lives(from, to int) {
	for i := max(1, from); i < to; i++ {
		if old, f := &r.files[i-1], &r.files[i]; old.incarnation != f.incarnation {
			r.ready = append(r.ready, Item{Position: r.at, Boundary: &Boundary{
				From: timeOf(min(old.ended, f.made)), To: timeOf(f.made),
			}})
		}
	}
}

func (r *Reader) match(i *introduction) bool {
	return r.q.Match(i.event.Class, i.event.Subject, i.Node)
}

// unknown says that something may be missing, and nobody knows how much.
func (r *Reader) unknown(from time.Time) {
	to := from
	if r.file < len(r.files) {
		to = timeOf(r.files[r.file].made)
	}
	r.ready = append(r.ready, Item{Position: r.at, Notification: belfry.Notification{
		Kind: belfry.KindGap, FirstTime: from, Time: to,
		Gap: &belfry.Gap{Reason: belfry.GapJournal, From: from, To: to},
	}})
}

// Next is io.EOF at the end.
func (r *Reader) Next() (Item, error) {
	for len(r.ready) == 0 {
		if err := r.step(); err != nil {
			return Item{}, err
		}
	}
	item := r.ready[0]
	r.ready = r.ready[1:]
	return item, nil
}

// step reads one record.
func (r *Reader) step() error {
	if r.decoder == nil {
		if r.file >= len(r.files) || r.at >= r.q.Until {
			return io.EOF
		}
		return r.open()
	}
	rec, err := r.decoder.next()
	if errors.Is(err, io.EOF) || err == nil && rec.position > r.limit && rec.head == nil {
		r.shut()
		r.file++
		r.placed = true
		return nil
	}
	if err != nil {
		return err
	}
	if rec.head != nil {
		r.takeHead(&rec)
		return nil
	}
	r.take(&rec)
	return nil
}

// open takes up the next file.
func (r *Reader) open() error {
	f := &r.files[r.file]
	if f.size == 0 {
		r.file++
		return nil
	}
	in, err := r.j.fs.Open(f.segmentName())
	if errors.Is(err, os.ErrNotExist) { // it went meanwhile: the next one's head tells what it had
		if r.begun {
			r.lives(r.file, r.file+1)
		}
		r.file++
		return nil
	}
	if err != nil {
		return err
	}
	d, err := newDecoder(in, magicSegment, &f.header)
	if err != nil {
		_ = in.Close()
		return err
	}
	d.match = r.match
	r.in, r.decoder, r.limit = in, d, r.q.Until
	if r.file+1 < len(r.files) {
		r.limit = min(r.limit, r.files[r.file+1].base-1)
	}
	return nil
}

func (r *Reader) shut() {
	if r.in != nil {
		_ = r.in.Close()
		r.in, r.decoder = nil, nil
	}
}

// Close lets go of the file that is being read.
func (r *Reader) Close() { r.shut() }

// An End is how far a Reader came with an event.
type End struct {
	Key
	Class   belfry.Class
	Subject string
	Last    uint64
}

// Ends lists the last number of each wanted event, also of those that only
// earlier files tell of, by key.
func (r *Reader) Ends() []End {
	list := make([]End, 0, len(r.numbers))
	for _, e := range r.numbers {
		list = append(list, End{Key: e.Key, Class: e.class, Subject: e.subject, Last: e.last})
	}
	slices.SortFunc(list, func(a, b End) int { return a.compare(b.Key) })
	return list
}

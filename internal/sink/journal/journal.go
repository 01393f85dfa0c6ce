// Package journal keeps the events of a node on its disk: a log of segments
// with checksums, from which a consumer takes up again where it was, and in
// which people look up what happened. DESIGN.md in this folder gives the
// reasons.
package journal

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// The defaults of events.md 7.
const (
	DefaultSize    = 256 << 20
	DefaultAge     = 72 * time.Hour
	DefaultSegment = 16 << 20
	indexShare     = 8 // the indexes take at most this part of the size
)

// Options say whose journal it is and how much it keeps. A zero field takes
// its default.
type Options struct {
	Node        belfry.NodeID
	Incarnation belfry.Incarnation

	// Size is how many bytes of segments are kept, and Age how long: whichever is
	// less. Segment is how large one becomes, about. 256 MiB, 72 h and 16 MiB.
	Size    int64
	Age     time.Duration
	Segment int64

	// FS is the directory; nil: the operating system's.
	FS FS
	// Now is the time; nil: the system's.
	Now func() time.Time
	// Trouble is told what went wrong with a segment, which is then left for
	// another. It must not call the journal. Nil: nobody is told.
	Trouble func(error)
}

// A Journal is for one goroutine that appends; reading, and asking for the
// durable position, are safe for concurrent use.
type Journal struct {
	opts    Options
	fs      FS
	durable atomic.Uint64

	// Of the goroutine that appends.
	table   *table
	buffer  []byte
	scratch belfry.Notification
	staged  []staged
	current *segment  // nil: the next commit makes one
	next    uint64    // position of the next record
	started bool      // the record with which this incarnation begins is durable
	former  time.Time // when the last record of the incarnations before was written, about

	mu    sync.Mutex
	files []*file // oldest first
}

// A file is a segment with its index, of which the first goes sooner.
type file struct {
	header
	size    int64 // bytes of the segment; 0: it is gone
	indexed int64 // bytes of the index; 0: there is none
	ended   int64 // when its last record was written, about; unix ns
}

func (f *file) segmentName() string { return fmt.Sprintf("%020d.seg", f.base) }
func (f *file) indexName() string   { return fmt.Sprintf("%020d.idx", f.base) }

// A segment is the file that is being written.
type segment struct {
	*file
	out     File
	index   *index
	ids     uint32 // given to events in it
	records int    // durable ones
}

// A staged record is written when its commit is.
type staged struct {
	position uint64
	event    *event // nil: it is about none
	last     uint64
}

// Open opens or makes the journal in a directory, and cuts off what a crash
// left half written. It fails if the directory can not be read; a disk on
// which nothing can be written is told to Options.Trouble, and tried again with
// each Append.
func Open(dirName string, o Options) (*Journal, error) {
	if o.Size <= 0 {
		o.Size = DefaultSize
	}
	if o.Age <= 0 {
		o.Age = DefaultAge
	}
	if o.Segment <= 0 {
		o.Segment = min(DefaultSegment, max(o.Size/8, 4096))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Trouble == nil {
		o.Trouble = func(error) {}
	}
	j := &Journal{opts: o, fs: o.FS, table: newTable(), next: 1}
	if j.fs == nil {
		if err := os.MkdirAll(dirName, 0o700); err != nil {
			return nil, &belfry.Error{Op: "journal", Subject: dirName, Err: err}
		}
		j.fs = dir(dirName)
	}
	if err := j.recover(); err != nil {
		return nil, &belfry.Error{Op: "journal", Subject: dirName, Err: err}
	}
	if n := len(j.files); n > 0 {
		j.former = timeOf(j.files[n-1].ended)
	}
	j.durable.Store(j.next - 1)
	_ = j.Append(nil) // it has been told
	return j, nil
}

// Ends lists the last number of each event that is known, and when the last
// record of the incarnations before this one was written, about. It is for the
// goroutine that appends.
func (j *Journal) Ends() (ends []End, former time.Time) {
	for _, e := range j.table.durable() {
		ends = append(ends, End{Key: e.Key, Class: e.class, Subject: e.subject, Last: e.last})
	}
	return ends, j.former
}

// Durable is the position up to which everything is on the disk. Zero: nothing
// was ever written.
func (j *Journal) Durable() uint64 { return j.durable.Load() }

// Append writes one commit and returns when it is durable. What was recorded
// before, by its numbers, is left out. If one segment fails, another one is
// begun; on a full disk the oldest goes. An error means that no record of the
// batch counts, and that the same batch may be tried again.
func (j *Journal) Append(batch []belfry.Notification) error {
	return j.commit(batch, nil)
}

// Close ends the journal. complete says that nothing happened that is not in
// it: then who reads over the end misses nothing.
func (j *Journal) Close(complete bool) error {
	var err error
	if complete {
		err = j.commit(nil, &belfryv1.JournalStop{Time: j.opts.Now().UnixNano()})
	}
	j.seal()
	return err
}

// Expire removes what is older than the journal keeps. It is for the goroutine
// that appends, now and then.
func (j *Journal) Expire() {
	if j.current != nil && j.old(j.current) {
		j.seal()
	}
	j.retain()
}

// old tells whether a segment is to be followed by another, so that it can go
// when its last record is old enough.
func (j *Journal) old(s *segment) bool {
	return s.records > 0 && j.opts.Now().UnixNano()-s.made > int64(j.opts.Age/8)
}

// Stats say what is kept.
type Stats struct {
	Bytes  int64     // of all files
	Oldest time.Time // when the oldest segment was begun; zero: there is none
}

// Stats is safe for concurrent use.
func (j *Journal) Stats() (s Stats) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.files {
		if f.size > 0 && s.Oldest.IsZero() {
			s.Oldest = timeOf(f.made)
		}
		s.Bytes += f.size + f.indexed
	}
	return s
}

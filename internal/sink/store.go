package sink

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/belfry-ha/belfry"
)

// Bounds of what is kept of one handler.
const (
	maxRuns    = 1000   // in the history
	maxDead    = 1000   // dead letters
	maxCursors = 65_536 // events
	oldCursors = 1024   // dropped at a time, the oldest
	openWait   = time.Second
)

// A Store is the file with the handlers' cursors, their runs and their dead
// letters. What a method has written is durable when it returns. It is safe
// for concurrent use.
type Store struct {
	db *bolt.DB

	mu     sync.Mutex // held over an update
	counts map[string]int
}

var (
	bucketCursors = []byte("cursors") // handler -> key -> cursor
	bucketRuns    = []byte("runs")    // handler -> id -> Run
	bucketDead    = []byte("dead")    // handler -> id -> Run
	bucketPlaces  = []byte("places")  // handler -> cursor in the journal
	bucketRunning = []byte("running") // handler -> name of a run -> left
)

// A cursor is how far a handler is with one event.
type cursor struct {
	Started uint64 // the last number that a run was begun for
	Attempt int    // of that run
	Done    uint64 // the last number that is done with, however it ended
	Time    int64  // of the last change, Unix seconds

	// The last number of a run that was cut off, where a run for less was begun
	// after it, and its attempt.
	Cut        uint64 `json:",omitempty"`
	CutAttempt int    `json:",omitempty"`
}

// begun is how often a run was begun that had numbers from first on.
func (c *cursor) begun(first uint64) (attempts int) {
	if c.Started > c.Done && c.Started >= first {
		attempts = c.Attempt
	}
	if c.Cut > c.Done && c.Cut >= first {
		attempts = max(attempts, c.CutAttempt)
	}
	return attempts
}

// begin notes a run that is about to begin.
func (c *cursor) begin(last uint64, attempt int) {
	if c.Started > c.Done && c.Started > max(last, c.Cut) {
		c.Cut, c.CutAttempt = c.Started, c.Attempt
	}
	c.Started, c.Attempt = last, attempt
}

// A left is a run that was begun and has not come to its end.
type left struct {
	Begun
	Event Event
}

// OpenStore opens or makes the file; another process that has it open is
// waited for for a second.
func OpenStore(file string) (*Store, error) {
	db, err := bolt.Open(file, 0o600, &bolt.Options{Timeout: openWait})
	if err != nil {
		return nil, &belfry.Error{Op: "handler state", Subject: file, Err: fmt.Errorf("%w; move it away to begin anew: the handlers then lose where they are", err)}
	}
	s := &Store{db: db, counts: map[string]int{}}
	err = db.View(s.count)
	if errors.Is(err, errNoBucket) { // a new file
		err = db.Update(prepare)
	}
	if err != nil {
		db.Close()
		return nil, &belfry.Error{Op: "handler state", Subject: file, Err: err}
	}
	return s, nil
}

var (
	buckets     = [][]byte{bucketCursors, bucketRuns, bucketDead, bucketPlaces, bucketRunning} // the newest last
	errNoBucket = errors.New("no bucket")
)

func prepare(tx *bolt.Tx) error {
	for _, name := range buckets {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return nil
}

// count counts what is in the buckets, once: bbolt would go through a whole
// bucket each time.
func (s *Store) count(tx *bolt.Tx) error {
	for _, name := range buckets {
		b := tx.Bucket(name)
		if b == nil {
			return errNoBucket
		}
		err := b.ForEachBucket(func(handler []byte) error {
			s.counts[string(name)+"/"+string(handler)] = b.Bucket(handler).Stats().KeyN
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close releases the file.
func (s *Store) Close() error { return s.db.Close() }

func (k Key) bytes() []byte {
	b := append([]byte(nil), k.Node[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(k.Incarnation))
	return binary.BigEndian.AppendUint64(b, k.Entry)
}

func (s *Store) cursor(handler string, k Key) (c cursor, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketCursors).Bucket([]byte(handler))
		if b == nil {
			return nil
		}
		if v := b.Get(k.bytes()); v != nil {
			return json.Unmarshal(v, &c)
		}
		return nil
	})
	return c, err
}

// update runs one transaction; the counts follow only if it is kept.
func (s *Store) update(do func(*write) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := write{counts: map[string]int{}, base: s.counts}
	err := s.db.Update(func(tx *bolt.Tx) error {
		w.Tx = tx
		return do(&w)
	})
	if err == nil {
		for k, n := range w.counts {
			s.counts[k] = n
		}
	}
	return err
}

// A write is one transaction with the counts that it comes to.
type write struct {
	*bolt.Tx
	counts, base map[string]int
}

func (w *write) count(bucket []byte, handler string) int {
	k := string(bucket) + "/" + handler
	if n, ok := w.counts[k]; ok {
		return n
	}
	return w.base[k]
}

func (w *write) add(bucket []byte, handler string, n int) {
	w.counts[string(bucket)+"/"+handler] = w.count(bucket, handler) + n
}

// Progress is how far a handler is with an event: the last number that it is
// done with, and the last one that it began a run for, with its attempt. 0: none.
func (s *Store) Progress(handler string, k Key) (done, started uint64, attempt int, err error) {
	c, err := s.cursor(handler, k)
	started = max(c.Started, c.Cut)
	if attempt = c.begun(started); attempt == 0 {
		attempt = c.Attempt
	}
	return c.Done, started, attempt, err
}

// begin writes that a run is about to begin.
func (s *Store) begin(handler string, n *belfry.Notification, attempt int, now time.Time) error {
	return s.update(func(w *write) error {
		if err := w.mark(handler, n, attempt); err != nil {
			return err
		}
		return w.putCursor(handler, KeyOf(n), now, func(c *cursor) { c.begin(n.Last, attempt) })
	})
}

// mark writes that a run goes on, so that the next agent finds what this one
// leaves of it.
func (s *Store) mark(handler string, n *belfry.Notification, attempt int) error {
	return s.update(func(w *write) error { return w.mark(handler, n, attempt) })
}

func (w *write) mark(handler string, n *belfry.Notification, attempt int) error {
	d := Delivery{Handler: handler, Attempt: attempt, Notification: *n}
	run := d.Begun()
	v, err := json.Marshal(left{run, EventOf(n)})
	if err != nil {
		return err
	}
	b, err := w.Bucket(bucketRunning).CreateBucketIfNotExists([]byte(handler))
	if err != nil {
		return err
	}
	return b.Put(run.bytes(), v)
}

// unmark writes that nothing of a run goes on any more.
func (s *Store) unmark(run *Begun) error {
	return s.update(func(w *write) error { return w.unmark(run) })
}

func (w *write) unmark(run *Begun) error {
	b := w.Bucket(bucketRunning).Bucket([]byte(run.Handler))
	if b == nil {
		return nil
	}
	return b.Delete(run.bytes())
}

func (b *Begun) bytes() []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b.Key.bytes(), b.Number), uint32(b.Attempt))
}

// left are the runs of a handler that have not come to their end.
func (s *Store) left(handler string) (all []left, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketRunning).Bucket([]byte(handler))
		if b == nil {
			return nil
		}
		return b.ForEach(func(_, v []byte) error {
			var l left
			err := json.Unmarshal(v, &l)
			all = append(all, l)
			return err
		})
	})
	return all, err
}

// finish writes a run into the history and, unless it is tried again, that the
// number is done with; a dead run is a dead letter as well. dropped is how many
// dead letters had to go for it. letter is the dead letter that the run tried
// again, or 0: it goes if the run is done, else it stays the only one.
func (s *Store) finish(run *Run, letter uint64, now time.Time) (dropped int, err error) {
	err = s.update(func(w *write) error {
		if run.Result != ResultOther {
			d := Delivery{Handler: run.Handler, Attempt: run.Attempt, Notification: run.Notification}
			begun := d.Begun()
			if err := w.unmark(&begun); err != nil {
				return err
			}
			id, err := w.Bucket(bucketRuns).NextSequence()
			if err != nil {
				return err
			}
			run.ID = id
			if _, err := w.putRun(bucketRuns, run, maxRuns); err != nil {
				return err
			}
		}
		if run.Result == ResultDone && letter != 0 {
			return w.dropDead(run.Handler, letter)
		}
		if run.Result == ResultDead && letter == 0 {
			if dropped, err = w.putRun(bucketDead, run, maxDead); err != nil {
				return err
			}
		}
		if run.Result == ResultRetry {
			return nil
		}
		return w.putCursor(run.Handler, KeyOf(&run.Notification), now, func(c *cursor) { c.Done = max(c.Done, run.Notification.Last) })
	})
	return dropped, err
}

func (w *write) putCursor(handler string, k Key, now time.Time, change func(*cursor)) error {
	if k == (Key{}) {
		return nil // a gap over several events has no number
	}
	b, err := w.Bucket(bucketCursors).CreateBucketIfNotExists([]byte(handler))
	if err != nil {
		return err
	}
	var c cursor
	key := k.bytes()
	if v := b.Get(key); v != nil {
		if err := json.Unmarshal(v, &c); err != nil {
			return err
		}
	} else {
		if err := w.dropOldest(b, handler); err != nil {
			return err
		}
		w.add(bucketCursors, handler, 1)
	}
	change(&c)
	c.Time = now.Unix()
	v, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return b.Put(key, v)
}

// dropOldest keeps the number of cursors bounded.
func (w *write) dropOldest(b *bolt.Bucket, handler string) error {
	if w.count(bucketCursors, handler) < maxCursors {
		return nil
	}
	type aged struct {
		key []byte
		at  int64
	}
	var all []aged
	err := b.ForEach(func(k, v []byte) error {
		var c cursor
		err := json.Unmarshal(v, &c)
		all = append(all, aged{bytes.Clone(k), c.Time})
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(x, y aged) int { return cmp.Compare(x.at, y.at) })
	for _, old := range all[:oldCursors] {
		if err := b.Delete(old.key); err != nil {
			return err
		}
	}
	w.add(bucketCursors, handler, -oldCursors)
	return nil
}

func idBytes(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func (w *write) putRun(bucket []byte, run *Run, most int) (dropped int, err error) {
	b, err := w.Bucket(bucket).CreateBucketIfNotExists([]byte(run.Handler))
	if err != nil {
		return 0, err
	}
	v, err := json.Marshal(run)
	if err != nil {
		return 0, err
	}
	if err := b.Put(idBytes(run.ID), v); err != nil {
		return 0, err
	}
	w.add(bucket, run.Handler, 1)
	for w.count(bucket, run.Handler) > most {
		oldest, _ := b.Cursor().First()
		if err := b.Delete(oldest); err != nil {
			return dropped, err
		}
		w.add(bucket, run.Handler, -1)
		dropped++
	}
	return dropped, nil
}

// Runs are the newest runs of a handler, or of all with an empty name, newest
// first, at most limit; failed leaves out those that ended well.
func (s *Store) Runs(handler string, failed bool, limit int) (runs []Run, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return eachHandler(tx.Bucket(bucketRuns), handler, func(b *bolt.Bucket) error {
			c := b.Cursor()
			taken := 0
			for k, v := c.Last(); k != nil && taken < limit; k, v = c.Prev() {
				var run Run
				if err := json.Unmarshal(v, &run); err != nil {
					return fmt.Errorf("run %d: %w", binary.BigEndian.Uint64(k), err)
				}
				if failed && run.Result == ResultDone {
					continue
				}
				runs = append(runs, run)
				taken++
			}
			return nil
		})
	})
	slices.SortFunc(runs, func(x, y Run) int { return cmp.Compare(y.ID, x.ID) })
	return runs[:min(len(runs), limit)], err
}

// Dead is how many dead letters a handler has.
func (s *Store) Dead(handler string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[string(bucketDead)+"/"+handler]
}

// DeadLetter finds the dead letter of a run. The error wraps
// [belfry.ErrNotFound].
func (s *Store) DeadLetter(id uint64) (run Run, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		found := false
		err := eachHandler(tx.Bucket(bucketDead), "", func(b *bolt.Bucket) error {
			if v := b.Get(idBytes(id)); v != nil {
				found = true
				return json.Unmarshal(v, &run)
			}
			return nil
		})
		if err == nil && !found {
			err = fmt.Errorf("%w: run %d is no dead letter; belfry handler runs --failed lists them", belfry.ErrNotFound, id)
		}
		return err
	})
	return run, err
}

func (w *write) dropDead(handler string, id uint64) error {
	b := w.Bucket(bucketDead).Bucket([]byte(handler))
	if b == nil || b.Get(idBytes(id)) == nil {
		return nil
	}
	w.add(bucketDead, handler, -1)
	return b.Delete(idBytes(id))
}

func eachHandler(b *bolt.Bucket, handler string, do func(*bolt.Bucket) error) error {
	if handler != "" {
		if one := b.Bucket([]byte(handler)); one != nil {
			return do(one)
		}
		return nil
	}
	return b.ForEachBucket(func(name []byte) error { return do(b.Bucket(name)) })
}

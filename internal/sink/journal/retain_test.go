package journal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

func TestTheOldestGoBeyondTheSize(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Size: 3000, Segment: 500})
	for i := range uint64(200) {
		r.append(r.on("x", i+1, i+1))
	}
	var size, indexed int64
	for _, f := range r.files {
		size, indexed = size+f.size, indexed+f.indexed
	}
	if size > 3000+600 || size < 2000 {
		t.Errorf("%d bytes of segments, want about 3000", size)
	}
	if first := r.files[0]; indexed-first.indexed > 3000/indexShare && first.size == 0 {
		t.Errorf("%d bytes of indexes and the oldest segment is gone, want about %d", indexed, 3000/indexShare)
	}
	if got := r.fs.used(); got != size+indexed {
		t.Errorf("%d bytes on the disk, the journal knows of %d", got, size+indexed)
	}
}

func TestTheOldestGoAfterTheirTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Age: 8 * time.Hour})
	for i := range uint64(20) {
		r.append(r.on("x", i+1, i+1))
		r.clock.Time = r.clock.Add(time.Hour)
	}
	r.Expire()
	read := r.read(Query{})
	// A segment has what came within an hour or two of its begin.
	if strings.Contains(read, " x 10-10") || !strings.Contains(read, " x 13-13") {
		t.Errorf("20 h, of which 8 are kept:\n%s", read)
	}
	// Also while nothing happens: all of it goes, and numbers and positions go on.
	r.clock.Time = r.clock.Add(24 * time.Hour)
	r.Expire()
	r.expect(Query{}, "")
	r.expect(Query{From: 18, Incarnation: 1}, "21 a/1 x gap journal 18-20 total 3")
	r.append(r.on("x", 21, 21))
	r.expect(Query{}, "22 a/1 x 21-21")
	r.clock.Time = r.clock.Add(24 * time.Hour)
	r.Expire()
	r.again(r.fs.crash(true)) // and over a restart
	r.append(r.on("x", 1, 1))
	r.expect(Query{From: 21, Incarnation: 1}, `22 a/1 x gap journal 21-21 total 1
		23 boundary 08:00:00 to 08:00:00 complete false
		24 a/2 x 1-1`)
}

// TestACursorThatIsOlderThanTheLog: from each position that an index is left
// of, what is delivered and what is missing adds up for each event.
func TestACursorThatIsOlderThanTheLog(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Size: 1 << 20, Segment: 700})
	posted := map[string]uint64{}
	at := map[uint64]map[string]uint64{1: {}} // what had been posted at a position
	for i := range 400 {
		subject := []string{"x", "y", "z"}[i*i%3]
		if i > 200 && i%7 == 0 {
			subject = fmt.Sprintf("late%d", i%4)
		}
		n := uint64(1 + i%5)
		r.append(r.on(subject, posted[subject]+1, posted[subject]+n))
		posted[subject] += n
		now := map[string]uint64{}
		for k, v := range posted {
			now[k] = v
		}
		at[r.Durable()] = now
		r.clock.Time = r.clock.Add(time.Second)
	}
	for _, f := range r.files[:len(r.files)-4] { // most segments go, their indexes stay
		r.removeSegment(f)
	}
	if r.firstWholeBase() < 200 {
		t.Fatalf("the oldest segment begins at %d, want most to have gone", r.firstWholeBase())
	}
	r.again(r.fs.crash(true))
	for position, before := range at {
		in, err := r.Read(Query{From: position, Incarnation: 1})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]uint64{}
		for {
			item, err := in.Next()
			if err != nil {
				break
			}
			n := item.Notification
			if item.Boundary != nil {
				continue
			}
			if n.Event.Class == "" || n.First != before[n.Event.Subject]+got[n.Event.Subject]+1 {
				t.Fatalf("from %d: %s follows %d", position, item, before[n.Event.Subject]+got[n.Event.Subject])
			}
			got[n.Event.Subject] += n.Last - n.First + 1
		}
		in.Close()
		for subject, n := range posted {
			if got[subject] != n-before[subject] {
				t.Fatalf("from %d: %d of %s, want %d", position, got[subject], subject, n-before[subject])
			}
		}
	}
}

// TestBoundariesStayLongerThanTheirSegments: who comes with a cursor of before a
// restart is told that something may be missing, though the segment with the
// record of it is gone.
func TestBoundariesStayLongerThanTheirSegments(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.append(r.on("x", 1, 3)) // position 2
	r.again(r.fs.crash(true))
	r.append(r.on("x", 1, 2)) // 4
	r.again(r.fs.crash(true))
	r.append(r.on("x", 1, 1)) // 6
	whole := `3 boundary 12:00:00 to 12:00:00 complete false
		4 a/2 x 1-2
		5 boundary 12:00:00 to 12:00:00 complete false
		6 a/3 x 1-1`
	r.expect(Query{From: 2, Incarnation: 1}, whole)
	for i, want := range []string{
		whole,
		`2 boundary 12:00:00 to 12:00:00 complete false
		4 a/2 x gap journal 1-2 total 2
		5 boundary 12:00:00 to 12:00:00 complete false
		6 a/3 x 1-1`,
		`2 boundary 12:00:00 to 12:00:00 complete false
		2 boundary 12:00:00 to 12:00:00 complete false
		6 a/2 x gap journal 1-2 total 2
		6 a/3 x gap journal 1-1 total 1`,
	} {
		r.seal()
		r.removeSegment(r.files[i])
		r.expect(Query{From: 2, Incarnation: 1}, want)
	}
}

func (r *rig) firstWholeBase() uint64 {
	for _, f := range r.files {
		if f.size > 0 {
			return f.base
		}
	}
	return 0
}

// TestACursorThatIsOlderThanTheIndexes: nobody can know, and says so.
func TestACursorThatIsOlderThanTheIndexes(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Size: 600, Segment: 200})
	for i := range uint64(50) {
		r.append(r.on("x", i+1, i+1))
	}
	if got := r.read(Query{From: 2}); !strings.HasPrefix(got, fmt.Sprintf("%d unknown\n", r.firstWholeBase()-1)) {
		t.Errorf("got\n%s", got)
	}
	r.clock.Time = begin.Add(time.Hour)
	if got := r.read(Query{Since: begin.Add(-time.Hour)}); !strings.HasPrefix(got, fmt.Sprintf("%d unknown\n", r.firstWholeBase()-1)) {
		t.Errorf("since before the log\n%s", got)
	}
	if got := r.read(Query{Since: begin.Add(time.Minute)}); got != "" {
		t.Errorf("since the end\n%s", got)
	}
}

// TestMoreEventsThanTheTableHolds forgets the least recent, and goes on.
func TestMoreEventsThanTheTableHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.append(r.on("x", 1, 1))
	for from := uint64(10); from < maxEvents+10; from += 4096 {
		r.append(r.many(from, 4096)...)
	}
	if r.table.n != maxEvents {
		t.Errorf("%d events in the table, want %d", r.table.n, maxEvents)
	}
	r.append(r.on("x", 2, 2))
	want := fmt.Sprintf("%d a/1 x 2-2", r.Durable())
	only := Query{From: 2, Match: matching("x")}
	r.expect(only, want)
	r.again(r.fs.crash(true)) // the head of 65,536 is in many records
	r.append(r.on("y", 1, 1))
	if r.table.n != maxEvents {
		t.Errorf("%d events in the table, want %d", r.table.n, maxEvents)
	}
}

// many are occurrences of distinct events.
func (r *rig) many(from uint64, count int) []belfry.Notification {
	list := make([]belfry.Notification, count)
	for i := range list {
		list[i] = r.on("many", 1, 1)
		list[i].Entry, list[i].Event.Subject = from+uint64(i), fmt.Sprint("job ", from+uint64(i))
	}
	return list
}

func matching(subject string) func(belfry.Class, string, belfry.NodeID) bool {
	return func(_ belfry.Class, s string, _ belfry.NodeID) bool { return s == subject }
}

package journal

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var (
	begin  = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	nodeA  = belfry.NodeID{1}
	nodeB  = belfry.NodeID{2}
	second = time.Second
)

// clock is a time that tests move.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

// rig is a journal on a faulty disk.
type rig struct {
	*Journal
	t        *testing.T
	fs       *faultFS
	clock    *clock
	options  Options
	troubles []string
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	r := &rig{t: t, fs: newFaultFS(), clock: &clock{begin}, options: o}
	if r.options.Incarnation == 0 {
		r.options.Incarnation = 1
	}
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	o := r.options
	o.Node, o.FS, o.Now = nodeA, r.fs, r.clock.now
	o.Trouble = func(err error) { r.troubles = append(r.troubles, err.Error()) }
	var err error
	if r.Journal, err = Open("", o); err != nil {
		r.t.Fatal(err)
	}
}

// again is the next incarnation, after a crash or a close.
func (r *rig) again(fs *faultFS) {
	r.t.Helper()
	r.fs = fs
	r.options.Incarnation++
	r.open()
}

func (r *rig) append(batch ...belfry.Notification) {
	r.t.Helper()
	if err := r.Append(batch); err != nil {
		r.t.Fatal(err)
	}
}

// on is a run of an event of this node: "job" has entry 1.
func (r *rig) on(subject string, first, last uint64) belfry.Notification {
	return happened(nodeA, "a", r.options.Incarnation, subject, first, last, r.clock.Time)
}

var entries = map[string]uint64{"x": 1, "y": 2, "z": 3}

func happened(node belfry.NodeID, name string, inc belfry.Incarnation, subject string, first, last uint64, at time.Time) belfry.Notification {
	entry := entries[subject]
	if entry == 0 {
		for _, c := range subject {
			entry = entry*31 + uint64(c)
		}
	}
	return belfry.Notification{
		Kind: belfry.KindOccurrence, Node: node, NodeName: name, Incarnation: inc, Entry: entry,
		Event: belfry.EventID{Class: "user.job", Subject: subject}, First: first, Last: last, Count: last - first + 1,
		FirstTime: at, Time: at,
	}
}

// read is everything that a query gives, one a line.
func (r *rig) read(q Query) string {
	r.t.Helper()
	in, err := r.Read(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer in.Close()
	var lines []string
	for {
		item, err := in.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(lines, "\n")
		}
		if err != nil {
			r.t.Fatal(err)
		}
		lines = append(lines, item.String())
	}
}

func (i Item) String() string {
	n := &i.Notification
	switch {
	case i.Boundary != nil:
		return fmt.Sprintf("%d boundary %s to %s complete %v", i.Position, i.Boundary.From.Format("15:04:05"), i.Boundary.To.Format("15:04:05"), i.Boundary.Complete)
	case n.Event.Class == "":
		return fmt.Sprintf("%d unknown", i.Position)
	case n.Kind == belfry.KindGap && !n.Gap.Known:
		return fmt.Sprintf("%d %s/%d %s %s known false", i.Position, n.NodeName, n.Incarnation, n.Event.Subject, n.Gap.Reason)
	case n.Kind == belfry.KindGap:
		return fmt.Sprintf("%d %s/%d %s gap %s %d-%d total %d", i.Position, n.NodeName, n.Incarnation, n.Event.Subject, n.Gap.Reason, n.First, n.Last, n.Gap.Total)
	}
	text := fmt.Sprintf("%d %s/%d %s %d-%d", i.Position, n.NodeName, n.Incarnation, n.Event.Subject, n.First, n.Last)
	if n.Event.Instance != "" {
		text += " " + n.Event.Instance
	}
	if n.Count != n.Last-n.First+1 {
		text += fmt.Sprintf(" count %d skipped %d", n.Count, n.Skipped)
	}
	return text
}

func (r *rig) expect(q Query, want string) {
	r.t.Helper()
	if diff := cmp.Diff(strings.TrimSpace(strings.ReplaceAll(want, "\t", "")), r.read(q)); diff != "" {
		r.t.Errorf("%+v (-want +got):\n%s", q, diff)
	}
}

func TestWhatIsAppendedIsRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	full := r.on("y", 3, 9)
	full.Event.Instance, full.Code, full.Edge, full.Value, full.Data, full.LowerBound = "4711@12", -7, belfry.EdgeFailing, 2.5, []byte{0, 1, 2}, true
	full.FirstTime, full.Skipped, full.Count = begin.Add(-second), 2, 5
	r.append(r.on("x", 1, 1), full)
	in, err := r.Read(Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []belfry.Notification{r.on("x", 1, 1), full} {
		item, err := in.Next()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, item.Notification); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if got := in.Ends(); len(got) != 2 || got[0].Last != 1 || got[1].Last != 9 || got[1].Subject != "y" {
		t.Errorf("ends: %+v, want x at 1 and y at 9", got)
	}
	if got := r.Durable(); got != 3 { // the start of the incarnation, and two
		t.Errorf("durable %d, want 3", got)
	}
}

func TestStatesAreNotRecorded(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	state := r.on("x", 4, 4)
	state.Kind, state.Count = belfry.KindState, 0
	r.append(state)
	r.expect(Query{}, "")
}

// What the event machine delivers again after a commit that failed, or what
// two registrations of the journal both get, counts once.
func TestNumbersAreRecordedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.append(r.on("x", 1, 3), r.on("x", 2, 5))
	r.append(r.on("x", 1, 4), r.on("x", 5, 7))
	r.expect(Query{}, `2 a/1 x 1-3
		3 a/1 x 4-5
		4 a/1 x 6-7`)
}

func TestAnInstanceBelongsToItsNotification(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	one, two, three := r.on("x", 1, 1), r.on("x", 2, 2), r.on("x", 3, 3)
	one.Event.Instance, two.Event.Instance, three.Event.Instance = "p", "q", "p"
	r.append(one, two, three)
	r.expect(Query{}, `2 a/1 x 1-1 p
		3 a/1 x 2-2 q
		4 a/1 x 3-3 p`)
}

func TestHolesAreGapsWithTheirNumber(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	skipping := r.on("x", 10, 12)
	skipping.Count, skipping.Skipped = 2, 1
	r.append(r.on("x", 1, 1), r.on("x", 5, 5), r.on("y", 100, 100), skipping)
	r.expect(Query{}, `2 a/1 x 1-1
		2 a/1 x gap journal 2-4 total 3
		3 a/1 x 5-5
		4 a/1 y 100-100
		4 a/1 x gap journal 6-9 total 4
		5 a/1 x 10-12 count 2 skipped 1`)
	r.expect(Query{From: 3}, `4 a/1 y 100-100
		4 a/1 x gap journal 6-9 total 4
		5 a/1 x 10-12 count 2 skipped 1`)
}

func TestGapsAreRecorded(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	gap := r.on("x", 2, 4)
	gap.Kind, gap.Count, gap.Gap = belfry.KindGap, 0, &belfry.Gap{Total: 3, Known: true, Resync: true, Reason: belfry.GapOverflow, From: begin, To: begin}
	unknown := r.on("y", 0, 0)
	unknown.Kind, unknown.Count, unknown.Gap = belfry.KindGap, 0, &belfry.Gap{Reason: belfry.GapNotMonitored}
	r.append(r.on("x", 1, 1), gap, r.on("x", 5, 5), unknown, r.on("y", 1, 1))
	r.expect(Query{}, `2 a/1 x 1-1
		3 a/1 x gap overflow 2-4 total 3
		4 a/1 x 5-5
		5 a/1 y not-monitored known false
		6 a/1 y 1-1`)
}

func TestAReaderMatches(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.append(r.on("x", 1, 1), happened(nodeB, "b", 7, "x", 4, 4, begin), r.on("y", 1, 1))
	only := func(subject string, node belfry.NodeID) Query {
		return Query{Match: func(_ belfry.Class, s string, n belfry.NodeID) bool {
			return s == subject && (node.IsZero() || n == node)
		}}
	}
	r.expect(only("x", belfry.NodeID{}), `2 a/1 x 1-1
		3 b/7 x 4-4`)
	r.expect(only("x", nodeB), `3 b/7 x 4-4`)
	r.expect(only("z", nodeB), ``)
}

func TestThreeIncarnations(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.append(r.on("x", 1, 2))
	r.clock.Time = begin.Add(10 * second)
	if err := r.Close(true); err != nil {
		t.Fatal(err)
	}
	r.clock.Time = begin.Add(20 * second)
	r.again(r.fs)
	r.append(r.on("x", 1, 3), r.on("y", 1, 1))
	r.clock.Time = begin.Add(30 * second)
	r.again(r.fs.crash(true)) // it did not end, it was ended
	r.append(r.on("x", 1, 1))
	r.expect(Query{}, `2 a/1 x 1-2
		4 boundary 12:00:10 to 12:00:20 complete true
		5 a/2 x 1-3
		6 a/2 y 1-1
		7 boundary 12:00:20 to 12:00:30 complete false
		8 a/3 x 1-1`)
	r.expect(Query{From: 5, Incarnation: 2}, `6 a/2 y 1-1
		7 boundary 12:00:20 to 12:00:30 complete false
		8 a/3 x 1-1`)
	r.expect(Query{Since: begin.Add(20 * second)}, `4 boundary 12:00:10 to 12:00:20 complete true
		5 a/2 x 1-3
		6 a/2 y 1-1
		7 boundary 12:00:20 to 12:00:30 complete false
		8 a/3 x 1-1`)
	r.expect(Query{Since: begin.Add(30 * second)}, `7 boundary 12:00:20 to 12:00:30 complete false
		8 a/3 x 1-1`)
	r.expect(Query{From: 8, Incarnation: 3}, ``)
	// The third life gave out a place in what the second one has written.
	r.expect(Query{From: 5, Incarnation: 3}, `6 a/2 y 1-1
		7 boundary 12:00:20 to 12:00:30 complete false
		8 a/3 x 1-1`)
}

// A cursor of a journal that is gone must not be taken for one of this.
func TestACursorOfAnotherJournal(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Incarnation: 5})
	r.append(r.on("x", 1, 1), r.on("x", 2, 2))
	r.expect(Query{From: 2, Incarnation: 4}, "0 unknown\n2 a/5 x 1-1\n3 a/5 x 2-2")
	r.expect(Query{From: 2, Incarnation: 5}, "3 a/5 x 2-2")
	r.expect(Query{From: 3, Incarnation: 6}, "") // of the next incarnation, before it had written
	r.expect(Query{From: 2, Incarnation: 6}, "0 unknown\n2 a/5 x 1-1\n3 a/5 x 2-2")
	r.expect(Query{From: 99, Incarnation: 5}, "0 unknown") // a disk that was set back: all that is here is known
}

func TestAReaderStopsAtWhatWasDurable(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Segment: 1})
	r.append(r.on("x", 1, 1))
	in, err := r.Read(Query{})
	if err != nil {
		t.Fatal(err)
	}
	r.append(r.on("x", 2, 2))
	if item, err := in.Next(); err != nil || item.Notification.Last != 1 {
		t.Fatalf("%v, %v", item, err)
	}
	if item, err := in.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("%v, %v; want the end", item, err)
	}
	r.expect(Query{Until: 2}, "2 a/1 x 1-1")
}

func TestSegmentsAreReadAsOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Segment: 1}) // each commit has its own
	for i := range uint64(5) {
		r.append(r.on("x", i+1, i+1))
	}
	r.expect(Query{From: 3}, `4 a/1 x 3-3
		5 a/1 x 4-4
		6 a/1 x 5-5`)
	if len(r.files) != 6 {
		t.Errorf("%d files, want 6", len(r.files))
	}
	r.again(r.fs.crash(true))
	r.expect(Query{From: 4}, `5 a/1 x 4-4
		6 a/1 x 5-5
		7 boundary 12:00:00 to 12:00:00 complete false`)
}

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/sink/journal"
)

// slowDisk is a directory whose syncs wait until they are let through, and
// fail while there is an error.
type slowDisk struct {
	journal.FS
	held  atomic.Bool
	syncs chan error // the answer to each, if they are held; closed: all is well
}

type slowFile struct {
	journal.File
	disk *slowDisk
}

func (d *slowDisk) Create(name string) (journal.File, error) {
	f, err := d.FS.Create(name)
	return &slowFile{f, d}, err
}

func (f *slowFile) Sync() error {
	if f.disk.held.Load() {
		if err, open := <-f.disk.syncs; open && err != nil {
			return err
		}
	}
	return f.File.Sync()
}

// startRecorder runs an event loop with a journal in dir, on a disk that holds
// every sync until the test answers it.
func startRecorder(t *testing.T, dir string, incarnation belfry.Incarnation) (*recorder, *slowDisk) {
	t.Helper()
	l := newTestLoop(incarnation)
	running, stop := context.WithCancel(t.Context())
	go func() { _ = l.run(running) }()
	t.Cleanup(stop)
	disk := &slowDisk{FS: journal.Dir(dir), syncs: make(chan error, 16)}
	a := &Agent{events: l, log: slog.New(slog.DiscardHandler)}
	a.opts.Config = config.Default()
	a.id.node, a.id.incarnation = Node{ID: belfry.NodeID{1}, Name: "a"}, incarnation
	ctx, cancel := context.WithCancel(t.Context())
	a.group, a.ended = errgroup.WithContext(ctx)
	a.journal = newRecorder(a)
	var err error
	a.journal.store, err = journal.Open("", journal.Options{Node: a.id.node.ID, Incarnation: incarnation, FS: disk, Trouble: a.journal.troubled})
	if err != nil {
		t.Fatal(err)
	}
	disk.held.Store(true)
	if err := a.startJournal(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		<-a.journal.ended
		_ = a.group.Wait()
	})
	return a.journal, disk
}

func post(t *testing.T, r *recorder, from, to int, repeat uint64) {
	t.Helper()
	for ; from < to; from += 1000 {
		var events []event.Named
		for i := from; i < min(to, from+1000); i++ {
			events = append(events, event.Named{Class: "user.job", Subject: fmt.Sprint(i), Repeat: repeat})
		}
		if _, err := r.agent.events.Send(t.Context(), events, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// told sums up what the journal has of each subject, and how much of that are gaps.
func told(t *testing.T, r *recorder) (sums map[string]uint64, lost uint64) {
	t.Helper()
	at, err := r.flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.past([]belfry.Registration{{Class: "*"}}, belfry.Since{}, at)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	sums = map[string]uint64{}
	for {
		n, _, err := p.Next()
		if errors.Is(err, io.EOF) {
			return sums, lost
		}
		if err != nil {
			t.Fatal(err)
		}
		if n.Last != sums[n.Event.Subject]+n.Last-n.First+1 {
			t.Fatalf("%s: %d to %d follows %d", n.Event.Subject, n.First, n.Last, sums[n.Event.Subject])
		}
		sums[n.Event.Subject] = n.Last
		if n.Gap != nil {
			lost += n.Gap.Total
		}
	}
}

// TestWhatThePastSkipsAtItsEnd is for the next notification, which is none of it.
func TestWhatThePastSkipsAtItsEnd(t *testing.T) {
	t.Parallel()
	r, disk := startRecorder(t, t.TempDir(), 1)
	disk.held.Store(false)
	close(disk.syncs)
	post(t, r, 0, 1, 3)
	at, err := r.flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.past([]belfry.Registration{{Class: "user.job", Subject: "*", Edge: belfry.EdgeOnlyFailing}}, belfry.Since{}, at)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if n, _, err := p.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("%+v, %v; want nothing", n, err)
	}
	if all := p.Skipped(); len(all) != 1 || all[0].Count != 3 || all[0].Last != 3 || all[0].Subject != "0" || all[0].Incarnation != 1 {
		t.Errorf("skipped: %+v; want the three", all)
	}
}

// TestAStuckDiskHoldsUpNobody: events go on being posted, what has no room is a
// gap of its event with the exact number, and the sum is right.
func TestAStuckDiskHoldsUpNobody(t *testing.T) {
	t.Parallel()
	r, disk := startRecorder(t, t.TempDir(), 1)
	const subjects = journalQueue + 10_000 // all are waiting to be taken when the second ones come
	for range 2 {
		post(t, r, 0, subjects, 3)
	}
	waiting, done := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer done()
	if _, err := r.flush(waiting); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want a flush that the disk holds up", err)
	}
	close(disk.syncs)
	sums, lost := told(t, r)
	if len(sums) != subjects {
		t.Errorf("%d events, want %d", len(sums), subjects)
	}
	for subject, n := range sums {
		if n != 6 {
			t.Fatalf("%d of %s, want 6", n, subject)
		}
	}
	if got := r.lost.Load(); lost == 0 || got != lost {
		t.Errorf("%d counted as lost, %d in gaps; want as many, and more than none", got, lost)
	}
}

// TestADiskThatFailsIsTriedAgain, the batch is not lost, and the state says so.
func TestADiskThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	r, disk := startRecorder(t, t.TempDir(), 1)
	for range 3 { // the segment, its index, and the next segment
		disk.syncs <- syscall.EIO
	}
	post(t, r, 0, 1, 5)
	close(disk.syncs)
	if sums, lost := told(t, r); sums["0"] != 5 || lost != 0 {
		t.Errorf("%v, %d lost; want 5 of 0", sums, lost)
	}
	if s := r.status(); s.GetState() != "degraded" || s.GetReason() == "" || r.failures.Load() != 1 {
		t.Errorf("state %q, %q, %d failures; want degraded after one", s.GetState(), s.GetReason(), r.failures.Load())
	}
	r.mu.Lock()
	r.trouble = time.Now().Add(-journalCalm)
	r.mu.Unlock()
	r.calm()
	if s := r.status(); s.GetState() != "ok" {
		t.Errorf("state %q some time later, want ok", s.GetState())
	}
}

// TestTheDiskIsGivenAPause between commits that each had all there was, so that
// events that come one by one do not cost a commit each.
func TestTheDiskIsGivenAPause(t *testing.T) {
	t.Parallel()
	r, disk := startRecorder(t, t.TempDir(), 1)
	close(disk.syncs)
	begun, had := time.Now(), r.commits.Load()
	for i := range 20 {
		post(t, r, i, i+1, 1)
		if _, err := r.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	took, n := time.Since(begun), r.commits.Load()-had
	if n < 20 || took < time.Duration(n-1)*journalPace {
		t.Errorf("%d commits within %v; want one for each event that is waited for, %v apart", n, took, journalPace)
	}
}

// TestARestartTellsTheTimeWithoutAnAgent to whoever may have missed something of
// this node's own events: not to who is for other nodes', which have numbers, and
// not of events that only a running agent takes, if it ended in order.
func TestARestartTellsTheTimeWithoutAnAgent(t *testing.T) {
	t.Parallel()
	cluster := belfry.Registration{Class: "*", Scope: belfry.ScopeCluster, Nodes: []belfry.NodeID{{2}}}
	for _, test := range []struct {
		wish  belfry.Registration
		crash bool
		blind bool
	}{
		{belfry.Registration{Class: "*"}, false, true},
		{belfry.Registration{Class: "*"}, true, true},
		{belfry.Registration{Class: "user.*"}, false, false},
		{belfry.Registration{Class: "user.*"}, true, true},
		{cluster, false, false},
		{cluster, true, false},
	} {
		dir := t.TempDir()
		r, disk := startRecorder(t, dir, 1)
		close(disk.syncs)
		post(t, r, 0, 1, 2)
		at, err := r.flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cursor := r.cursor(at)
		if test.crash {
			r.cancel()
			<-r.ended
		} else if err := r.stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, disk = startRecorder(t, dir, 2)
		close(disk.syncs)
		post(t, r, 0, 1, 1)
		if at, err = r.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		p, err := r.past([]belfry.Registration{test.wish}, belfry.Since{Cursor: cursor}, at)
		if err != nil {
			t.Fatal(err)
		}
		var blind, posted int
		for n, _, err := p.Next(); err == nil; n, _, err = p.Next() {
			switch {
			case n.Gap != nil && !n.Gap.Known && n.Gap.Reason == belfry.GapNotMonitored && n.NodeName == "a":
				blind++
			case n.Event.Class == "user.job" && n.Last == 1 && n.Incarnation == 2:
				posted++
			}
		}
		p.Close()
		own := 1
		if test.wish.Scope == belfry.ScopeCluster {
			own = 0
		}
		if (blind == 1) != test.blind || blind > 1 || posted != own {
			t.Errorf("%+v, crash %v: %d gaps, %d occurrences; want a gap: %v, %d", test.wish, test.crash, blind, posted, test.blind, own)
		}
	}
}

// TestRulesOfThePast: what they refuse is counted with what follows.
func TestRulesOfThePast(t *testing.T) {
	t.Parallel()
	r, disk := startRecorder(t, t.TempDir(), 1)
	close(disk.syncs)
	for _, subject := range []string{"a/x", "b/x"} {
		if _, err := r.agent.events.Send(t.Context(), []event.Named{{Class: "user.job", Subject: subject, Repeat: 4}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	at, err := r.flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		wish  belfry.Registration
		since belfry.Since
		want  string
	}{
		{belfry.Registration{Class: "user.job", Subject: "a/*"}, belfry.Since{}, "a/x 1-4 "},
		{belfry.Registration{Class: "user.job", Subject: "b/x"}, belfry.Since{Sequence: 3, HasSequence: true}, "b/x 4-4 "},
		{belfry.Registration{Class: "user.job", Subject: "b/x"}, belfry.Since{Sequence: 4, HasSequence: true}, ""},
		{belfry.Registration{Class: "user.*", Edge: belfry.EdgeOnlyFailing}, belfry.Since{}, ""},
		{belfry.Registration{Class: "user.other", Subject: "a/x"}, belfry.Since{}, ""},
		{belfry.Registration{Class: "user.*", Scope: belfry.ScopeCluster, Nodes: []belfry.NodeID{{9}}}, belfry.Since{}, ""},
	} {
		p, err := r.past([]belfry.Registration{test.wish}, test.since, at)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for n, _, err := p.Next(); err == nil; n, _, err = p.Next() {
			got += fmt.Sprintf("%s %d-%d ", n.Event.Subject, n.First, n.Last)
		}
		p.Close()
		if got != test.want {
			t.Errorf("%+v since %+v: %q, want %q", test.wish, test.since, got, test.want)
		}
	}
}

// TestAFilterOfThePastSeesTheNewestOfWhatMerged, and the others are a gap to it, but
// not where another registration does not look at data.
func TestAFilterOfThePastSeesTheNewestOfWhatMerged(t *testing.T) {
	t.Parallel()
	r, disk := startRecorder(t, t.TempDir(), 1)
	close(disk.syncs)
	loop := newTestLoop(1) // is not run: only its settings are read
	loop.cfg.Classes = []belfry.ClassInfo{{Class: "node.state", Subject: "NODE", Data: "belfry.v1.NodeState"}}
	loop.cfg.Compile, loop.cfg.LooksAtData = filterCompiler(loop.cfg.Classes), looksAtData
	reader := &recorder{agent: &Agent{id: r.agent.id, events: loop}, store: r.store}
	record := belfry.Notification{
		Node: r.agent.id.node.ID, NodeName: "a", Incarnation: 1, Entry: 7, Event: belfry.EventID{Class: "node.state", Subject: "c"},
		FirstTime: time.Unix(100, 0), Code: 4, Edge: belfry.EdgeFailing,
	}
	var batch []belfry.Notification
	for i, to := range []string{"silent", "down", "silent"} { // 1 to 3, 4 to 6, 7 to 9
		n := record
		n.First, n.Last, n.Count, n.Mixed = uint64(3*i+1), uint64(3*i+3), 3, true
		n.Time = n.FirstTime.Add(time.Duration(i) * time.Second)
		var err error
		if n.Data, err = proto.Marshal(&belfryv1.NodeState{To: to}); err != nil {
			t.Fatal(err)
		}
		batch = append(batch, n)
	}
	if err := r.store.Append(batch); err != nil {
		t.Fatal(err)
	}
	down := belfry.Registration{Class: "node.state", Subject: "c", Filter: `data.to == "down"`}
	failing, recovered := down, down
	failing.Filter, recovered.Edge = `code == 4`, belfry.EdgeOnlyRecovered
	for _, test := range []struct {
		wishes []belfry.Registration
		since  belfry.Since
		want   string
	}{
		{[]belfry.Registration{down}, belfry.Since{}, "gap 1-2 merged; gap 4-5 skipped 1 merged; occurrence 6-6; gap 7-8 merged; at the end 1"},
		{[]belfry.Registration{failing}, belfry.Since{}, "occurrence 1-3; occurrence 4-6; occurrence 7-9; "},
		{[]belfry.Registration{down, failing}, belfry.Since{}, "occurrence 1-3; occurrence 4-6; occurrence 7-9; "},
		{[]belfry.Registration{recovered}, belfry.Since{}, "at the end 9"},
		{[]belfry.Registration{down}, belfry.Since{Sequence: 4, HasSequence: true}, "gap 5-5 merged; occurrence 6-6; gap 7-8 merged; at the end 1"},
		{[]belfry.Registration{down}, belfry.Since{Sequence: 5, HasSequence: true}, "occurrence 6-6; gap 7-8 merged; at the end 1"},
	} {
		p, err := reader.past(test.wishes, test.since, r.store.Durable())
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for n, at, err := p.Next(); err == nil; n, at, err = p.Next() {
			if n.Gap != nil && n.Gap.Reason == belfry.GapNotMonitored {
				continue // before the agent of the test ran
			}
			got += fmt.Sprintf("%s %d-%d", n.Kind, n.First, n.Last)
			if n.Skipped > 0 {
				got += fmt.Sprintf(" skipped %d", n.Skipped)
			}
			if n.Gap != nil {
				got += " " + n.Gap.Reason.String()
			}
			got += "; "
			place := r.store.Durable() - 2 + (n.Last-1)/3
			if n.Last == 5 { // who goes on from there is to get the newest, number 6
				place--
			}
			if at.Position != place {
				t.Errorf("%+v: %d-%d is at %d, want %d", test.wishes, n.First, n.Last, at.Position, place)
			}
		}
		for _, s := range p.Skipped() {
			got += fmt.Sprintf("at the end %d", s.Count)
		}
		p.Close()
		if got != test.want {
			t.Errorf("%+v since %+v:\n got %q\nwant %q", test.wishes, test.since, got, test.want)
		}
	}
}

// TestThePastOfRulesAboutTimeIsCounted for who goes on from a cursor: one gap for each
// event with its number; what the other rules refuse is no loss. A list of the past, and
// who begins at a time, is refused.
func TestThePastOfRulesAboutTimeIsCounted(t *testing.T) {
	t.Parallel()
	r, disk := startRecorder(t, t.TempDir(), 1)
	close(disk.syncs)
	send := func(subjects ...string) uint64 {
		t.Helper()
		for _, subject := range subjects {
			if _, err := r.agent.events.Send(t.Context(), []event.Named{{Class: "user.job", Subject: subject, Repeat: 2}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		at, err := r.flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	begin := belfry.Since{Cursor: r.cursor(send("x"))}
	send("y", "x")
	at := send("no", "y")
	for name, wish := range map[string]belfry.Registration{
		"y 1-4 4+0 x 3-4 2+0 no 1-2 2+0 ; x..4 -0 y..4 -0 no..2 -0 ": {Class: "user.job", Subject: "*", MinInterval: time.Hour},
		"; x..4 -2 ": {Class: "user.job", Subject: "x", Flap: belfry.DefaultFlap, Edge: belfry.EdgeOnlyFailing},
	} {
		wish.Since = begin
		p, err := r.past([]belfry.Registration{wish}, begin, at)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for n, cursor, err := p.Next(); err == nil; n, cursor, err = p.Next() {
			if n.Kind != belfry.KindGap || !n.Gap.Known || n.Gap.Reason != belfry.GapLink || !n.Gap.Resync || n.Count != 0 || n.Data != nil || n.Registration != 1 || cursor != begin.Cursor {
				t.Errorf("%+v at %+v; want a gap of registration 1, to begin again where this began", n, cursor)
			}
			got += fmt.Sprintf("%s %d-%d %d+%d ", n.Event.Subject, n.First, n.Last, n.Gap.Total, n.Skipped)
		}
		got += "; "
		ends := p.Skipped()
		slices.SortFunc(ends, func(a, b api.Skipped) int { return cmp.Compare(a.Entry, b.Entry) })
		for _, end := range ends {
			got += fmt.Sprintf("%s..%d -%d ", end.Subject, end.Last, end.Count)
		}
		p.Close()
		if got != name {
			t.Errorf("%+v: %q; want %q", wish, got, name)
		}
	}
	timed := belfry.Registration{Class: "user.job", Subject: "x", MinInterval: time.Hour, Since: belfry.Since{Time: time.Unix(1, 0)}}
	if _, err := r.past([]belfry.Registration{timed}, timed.Since, at); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("from a time: %v, want ErrUsage", err)
	}
	timed.Since = belfry.Since{}
	if _, err := r.past([]belfry.Registration{timed}, begin, at); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("a list: %v, want ErrUsage", err)
	}
}

// TestAValueOfThePastIsJudgedByTheThresholdAsked: the edge that is recorded is of the
// threshold of whoever watched then.
func TestAValueOfThePastIsJudgedByTheThresholdAsked(t *testing.T) {
	t.Parallel()
	r, disk := startRecorder(t, t.TempDir(), 1)
	disk.held.Store(false)
	r.cancel()
	<-r.ended
	for i, crossed := range []struct {
		value float64
		edge  belfry.Edge
	}{{95, belfry.EdgeFailing}, {85, belfry.EdgeRecovered}, {40, belfry.EdgeRecovered}} {
		number, at := uint64(i)+1, time.Unix(1000+int64(i), 0)
		n := belfry.Notification{
			Node: belfry.NodeID{1}, NodeName: "a", Incarnation: 1, Entry: 7, Event: belfry.EventID{Class: "filesystem.usage", Subject: "/"},
			First: number, Last: number, Count: 1, FirstTime: at, Time: at, Edge: crossed.edge, Value: crossed.value,
		}
		if err := r.store.Append([]belfry.Notification{n}); err != nil {
			t.Fatal(err)
		}
	}
	over := belfry.Registration{Class: "filesystem.usage", Subject: "/", Threshold: belfry.Threshold{Hi: 80, HasHi: true}, Edge: belfry.EdgeOnlyFailing}
	p, err := r.past([]belfry.Registration{over}, belfry.Since{}, r.store.Durable())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got := ""
	for n, _, err := p.Next(); err == nil; n, _, err = p.Next() {
		got += fmt.Sprintf("%d %s %g ", n.Last, n.Edge, n.Value)
	}
	if got != "1 failing 95 2 failing 85 " {
		t.Errorf("%q; want both that are past 80, as failing", got)
	}
	if all := p.Skipped(); len(all) != 1 || all[0].Count != 1 || all[0].Last != 3 {
		t.Errorf("skipped: %+v; want the last one", all)
	}
}

// TestANodeWithoutAJournalRuns, and says why there is none.
func TestANodeWithoutAJournalRuns(t *testing.T) {
	t.Parallel()
	a := &Agent{log: slog.New(slog.DiscardHandler)}
	a.opts.Config = config.Default()
	a.opts.Config.State = filepath.Join(t.TempDir(), "not there", "\x00")
	if err := a.openJournal(); err != nil {
		t.Fatal(err)
	}
	if err := a.startJournal(); err != nil {
		t.Fatal(err)
	}
	if s := a.journal.status(); s.GetState() != "degraded" || s.GetReason() == "" {
		t.Errorf("state %q, %q; want degraded with a reason", s.GetState(), s.GetReason())
	}
	if _, err := a.journal.past(nil, belfry.Since{}, 1); !errors.Is(err, belfry.ErrUnsupported) {
		t.Errorf("%v, want ErrUnsupported", err)
	}
}

// TestANumberThatIsOlderThanTheLog: what is missing after it comes first, and is
// exact.
func TestANumberThatIsOlderThanTheLog(t *testing.T) {
	t.Parallel()
	r, disk := startRecorder(t, t.TempDir(), 1)
	disk.held.Store(false)
	r.cancel()
	<-r.ended
	at := time.Unix(1000, 0)
	kept := belfry.Notification{
		Node: belfry.NodeID{1}, NodeName: "a", Incarnation: 1, Entry: 7, Event: belfry.EventID{Class: "user.job", Subject: "x"},
		First: 5, Last: 6, Count: 2, FirstTime: at, Time: at,
	}
	if err := r.store.Append([]belfry.Notification{kept}); err != nil {
		t.Fatal(err)
	}
	wish := belfry.Registration{Class: "user.job", Subject: "x"}
	for sequence, want := range map[uint64]string{0: "gap 1-4 4 occurrence 5-6 0 ", 2: "gap 3-4 2 occurrence 5-6 0 ", 4: "occurrence 5-6 0 ", 5: "occurrence 6-6 0 ", 6: ""} {
		p, err := r.past([]belfry.Registration{wish}, belfry.Since{Sequence: sequence, HasSequence: true}, r.store.Durable())
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for n, _, err := p.Next(); err == nil; n, _, err = p.Next() {
			total := uint64(0)
			if n.Gap != nil {
				total = n.Gap.Total
			}
			got += fmt.Sprintf("%s %d-%d %d ", n.Kind, n.First, n.Last, total)
		}
		p.Close()
		if got != want {
			t.Errorf("since %d: %q, want %q", sequence, got, want)
		}
	}
}

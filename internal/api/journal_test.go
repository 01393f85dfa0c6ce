package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// fakeJournal has what it was given, one a position.
type fakeJournal struct {
	mu      sync.Mutex // of items
	items   []belfry.Notification
	skipped []Skipped
	flushed func() // called by Flush, once the registration is in force
}

func (f *fakeJournal) at(position int) belfry.Cursor {
	return belfry.Cursor{Node: nodeA, Incarnation: 2, Position: uint64(position)}
}

func (f *fakeJournal) Status() *belfryv1.JournalStatus { return &belfryv1.JournalStatus{State: "ok"} }

func (f *fakeJournal) Durable() belfry.Cursor { return f.at(len(f.all())) }

func (f *fakeJournal) all() []belfry.Notification {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.items
}

func (f *fakeJournal) Flush(context.Context) (belfry.Cursor, error) {
	if f.flushed != nil {
		f.flushed()
	}
	return f.Durable(), nil
}

func (f *fakeJournal) Read(all []belfry.Registration, since belfry.Since, until uint64) (Past, error) {
	if since.Cursor.Position > uint64(len(f.all())) {
		return nil, fmt.Errorf("%w: there is no position %d", belfry.ErrUsage, since.Cursor.Position)
	}
	return &fakePast{journal: f, next: int(since.Cursor.Position), until: int(until)}, nil
}

type fakePast struct {
	journal     *fakeJournal
	next, until int
}

func (p *fakePast) Next() (belfry.Notification, belfry.Cursor, error) {
	if p.next >= p.until {
		return belfry.Notification{}, belfry.Cursor{}, io.EOF
	}
	p.next++
	return p.journal.all()[p.next-1], p.journal.at(p.next), nil
}

func (p *fakePast) Skipped() []Skipped { return p.journal.skipped }

func (p *fakePast) Close() {}

func startWithJournal(t *testing.T, subject Subject, j *fakeJournal) *agent {
	t.Helper()
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{}, socket: filepath.Join(t.TempDir(), "s"), subject: subject, journal: j}
	a.start(t)
	return a
}

// TestThePastComesBeforeWhatHappens, though that was posted first; what both
// have comes once, and each notification can be gone on from.
func TestThePastComesBeforeWhatHappens(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{}
	for i := range uint64(pastChunk + 10) {
		j.items = append(j.items, exit(0, i+1, i+1))
	}
	a := startWithJournal(t, admin, j)
	last := uint64(len(j.items))
	j.flushed = func() {
		c := <-a.events.opened
		c.post(exit(1, last-3, last+2))
	}
	since := belfry.Since{Cursor: j.at(5)}
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit", Subject: "exe=/bin/x", Since: since})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := uint64(6); i <= last; i++ {
		if n := next(t, s); n.First != i || n.Last != i || n.Registration != 1 || s.Cursor() != j.at(int(i)) {
			t.Fatalf("%d to %d of registration %d, cursor %+v; want %d and its place", n.First, n.Last, n.Registration, s.Cursor(), i)
		}
	}
	if n := next(t, s); n.First != last+1 || n.Last != last+2 || n.Count != 2 {
		t.Errorf("%d to %d, count %d; want what is new of the live one, %d and the next", n.First, n.Last, n.Count, last+1)
	}
}

// TestWhatThePastSkippedComesWithTheNextOne, once, though what happened between
// the registration and the end of the past is in both; also under the numbers of a
// newer incarnation.
func TestWhatThePastSkippedComesWithTheNextOne(t *testing.T) {
	t.Parallel()
	told := exit(0, 5, 5) // 6 to 9 were refused
	of := func(incarnation belfry.Incarnation, count, last uint64) Skipped {
		return Skipped{Node: told.Node, Incarnation: incarnation, Entry: told.Entry, Class: told.Event.Class, Subject: told.Event.Subject, Count: count, Last: last}
	}
	next := func(first, last, count, skipped uint64) belfry.Notification {
		n := exit(1, first, last)
		n.Count, n.Skipped = count, skipped
		return n
	}
	for name, tt := range map[string]struct {
		all  []Skipped
		next belfry.Notification
		want uint64
	}{
		"registered at 9":   {[]Skipped{of(told.Incarnation, 4, 9)}, next(10, 10, 1, 0), 4},
		"registered at 7":   {[]Skipped{of(told.Incarnation, 4, 9)}, next(10, 10, 1, 2), 4},
		"registered at 5":   {[]Skipped{of(told.Incarnation, 4, 9)}, next(10, 12, 2, 5), 5},
		"a new incarnation": {[]Skipped{of(told.Incarnation-1, 4, 9)}, next(1, 1, 1, 0), 4},
		"two of them":       {[]Skipped{of(told.Incarnation-1, 4, 9), of(told.Incarnation, 3, 3)}, next(4, 4, 1, 0), 7},
		"the past had it":   {[]Skipped{of(told.Incarnation, 4, 9)}, next(7, 8, 2, 0), 0},
		"counted":           {[]Skipped{of(told.Incarnation, 0, 9)}, next(12, 12, 1, 5), 2},
		"all was counted":   {[]Skipped{of(told.Incarnation, 0, 9)}, next(10, 10, 1, 3), 0},
	} {
		for range 2 { // in whatever order they come
			s := Skips{}
			s.Add(1, tt.all)
			if n := tt.next; s.Into(2, 1, &n) {
				t.Errorf("%s: told to another registration", name)
			}
			for batch := range uint64(3) { // the first one is sent again
				n := tt.next
				s.Into(1, max(batch, 1), &n)
				want := tt.want
				if batch == 2 {
					want = tt.next.Skipped
				}
				if n.Skipped != want {
					t.Errorf("%s: %d skipped in batch %d; want %d", name, n.Skipped, max(batch, 1), want)
				}
			}
			slices.Reverse(tt.all)
		}
	}
}

// TestWhatThePastCountedIsNotToldAgain by what came live between the registration
// and the end of the past, whatever its rules made of it.
func TestWhatThePastCountedIsNotToldAgain(t *testing.T) {
	t.Parallel()
	counted := exit(0, 9, 9)
	of := func(kind belfry.Kind, first, last, count, skipped uint64) belfry.Notification {
		n := exit(0, first, last)
		n.Kind, n.Count, n.Skipped = kind, count, skipped
		if kind == belfry.KindGap {
			n.Count, n.Gap = 0, &belfry.Gap{Total: count, Known: true}
		}
		return n
	}
	for name, tt := range map[string]struct {
		n                         belfry.Notification
		first, accounted, skipped uint64
	}{
		"behind it":             {of(belfry.KindOccurrence, 10, 11, 2, 0), 10, 2, 0},
		"refused before":        {of(belfry.KindOccurrence, 11, 11, 1, 4), 11, 2, 1},
		"several, with holes":   {of(belfry.KindOccurrence, 8, 11, 3, 1), 10, 2, 0},
		"a gap":                 {of(belfry.KindGap, 8, 12, 4, 1), 10, 3, 0},
		"it flaps":              {of(belfry.KindFlapping, 8, 8, 0, 3), 8, 0, 0},
		"it has settled, later": {of(belfry.KindSettled, 12, 12, 0, 5), 12, 3, 3},
	} {
		s := Skips{}
		s.Add(1, []Skipped{{
			Node: counted.Node, Incarnation: counted.Incarnation, Entry: counted.Entry, Class: counted.Event.Class, Subject: counted.Event.Subject, Last: 9,
		}})
		shared := tt.n.Gap
		s.Into(1, 1, &tt.n)
		if tt.n.First != tt.first || accounted(&tt.n) != tt.accounted || tt.n.Skipped != tt.skipped {
			t.Errorf("%s: from %d, %d accounted for, %d of them skipped; want %d, %d, %d", name, tt.n.First, accounted(&tt.n), tt.n.Skipped, tt.first, tt.accounted, tt.skipped)
		}
		if shared != nil && shared.Total != 4 {
			t.Errorf("%s: it was changed, which others have as well", name)
		}
	}
}

func TestASkipIsToldOverAStream(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{items: []belfry.Notification{exit(0, 1, 1)}}
	told := exit(0, 1, 1)
	j.skipped = []Skipped{{Node: told.Node, Incarnation: told.Incarnation, Entry: told.Entry, Class: told.Event.Class, Subject: told.Event.Subject, Count: 4, Last: 5}}
	a := startWithJournal(t, admin, j)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit", Subject: "exe=/bin/x", Since: belfry.Since{Time: now}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := <-a.events.opened
	next(t, s)
	c.post(exit(1, 6, 6))
	if n := next(t, s); n.Last != 6 || n.Skipped != 4 {
		t.Errorf("%d with %d skipped; want 6 with 4", n.Last, n.Skipped)
	}
}

// TestABatchSaysHowFarItGoes only if it emptied the queue: else something older
// than what is on the disk may still be to come.
func TestABatchSaysHowFarItGoes(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{items: make([]belfry.Notification, 7)}
	a := startWithJournal(t, admin, j)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := <-a.events.opened
	for number, drained := range []bool{false, true, false} {
		c.mu.Lock()
		c.number++
		c.queue = append(c.queue, event.Batch{Number: c.number, Drained: drained, Notifications: []belfry.Notification{exit(1, uint64(number)+1, uint64(number)+1)}})
		c.mu.Unlock()
		c.signal()
		next(t, s)
		if want := map[int]uint64{0: 0, 1: 7, 2: 7}[number]; s.Cursor().Position != want {
			t.Errorf("batch %d: position %d, want %d", number+1, s.Cursor().Position, want)
		}
	}
}

// TestAGapOverSeveralIsBehindThePlaceOrBeforeIt, as a whole: the place does not
// move until the journal has all that the gap stands for.
func TestAGapOverSeveralIsBehindThePlaceOrBeforeIt(t *testing.T) {
	t.Parallel()
	flushing, goOn := make(chan struct{}, 1), make(chan struct{})
	j := &fakeJournal{items: make([]belfry.Notification, 7)}
	j.flushed = func() {
		flushing <- struct{}{}
		<-goOn
	}
	a := startWithJournal(t, admin, j)
	s, err := a.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := <-a.events.opened
	send := func(n belfry.Notification) uint64 {
		t.Helper()
		c.mu.Lock()
		c.number++
		c.queue = append(c.queue, event.Batch{Number: c.number, Drained: true, Notifications: []belfry.Notification{n}})
		c.mu.Unlock()
		c.signal()
		next(t, s)
		return s.Cursor().Position
	}
	if at := send(exit(1, 1, 1)); at != 7 {
		t.Errorf("position %d; want 7", at)
	}
	j.mu.Lock()
	j.items = make([]belfry.Notification, 8) // some of it is on the disk
	j.mu.Unlock()
	gap := belfry.Notification{Registration: 1, Kind: belfry.KindGap, Time: now, FirstTime: now, Gap: &belfry.Gap{Total: 5, Known: true, Reason: belfry.GapOverflow}}
	if at := send(gap); at != 7 {
		t.Errorf("position %d with the gap; want 7", at)
	}
	<-flushing
	if at := send(exit(1, 2, 2)); at != 7 {
		t.Errorf("position %d while the journal is behind; want 7", at)
	}
	j.mu.Lock()
	j.items = make([]belfry.Notification, 12)
	j.mu.Unlock()
	close(goOn)
	for last := uint64(3); ; last++ { // until the answer of the journal is known there
		if at := send(exit(1, last, last)); at == 12 {
			break
		} else if at != 7 || t.Context().Err() != nil || last > 100_000 {
			t.Fatalf("position %d; want 7, then 12", at)
		}
	}
}

func TestWhoMayLookBack(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{items: []belfry.Notification{exit(0, 1, 1)}}
	a := startWithJournal(t, reader, j)
	a.ours.Store("exe=/bin/x", true)
	wish := belfry.Registration{Class: "process.exit", Subject: "exe=/bin/x"}
	c := a.dial(t)
	if s, err := c.Register(t.Context(), wish); err != nil {
		t.Errorf("what is its own: %v", err)
	} else {
		s.Close()
	}
	wish.Since = belfry.Since{Time: now}
	if _, err := c.Register(t.Context(), wish); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("the past of what is its own now: %v, want ErrPermission", err)
	}
	if _, err := list(t, c, wish); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a list of it: %v, want ErrPermission", err)
	}
	if _, err := list(t, c); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a list of all: %v, want ErrPermission", err)
	}
}

func list(t *testing.T, c *client.Client, all ...belfry.Registration) (list []belfry.Notification, err error) {
	t.Helper()
	past, err := c.Events(t.Context(), all, belfry.Since{}, now.Add(2*time.Second))
	if err != nil {
		return nil, err
	}
	defer past.Close()
	for {
		n, err := past.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		if past.Cursor().IsZero() {
			t.Errorf("%d has no cursor", n.Last)
		}
		list = append(list, n)
	}
}

// TestAListEndsWithItsTime; its notifications are as they were.
func TestAListEndsWithItsTime(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{items: []belfry.Notification{exit(1, 1, 1), exit(1, 2, 2), exit(1, 3, 3)}}
	a := startWithJournal(t, admin, j)
	got, err := list(t, a.dial(t))
	if err != nil || len(got) != 2 || got[0].Event != j.items[0].Event || got[1].Last != 2 {
		t.Errorf("%+v, %v; want the two of the first 2 s", got, err)
	}
}

func TestWhatCanNotBeReadIsRefusedBeforeItIsRegistered(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{}
	a := startWithJournal(t, admin, j)
	c := a.dial(t)
	_, err := c.Register(t.Context(), belfry.Registration{Class: "process.exit", Since: belfry.Since{Cursor: j.at(9)}})
	if !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("%v, want ErrUsage", err)
	}
	if consumer := <-a.events.opened; len(consumer.numbers) != 0 {
		t.Errorf("registrations %v, want none", consumer.numbers)
	}
	without := startAgent(t, admin)
	_, err = without.dial(t).Register(t.Context(), belfry.Registration{Class: "process.exit", Since: belfry.Since{Time: now}})
	if !errors.Is(err, belfry.ErrUnsupported) {
		t.Errorf("an agent without a journal: %v, want ErrUnsupported", err)
	}
}

func TestOverlapsAreCutOff(t *testing.T) {
	t.Parallel()
	o := overlap{}
	told := exit(1, 1, 5)
	o.told(&told)
	filtered := exit(1, 4, 9)
	filtered.Count, filtered.Skipped = 3, 3
	gap := exit(1, 4, 9)
	gap.Kind, gap.Count, gap.Gap = belfry.KindGap, 0, &belfry.Gap{Total: 6, Known: true}
	state := exit(1, 5, 5)
	state.Kind = belfry.KindState
	other := exit(1, 1, 1)
	other.Entry = 77
	for name, test := range map[string]struct {
		n     belfry.Notification
		admit bool
		first uint64
		count uint64
	}{
		"had":             {exit(1, 2, 5), false, 2, 4},
		"a part":          {exit(1, 4, 9), true, 6, 4},
		"new":             {exit(1, 6, 9), true, 6, 4},
		"a part, skipped": {filtered, true, 6, 3},
		"a gap":           {gap, true, 6, 0},
		"a state":         {state, true, 5, 1},
		"another event":   {other, true, 1, 1},
	} {
		n := test.n
		if got := o.admit(&n); got != test.admit || n.First != test.first || n.Count != test.count {
			t.Errorf("%s: %v, from %d, count %d; want %v, %d, %d", name, got, n.First, n.Count, test.admit, test.first, test.count)
		}
	}
	if gap.Gap.Total != 6 {
		t.Error("the gap was changed, which others have as well")
	}
}

// TestServerSentEventsGoOnFromTheJournal where the agent does not know the
// stream any more: no gap, nothing twice, and another cut while the past is
// told misses nothing either.
func TestServerSentEventsGoOnFromTheJournal(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{items: []belfry.Notification{exit(0, 1, 1)}}
	s := startSiteWith(t, j)
	const path = "GET /v1/events/stream?class=process.exit"
	resp := s.request(t, t.Context(), path, bearer)
	c := <-s.events.opened
	c.mu.Lock()
	c.queue = append(c.queue, event.Batch{Number: 1, Drained: true, Notifications: []belfry.Notification{exit(1, 1, 1)}})
	c.mu.Unlock()
	c.signal()
	first := readFrame(t, bufio.NewReader(resp.Body))

	j.mu.Lock()
	j.items = append(j.items, exit(0, 2, 2), exit(0, 3, 3))
	j.mu.Unlock()
	again := func(id string) *bufio.Reader {
		t.Helper()
		_, at, err := parseEventID(id)
		if err != nil || at.cursor.IsZero() {
			t.Fatalf("id %q has no cursor, %v", id, err)
		}
		id = string(appendEventID(nil, token{9}, at)) // of an agent that ran before this one
		return bufio.NewReader(s.request(t, t.Context(), path, bearer, "Last-Event-ID: "+id).Body)
	}
	stream := again(first.id)
	second := readFrame(t, stream)
	if !strings.Contains(second.data, `"id":"5-9-2"`) {
		t.Errorf("after going on came %s; want the second", second.data)
	}
	<-s.events.opened
	stream = again(second.id)
	if third := readFrame(t, stream); !strings.Contains(third.data, `"id":"5-9-3"`) {
		t.Errorf("after going on in the past came %s; want the third", third.data)
	}
	c = <-s.events.opened
	c.post(exit(1, 3, 4))
	if fourth := readFrame(t, stream); !strings.Contains(fourth.data, `"id":"5-9-4"`) || !strings.Contains(fourth.data, `"firstsequence":"00000000000000000004"`) && strings.Contains(fourth.data, `"firstsequence":"00000000000000000003"`) {
		t.Errorf("live came %s; want what is new of it", fourth.data)
	}
}

func TestServerSentEventsBeginInThePast(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{items: []belfry.Notification{exit(0, 1, 1), exit(0, 2, 2)}}
	s := startSiteWith(t, j)
	resp := s.request(t, t.Context(), "GET /v1/events/stream?class=process.exit&since="+j.at(1).String(), bearer)
	if f := readFrame(t, bufio.NewReader(resp.Body)); !strings.Contains(f.data, `"id":"5-9-2"`) {
		t.Errorf("first came %s; want the second", f.data)
	}
	if resp := s.request(t, t.Context(), "GET /v1/events/stream?class=process.exit&since=yesterday", bearer); resp.StatusCode != 400 {
		t.Errorf("status %d of a bad since, want 400", resp.StatusCode)
	}
}

// TestAWatchOfJSONBeginsInThePast as well.
func TestAWatchOfJSONBeginsInThePast(t *testing.T) {
	t.Parallel()
	j := &fakeJournal{items: []belfry.Notification{exit(0, 1, 1), exit(0, 2, 2)}}
	s := startSiteWith(t, j)
	resp := s.request(t, t.Context(), "GET /v1/events:watch?registration.class=process.exit&registration.since.cursor="+j.at(1).String(), bearer)
	c := <-s.events.opened
	c.post(exit(1, 2, 3))
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{`"sequence":"2"`, `"sequence":"3"`} {
		line, err := lines.ReadString('\n')
		if err != nil || !strings.Contains(line, want) || !strings.Contains(line, `"count":"1"`) {
			t.Errorf("%s, %v; want %s with count 1", line, err, want)
		}
	}
}

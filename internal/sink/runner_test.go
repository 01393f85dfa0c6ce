package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry"
)

// A script is a source that gives what it is told to, and remembers what is done.
type script struct {
	give chan belfry.Notification
	mu   sync.Mutex
	next uint64
	done []uint64
}

func newScript() *script { return &script{give: make(chan belfry.Notification, 100)} }

func (s *script) Next(ctx context.Context) (uint64, belfry.Notification, error) {
	select {
	case n, ok := <-s.give:
		if !ok {
			return 0, n, io.EOF
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.next++
		return s.next, n, nil
	case <-ctx.Done():
		return 0, belfry.Notification{}, ctx.Err()
	}
}

func (s *script) Done(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, number)
}

func (s *script) acknowledged() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.done))
}

// A teller is a sink that does what its function says and tells what came.
type teller struct {
	mu   sync.Mutex
	told []string
	do   func(ctx context.Context, d *Delivery) error
}

func (t *teller) Deliver(ctx context.Context, d *Delivery) error {
	t.mu.Lock()
	t.told = append(t.told, fmt.Sprintf("%s %d-%d x%d attempt %d", d.Notification.Event.Subject, d.Notification.First, d.Notification.Last, d.Notification.Count, d.Attempt))
	t.mu.Unlock()
	if t.do == nil {
		return nil
	}
	return t.do(ctx, d)
}

func (t *teller) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.told)
}

func happened(entry, first, last uint64) belfry.Notification {
	return belfry.Notification{
		Node: belfry.NodeID{1}, Incarnation: 2, Entry: entry, Event: belfry.EventID{Class: "file.modify", Subject: fmt.Sprint("/", entry)},
		First: first, Last: last, Count: last - first + 1,
	}
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run starts a runner; the function ends it.
func run(t *testing.T, o Options) (*Runner, func()) {
	t.Helper()
	o.Handler, o.Log = "page", slog.New(slog.DiscardHandler)
	r := NewRunner(o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return r, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestFailuresAreTriedAgainLaterEachTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		defer store.Close()
		source, sink := newScript(), &teller{}
		var at []time.Duration
		begun := time.Now()
		sink.do = func(_ context.Context, d *Delivery) error {
			at = append(at, time.Since(begun))
			if d.Attempt < 4 {
				return errors.New("not yet")
			}
			return nil
		}
		_, end := run(t, Options{Sink: sink, Source: source, Store: store})
		source.give <- happened(1, 1, 3)
		time.Sleep(time.Minute) //nolint:forbidigo // in a bubble
		synctest.Wait()
		expect(t, "attempts", sink.all(), []string{"/1 1-3 x3 attempt 1", "/1 1-3 x3 attempt 2", "/1 1-3 x3 attempt 3", "/1 1-3 x3 attempt 4"})
		for i, d := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			if wait := at[i+1] - at[i]; wait < d*3/4 || wait > d*5/4 {
				t.Errorf("attempt %d came after %s, want %s and at most a quarter more or less", i+2, wait, d)
			}
		}
		expect(t, "acknowledged", source.acknowledged(), []uint64{1})
		end()
		runs, err := store.Runs("page", false, 10)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "runs", len(runs), 4)
		expect(t, "newest", runs[0].Result, ResultDone)
		expect(t, "oldest", runs[3].Result, ResultRetry)
	})
}

func TestWhatFailsForGoodIsADeadLetter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		defer store.Close()
		source, sink := newScript(), &teller{}
		broken := true
		sink.do = func(_ context.Context, d *Delivery) error {
			d.Output = []byte("out")
			switch {
			case !broken:
				return nil
			case d.Notification.Entry == 2:
				return Permanent(errors.New("never"))
			case d.Notification.Entry == 3:
				panic("a bug")
			}
			return errors.New("no")
		}
		r, end := run(t, Options{Sink: sink, Source: source, Store: store, Attempts: 3})
		for entry := range uint64(3) {
			source.give <- happened(entry+1, 1, 1)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // in a bubble
		synctest.Wait()
		expect(t, "attempts", len(sink.all()), 3+1+1)
		expect(t, "acknowledged", source.acknowledged(), []uint64{1, 2, 3})
		expect(t, "dead letters", store.Dead("page"), 3)
		expect(t, "open", r.Open(), 0)

		broken = false
		failed, err := store.Runs("page", true, 1)
		if err != nil {
			t.Fatal(err)
		}
		letter, err := store.DeadLetter(failed[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		again, err := r.Retry(t.Context(), letter)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "again", fmt.Sprint(again.Result, string(again.Output)), "doneout")
		expect(t, "dead letters", store.Dead("page"), 2)
		if _, err := store.DeadLetter(letter.ID); !errors.Is(err, belfry.ErrNotFound) {
			t.Errorf("the letter is still there: %v", err)
		}
		end()
	})
}

func TestEachNumberRunsOnceOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		source, sink := newScript(), &teller{}
		sink.do = func(ctx context.Context, d *Delivery) error {
			if d.Notification.Last != 9 {
				return nil
			}
			<-ctx.Done() // the agent ends in the middle of this run
			return ctx.Err()
		}
		_, end := run(t, Options{Sink: sink, Source: source, Store: store, Attempts: 1})
		source.give <- happened(1, 1, 4)
		synctest.Wait()
		source.give <- happened(1, 5, 9)
		synctest.Wait()
		end()
		expect(t, "acknowledged", source.acknowledged(), []uint64{1})
		store.Close()

		// What was done is dropped, what overlaps is trimmed, what was cut off is
		// a second attempt.
		store = openStore(t, dir)
		defer store.Close()
		source, sink.do, sink.told = newScript(), nil, nil
		_, end = run(t, Options{Sink: sink, Source: source, Store: store})
		for _, n := range []belfry.Notification{happened(1, 2, 3), happened(1, 2, 4), happened(1, 3, 9), happened(1, 10, 10), happened(2, 1, 1)} {
			source.give <- n
			synctest.Wait()
		}
		end()
		expect(t, "runs", sink.all(), []string{"/1 5-9 x5 attempt 2", "/1 10-10 x1 attempt 1", "/2 1-1 x1 attempt 1"})
		expect(t, "acknowledged", source.acknowledged(), []uint64{1, 2, 3, 4, 5})
	})
}

// A leaver is a sink whose runs outlive their agent.
type leaver struct{ *teller }

func (l leaver) EndLeft(_ context.Context, r Begun) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, fmt.Sprintf("%d attempt %d of %s is ended", r.Number, r.Attempt, r.Handler))
	return nil
}

// TestWhatIsLeftIsEndedFirst: of a run that was cut off, before the next attempt;
// once, and of none that came to its end.
func TestWhatIsLeftIsEndedFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		defer store.Close()
		source, sink := newScript(), leaver{&teller{}}
		sink.do = func(ctx context.Context, d *Delivery) error {
			if d.Notification.Last == 4 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		_, end := run(t, Options{Sink: sink, Source: source, Store: store})
		for _, n := range []belfry.Notification{happened(1, 1, 4), happened(1, 5, 9)} {
			source.give <- n
			synctest.Wait()
		}
		end()
		source, sink.do = newScript(), nil
		_, end = run(t, Options{Handler: "page", Sink: sink, Source: source, Store: store})
		for _, n := range []belfry.Notification{happened(1, 5, 9), happened(1, 10, 10)} {
			source.give <- n
			synctest.Wait()
		}
		end()
		expect(t, "runs", sink.all(), []string{
			"/1 1-4 x4 attempt 1", "/1 5-9 x5 attempt 1", "9 attempt 1 of page is ended", "/1 5-9 x5 attempt 2", "/1 10-10 x1 attempt 1",
		})
	})
}

// TestPiecesOfARunThatWasCutOff are second attempts, all of them and no more, in
// whatever pieces they come again, also if one of those is cut off.
func TestPiecesOfARunThatWasCutOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		defer store.Close()
		sink := &teller{}
		hang := uint64(5)
		sink.do = func(ctx context.Context, d *Delivery) error {
			if d.Notification.Last != hang {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		for _, life := range [][]belfry.Notification{
			{happened(1, 1, 1), happened(1, 2, 5)},
			{happened(1, 2, 2)},
			{happened(1, 2, 2), happened(1, 3, 5), happened(1, 6, 6)},
		} {
			source := newScript()
			_, end := run(t, Options{Sink: sink, Source: source, Store: store})
			for _, n := range life {
				source.give <- n
				synctest.Wait()
			}
			end()
			hang = map[uint64]uint64{5: 2}[hang]
		}
		expect(t, "runs", sink.all(), []string{
			"/1 1-1 x1 attempt 1", "/1 2-5 x4 attempt 1", "/1 2-2 x1 attempt 2",
			"/1 2-2 x1 attempt 3", "/1 3-5 x3 attempt 2", "/1 6-6 x1 attempt 1",
		})
	})
}

// A lingerer is a leaver whose runs take their time to end.
type lingerer struct {
	leaver
	gone chan struct{}
}

func (l lingerer) EndLeft(ctx context.Context, r Begun) error {
	select {
	case <-l.gone:
		return l.leaver.EndLeft(ctx, r)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestARunOfAFormerAgentIsOfTheSameEvent: what its node's agent tells under a new
// incarnation waits for what a killed agent left, and for what the former one told;
// other events wait for neither.
func TestARunOfAFormerAgentIsOfTheSameEvent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		defer store.Close()
		source, sink := newScript(), lingerer{leaver{&teller{}}, make(chan struct{})}
		sink.do = func(ctx context.Context, d *Delivery) error {
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
			return ctx.Err()
		}
		_, end := run(t, Options{Sink: sink, Source: source, Store: store})
		source.give <- happened(1, 1, 1)
		synctest.Wait()
		end()

		source = newScript()
		_, end = run(t, Options{Sink: sink, Source: source, Store: store})
		again, other := happened(1, 1, 1), happened(2, 1, 1)
		again.Incarnation, again.Entry = 3, 7
		for _, n := range []belfry.Notification{happened(1, 1, 1), again, other} {
			source.give <- n
		}
		synctest.Wait()
		expect(t, "while it lingers", sink.all(), []string{"/1 1-1 x1 attempt 1", "/2 1-1 x1 attempt 1"})
		close(sink.gone)
		synctest.Wait()
		expect(t, "then", sink.all()[2:], []string{"1 attempt 1 of page is ended", "/1 1-1 x1 attempt 2"})
		time.Sleep(time.Minute) //nolint:forbidigo // of the bubble
		synctest.Wait()
		expect(t, "and when that is done", sink.all()[4:], []string{"/1 1-1 x1 attempt 1"})
		end()
		if all, err := store.left("page"); err != nil || len(all) != 1 || all[0].Key.Incarnation != 3 {
			t.Errorf("left: %+v, %v; want the last one", all, err)
		}
	})
}

// A run that waits to be tried again holds up its own event only, and no worker.
func TestEventsDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		defer store.Close()
		source, sink := newScript(), &teller{}
		most, now := 0, 0
		var mu sync.Mutex
		sink.do = func(_ context.Context, d *Delivery) error {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // in a bubble
			mu.Lock()
			now--
			mu.Unlock()
			if d.Notification.Entry <= 10 {
				return errors.New("busy")
			}
			return nil
		}
		_, end := run(t, Options{Sink: sink, Source: source, Store: store})
		for entry := range uint64(40) {
			source.give <- happened(entry+1, 1, 1)
		}
		time.Sleep(3 * time.Second) //nolint:forbidigo // of the bubble
		synctest.Wait()
		if got := source.acknowledged(); len(got) != 30 {
			t.Errorf("%d of 30 are done while 10 wait to be tried again", len(got))
		}
		end()
		expect(t, "at once", most, workers)
	})
}

func TestGapsMayBeDeclined(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		defer store.Close()
		source, sink := newScript(), &teller{}
		_, end := run(t, Options{Sink: sink, Source: source, Store: store, NoGaps: true})
		gap := happened(1, 1, 7)
		gap.Kind, gap.Count, gap.Gap = belfry.KindGap, 0, &belfry.Gap{Total: 7, Known: true}
		source.give <- gap
		source.give <- belfry.Notification{Kind: belfry.KindCoverage}
		synctest.Wait()
		end()
		expect(t, "runs", sink.all(), []string{})
		expect(t, "acknowledged", source.acknowledged(), []uint64{1, 2})
	})
}

// A turn is a share whose answers are written down.
type turn struct {
	answers  []answer
	released int
}

type answer struct {
	mine  bool
	done  uint64
	begun int
}

func (s *turn) Await(ctx context.Context, _ string, _ *belfry.Notification) (Turn, error) {
	if len(s.answers) == 0 {
		<-ctx.Done()
		return Turn{}, ctx.Err()
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return Turn{Mine: a.mine, Done: a.done, Begun: a.begun, Release: func() { s.released++ }}, nil
}

func TestAnotherNodesRunsCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		defer store.Close()
		source, sink := newScript(), &teller{}
		// Another ran all of 1 to 4, then 5 to 6 of 5 to 9, and died in its first
		// attempt of the rest.
		share := &turn{answers: []answer{{done: 4}, {done: 6}, {mine: true, begun: 1}}}
		_, end := run(t, Options{Sink: sink, Source: source, Store: store, Share: share})
		for _, n := range []belfry.Notification{happened(1, 1, 4), happened(1, 5, 9), happened(1, 10, 10)} {
			source.give <- n
			synctest.Wait()
		}
		expect(t, "runs", sink.all(), []string{"/1 7-9 x3 attempt 2"})
		expect(t, "acknowledged", source.acknowledged(), []uint64{1, 2})
		expect(t, "turns that ended", share.released, 1)
		end()
		if c, err := store.cursor("page", Key{belfry.NodeID{1}, 2, 1}); err != nil || c.Done != 9 {
			t.Errorf("cursor %+v, %v", c, err)
		}
	})
}

// A dead letter that is tried again is never beside another run of its event.
func TestARetriedLetterWaitsForTheRunOfItsEvent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		defer store.Close()
		source, sink := newScript(), &teller{}
		busy, overlaps := 0, 0
		var mu sync.Mutex
		sink.do = func(context.Context, *Delivery) error {
			mu.Lock()
			if busy++; busy > 1 {
				overlaps++
			}
			mu.Unlock()
			time.Sleep(time.Second) //nolint:forbidigo // of the bubble
			mu.Lock()
			busy--
			mu.Unlock()
			return nil
		}
		r, end := run(t, Options{Sink: sink, Source: source, Store: store})
		source.give <- happened(1, 2, 2)
		synctest.Wait()
		if _, err := r.Retry(t.Context(), Run{ID: 7, Handler: "page", Notification: happened(1, 1, 1)}); err != nil {
			t.Error(err)
		}
		end()
		expect(t, "overlaps", overlaps, 0)
		expect(t, "runs", len(sink.all()), 2)
	})
}

package agent

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/sink"
)

// TestAHandlerGoesOnFromItsPlace: what the journal has behind it comes first,
// one of an event at a time, then what happens; and the place moves only when
// all of it is done.
func TestAHandlerGoesOnFromItsPlace(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r, disk := startRecorder(t, filepath.Join(dir), 1)
		disk.held.Store(false)
		h := &handlers{agent: r.agent}
		store, err := sink.OpenStore(filepath.Join(dir, "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		recorded := func() uint64 {
			t.Helper()
			at, err := r.flush(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		post(t, r, 0, 1, 1)
		place := r.cursor(recorded())
		for range 2 { // two records: the second comes when the first is on the disk
			post(t, r, 0, 1, 1)
			recorded()
		}
		wish := belfry.Registration{Class: "user.job", Subject: "*", Wait: true}
		c := r.agent.events.Open(event.ConsumerHandler, "test", event.Limits{OnePerEvent: true, Window: handlerWindow})
		defer c.Close()
		if _, err := c.Register(t.Context(), 1, wish); err != nil {
			t.Fatal(err)
		}
		one := &handler{spec: config.Handler{Name: "test"}, log: r.log}
		s := h.newSource(t.Context(), one, c, []belfry.Registration{wish}, place, store)

		first, n, err := s.Next(t.Context())
		if err != nil || n.First != 2 || n.Last != 2 {
			t.Fatalf("%d to %d, %v; want what follows the place, 2", n.First, n.Last, err)
		}
		var done atomic.Bool
		second := make(chan uint64)
		go func() {
			number, n, err := s.Next(t.Context())
			if err != nil || n.First != 3 || !done.Load() {
				t.Errorf("%d, %v, the one before is done: %v; want 3 after it", n.First, err, done.Load())
			}
			second <- number
		}()
		synctest.Wait()
		s.writePlace(t.Context())
		if at, err := store.Place("test"); err != nil || !at.IsZero() {
			t.Errorf("place %+v, %v, while a run is open", at, err)
		}
		done.Store(true)
		s.Done(first)
		s.Done(<-second)

		post(t, r, 1, 2, 4)
		number, n, err := s.Next(t.Context())
		if err != nil || n.Event.Subject != "1" || n.Last != 4 || number != 1 {
			t.Fatalf("%s %d, batch %d, %v; want the live one, 1", n.Event.Subject, n.Last, number, err)
		}
		at := r.cursor(recorded())
		s.writePlace(t.Context())
		if got, _ := store.Place("test"); !got.IsZero() {
			t.Errorf("place %+v before the live one is done", got)
		}
		s.Done(number)
		synctest.Wait()
		s.leave()
		if got, err := store.Place("test"); err != nil || got != at {
			t.Errorf("place %+v, %v; want %+v", got, err, at)
		}
	})
}

// TestARunOfAnotherNodeIsNotCounted: with run_on: one that node counts it.
func TestARunOfAnotherNodeIsNotCounted(t *testing.T) {
	t.Parallel()
	one := &handler{}
	for _, result := range []sink.Result{sink.ResultDone, sink.ResultOther, sink.ResultRetry, sink.ResultDead, sink.ResultOther} {
		one.observe(&sink.Run{Result: result})
	}
	if done, failed := one.done.Load(), one.failed.Load(); done != 1 || failed != 2 {
		t.Errorf("%d done, %d failed; want 1 and 2", done, failed)
	}
}

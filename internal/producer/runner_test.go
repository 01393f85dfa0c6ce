package producer_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A double is a producer whose Run is given by the test.
type double struct {
	run func(ctx context.Context, requests <-chan producer.Request, send producer.Send) error

	mu   sync.Mutex
	seen []string // requests of all calls of Run, "watch 1" or "unwatch 1"
	runs []time.Time
}

func (*double) Name() string { return "double" }

func (*double) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{Class: "double.happen"}, {Class: "own.*", Custom: true}}
}

func (d *double) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	d.mu.Lock()
	d.runs = append(d.runs, time.Now())
	d.mu.Unlock()
	return d.run(ctx, requests, send)
}

func (d *double) note(r producer.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Watch != nil {
		d.seen = append(d.seen, "watch "+r.Watch.Subject)
	} else {
		d.seen = append(d.seen, "unwatch "+string(rune('0'+r.Unwatch)))
	}
}

func (d *double) requests() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.seen...)
}

// serve notes requests until the end.
func (d *double) serve(ctx context.Context, requests <-chan producer.Request, _ producer.Send) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			d.note(r)
		}
	}
}

// A machine takes what the runner sends and what it reports.
type machine struct {
	mu       sync.Mutex
	messages []event.Message
	failures []string
}

func (m *machine) send(_ context.Context, messages ...event.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, messages...)
	return nil
}

func (m *machine) failed(_, reason string, _ uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures = append(m.failures, reason)
}

func runner(d *double, m *machine) *producer.Runner {
	return producer.NewRunner(producer.RunnerOptions{Producers: []producer.Producer{d}, Send: m.send, Failed: m.failed})
}

func watch(id event.WatchID) event.Watch {
	return event.Watch{ID: id, Class: "double.happen", Subject: string(rune('0' + id)), Entry: event.EntryID(id)}
}

func TestAProducerRunsOnlyWhileSomebodyWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		d.run = d.serve
		r := runner(d, &machine{})
		want := func(when string, up bool, watches, runs int) {
			t.Helper()
			synctest.Wait()
			status := []producer.Status{{Name: "double", Up: up, Watches: watches}}
			if diff := cmp.Diff(status, r.Running()); diff != "" {
				t.Errorf("%s: status (-want +got):\n%s", when, diff)
			}
			if len(d.runs) != runs {
				t.Errorf("%s: Run was called %d times, want %d", when, len(d.runs), runs)
			}
		}
		want("nobody watches", false, 0, 0)
		r.Watch([]event.Watch{watch(1), watch(2)})
		want("first watches", true, 2, 1)
		r.Unwatch([]event.Unwatch{{ID: 1, Class: "double.happen"}})
		want("one is left", true, 1, 1)
		r.Unwatch([]event.Unwatch{{ID: 2, Class: "double.happen"}})
		want("the last has ended", false, 0, 1)
		r.Watch([]event.Watch{watch(3)})
		want("a new one", true, 1, 2)
		if diff := cmp.Diff([]string{"watch 1", "watch 2", "unwatch 1", "watch 3"}, d.requests()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		r.Stop()
		want("stopped", false, 0, 2)
		r.Watch([]event.Watch{watch(4)})
		want("a watch after Stop", false, 0, 2)
	})
}

func TestAFailureIsReportedAndRunsAgainWithBackOffAndTheStandingWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, m := &double{}, &machine{}
		d.run = func(_ context.Context, requests <-chan producer.Request, send producer.Send) error {
			d.note(<-requests)
			_ = send(event.Associate{Entry: 1, Instance: "i"})
			if len(d.runs) == 2 {
				panic("out of paper")
			}
			return errors.New("no ink")
		}
		r := runner(d, m)
		defer r.Stop()
		r.Watch([]event.Watch{watch(1)})
		<-time.After(time.Minute)
		synctest.Wait()

		var waits []time.Duration
		for i := range d.runs[1:] {
			waits = append(waits, d.runs[i+1].Sub(d.runs[i]))
		}
		least := 100 * time.Millisecond
		for i, wait := range waits {
			if wait < least || wait > least+least/4+1 {
				t.Errorf("back-off %d was %v, want %v to %v", i+1, wait, least, least+least/4)
			}
			least = min(2*least, 30*time.Second)
		}
		if len(waits) < 8 {
			t.Errorf("%d restarts in a minute, want at least 8", len(waits))
		}
		if diff := cmp.Diff([]string{"no ink", "panic: out of paper", "no ink"}, m.failures[:3]); diff != "" {
			t.Errorf("reasons (-want +got):\n%s", diff)
		}
		for _, request := range d.requests() {
			if request != "watch 1" {
				t.Errorf("request %q, want only watch 1, again after each restart", request)
			}
		}
		if got := r.Running()[0].Restarts; got != uint64(len(m.failures)) {
			t.Errorf("%d restarts are shown, want %d", got, len(m.failures))
		}
	})
}

// What was associated when the producer failed may have changed before it
// runs again: the entry is blocked meanwhile, and the next count is a lower bound.
func TestAFailureBlocksTheEntriesAndMarksTheNextOccurrence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, m := &double{}, &machine{}
		d.run = func(ctx context.Context, _ <-chan producer.Request, send producer.Send) error {
			_ = send(event.Associate{Entry: 1, Instance: "i"})
			_ = send(event.Post{Entry: 1, Occurrence: belfry.Occurrence{Code: 1}})
			_ = send(event.Post{Entry: 1, Occurrence: belfry.Occurrence{Code: 2}})
			if len(d.runs) == 1 {
				return errors.New("no ink")
			}
			<-ctx.Done()
			return nil
		}
		r := runner(d, m)
		r.Watch([]event.Watch{watch(1)})
		<-time.After(time.Second)
		r.Stop()
		want := []event.Message{
			event.Associate{Entry: 1, Instance: "i"},
			event.Post{Entry: 1, Occurrence: belfry.Occurrence{Code: 1}},
			event.Post{Entry: 1, Occurrence: belfry.Occurrence{Code: 2}},
			event.Invalidate{Entry: 1, Instance: "i"},
			event.Associate{Entry: 1, Instance: "i"},
			event.Post{Entry: 1, Occurrence: belfry.Occurrence{Code: 1, LowerBound: true}},
			event.Post{Entry: 1, Occurrence: belfry.Occurrence{Code: 2}},
		}
		if diff := cmp.Diff(want, m.messages); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
	})
}

func TestACallerNeverWaitsAndABusyProducerHearsOnlyWhatStillCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		free := make(chan struct{})
		d.run = func(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
			d.note(<-requests)
			<-free // busy
			return d.serve(ctx, requests, send)
		}
		r := runner(d, &machine{})
		r.Watch([]event.Watch{watch(1)})
		synctest.Wait()
		for range 1000 {
			r.Watch([]event.Watch{watch(2)})
			r.Unwatch([]event.Unwatch{{ID: 2, Class: "double.happen"}})
		}
		changed := watch(1)
		changed.Subject = "1 changed"
		r.Watch([]event.Watch{changed, watch(3)})
		r.Unwatch([]event.Unwatch{{ID: 1, Class: "double.happen"}})
		close(free)
		synctest.Wait()
		if diff := cmp.Diff([]string{"watch 1", "unwatch 1", "watch 3"}, d.requests()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		r.Stop()
	})
}

func TestAWatchGoesToTheProducerOfItsClass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		d.run = d.serve
		r := runner(d, &machine{})
		defer r.Stop()
		unserved := r.Watch([]event.Watch{
			{ID: 1, Class: "own.build", Subject: "custom"},
			{ID: 2, Class: "owner.build", Subject: "another noun"},
			{ID: 3, Class: "double.other", Subject: "unknown"},
		})
		synctest.Wait()
		if diff := cmp.Diff([]string{"watch custom"}, d.requests()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if len(unserved) != 2 || unserved[0].ID != 2 || unserved[1].ID != 3 {
			t.Errorf("unserved %v, want the watches 2 and 3", unserved)
		}
	})
}

func TestStopWaitsForTheProducerToClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		closed := false
		d.run = func(ctx context.Context, _ <-chan producer.Request, _ producer.Send) error {
			<-ctx.Done()
			<-time.After(time.Second)
			closed = true
			return nil
		}
		r := runner(d, &machine{})
		r.Watch([]event.Watch{watch(1)})
		synctest.Wait()
		r.Stop()
		if !closed {
			t.Error("Stop returned before the producer did")
		}
	})
}

package producer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A producer that fails is in trouble from the first failure until it has run
// for as long as it was paused, also in the moments in which it is tried.
func TestTroubleLastsUntilTheProducerHasProvenItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		d, runs := &double{}, 0
		d.run = func(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
			runs++ // one call at a time
			if broken.Load() {
				<-time.After(50 * time.Millisecond)
				return fmt.Errorf("no ink, run %d; fill it up", runs)
			}
			return d.serve(ctx, requests, send)
		}
		r := runner(d, &machine{})
		defer r.Stop()
		trouble := func() *producer.Trouble {
			synctest.Wait()
			return r.Running()[0].Trouble
		}
		if trouble() != nil {
			t.Error("trouble before anybody watches")
		}
		r.Watch([]event.Watch{watch(1)})
		if trouble() != nil {
			t.Error("trouble before the first failure")
		}
		began := time.Now()
		tried, paused := 0, 0
		for time.Since(began) < 20*time.Second {
			<-time.After(10 * time.Millisecond)
			switch got := trouble(); {
			case time.Since(began) < 50*time.Millisecond:
			case got == nil:
				t.Fatalf("no trouble %v after the start; it never ran for longer than 50 ms", time.Since(began))
			case !got.Since.Equal(began.Add(50 * time.Millisecond)):
				t.Fatalf("since %v; want the first failure, %v", got.Since, began.Add(50*time.Millisecond))
			case got.Next.IsZero():
				tried++
			case got.Next.Before(time.Now()):
				t.Fatalf("next at %v; it is %v", got.Next, time.Now())
			default:
				paused++
			}
		}
		if tried < 5 || paused < 5 {
			t.Errorf("it was seen %d times while it was tried and %d times in between; want both", tried, paused)
		}
		got := trouble()
		if want := fmt.Sprintf("no ink, run %d; fill it up", got.Failures); got.Reason != want || got.Failures < 6 || len(got.Watched) != 1 || got.Watched[0].Subject != "1" {
			t.Errorf("%+v; want the reason of the last failure, and what is watched", got)
		}
		broken.Store(false)
		pause := time.Until(got.Next)
		<-time.After(pause + 10*time.Millisecond)
		for time.Since(got.Next) < 500*time.Millisecond { // a call that began before it was repaired
			if trouble() == nil {
				t.Fatal("it works before it has run for a second")
			}
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(2 * 30 * time.Second)
		if got := trouble(); got != nil {
			t.Errorf("%+v; it has run for longer than it was paused", got)
		}
		broken.Store(true)
		r.Unwatch([]event.Unwatch{{ID: 1, Class: "double.happen"}})
		r.Watch([]event.Watch{watch(2)})
		<-time.After(60 * time.Millisecond)
		if got := trouble(); got == nil || got.Failures != 1 || time.Since(got.Since) > 20*time.Millisecond {
			t.Errorf("%+v; want a new trouble, that has just begun", got)
		}
		r.Unwatch([]event.Unwatch{{ID: 2, Class: "double.happen"}})
		if got := trouble(); got != nil {
			t.Errorf("%+v; nobody watches", got)
		}
	})
}

func TestTroubleNamesTheFirstOfWhatIsWatched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		d.run = func(context.Context, <-chan producer.Request, producer.Send) error { return errors.New("no ink") }
		r := runner(d, &machine{})
		defer r.Stop()
		for i := range 1000 {
			n := i * 7 % 1000 // in no order
			r.Watch([]event.Watch{{ID: event.WatchID(n + 1), Class: "double.happen", Subject: fmt.Sprintf("%03d", n)}})
		}
		synctest.Wait()
		s := r.Running()[0]
		var got []string
		for _, w := range s.Trouble.Watched {
			got = append(got, w.Subject)
		}
		if text := strings.Join(got, " "); text != "000 001 002 003 004 005 006 007 008 009" || s.Watches != 1000 {
			t.Errorf("%s of %d; want the first ten of 1000", text, s.Watches)
		}
	})
}

package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/internal/event"
)

// fanoutBurst is how many events come at once: as many as an entry keeps runs,
// and as many as each channel holds. After it the sender waits until everybody
// has everything.
const fanoutBurst = 16

// measureFanout takes the time of one event at one consumer, from the sender
// to a goroutine that has seen it.
func measureFanout(ctx context.Context, b *bench) ([]side.Row, error) {
	var rows []side.Row
	for _, c := range []struct {
		consumers, events int
		target            float64
	}{{1, 200_000, 0}, {1_000, 1_600, 0.94}, {100_000, 32, 0.33}} {
		for _, burst := range []int{1, fanoutBurst} {
			events := max(b.scaled(c.events)/burst*burst, burst)
			if burst == 1 && c.consumers > 1 {
				events = max(events/4, 1)
			}
			var theirs, ours []float64
			once := func(fan func(consumers, events, burst int) (time.Duration, error), all *[]float64) func(context.Context) error {
				return func(context.Context) error {
					took, err := fan(c.consumers, events, burst)
					*all = append(*all, float64(took)/float64(events)/float64(c.consumers))
					return err
				}
			}
			how, bound := "one event at a time", side.Target{}
			if burst > 1 {
				how, bound = fmt.Sprintf("%d events at a time", burst), side.Target{Ratio: c.target}
			}
			what := fmt.Sprintf("%s consumers, %s", side.Commas(int64(c.consumers)), how)
			if c.consumers == 1 {
				what = "1 consumer, " + how
			}
			if err := b.turns(ctx, "fan-out to "+what, once(fanChannels, &theirs), once(fanMachine, &ours)); err != nil {
				return nil, err
			}
			rows = append(rows, side.Row{Work: what, Unit: "ns per event and consumer", Peer: "Go channels", Theirs: theirs, Ours: ours, Target: bound})
		}
	}
	return rows, nil
}

// fanChannels is a goroutine with a channel for each consumer.
func fanChannels(consumers, events, burst int) (time.Duration, error) {
	var (
		channels = make([]chan *belfry.Occurrence, consumers)
		readers  sync.WaitGroup
		left     atomic.Int64 // deliveries of the burst
		done     = make(chan struct{})
		sum      atomic.Uint64
	)
	for i := range channels {
		ch := make(chan *belfry.Occurrence, fanoutBurst)
		channels[i] = ch
		readers.Go(func() {
			var seen uint64
			for o := range ch {
				seen += uint64(o.Code)
				if left.Add(-1) == 0 {
					done <- struct{}{}
				}
			}
			sum.Add(seen)
		})
	}
	start := time.Now()
	for sent := 0; sent < events; sent += burst {
		left.Store(int64(burst * consumers))
		for range burst {
			o := &belfry.Occurrence{Code: 1}
			for _, ch := range channels {
				ch <- o
			}
		}
		<-done
	}
	took := time.Since(start)
	for _, ch := range channels {
		close(ch)
	}
	readers.Wait()
	if got, want := sum.Load(), uint64(events)*uint64(consumers); got != want {
		return 0, fmt.Errorf("channels delivered %d of %d", got, want)
	}
	return took, nil
}

// fanMachine is what an agent does: one loop that owns the machine, and a
// goroutine for each stream that takes batches and looks at each notification.
func fanMachine(consumers, events, burst int) (time.Duration, error) {
	r, err := newRig(consumers, rigSubject)
	if err != nil {
		return 0, err
	}
	f := &fan{rig: r, taken: make(chan taken, r.streams), streams: make([]chan event.Batch, r.streams)}
	var readers sync.WaitGroup
	for i := range f.streams {
		ch := make(chan event.Batch, 1)
		f.streams[i] = ch
		readers.Go(func() { takeBatches(event.ConsumerID(i+1), ch, f.taken) })
		r.machine.Receive(r.now, event.Ready{Consumer: event.ConsumerID(i + 1)})
	}
	start := time.Now()
	post := r.happening()
	for sent := 0; sent < events && err == nil; sent += burst {
		for i := range burst {
			r.post(post, int32((sent+i)%2))
		}
		err = f.deliver(uint64(burst) * uint64(consumers))
	}
	took := time.Since(start)
	for _, ch := range f.streams {
		close(ch)
	}
	readers.Wait()
	return took, err
}

// A fan hands batches to the streams' goroutines and hears from them.
type fan struct {
	*rig
	streams []chan event.Batch
	taken   chan taken
}

// taken is what a stream says when it is free again.
type taken struct {
	consumer      event.ConsumerID
	batch         uint64
	events        uint64
	notifications int
}

func takeBatches(id event.ConsumerID, batches <-chan event.Batch, free chan<- taken) {
	for b := range batches {
		t := taken{consumer: id, batch: b.Number, notifications: len(b.Notifications)}
		for i := range b.Notifications {
			t.events += b.Notifications[i].Count
		}
		free <- t
	}
}

// deliver carries batches until all consumers together have had so many events.
func (f *fan) deliver(events uint64) error {
	var got uint64
	notifications := 0
	for got < events {
		for _, b := range f.machine.Take().Batches {
			f.streams[b.Consumer-1] <- b // has room: one batch for one Ready
		}
		for t := <-f.taken; ; t = <-f.taken {
			got += t.events
			notifications += t.notifications
			f.machine.Receive(f.now, event.Ack{Consumer: t.consumer, Batch: t.batch})
			f.machine.Receive(f.now, event.Ready{Consumer: t.consumer})
			if len(f.taken) == 0 {
				break
			}
		}
	}
	if uint64(notifications) != events {
		return fmt.Errorf("%d notifications for %d deliveries; each event must come by itself here", notifications, events)
	}
	return nil
}

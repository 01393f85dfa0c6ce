package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/bench/stats"
	"github.com/belfry-ha/belfry/client"
)

const (
	durableEvents = 200_000
	durableSynced = 3_000 // to a server that syncs each by itself
	durableWindow = 4096  // events that are not known to be durable; as many different ones, so that none merge
	durableRate   = 1000  // a second, where the time to durable is taken
	durableTimed  = 2000
	// durableLook is between two looks at how far the journal is, at full rate.
	durableLook   = time.Millisecond
	durableGlance = 200 * time.Microsecond // the same at the steady rate
)

// The peers of durable events.
const (
	jetStream     = "NATS JetStream"
	jetStreamSync = "NATS JetStream, synced"
)

// durability is events/s until the last is durable, and the time from a post
// until it is known to be at a steady rate, p50 and p99 in µs.
type durability struct{ rate, p50, p99 float64 }

// measureDurable posts at one node and takes the time until the events are
// durable there: in a stream in files of a server, and in the journal of an agent.
func measureDurable(ctx context.Context, b *bench) ([]side.Row, error) {
	var plain, synced, ours []durability
	once := func(all *[]durability, f func() (durability, error)) func(context.Context) error {
		return func(context.Context) error {
			d, err := f()
			*all = append(*all, d)
			return err
		}
	}
	err := b.turns(ctx, "durable events",
		once(&plain, func() (durability, error) { return durableNATS(ctx, b, durableEvents, withStore) }),
		once(&synced, func() (durability, error) { return durableNATS(ctx, b, durableSynced, withStore, withSync) }),
		once(&ours, func() (durability, error) { return durableBelfry(ctx, b) }))
	if err != nil {
		return nil, err
	}
	var rows []side.Row
	for _, peer := range []struct {
		name   string
		theirs []durability
		rate   side.Target
		p99    side.Target
	}{
		{jetStream, plain, side.Target{Ratio: 1.5, AtLeast: true}, side.Target{Own: 5000}},
		{jetStreamSync, synced, side.Target{}, side.Target{}},
	} {
		line := func(work, unit string, of func(durability) float64, t side.Target) side.Row {
			return side.Row{Work: work, Unit: unit, Hops: "1 : 1", Peer: peer.name, Theirs: side.Pick(peer.theirs, of), Ours: side.Pick(ours, of), Target: t}
		}
		rows = append(rows,
			line("different events until the last is durable", "events/s", func(d durability) float64 { return d.rate }, peer.rate),
			line("1,000/s, from post to durable, p50", "µs", func(d durability) float64 { return d.p50 }, side.Target{}),
			line("1,000/s, from post to durable, p99", "µs", func(d durability) float64 { return d.p99 }, peer.p99))
	}
	return rows, nil
}

// durableNATS publishes to a stream that is kept in files. Its acknowledgement
// says that the server has written the event, and synced it if it is told to.
func durableNATS(ctx context.Context, b *bench, events int, args ...string) (d durability, err error) {
	dir, err := os.MkdirTemp("", "belfry-bench-jetstream-")
	if err != nil {
		return d, err
	}
	defer os.RemoveAll(dir)
	s, err := startNATS(append(args, dir)...)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := nats.Connect(s.url)
	if err != nil {
		return d, err
	}
	defer c.Close()
	js, err := c.JetStream(nats.PublishAsyncMaxPending(durableWindow))
	if err != nil {
		return d, err
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "bench", Subjects: []string{subjectNATS}, Storage: nats.FileStorage}); err != nil {
		return d, err
	}
	message := make([]byte, 8)
	n := b.scaled(events)
	start := time.Now()
	for range n {
		if _, err := js.PublishAsync(subjectNATS, message, nats.StallWait(side.EndTimeout)); err != nil {
			return d, err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return d, ctx.Err()
	case <-time.After(side.EndTimeout + time.Duration(n)*time.Millisecond):
		return d, errors.New("not all was acknowledged")
	}
	d.rate = float64(n) / time.Since(start).Seconds()

	posted := make([]int64, b.scaled(durableTimed))
	took := make([]float64, len(posted))
	var acknowledged sync.WaitGroup
	_, err = pace(ctx, len(posted), durableRate, func(i int) error {
		at := time.Now()
		ack, err := js.PublishAsync(subjectNATS, message)
		if err != nil {
			return err
		}
		acknowledged.Go(func() {
			select {
			case <-ack.Ok():
			case <-ack.Err():
			}
			took[i] = float64(time.Since(at)) / 1e3
		})
		return nil
	})
	acknowledged.Wait()
	q := stats.Quantiles(took, 0.5, 0.99)
	d.p50, d.p99 = q[0], q[1]
	return d, err
}

// durableBelfry posts at an agent that records what somebody watches, and asks
// it how far its journal is on the disk.
func durableBelfry(ctx context.Context, b *bench) (d durability, err error) {
	bus := &belfryBus{agents: b.agents}
	defer func() { err = errors.Join(err, bus.close()) }()
	c, err := bus.dial(ctx, "a")
	if err != nil {
		return d, err
	}
	watching, err := c.Register(ctx, belfry.Registration{Class: class, Subject: "n/*", Limit: queueLimit})
	if err != nil {
		return d, err
	}
	bus.streams = append(bus.streams, watching)
	reading, stop := context.WithCancel(ctx)
	bus.stop = stop
	bus.readers.Go(func() { bus.fail(read(reading, watching, 0, func(int, delivery) {})) })
	if bus.sender, err = c.Sender(reading); err != nil {
		return d, err
	}
	j := &journalReader{client: c}
	if err := j.begin(ctx); err != nil {
		return d, err
	}
	n := uint64(b.scaled(durableEvents))
	start := time.Now()
	for i := range n {
		if i%(durableWindow/4) == 0 {
			if err := j.reach(ctx, max(i, durableWindow*3/4)-durableWindow*3/4, durableLook); err != nil {
				return d, err
			}
		}
		if err := bus.sender.Post(ctx, class, "n/"+strconv.FormatUint(i%durableWindow, 10), nil, 1); err != nil {
			return d, err
		}
	}
	if err := j.reach(ctx, n, durableLook); err != nil {
		return d, err
	}
	d.rate = float64(n) / time.Since(start).Seconds()
	d.p50, d.p99, err = j.times(ctx, b.scaled(durableTimed), func(i int) error {
		return bus.sender.Post(ctx, class, "n/"+strconv.Itoa(i%durableWindow), nil, 1)
	})
	return d, err
}

// A journalReader looks at how far an agent's journal is.
type journalReader struct {
	client *client.Client
	base   uint64 // where it was in the beginning
}

func (j *journalReader) position(ctx context.Context) (uint64, error) {
	status, err := j.client.Status(ctx)
	return status.GetJournal().GetPosition(), err
}

// begin waits until nothing is on its way.
func (j *journalReader) begin(ctx context.Context) error {
	for {
		was, err := j.position(ctx)
		if err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
		if j.base, err = j.position(ctx); err != nil || j.base == was {
			return err
		}
	}
}

// reach waits until n records have been added.
func (j *journalReader) reach(ctx context.Context, n uint64, look time.Duration) error {
	for begin := time.Now(); ; time.Sleep(look) {
		at, err := j.position(ctx)
		switch {
		case err != nil:
			return err
		case at >= j.base+n:
			return nil
		case time.Since(begin) > side.EndTimeout:
			return fmt.Errorf("the journal has %d of %d records after %s", at-j.base, n, side.EndTimeout)
		}
	}
}

// times posts n events at the steady rate and looks again and again how many of
// them the journal has.
func (j *journalReader) times(ctx context.Context, n int, post func(i int) error) (p50, p99 float64, err error) {
	if err := j.begin(ctx); err != nil {
		return 0, 0, err
	}
	posted := make([]atomic.Int64, n)
	took := make([]float64, 0, n)
	done := make(chan error, 1)
	go func() {
		_, err := pace(ctx, n, durableRate, func(i int) error {
			posted[i].Store(time.Now().UnixNano())
			return post(i)
		})
		done <- err
	}()
	for begin := time.Now(); len(took) < n; time.Sleep(durableGlance) {
		at, err := j.position(ctx)
		if err != nil {
			return 0, 0, err
		}
		now := time.Now()
		for at > j.base+uint64(len(took)) && len(took) < n {
			took = append(took, float64(now.UnixNano()-posted[len(took)].Load())/1e3)
		}
		if now.Sub(begin) > side.EndTimeout+time.Duration(n)*time.Second/durableRate {
			return 0, 0, fmt.Errorf("the journal has %d of %d records", len(took), n)
		}
	}
	q := stats.Quantiles(took, 0.5, 0.99)
	return q[0], q[1], <-done
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/bench/stats"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/event"
)

const (
	idleRegistrations = 100_000
	idleStreams       = 100 // which ask for them, over one connection
	swapRegistrations = 10_000
	swaps             = 200
	swapLoad          = 8 // events before a swap that nobody has taken
)

// measureRegistrations takes the memory of registrations for which nothing
// happens, and the time for which an event with many consumers is blocked while
// its identifier changes.
func measureRegistrations(ctx context.Context, b *bench) ([]side.Row, error) {
	var theirs, one, each []float64
	n := b.scaled(idleRegistrations)
	add := func(all *[]float64, f func() (float64, error)) func(context.Context) error {
		return func(context.Context) error {
			v, err := f()
			*all = append(*all, v)
			return err
		}
	}
	var blocked [2][]float64 // longest of a repetition; median
	err := b.turns(ctx, "registrations",
		add(&theirs, func() (float64, error) { return idleNATS(n) }),
		add(&one, func() (float64, error) { return idleAgent(ctx, n, func(int) string { return "idle" }) }),
		add(&each, func() (float64, error) { return idleAgent(ctx, n, strconv.Itoa) }),
		func(context.Context) error {
			longest, median, err := swapTimes(swapRegistrations, b.scaled(swaps))
			blocked[0], blocked[1] = append(blocked[0], longest), append(blocked[1], median)
			return err
		})
	if err != nil {
		return nil, err
	}
	name := side.Commas(int64(n)) + " idle registrations, "
	together := func(all []float64) (mib []float64) {
		for _, v := range all {
			mib = append(mib, v*float64(n)/1024)
		}
		return mib
	}
	swap := fmt.Sprintf("identifier changes, %s registrations, ", side.Commas(swapRegistrations))
	return []side.Row{
		{Work: name + "each for an event of its own", Unit: "KiB each, resident", Peer: natsCore, Theirs: theirs, Ours: each, Target: side.Target{Own: 0.5}},
		{Work: name + "all for one event", Unit: "KiB each, resident", Peer: natsCore, Theirs: theirs, Ours: one, Target: side.Target{Own: 0.5}},
		{Work: name + "all for one event, together", Unit: "MiB, resident", Peer: natsCore, Theirs: together(theirs), Ours: together(one), Target: side.Target{Own: 64}},
		{Work: swap + "longest that it is blocked", Unit: "µs", Ours: blocked[0], Target: side.Target{Own: 1000}, Note: fmt.Sprintf("%d events posted between two changes, all delivered, none lost and none twice", swapLoad)},
		{Work: swap + "median", Unit: "µs", Ours: blocked[1]},
	}, nil
}

// idleAgent is how much a new agent grows by one of n registrations, KiB.
func idleAgent(ctx context.Context, n int, subject func(int) string) (grown float64, err error) {
	a, err := side.StartAgents(ctx, 2)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, a.Stop()) }()
	c, err := client.Dial(ctx, a.Socket("a"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	streams := make([]*client.Stream, idleStreams)
	for i := range streams {
		if streams[i], err = c.Subscribe(ctx); err != nil {
			return 0, err
		}
		defer streams[i].Close()
	}
	before := side.ResidentKiB(a.PIDs["a"])
	errs := make(chan error, idleStreams)
	var asking sync.WaitGroup
	for i, s := range streams {
		asking.Go(func() {
			for j := i; j < n; j += idleStreams {
				if _, err := s.Register(ctx, belfry.Registration{Class: class, Subject: subject(j)}); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	asking.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
	}
	return float64(side.ResidentKiB(a.PIDs["a"])-before) / float64(n), nil
}

// idleNATS is the same of a NATS server.
func idleNATS(n int) (grown float64, err error) {
	s, err := startNATS()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := nats.Connect(s.url, s.opts...)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	before := side.ResidentKiB(s.child.PID())
	for i := range n {
		if _, err := c.Subscribe("idle."+strconv.Itoa(i), func(*nats.Msg) {}); err != nil {
			return 0, err
		}
	}
	if err := c.FlushTimeout(side.EndTimeout); err != nil {
		return 0, err
	}
	return float64(side.ResidentKiB(s.child.PID())-before) / float64(n), nil
}

// swapTimes changes the identifier of an event again and again, while events
// are posted and delivered, and returns for how long it was blocked, µs.
func swapTimes(registrations, n int) (longest, median float64, err error) {
	r, err := newRig(registrations, rigSubject)
	if err != nil {
		return 0, 0, err
	}
	for i := range r.streams {
		r.machine.Receive(r.now, event.Ready{Consumer: event.ConsumerID(i + 1)})
	}
	var times []float64
	var posted, delivered uint64
	post := r.happening()
	for i := range n {
		for code := range swapLoad {
			r.post(post, int32(code))
			posted++
		}
		begin := time.Now()
		r.machine.Receive(r.now, event.Invalidate{Entry: r.entry, Instance: post.Occurrence.Event.Instance})
		post.Occurrence.Event.Instance = strconv.Itoa(i + 2)
		r.machine.Receive(r.now, event.Associate{Entry: r.entry, Instance: post.Occurrence.Event.Instance})
		times = append(times, float64(time.Since(begin))/1e3)
		for {
			batches := r.machine.Take().Batches
			for _, batch := range batches {
				for k := range batch.Notifications {
					delivered += batch.Notifications[k].Count
				}
				r.machine.Receive(r.now, event.Ack{Consumer: batch.Consumer, Batch: batch.Number})
				r.machine.Receive(r.now, event.Ready{Consumer: batch.Consumer})
			}
			if len(batches) == 0 {
				break
			}
		}
	}
	if want := posted * uint64(registrations); delivered != want {
		return 0, 0, fmt.Errorf("%d delivered of %d", delivered, want)
	}
	return slices.Max(times), stats.Median(times), nil
}

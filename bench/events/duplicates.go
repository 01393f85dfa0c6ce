package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/event"
)

const (
	duplicates       = 10_000_000
	remoteDuplicates = 1_000_000
)

// A stall is one repetition of duplicates against a consumer that takes nothing.
type stall struct {
	each     float64 // ns
	growth   float64 // KiB
	queued   int     // notifications or messages that wait
	accounts uint64  // how many of the duplicates can be accounted for afterwards
	told     uint64  // how many the system says are lost
}

// measureDuplicates posts the same event over and over while nobody takes it.
func measureDuplicates(ctx context.Context, b *bench) ([]side.Row, error) {
	n := b.scaled(duplicates)
	var peer, one, many, glob, remote []stall
	add := func(all *[]stall, f func() (stall, error)) func(context.Context) error {
		return func(context.Context) error {
			s, err := f()
			*all = append(*all, s)
			return err
		}
	}
	err := b.turns(ctx, "duplicates",
		add(&peer, func() (stall, error) { return stallNATS(ctx, b.nats, n) }),
		add(&one, func() (stall, error) { return stallMachine(1, rigSubject, n) }),
		add(&many, func() (stall, error) { return stallMachine(100_000, rigSubject, n) }),
		add(&glob, func() (stall, error) { return stallMachine(1, "/etc/*", n) }),
		add(&remote, func() (stall, error) { return stallRemote(ctx, b.agents, b.scaled(remoteDuplicates)) }))
	if err != nil {
		return nil, err
	}
	name := side.Commas(int64(n)) + " duplicates"
	theirs, growth := side.Pick(peer, each), side.Pick(peer, grown)
	return []side.Row{
		{Work: name + ", 1 stalled consumer", Unit: "ns each", Peer: "NATS core, 2 hops", Theirs: theirs, Ours: side.Pick(one, each), Target: side.Target{Own: 25}, Note: tell(n, peer[0], one)},
		{Work: name + ", 1 stalled consumer, memory growth", Unit: "KiB", Peer: "NATS core, server and subscriber", Theirs: growth, Ours: side.Pick(one, grown), Target: side.Target{Own: 1024}},
		{Work: name + ", 1 stalled pattern (private queue)", Unit: "ns each", Ours: side.Pick(glob, each), Note: tell(n, stall{}, glob)},
		{Work: name + ", 100,000 stalled consumers", Unit: "ns each", Ours: side.Pick(many, each), Target: side.Target{Own: 60}, Note: tell(n, stall{}, many)},
		{Work: name + ", 100,000 stalled consumers, memory growth", Unit: "KiB", Ours: side.Pick(many, grown)},
		{
			Work: side.Commas(int64(b.scaled(remoteDuplicates))) + " posted one by one at another node, 1 stalled consumer", Unit: "events/s posted", Hops: "2 : 3", Peer: "NATS core",
			Theirs: side.Pick(peer, rate), Ours: side.Pick(remote, rate), Target: side.Target{Ratio: 1.56, AtLeast: true}, Note: tell(b.scaled(remoteDuplicates), stall{}, remote),
		},
		{Work: "the same, memory growth of both agents", Unit: "KiB", Ours: side.Pick(remote, grown)},
	}, nil
}

func each(s stall) float64  { return s.each }
func grown(s stall) float64 { return s.growth }
func rate(s stall) float64  { return 1e9 / s.each }

// tell says what is left of the duplicates.
func tell(n int, peer stall, ours []stall) string {
	exact, queued := 0, 0
	for _, s := range ours {
		if s.accounts == uint64(n) {
			exact++
		}
		queued = max(queued, s.queued)
	}
	text := fmt.Sprintf("Belfry kept %s in at most %d notification(s), and the count was exact in %d of %d repetitions", side.Commas(int64(n)), queued, exact, len(ours))
	if peer.each > 0 {
		text += fmt.Sprintf("; NATS lost %s for good with %s messages waiting (first repetition; %s of the lost are in the client library's own counter, none is told in the stream)",
			side.Commas(int64(n)-int64(peer.accounts)), side.Commas(int64(peer.queued)), side.Commas(int64(peer.told)))
	}
	return text
}

// stallMachine posts n duplicates to registrations whose streams said that
// they were free once, took the first event, and never came back. Then one of
// them does, and its count must be exact.
func stallMachine(registrations int, subject string, n int) (s stall, err error) {
	r, err := newRig(registrations, subject)
	if err != nil {
		return s, err
	}
	post := r.happening()
	for i := range r.streams {
		r.machine.Receive(r.now, event.Ready{Consumer: event.ConsumerID(i + 1)})
	}
	r.post(post, 0)
	r.machine.Take()
	before := heap()
	start := time.Now()
	for i := range n {
		r.post(post, 0)
		if i%1024 == 0 {
			r.machine.Take() // an agent does so after each wake-up
		}
	}
	s.each = float64(time.Since(start)) / float64(n)
	s.growth = math.Max(0, float64(heap())-float64(before)) / 1024
	for _, c := range r.machine.Status().Entries[0].Consumers {
		s.queued = max(s.queued, c.Queued)
	}
	r.machine.Receive(r.now, event.Ack{Consumer: 1, Batch: 1})
	r.machine.Receive(r.now, event.Ready{Consumer: 1})
	for _, b := range r.machine.Take().Batches {
		for i := range b.Notifications {
			if x := &b.Notifications[i]; x.Registration == 1 {
				s.accounts += x.Count
			}
		}
	}
	return s, nil
}

// heap is what is in use after a collection, bytes.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// stallNATS publishes to a subscriber that never takes a message.
func stallNATS(ctx context.Context, server *natsServer, n int) (s stall, err error) {
	sub, err := startStalled(server.url)
	if err != nil {
		return s, err
	}
	defer sub.child.End()
	c, err := nats.Connect(server.url)
	if err != nil {
		return s, err
	}
	defer c.Close()
	resident := func() int { return side.ResidentKiB(server.child.PID()) + side.ResidentKiB(sub.child.PID()) }
	before := resident()
	message := make([]byte, 8)
	start := time.Now()
	for range n {
		if err := c.Publish(subjectNATS, message); err != nil {
			return s, err
		}
	}
	if err := c.FlushTimeout(side.EndTimeout); err != nil {
		return s, err
	}
	s.each = float64(time.Since(start)) / float64(n)
	waiting, dropped, _, err := sub.settled(ctx)
	s.growth = math.Max(0, float64(resident()-before))
	s.queued, s.accounts, s.told = waiting, uint64(waiting), uint64(dropped)
	return s, err
}

// stallRemote posts n duplicates at b to a consumer at a that takes one
// notification and stops; then it goes on, and its count must be exact.
func stallRemote(ctx context.Context, a *side.Agents, n int) (s stall, err error) {
	b := &belfryBus{agents: a, names: []string{"n/0"}}
	defer func() {
		if e := b.close(); err == nil {
			err = e
		}
	}()
	c, err := b.dial(ctx, "a")
	if err != nil {
		return s, err
	}
	stream, err := c.Register(ctx, belfry.Registration{Class: class, Subject: "n/0", Scope: belfry.ScopeCluster}, client.Window(1))
	if err != nil {
		return s, err
	}
	b.streams = append(b.streams, stream)
	at, err := b.dial(ctx, "b")
	if err != nil {
		return s, err
	}
	if b.sender, err = at.Sender(ctx); err != nil {
		return s, err
	}
	before := a.Resident()
	start := time.Now()
	for range n {
		if err := b.post(ctx, 0); err != nil {
			return s, err
		}
	}
	if _, err := b.sender.Flush(ctx); err != nil {
		return s, err
	}
	s.each = float64(time.Since(start)) / float64(n)
	s.growth = math.Max(0, float64(a.Resident()-before))
	ctx, cancel := context.WithTimeout(ctx, arriveTimeout)
	defer cancel()
	for s.accounts < uint64(n) {
		x, err := stream.Next(ctx)
		if err != nil {
			return s, fmt.Errorf("%d of %d came: %w", s.accounts, n, err)
		}
		s.queued++
		s.accounts += x.Count
		if x.Gap != nil {
			return s, fmt.Errorf("a gap of %d, where all are equal", x.Gap.Total)
		}
	}
	return s, nil
}

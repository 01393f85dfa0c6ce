package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/client"
)

const class = "user.bench"

// A belfryBus is a sender at b and consumers at a, each with a connection of
// its own.
type belfryBus struct {
	agents *side.Agents

	clients []*client.Client
	streams []*client.Stream
	sender  *client.Sender
	names   []string

	stop    context.CancelFunc
	readers sync.WaitGroup
	mu      sync.Mutex
	err     error // the first of a reader
}

func (b *belfryBus) dial(ctx context.Context, node string) (*client.Client, error) {
	c, err := client.Dial(ctx, b.agents.Socket(node))
	if err == nil {
		b.clients = append(b.clients, c)
	}
	return c, err
}

// queueLimit is what each registration may hold before it begins to drop.
const queueLimit = 65_536

func (b *belfryBus) open(ctx context.Context, consumers, subjects int, deliver func(int, delivery)) error {
	b.names = make([]string, subjects)
	for i := range b.names {
		b.names[i] = "n/" + strconv.Itoa(i)
	}
	r := belfry.Registration{Class: class, Subject: "n/*", Scope: belfry.ScopeCluster, Limit: queueLimit}
	if subjects == 1 {
		r.Subject = b.names[0]
	}
	running, stop := context.WithCancel(ctx)
	b.stop = stop
	for i := range consumers {
		c, err := b.dial(ctx, "a")
		if err != nil {
			return err
		}
		s, err := c.Register(ctx, r, client.Name(fmt.Sprintf("bench %d", i)))
		if err != nil {
			return err
		}
		b.streams = append(b.streams, s)
		b.readers.Go(func() { b.fail(read(running, s, i, deliver)) })
	}
	c, err := b.dial(ctx, "b")
	if err != nil {
		return err
	}
	b.sender, err = c.Sender(running)
	return err
}

// read hands on what one stream brings until ctx ends.
func read(ctx context.Context, s *client.Stream, consumer int, deliver func(int, delivery)) error {
	for {
		n, err := s.Next(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		d := delivery{count: n.Count, oldest: n.FirstTime, newest: n.Time}
		if n.Gap != nil {
			d.lost = n.Gap.Total
		}
		if _, number, ok := strings.Cut(n.Event.Subject, "/"); ok {
			if d.subject, err = strconv.Atoi(number); err != nil {
				return err
			}
		}
		if d.count+d.lost > 0 {
			deliver(consumer, d)
		}
	}
}

func (b *belfryBus) post(ctx context.Context, subject int) error {
	return b.sender.Post(ctx, class, b.names[subject], nil, 1)
}

func (b *belfryBus) servers() []int { return []int{b.agents.PIDs["a"], b.agents.PIDs["b"]} }

func (b *belfryBus) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil && err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
}

func (b *belfryBus) close() error {
	if b.stop != nil {
		b.stop()
	}
	if b.sender != nil {
		b.sender.Close()
	}
	b.readers.Wait()
	for _, s := range b.streams {
		s.Close()
	}
	for _, c := range b.clients {
		_ = c.Close()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

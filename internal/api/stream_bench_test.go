package api

import (
	"context"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/event"
)

// endless gives full batches as fast as they are taken.
type endless struct {
	fakeConsumer
	batch event.Batch
}

func (c *endless) Next(context.Context) (event.Batch, error) {
	c.batch.Number++
	for i := range c.batch.Notifications {
		n := &c.batch.Notifications[i]
		n.First += uint64(len(c.batch.Notifications))
		n.Last = n.First
	}
	return c.batch, nil
}

func (c *endless) Ack(uint64) {}

type endlessEvents struct{ *fakeEvents }

func (endlessEvents) Open(event.ConsumerKind, string, event.Limits) Consumer {
	c := &endless{}
	for i := range uint64(1024) {
		c.batch.Notifications = append(c.batch.Notifications, exit(1, i+1, i+1))
	}
	return c
}

// BenchmarkSubscribe is one consumer's notifications from the event loop to
// Next, over the unix socket.
func BenchmarkSubscribe(b *testing.B) {
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{}, subject: admin, socket: b.TempDir() + "/s"}
	a.Server = New(Options{Decide: byRole, Events: endlessEvents{a.events}, Cluster: a.cluster, Identify: a.identify})
	if err := a.ServeUnix(a.socket, ""); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = a.Stop(b.Context()) }()
	c, err := client.Dial(b.Context(), a.socket)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := c.Register(b.Context(), belfry.Registration{Class: "process.exit"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

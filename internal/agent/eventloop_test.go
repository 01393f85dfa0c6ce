package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/filesystem"
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/producer/user"
)

// startLoop runs an event loop whose producers never answer.
func startLoop(t *testing.T) (*eventLoop, context.CancelFunc) {
	t.Helper()
	l := newTestLoop(1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { _ = l.run(ctx) }()
	t.Cleanup(stop)
	return l, stop
}

func newTestLoop(incarnation belfry.Incarnation) *eventLoop {
	classes := slices.Concat(user.New().Classes(), process.New().Classes(), filesystem.New().Classes())
	l := newEventLoop(event.Config{Node: belfry.NodeID{1}, Name: "a", Incarnation: incarnation, Classes: classes}, slog.New(slog.DiscardHandler))
	l.watch, l.unwatch, l.peer = func([]event.Watch) {}, func([]event.Unwatch) {}, func(belfry.NodeID, event.Frame) {}
	return l
}

func TestBatchThatABrokenStreamLeftIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := startLoop(t)
		c := l.Open(event.ConsumerStream, "test", event.Limits{})
		if _, err := c.Register(t.Context(), 1, belfry.Registration{Class: "user.x", Subject: "y"}); err != nil {
			t.Fatal(err)
		}
		broken, breakStream := context.WithCancel(t.Context())
		breakStream()
		if _, err := c.Next(broken); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v; want the stream's end", err)
		}
		send := func() {
			t.Helper()
			if sent, err := l.Send(t.Context(), []event.Named{{Class: "user.x", Subject: "y"}}, nil); err != nil || len(sent) != 1 || sent[0] != (event.Sent{Matched: 1}) {
				t.Fatalf("sent %v, %v", sent, err)
			}
		}
		send() // the loop answers the Ready that nobody waits for any more
		synctest.Wait()
		c.Lost()
		c.Resume(0)
		send()
		for number := uint64(1); number <= 2; number++ {
			b, err := c.Next(t.Context())
			if err != nil || b.Number != number || len(b.Notifications) != 1 || b.Notifications[0].Last != number {
				t.Fatalf("got %+v, %v; want batch %d with occurrence %d", b, err, number, number)
			}
			c.Ack(number)
		}
	})
}

func TestRegistrationThatNobodyWaitsForIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := startLoop(t)
		c := l.Open(event.ConsumerStream, "test", event.Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := c.Register(ctx, 1, belfry.Registration{Class: "process.exit", Subject: "pid=1"})
			done <- err
		}()
		synctest.Wait() // for an answer of the producer
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v; want the caller's end", err)
		}
		status, err := l.Status(t.Context())
		if err != nil || len(status.Entries) != 0 {
			t.Errorf("left: %+v, %v", status.Entries, err)
		}
	})
}

// A consumer must come back when its agent stops, and only then: the end of
// all its registrations is another thing.
func TestEndOfTheLoopIsNotTheEndOfTheRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := startLoop(t)
		c := l.Open(event.ConsumerStream, "test", event.Limits{})
		if _, err := c.Register(t.Context(), 1, belfry.Registration{Class: "user.x", Subject: "y"}); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := c.Next(t.Context())
			done <- err
		}()
		synctest.Wait()
		stop()
		if err := <-done; !errors.Is(err, belfry.ErrNoAgent) || errors.Is(err, io.EOF) {
			t.Errorf("got %v; want ErrNoAgent", err)
		}
	})
}

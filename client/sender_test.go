package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func TestFlushDoesNotWaitForAPostThatWasGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Sender{queue: make(chan *belfryv1.SendEventRequest, 1), done: make(chan struct{}), progress: make(chan struct{})}
		if err := s.Post(t.Context(), "user.x", "1", nil, 1); err != nil {
			t.Fatal(err)
		}
		ctx, giveUp := context.WithCancel(t.Context())
		posted, flushed := make(chan error, 1), make(chan error, 1)
		go func() { posted <- s.Post(ctx, "user.x", "2", nil, 1) }()
		synctest.Wait() // the queue is full
		go func() {
			_, err := s.Flush(t.Context())
			flushed <- err
		}()
		synctest.Wait()
		giveUp()
		if err := s.Post(ctx, "user.x", "3", nil, 1); !errors.Is(err, context.Canceled) { // flush never knew of it
			t.Errorf("post: %v; want canceled", err)
		}
		if err := <-posted; !errors.Is(err, context.Canceled) {
			t.Errorf("post: %v; want canceled", err)
		}
		synctest.Wait()
		if len(flushed) != 0 {
			t.Error("flush did not wait for the first event's answer")
		}
		s.change(func() { s.answered++ })
		synctest.Wait()
		if len(flushed) != 1 {
			t.Fatal("flush waits for an event that nobody posted")
		}
		if err := <-flushed; err != nil {
			t.Errorf("flush: %v", err)
		}
	})
}

func TestFlushReturnsWhenTheLastPostIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Sender{queue: make(chan *belfryv1.SendEventRequest), done: make(chan struct{}), progress: make(chan struct{})}
		ctx, giveUp := context.WithCancel(t.Context())
		posted, flushed := make(chan error, 1), make(chan error, 1)
		go func() { posted <- s.Post(ctx, "user.x", "", nil, 1) }()
		synctest.Wait()
		go func() {
			_, err := s.Flush(t.Context())
			flushed <- err
		}()
		synctest.Wait()
		giveUp()
		if err := <-posted; !errors.Is(err, context.Canceled) {
			t.Errorf("post: %v; want canceled", err)
		}
		synctest.Wait()
		if len(flushed) != 1 {
			t.Fatal("flush waits although nothing is under way")
		}
	})
}

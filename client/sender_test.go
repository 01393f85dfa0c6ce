package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
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

// TestWhatNoAgentTakesIsRefusedHere: a request that is too large would end the
// stream, and what others have posted with it.
func TestWhatNoAgentTakesIsRefusedHere(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 2*maxData)
	for _, tt := range []struct {
		class, subject, data string
		is                   error
		text                 string
	}{
		{"user.x", "", `{"a":"` + long + `"}`, belfry.ErrLimit, "SendEvent: user.x: limit reached: the data has 8204 bytes; at most 4096"},
		{"user.x", long, "", belfry.ErrUsage, "SendEvent: the subject has 8192 bytes; at most 4096"},
		{"user.x", "\xff", "", belfry.ErrUsage, `SendEvent: the subject is not UTF-8: "\xff"`},
		{"user.x", "", "{\"a\":\"\xff\"}", belfry.ErrUsage, "SendEvent: user.x: data is not UTF-8"},
		{"user.x", "", `{"a":`, belfry.ErrUsage, "SendEvent: user.x: data is not JSON: byte 5: unexpected end of JSON input"},
		{"user.x", "a", `{"a":"` + long[:4000] + `"}`, nil, ""},
	} {
		var data []byte
		if tt.data != "" {
			data = []byte(tt.data)
		}
		_, err := sendRequest(tt.class, tt.subject, data, 1)
		if !errors.Is(err, tt.is) || err != nil && err.Error() != tt.text {
			t.Errorf("%.10s: %v; want %q", tt.subject+tt.data, err, tt.text)
		}
	}
}

// TestARequestIsBounded, however much waits to be posted.
func TestARequestIsBounded(t *testing.T) {
	t.Parallel()
	data, err := object([]byte(`{"a":"` + strings.Repeat("x", 4000) + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	s := &Sender{queue: make(chan *belfryv1.SendEventRequest, maxPosted), done: make(chan struct{}), progress: make(chan struct{})}
	for range maxPosted {
		s.queue <- &belfryv1.SendEventRequest{Class: "user.x", Subject: strings.Repeat("y", 4000), Data: data}
	}
	ctx, cancel := context.WithCancel(t.Context())
	sent := &sentRequests{until: maxPosted, done: cancel}
	s.send(ctx, sent)
	if sent.events != maxPosted || sent.largest > 1<<20 {
		t.Errorf("%d events, the largest request has %d bytes; want %d, 1 MiB at most", sent.events, sent.largest, maxPosted)
	}
}

// sentRequests is a stream that nobody answers.
type sentRequests struct {
	sendStream
	until, events, largest int
	done                   func()
}

func (s *sentRequests) Send(req *belfryv1.SendEventsRequest) error {
	s.events += len(req.GetEvents())
	s.largest = max(s.largest, proto.Size(req))
	if s.events >= s.until {
		s.done()
	}
	return nil
}

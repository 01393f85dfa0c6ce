package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// resting is a Sender of which nobody sends.
func resting() *Sender {
	return &Sender{some: make(chan struct{}, 1), done: make(chan struct{}), progress: make(chan struct{})}
}

// fill posts different events until one more would have to wait.
func fill(t *testing.T, s *Sender) {
	t.Helper()
	for i := range maxPosted {
		if err := s.Post(t.Context(), "user.x", strconv.Itoa(i), nil, 1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFlushDoesNotWaitForAPostThatWasGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := resting()
		fill(t, s)
		ctx, giveUp := context.WithCancel(t.Context())
		posted, flushed := make(chan error, 1), make(chan error, 1)
		go func() { posted <- s.Post(ctx, "user.x", "more", nil, 1) }()
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
		s.change(func() { s.answered += maxPosted - 1 })
		synctest.Wait()
		if len(flushed) != 0 {
			t.Error("flush did not wait for the answer to the last event")
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

func TestAPostThatWaitsGoesOnWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := resting()
		fill(t, s)
		posted := make(chan error, 1)
		go func() { posted <- s.Post(t.Context(), "user.x", "more", nil, 1) }()
		synctest.Wait()
		if len(posted) != 0 {
			t.Fatal("post did not wait")
		}
		if !s.take(&belfryv1.SendEventsRequest{}) {
			t.Fatal("nothing waits")
		}
		synctest.Wait()
		if len(posted) != 1 || <-posted != nil || s.state().posted != maxPosted+1 {
			t.Error("post still waits")
		}
	})
}

// What equals its neighbour goes with it, and each call is counted.
func TestEqualEventsInARowGoAsOne(t *testing.T) {
	t.Parallel()
	s := resting()
	for _, e := range []struct {
		class, subject, data string
		repeat               uint64
	}{
		{"user.x", "a", "", 1},
		{"user.x", "a", "", 0},
		{"user.x", "a", "", 5},
		{"user.x", "b", "", 1},
		{"user.y", "b", "", 1},
		{"user.y", "b", "{}", 1},
		{"user.y", "b", "{}", 1},
		{"user.y", "b", "", 1},
		{"user.y", "b", "", maxRepeat - 1},
		{"user.y", "b", "", 1},
		{"user.x", "a", "", 1},
	} {
		var data []byte
		if e.data != "" {
			data = []byte(e.data)
		}
		if err := s.Post(t.Context(), e.class, e.subject, data, e.repeat); err != nil {
			t.Fatal(err)
		}
	}
	req := &belfryv1.SendEventsRequest{}
	if !s.take(req) || s.take(&belfryv1.SendEventsRequest{}) {
		t.Fatal("it did not go with one request")
	}
	var got []string
	for _, e := range req.GetEvents() {
		got = append(got, fmt.Sprintf("%s %s %t %d", e.GetClass(), e.GetSubject(), e.GetData() != nil, e.GetRepeat()))
	}
	want := []string{
		"user.x a false 7", "user.x b false 1", "user.y b false 1", "user.y b true 1", "user.y b true 1",
		"user.y b false 1000000000", "user.y b false 1", "user.x a false 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	s.client = &Client{}
	s.receive(&answers{results: []uint32{2, 0, 0, 0, 0, 0, 0, 1, 99}})
	if now := s.state(); now.answered != 11 || now.matched != 3*2+1 {
		t.Errorf("%d answered, %d matched; want 11 and 7", now.answered, now.matched)
	}
}

// answers is a stream that gives one answer and ends.
type answers struct {
	sendStream
	results []uint32
}

func (a *answers) Recv() (*belfryv1.SendEventsResponse, error) {
	if a.results == nil {
		return nil, io.EOF
	}
	resp := &belfryv1.SendEventsResponse{}
	for _, matched := range a.results {
		resp.Results = append(resp.Results, &belfryv1.SendResult{Matched: matched})
	}
	a.results = nil
	return resp, nil
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
	s := resting()
	for range maxPosted {
		s.waiting = append(s.waiting, posting{class: "user.x", subject: strings.Repeat("y", 4000), data: data, calls: 1})
	}
	s.some <- struct{}{}
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

package client

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	maxPosted = 4096 // different events in a row that wait to be sent; Post waits beyond it
	maxEvents = 1024 // in one request; the agent takes no more
	// maxRequest is the bytes of events in one request, at most what the agent
	// takes less one event.
	maxRequest = 512 << 10
	// maxRepeat is the most that one event may stand for; the agent takes no more.
	maxRepeat = 1_000_000_000
)

// A Sender posts events of classes below user without waiting for each: what
// is posted while a request is on its way goes with the next one, and equal
// events in a row that wait, and have no data, go as one with their number. Order
// is kept. It does not reconnect, because nobody could tell what had arrived:
// after an error make a new one. It is safe for concurrent use.
type Sender struct {
	client *Client
	cancel context.CancelFunc
	some   chan struct{} // capacity 1: something waits
	done   chan struct{} // closed when both goroutines have ended

	mu       sync.Mutex
	waiting  []posting
	asked    []uint64      // how many calls of Post each event stands for that waits for its answer, in order
	posted   uint64        // events taken by Post
	answered uint64        // of them
	matched  uint64        // registrations, of all answered
	err      error         // the first refusal, or why the stream ended
	over     bool          // the stream has ended
	progress chan struct{} // closed and replaced when answered, err or over change, or waiting was taken
}

// A posting is an event that waits to be sent.
type posting struct {
	class, subject string
	data           *structpb.Struct
	repeat         uint64
	calls          uint64 // of Post
}

// Sender opens a stream for posting. It ends with ctx or with Close.
func (c *Client) Sender(ctx context.Context) (*Sender, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.events.SendEvents(ctx)
	if err != nil {
		cancel()
		return nil, c.errorOf(err)
	}
	return newSender(ctx, c, cancel, &postingStream{BidiStreamingClient: stream}), nil
}

// A postingStream reads each response into the one before it.
type postingStream struct {
	grpc.BidiStreamingClient[belfryv1.SendEventsRequest, belfryv1.SendEventsResponse]
	in belfryv1.SendEventsResponse
}

// Recv's result is valid until the next call.
func (s *postingStream) Recv() (*belfryv1.SendEventsResponse, error) { return &s.in, s.RecvMsg(&s.in) }

func newSender(ctx context.Context, c *Client, cancel context.CancelFunc, stream sendStream) *Sender {
	s := &Sender{client: c, cancel: cancel, some: make(chan struct{}, 1), done: make(chan struct{}), progress: make(chan struct{})}
	var both sync.WaitGroup
	both.Go(func() { s.send(ctx, stream) })
	both.Go(func() {
		s.receive(stream)
		cancel()
	})
	go func() {
		both.Wait()
		close(s.done)
	}()
	return s
}

// Post hands one event over, as [Client.Send] does. It waits only while 4,096
// others, different from their neighbours, wait to be sent. The error is that of
// ctx, of data, or the first one of an event that was posted before.
func (s *Sender) Post(ctx context.Context, class, subject string, data []byte, repeat uint64) error {
	if data == nil && s.again(class, subject, repeat) {
		return nil
	}
	fields, err := postable(class, subject, data)
	if err != nil {
		return err
	}
	for {
		s.mu.Lock()
		err, room, progress := s.err, len(s.waiting) < maxPosted, s.progress
		if err == nil && room {
			s.waiting = append(s.waiting, posting{class, subject, fields, repeat, 1})
			s.posted++
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if room {
			select {
			case s.some <- struct{}{}:
			default:
			}
			return nil
		}
		select {
		case <-progress:
		case <-s.done:
			return s.state().err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// again adds to the event that waits last, if it is the same.
func (s *Sender) again(class, subject string, repeat uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 || s.err != nil {
		return false
	}
	last := &s.waiting[len(s.waiting)-1]
	if last.data != nil || last.subject != subject || last.class != class {
		return false
	}
	total := max(1, last.repeat) + max(1, repeat)
	if repeat > maxRepeat || total > maxRepeat {
		return false
	}
	last.repeat = total
	last.calls++
	s.posted++
	return true
}

// A senderState is one moment of a Sender.
type senderState struct {
	posted, answered, matched uint64
	err                       error
	over                      bool
	progress                  <-chan struct{}
}

func (s *Sender) state() senderState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return senderState{s.posted, s.answered, s.matched, s.err, s.over, s.progress}
}

// Flush waits until all that was posted has been answered. It returns how many
// registrations all events so far have matched together, and the first error.
func (s *Sender) Flush(ctx context.Context) (matched uint64, err error) {
	upTo := s.state().posted
	for {
		now := s.state()
		if now.answered >= upTo || now.over {
			return now.matched, now.err
		}
		select {
		case <-now.progress:
		case <-ctx.Done():
			return now.matched, ctx.Err()
		}
	}
}

// Close ends the stream. What was posted and not flushed may be lost.
func (s *Sender) Close() {
	s.change(func() {
		if s.err == nil {
			s.err = net.ErrClosed
		}
	})
	s.cancel()
	<-s.done
}

// change wakes whoever waits for progress.
func (s *Sender) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.progressed()
}

type sendStream interface {
	Send(*belfryv1.SendEventsRequest) error
	Recv() (*belfryv1.SendEventsResponse, error)
}

// send puts what has been posted into as few requests as it can.
func (s *Sender) send(ctx context.Context, stream sendStream) {
	req := &belfryv1.SendEventsRequest{}
	for {
		select {
		case <-s.some:
		case <-ctx.Done():
			return
		}
		for s.take(req) {
			if stream.Send(req) != nil {
				return // receive knows why
			}
		}
	}
}

// take puts what waits into a request, over what was there; false: nothing does.
func (s *Sender) take(req *belfryv1.SendEventsRequest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	req.Events = req.GetEvents()[:0]
	size, n := 0, 0
	for n < min(len(s.waiting), maxEvents) && size < maxRequest {
		p := &s.waiting[n]
		n++
		if len(req.Events) < cap(req.Events) {
			req.Events = req.Events[:n]
		} else {
			req.Events = append(req.Events, nil)
		}
		if req.Events[n-1] == nil {
			req.Events[n-1] = &belfryv1.SendEventRequest{}
		}
		e := req.Events[n-1]
		e.Class, e.Subject, e.Data, e.Repeat = p.class, p.subject, p.data, p.repeat
		s.asked = append(s.asked, p.calls)
		size += sizeOf(e)
	}
	if n == 0 {
		return false
	}
	full := len(s.waiting) >= maxPosted
	s.waiting = slices.Delete(s.waiting, 0, n)
	if full {
		s.progressed()
	}
	return true
}

// progressed is called with the lock held.
func (s *Sender) progressed() {
	close(s.progress)
	s.progress = make(chan struct{})
}

// sizeOf is about what an event takes in a request, and not less.
func sizeOf(e *belfryv1.SendEventRequest) int {
	size := 32 + len(e.GetClass()) + len(e.GetSubject())
	if e.Data != nil { // most have none
		size += proto.Size(e.GetData())
	}
	return size
}

func (s *Sender) receive(stream sendStream) {
	for {
		resp, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = net.ErrClosed
			}
			s.change(func() {
				s.over = true
				if s.err == nil {
					s.err = s.client.errorOf(err)
				}
			})
			return
		}
		s.change(func() {
			results := resp.GetResults()
			results = results[:min(len(results), len(s.asked))] // more than was asked is not for us
			for i, r := range results {
				s.answered += s.asked[i]
				s.matched += s.asked[i] * uint64(r.GetMatched())
				if r.GetRefusal() != nil && s.err == nil {
					s.err = refusal(r.GetRefusal())
				}
			}
			s.asked = slices.Delete(s.asked, 0, len(results))
		})
	}
}

package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"google.golang.org/protobuf/proto"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	maxPosted = 4096 // events that wait for their answer; Post waits beyond it
	maxEvents = 1024 // in one request; the agent takes no more
	// maxRequest is the bytes of events in one request, at most what the agent
	// takes less one event.
	maxRequest = 512 << 10
)

// A Sender posts events of classes below user without waiting for each: what
// is posted while a request is on its way goes with the next one. Order is
// kept. It does not reconnect, because nobody could tell what had arrived:
// after an error make a new one. It is safe for concurrent use.
type Sender struct {
	client *Client
	cancel context.CancelFunc
	queue  chan *belfryv1.SendEventRequest
	done   chan struct{} // closed when both goroutines have ended

	mu       sync.Mutex
	posted   uint64        // events taken by Post
	answered uint64        // of them
	matched  uint64        // registrations, of all answered
	err      error         // the first refusal, or why the stream ended
	over     bool          // the stream has ended
	progress chan struct{} // closed and replaced when answered, err or over change, or posted falls
}

// Sender opens a stream for posting. It ends with ctx or with Close.
func (c *Client) Sender(ctx context.Context) (*Sender, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.events.SendEvents(ctx)
	if err != nil {
		cancel()
		return nil, c.errorOf(err)
	}
	s := &Sender{
		client: c, cancel: cancel, done: make(chan struct{}),
		queue: make(chan *belfryv1.SendEventRequest, maxPosted), progress: make(chan struct{}),
	}
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
	return s, nil
}

// Post hands one event over, as [Client.Send] does. It waits only while 4,096
// others are on their way. The error is that of ctx, of data, or the first one
// of an event that was posted before.
func (s *Sender) Post(ctx context.Context, class, subject string, data []byte, repeat uint64) error {
	req, err := sendRequest(class, subject, data, repeat)
	if err != nil {
		return err
	}
	s.mu.Lock()
	err = s.err
	if err == nil {
		s.posted++
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case s.queue <- req:
		return nil
	case <-s.done:
		return s.state().err
	case <-ctx.Done():
		s.change(func() { s.posted-- })
		return ctx.Err()
	}
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
		// Less may be on its way than was: a Post that waited was given up. What was
		// taken before Flush began is answered first, and still counted.
		if now.answered >= min(upTo, now.posted) || now.over {
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
	close(s.progress)
	s.progress = make(chan struct{})
}

type sendStream interface {
	Send(*belfryv1.SendEventsRequest) error
	Recv() (*belfryv1.SendEventsResponse, error)
}

// send puts what has been posted into as few requests as it can.
func (s *Sender) send(ctx context.Context, stream sendStream) {
	req := &belfryv1.SendEventsRequest{}
	for {
		size := 0
		add := func(e *belfryv1.SendEventRequest) {
			req.Events = append(req.Events, e)
			size += sizeOf(e)
		}
		req.Events = req.GetEvents()[:0]
		select {
		case e := <-s.queue:
			add(e)
		case <-ctx.Done():
			return
		}
		for len(req.GetEvents()) < maxEvents && size < maxRequest && len(s.queue) > 0 {
			add(<-s.queue)
		}
		if stream.Send(req) != nil {
			return // receive knows why
		}
	}
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
			for _, r := range resp.GetResults() {
				s.answered++
				s.matched += uint64(r.GetMatched())
				if r.GetRefusal() != nil && s.err == nil {
					s.err = refusal(r.GetRefusal())
				}
			}
		})
	}
}

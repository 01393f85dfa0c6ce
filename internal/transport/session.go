package transport

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
)

// frames is either end of the gRPC stream.
type frames interface {
	send(*belfryv1.PeerFrame) error
	// recv's result is valid until the next call where it is a batch.
	recv() (*belfryv1.PeerFrame, error)
	closeSend() // nothing follows; where the end of the call says so it does nothing
}

// A session is one stream from its hello to its end. One goroutine reads, one
// sends. Safe for concurrent use.
type session struct {
	remote *remote
	hello  Hello // of the peer
	frames frames
	abort  func() // ends the connection; what waits for it fails. Idempotent
	queue  *queue
	calls  *calls
	done   chan struct{} // closed after the last event is delivered
	at     netip.Addr    // of the end that was dialled: says which network this is on
	began  time.Time

	mu      sync.Mutex
	ending  bool        // on purpose: what comes is not read any more
	how     StreamEvent // of the end; nil: a reset
	closing *time.Timer
}

func newSession(r *remote, hello Hello, f frames, at netip.Addr, abort func()) *session {
	return &session{
		remote: r, hello: hello, frames: f, abort: sync.OnceFunc(abort),
		queue: newQueue(), calls: newCalls(), done: make(chan struct{}), at: at, began: time.Now(),
	}
}

// run returns when the stream has ended and that is delivered.
func (s *session) run() {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if err := s.sendAll(); err != nil {
			s.abort()
		}
	}()
	err := s.receiveAll()
	s.queue.close()
	patience := time.AfterFunc(goodbyeTimeout, s.abort) // a sender that waits for a peer that does not read
	<-sent
	patience.Stop()

	s.mu.Lock()
	how := s.how
	if s.closing != nil {
		s.closing.Stop()
	}
	s.mu.Unlock()
	if how == nil {
		how = s.reset(err)
	}
	s.remote.remove(s, how)
	close(s.done)
}

func (s *session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// sendAll sends what is queued until the queue is closed or a goodbye is out.
func (s *session) sendAll() error {
	var enc encoder
	for {
		i, ok := s.queue.take()
		if !ok {
			return nil
		}
		f := i.raw
		if f == nil {
			f = enc.frame(i.frame)
		}
		if size := enc.sizeOf(i, f); size > maxMessage-overhead {
			s.remote.log.Error("frame is not sent: too large", "bytes", size, "limit", maxMessage)
			enc = encoder{} // the peer has not read what was introduced in it
		} else if err := s.frames.send(f); err != nil {
			return err
		}
		if _, batch := i.frame.(event.PeerBatch); batch {
			s.remote.deliver(Ready{Peer: s.remote.id})
		}
		if f.GetGoodbye() != nil {
			s.frames.closeSend()
			return nil
		}
	}
}

// overhead of the message around a frame, in bytes.
const overhead = 16

// sizeOf is at least what a frame takes on the wire, and exactly that where it
// may be too much: to count each batch through would cost as much as to write it.
func (e *encoder) sizeOf(i item, f *belfryv1.PeerFrame) int {
	if _, batch := i.frame.(event.PeerBatch); batch && e.batch.bytes <= maxMessage-overhead {
		return e.batch.bytes
	}
	return proto.Size(f)
}

// receiveAll returns nil after the peer's goodbye.
func (s *session) receiveAll() error {
	dec := decoder{origin: s.hello}
	for {
		f, err := s.frames.recv()
		if err != nil {
			return err
		}
		if goodbye := f.GetGoodbye(); goodbye != nil {
			s.end(s.farewell(reasonOf(goodbye.Reason)))
			return nil
		}
		if s.isEnding() {
			continue // until the peer has read the goodbye
		}
		if err := s.receive(f, &dec); err != nil {
			s.remote.log.Warn("stream closed: malformed frame", "err", err)
			s.dismiss(cluster.GoodbyeRekey)
		}
	}
}

func (s *session) receive(f *belfryv1.PeerFrame, dec *decoder) error {
	switch k := f.GetKind().(type) {
	case *belfryv1.PeerFrame_Call:
		s.remote.streams.serveCall(s, k.Call)
	case *belfryv1.PeerFrame_Reply:
		s.calls.reply(k.Reply)
	case *belfryv1.PeerFrame_Configuration:
		s.remote.deliver(Configuration{Peer: s.remote.id, Document: k.Configuration.GetDocument()})
	default:
		frame, err := dec.frame(f)
		if err != nil {
			return err
		}
		if frame != nil {
			s.remote.deliver(Frame{Peer: s.remote.id, Frame: frame})
		}
	}
	return nil
}

func (s *session) reset(err error) Reset {
	return Reset{Peer: s.remote.id, Incarnation: s.hello.Incarnation, Err: err}
}

func (s *session) farewell(reason cluster.StreamEvent) Goodbye {
	return Goodbye{Peer: s.remote.id, Incarnation: s.hello.Incarnation, Reason: reason}
}

// end records how the stream ended; the first word counts.
func (s *session) end(how StreamEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	if s.how == nil {
		s.how = how
	}
}

func (s *session) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// goodbye ends the stream when all that is queued, and the goodbye, is sent
// and the peer has closed it.
func (s *session) goodbye(reason cluster.StreamEvent) {
	s.end(s.farewell(cluster.GoodbyeRekey))
	s.queue.finish(item{raw: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Goodbye{
		Goodbye: &belfryv1.Goodbye{Reason: reasonTo(reason)},
	}}})
}

// dismiss is a goodbye that does not wait for a peer that does not read.
func (s *session) dismiss(reason cluster.StreamEvent) {
	s.goodbye(reason)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing == nil {
		s.closing = time.AfterFunc(goodbyeTimeout, s.abort)
	}
}

// replaced ends the stream because the peer has dialled again: the same
// process lost it, or a new one started and the end of the old was not seen.
func (s *session) replaced(by Hello) {
	if by.Incarnation == s.hello.Incarnation && by.Boot == s.hello.Boot {
		s.end(s.farewell(cluster.GoodbyeRekey))
	} else {
		s.end(s.reset(errReplaced))
	}
	s.abort()
}

var errReplaced = errors.New("a newer start of the node has dialled")

// maxQueued bounds the frames that wait for a sender. Batches wait one at a
// time (Ready); the rest is small and rare.
const maxQueued = 4096

// An item is a frame of the event machine, encoded when it is sent, or one of
// the stream's own.
type item struct {
	frame event.Frame
	raw   *belfryv1.PeerFrame
}

// A queue hands items to one sender. Safe for concurrent use.
type queue struct {
	mu     sync.Mutex
	some   *sync.Cond
	items  []item
	closed bool // nothing is taken any more
	last   bool // nothing is put any more
}

func newQueue() *queue {
	q := new(queue)
	q.some = sync.NewCond(&q.mu)
	return q
}

func (q *queue) put(i item) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed || q.last:
		return errNoStream
	case len(q.items) >= maxQueued:
		return fmt.Errorf("%w: %d frames wait for this peer, which does not read", belfry.ErrLimit, maxQueued)
	}
	q.items = append(q.items, i)
	q.some.Signal()
	return nil
}

// finish puts the last item.
func (q *queue) finish(i item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.last {
		q.last = true
		q.items = append(q.items, i)
		q.some.Signal()
	}
}

// take waits for an item; false when the queue is closed.
func (q *queue) take() (item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.some.Wait()
	}
	if q.closed {
		return item{}, false
	}
	i := q.items[0]
	q.items[0] = item{}
	if q.items = q.items[1:]; len(q.items) == 0 {
		q.items = nil
	}
	return i, true
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Signal()
}

package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	// maxServing bounds a peer's calls under way here, callTimeout each.
	maxServing  = 8
	callTimeout = 5 * time.Second
)

// calls are the questions under way on one session, in both directions. Safe
// for concurrent use.
type calls struct {
	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan *belfryv1.PeerReply
	serving int
}

func newCalls() *calls { return &calls{pending: map[uint64]chan *belfryv1.PeerReply{}} }

// call asks and waits for the reply, for ctx, or for the end of the session.
func (c *calls) call(ctx context.Context, s *session, method string, request []byte) ([]byte, error) {
	replied := make(chan *belfryv1.PeerReply, 1)
	c.mu.Lock()
	c.next++
	id := c.next
	c.pending[id] = replied
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
	}()

	err := s.queue.put(item{raw: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Call{
		Call: &belfryv1.PeerCall{Id: id, Method: method, Request: request},
	}}})
	if err != nil {
		return nil, err
	}
	select {
	case r := <-replied:
		if r.Refusal != nil {
			return nil, errorOf(r.Refusal)
		}
		return r.Response, nil
	case <-s.done:
		return nil, errNoStream
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reply hands a reply to who asked; one that nobody waits for is dropped.
func (c *calls) reply(r *belfryv1.PeerReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if replied := c.pending[r.GetId()]; replied != nil {
		replied <- r // has room: the id goes with the first reply
		delete(c.pending, r.GetId())
	}
}

// begin counts a peer's call; false when there are too many.
func (c *calls) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serving >= maxServing {
		return false
	}
	c.serving++
	return true
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving--
}

// serveCall answers a peer's call on a goroutine of its own, so that what it
// waits for does not hold up the frames behind it.
func (s *Streams) serveCall(from *session, call *belfryv1.PeerCall) {
	answer := func(response []byte, err error) {
		if err == nil && len(response) > maxMessage-2*overhead {
			response, err = nil, fmt.Errorf("%w: the answer is larger than a message; ask for smaller pages", belfry.ErrLimit)
		}
		reply := &belfryv1.PeerReply{Id: call.GetId(), Response: response}
		if err != nil {
			reply.Refusal = refusalOf(err)
		}
		err = from.queue.put(item{raw: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_Reply{Reply: reply}}})
		if err != nil && !errors.Is(err, errNoStream) {
			from.remote.log.Warn("reply is not sent", "err", err)
		}
	}
	if s.cfg.Serve == nil {
		answer(nil, fmt.Errorf("%w: this node answers no calls of others", belfry.ErrUnsupported))
		return
	}
	if !from.calls.begin() {
		answer(nil, fmt.Errorf("%w: %d calls of this peer are under way; wait for one to end", belfry.ErrRestricted, maxServing))
		return
	}
	s.group.Go(func() {
		defer from.calls.end()
		ctx, cancel := context.WithTimeout(s.running, callTimeout)
		defer cancel()
		answer(s.cfg.Serve(ctx, from.remote.id, call.GetMethod(), call.GetRequest()))
	})
}

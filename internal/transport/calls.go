package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

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
	pending map[uint64]chan *belfryv1.ListEntriesReply
	serving int
}

func newCalls() *calls { return &calls{pending: map[uint64]chan *belfryv1.ListEntriesReply{}} }

// call asks and waits for the reply, for ctx, or for the end of the session.
func (c *calls) call(ctx context.Context, s *session, req *belfryv1.ListEntriesRequest) (*belfryv1.ListEntriesResponse, error) {
	replied := make(chan *belfryv1.ListEntriesReply, 1)
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

	err := s.queue.put(item{raw: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_ListEntries{
		ListEntries: &belfryv1.ListEntriesCall{Id: id, Request: req},
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
func (c *calls) reply(r *belfryv1.ListEntriesReply) {
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
func (s *Streams) serveCall(from *session, call *belfryv1.ListEntriesCall) {
	answer := func(resp *belfryv1.ListEntriesResponse, err error) {
		if err == nil && proto.Size(resp) > maxMessage-2*overhead {
			resp, err = nil, fmt.Errorf("%w: the answer is larger than a message; ask for smaller pages", belfry.ErrLimit)
		}
		reply := &belfryv1.ListEntriesReply{Id: call.GetId(), Response: resp}
		if err != nil {
			reply.Refusal = refusalOf(err)
		}
		err = from.queue.put(item{raw: &belfryv1.PeerFrame{Kind: &belfryv1.PeerFrame_ListEntriesReply{ListEntriesReply: reply}}})
		if err != nil && !errors.Is(err, errNoStream) {
			from.remote.log.Warn("reply is not sent", "err", err)
		}
	}
	if s.cfg.Entries == nil {
		answer(nil, fmt.Errorf("%w: this node does not list its entries to others", belfry.ErrUnsupported))
		return
	}
	if !from.calls.begin() {
		answer(nil, fmt.Errorf("%w: %d calls of this peer are under way; wait for one to end", belfry.ErrLimit, maxServing))
		return
	}
	s.group.Go(func() {
		defer from.calls.end()
		ctx, cancel := context.WithTimeout(s.running, callTimeout)
		defer cancel()
		answer(s.cfg.Entries(ctx, call.GetRequest()))
	})
}

package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
)

// A token names a consumer to whoever lost its stream. It is a secret between
// the agent and that client, and works for the same subject only.
type token [16]byte

// A held consumer outlives its stream for a while, so that a client that comes
// back finds its registrations, queues and unacknowledged batches in place
// (events.md 5).
type held struct {
	Consumer
	token   token
	subject Subject

	skips Skips  // of registrations that began in the past; of the stream that has it now
	acked uint64 // batch; of the stream that has it now
	owner uint64 // number of the stream that has it now, or had it last

	// Of the stream that has it now; nil while nobody has.
	cancel   context.CancelCauseFunc
	detached chan struct{}
	parts    parts
	own      *ownParts   // of all consumers
	revoked  bool        // its subject may not have it any more
	expiry   *time.Timer // while nobody has it
}

// consumers are all consumers of streams, safe for concurrent use.
type consumers struct {
	keep time.Duration // how long a consumer without a stream is kept

	mu      sync.Mutex
	byToken map[token]*held
	closed  bool

	own ownParts
}

func newConsumers(keep time.Duration) *consumers {
	return &consumers{keep: keep, byToken: map[token]*held{}}
}

// Limits on consumers, with and without a stream, so that who breaks off and
// comes anew again and again can not fill the memory.
const (
	maxConsumers       = 16384
	maxConsumersPerOne = 1024 // of one subject, unless it is a local administrator
)

// add makes a consumer and keeps it. cancel ends the stream that has it.
// ErrLimit if there are too many.
func (c *consumers) add(open func() Consumer, subject Subject, cancel context.CancelCauseFunc) (*held, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := 0
	if subject.Role < belfry.RoleAdmin {
		for _, h := range c.byToken {
			if h.subject.same(subject) {
				own++
			}
		}
	}
	if len(c.byToken) >= maxConsumers || own >= maxConsumersPerOne {
		return nil, fmt.Errorf("%w: %d streams, %d of them of %s; close some, or wait until broken ones are forgotten", belfry.ErrLimit, len(c.byToken), own, subject)
	}
	h := &held{Consumer: open(), skips: Skips{}, own: &c.own, subject: subject, cancel: cancel, detached: make(chan struct{})}
	_, _ = rand.Read(h.token[:]) // does not fail
	c.byToken[h.token] = h
	return h, nil
}

// take gives a consumer to a new stream, away from the old one if that has
// not noticed yet that it is broken. It is nil if there is none for this
// token and subject.
func (c *consumers) take(ctx context.Context, t token, subject Subject, cancel context.CancelCauseFunc) *held {
	for {
		c.mu.Lock()
		h := c.byToken[t]
		if h == nil || c.closed || !h.subject.same(subject) {
			c.mu.Unlock()
			return nil
		}
		if h.cancel == nil {
			if h.expiry != nil {
				h.expiry.Stop()
			}
			h.owner++
			h.cancel, h.detached, h.subject = cancel, make(chan struct{}), subject
			c.mu.Unlock()
			return h
		}
		h.cancel(errTaken)
		detached := h.detached
		c.mu.Unlock()
		select {
		case <-detached:
		case <-ctx.Done():
			return nil
		}
	}
}

// release is the end of a stream. A consumer that has broken off is kept for
// a while, one that said goodbye is closed.
func (c *consumers) release(h *held, broken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.cancel = nil
	close(h.detached)
	if !broken || h.revoked || c.closed || c.keep < 0 {
		c.remove(h)
		return
	}
	h.Lost()
	owner := h.owner
	h.expiry = time.AfterFunc(c.keep, func() { c.expire(h, owner) })
}

// expire removes a consumer for which nobody came back after that owner. The
// timer may have fired before somebody did, and be late with it.
func (c *consumers) expire(h *held, owner uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.owner == owner {
		c.remove(h)
	}
}

// remove is called with the lock held.
func (c *consumers) remove(h *held) {
	if c.byToken[h.token] == h {
		delete(c.byToken, h.token)
		h.Close()
		for number := range h.parts.all() {
			h.forget(number)
		}
	}
}

// closeAll ends all of them, for good.
func (c *consumers) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, h := range c.byToken {
		if h.expiry != nil {
			h.expiry.Stop()
		}
		if h.cancel != nil {
			h.cancel(errTaken) // its stream will release it
			continue
		}
		c.remove(h)
	}
}

package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// A remote is one listed peer, with its stream while there is one. Safe for
// concurrent use.
type remote struct {
	streams *Streams
	id      belfry.NodeID
	log     *slog.Logger

	wake        chan struct{} // one token: dial now
	stopDialing context.CancelFunc

	// installing makes the end of one session come before the Up of the next.
	installing sync.Mutex

	mu          sync.Mutex
	addrs       []netip.AddrPort
	current     *session // nil: none
	incarnation belfry.Incarnation
	gone        time.Time // since when there is no stream; zero: there is one
	trouble     string    // why the last attempt failed
	others      int       // times that another agent of the identity has asked, since firstOther
	firstOther  time.Time
	toldOther   time.Time
	left        bool // the peer was dropped, or the agent stops
	silent      bool // the end of the session is not delivered: the agent stops
}

func newRemote(s *Streams, id belfry.NodeID) *remote {
	return &remote{
		streams: s, id: id, log: s.log.With("peer", id),
		wake: make(chan struct{}, 1), gone: time.Now(),
	}
}

func (r *remote) setAddrs(addrs []netip.AddrPort) {
	r.mu.Lock()
	changed := !slices.Equal(r.addrs, addrs)
	r.addrs = slices.Clone(addrs)
	r.mu.Unlock()
	if changed {
		r.poke()
	}
}

// troubled notes why an attempt failed.
func (r *remote) troubled(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == nil {
		r.trouble = err.Error()
	}
}

// A second agent of an identity asks again and again. One that asks once may be
// the end of a process that is gone.
const (
	anotherAsks  = 3
	anotherFor   = 30 * time.Second
	anotherEvery = 5 * time.Second
)

// another counts what an agent asks for that is not the peer's present one.
func (r *remote) another(now time.Time) {
	r.mu.Lock()
	if now.Sub(r.firstOther) > anotherFor {
		r.firstOther, r.others = now, 0
	}
	r.others++
	tell := r.others >= anotherAsks && now.Sub(r.toldOther) >= anotherEvery && r.streams.cfg.Duplicate != nil
	if tell {
		r.toldOther = now
	}
	r.mu.Unlock()
	if tell {
		r.streams.cfg.Duplicate(r.id)
	}
}

// dials tells whether it is this node that dials: the one of the two with the
// lower id.
func (r *remote) dials() bool { return r.streams.cfg.Self.Node.Compare(r.id) < 0 }

// poke makes the dialer try at once, and whoever waits to be dialled knock soon.
func (r *remote) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *remote) session() *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

func (r *remote) send(i item) error {
	s := r.session()
	if s == nil {
		return errNoStream
	}
	return s.queue.put(i)
}

// admit judges a peer's hello. It wraps ErrStale for an older start than one
// seen before, and ErrExist for a second agent with the same identity.
func (r *remote) admit(h Hello) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.current
	switch {
	case r.left:
		return errNotListed
	case h.Incarnation < r.incarnation:
		return fmt.Errorf("%w: node %s says incarnation %d, %d was seen; its state was copied or restored; it takes a newer one by itself when no other agent runs with its identity",
			belfry.ErrStale, r.id, h.Incarnation, r.incarnation)
	case current != nil && !current.ended() && h.Incarnation == current.hello.Incarnation && h.Boot != current.hello.Boot:
		return fmt.Errorf("%w: an agent of node %s with the same incarnation is connected; one agent per identity", belfry.ErrExist, r.id)
	}
	return nil
}

// notAdmitted notes what admit found.
func (r *remote) notAdmitted(err error) {
	r.troubled(err)
	if errors.Is(err, belfry.ErrStale) || errors.Is(err, belfry.ErrExist) {
		r.another(time.Now())
	}
}

// install makes s the stream of this peer and ends the one before; the caller
// runs s next. greet, if not nil, says this node's hello when all is in order.
// What admit refuses is refused here.
func (r *remote) install(s *session, greet func() error) error {
	r.installing.Lock()
	defer r.installing.Unlock()
	if err := r.admit(s.hello); err != nil {
		r.notAdmitted(err)
		return err
	}
	if old := r.session(); old != nil {
		old.replaced(s.hello)
		<-old.done
	}
	if greet != nil {
		if err := greet(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	if r.left {
		r.mu.Unlock()
		return errNotListed
	}
	r.current, r.gone, r.trouble = s, time.Time{}, ""
	r.incarnation = max(r.incarnation, s.hello.Incarnation)
	r.mu.Unlock()
	r.deliver(Up{Peer: r.id, Hello: s.hello})
	r.deliver(Ready{Peer: r.id})
	return nil
}

var errNotListed = fmt.Errorf("%w: not listed in this node's member table", belfry.ErrNotMember)

// remove is called by a session at its end.
func (r *remote) remove(s *session, how StreamEvent) {
	r.mu.Lock()
	if r.current == s {
		r.current, r.gone = nil, time.Now()
	}
	r.mu.Unlock()
	r.deliver(how)
	if !r.dials() {
		r.poke() // knock, unless it dials
	}
}

func (r *remote) deliver(e StreamEvent) {
	r.mu.Lock()
	silent := r.silent
	r.mu.Unlock()
	if !silent {
		r.streams.cfg.Deliver(e)
	}
}

// drop ends the stream of a node that is no member any more. Its certificate
// and keys count for nothing from now on; the goodbye is a courtesy.
func (r *remote) drop() {
	r.end(false)
	if s := r.session(); s != nil {
		s.dismiss(cluster.GoodbyeRekey)
	}
}

// leave ends the stream because this agent stops.
func (r *remote) leave(reason cluster.StreamEvent) {
	r.end(true)
	if s := r.session(); s != nil {
		s.goodbye(reason)
	}
}

func (r *remote) end(silent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = silent
	r.left = true
	r.stopDialing()
}

// wait returns when the session has ended; it ends it when ctx does.
func (r *remote) wait(ctx context.Context) {
	s := r.session()
	if s == nil {
		return
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		s.abort()
		<-s.done
	}
}

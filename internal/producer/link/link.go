// Package link serves link.state, one link to a peer, and contact.state, a
// peer in general (US8824335 claim 1; cluster.md 10).
//
// It watches nothing itself. The agent hands it every change of the link
// database, in order, and it tells the agent which peers are asked for, so
// that those are watched too that are no neighbours of this node.
package link

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer"
)

// The classes of this producer.
const (
	Class   belfry.Class = "link.state"    // subject PEER/NETWORK
	Contact belfry.Class = "contact.state" // subject PEER
)

// queueLimit is how many changes wait for a producer whose messages the event
// machine does not take; beyond it the oldest go and their number is only a
// lower bound.
const queueLimit = 4096

// A key names an event of this producer.
type key struct {
	class   belfry.Class
	subject string
}

// A Producer is fed by Update, LinkChanged and ContactChanged, which never
// wait and are safe for concurrent use with each other and with Run; their
// order is the order of what they say.
type Producer struct {
	interests func(peers []string)

	mu      sync.Mutex
	states  map[key]belfry.Occurrence // as of the last call
	running bool
	queue   []item        // what Run has not seen yet; empty while it does not run
	wake    chan struct{} // capacity 1
}

// An item is either a view or a change.
type item struct {
	view    map[key]belfry.Occurrence // nil: change
	key     key
	state   belfry.Occurrence // what the change led to
	change  belfry.Occurrence
	skipped bool // changes before this one were dropped
}

// New makes a Producer that knows no link yet. It calls interests from Run
// with the names of all peers that exact registrations need, sorted, each time
// the set has changed; when that returns, Update has been called with the rows
// there are then. Nil: nobody is told.
func New(interests func(peers []string)) *Producer {
	if interests == nil {
		interests = func([]string) {}
	}
	return &Producer{interests: interests, states: map[key]belfry.Occurrence{}, wake: make(chan struct{}, 1)}
}

// Name is the folder's.
func (*Producer) Name() string { return "link" }

// Classes are link.state and contact.state.
func (*Producer) Classes() []belfry.ClassInfo {
	class := func(c belfry.Class, summary, subject, data string) belfry.ClassInfo {
		return belfry.ClassInfo{
			Class: c, Kind: belfry.State, Summary: summary, Subject: subject, Data: "belfry.v1." + data,
			Globs: true, Remote: true, Optional: true,
		}
	}
	return []belfry.ClassInfo{
		class(Class, "what this node hears of a peer on one link: init, up, degraded, one-way-in, one-way-out, down, …", "PEER/NETWORK", "LinkStateChange"),
		class(Contact, "whether any link to a peer works: up, down", "PEER", "ContactStateChange"),
	}
}

// CheckSubject refuses what is no PEER/NETWORK, or no PEER.
func (*Producer) CheckSubject(class belfry.Class, subject string) error {
	peer, network, both := strings.Cut(subject, "/")
	switch {
	case class == Class && (!both || peer == "" || network == "" || strings.Contains(network, "/")):
		return fmt.Errorf("%w: subject %q; the subject of %s is PEER/NETWORK, for example b/net1", belfry.ErrUsage, subject, class)
	case class == Contact && both:
		return fmt.Errorf("%w: subject %q; the subject of %s is the name of a node: one link of it is %s:%s", belfry.ErrUsage, subject, class, Class, subject)
	}
	return nil
}

// Update gives all links and peers there are. It brings in those that came or
// went, and new figures.
func (p *Producer) Update(v View) {
	states := make(map[key]belfry.Occurrence, len(v.Links)+len(v.Contacts))
	for _, l := range v.Links {
		states[l.key()] = l.occurrence("")
	}
	for _, c := range v.Contacts {
		states[c.key()] = c.occurrence("")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.states = states
	p.put(item{view: states})
}

// LinkChanged posts one new state of a link.
func (p *Producer) LinkChanged(s State, from belfry.LinkState) {
	p.changed(s.key(), s.occurrence(""), s.occurrence(from.String()))
}

// ContactChanged posts that a peer is heard again, or no longer, or that this is
// known for the first time.
func (p *Producer) ContactChanged(s ContactState, from belfry.LinkState) {
	p.changed(s.key(), s.occurrence(""), s.occurrence(from.String()))
}

func (p *Producer) changed(k key, state, change belfry.Occurrence) {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := maps.Clone(p.states) // Run may hold the old one
	states[k] = state
	p.states = states
	p.put(item{key: k, state: state, change: change})
}

// put is called with the lock held.
func (p *Producer) put(i item) {
	if !p.running {
		return
	}
	if n := len(p.queue); i.view != nil && n > 0 && p.queue[n-1].view != nil {
		p.queue[n-1] = i // only the newest of views in a row counts
		return
	}
	if len(p.queue) >= queueLimit {
		p.queue = p.queue[1:]
		p.queue[0].skipped = true
	}
	p.queue = append(p.queue, i)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	s := newSession(p, send)
	defer p.end()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			if r.Watch != nil {
				err = s.watch(*r.Watch)
			} else {
				delete(s.watches, r.Unwatch)
				err = s.ask()
			}
		case <-p.wake:
			err = s.apply(p.take())
		}
		if err != nil {
			return nil // ctx has ended
		}
	}
}

func (p *Producer) begin() map[key]belfry.Occurrence {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.queue = true, nil
	return p.states
}

func (p *Producer) end() {
	p.interests(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.queue = false, nil
}

func (p *Producer) take() []item {
	p.mu.Lock()
	defer p.mu.Unlock()
	items := p.queue
	p.queue = nil
	return items
}

// subjects are those of a class, sorted.
func subjects(class belfry.Class, states map[key]belfry.Occurrence) []string {
	var all []string
	for k := range states {
		if k.class == class {
			all = append(all, k.subject)
		}
	}
	slices.Sort(all)
	return all
}

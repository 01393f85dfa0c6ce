// Package license serves license.state, what products may do on this node, and
// license.clock, whether its clock counts for that.
//
// It watches nothing itself: the agent, which judges the licenses of the
// cluster's document, hands it each verdict that is another one.
package license

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// The classes of this producer. The subject of the first is a product, that of
// the second this node.
const (
	Class belfry.Class = "license.state"
	Clock belfry.Class = "license.clock"
)

// queueLimit is how many changes wait for a producer whose messages the event
// machine does not take; beyond it the oldest go and their number is only a
// lower bound.
const queueLimit = 1024

// A State is what one product may do on this node.
type State struct {
	Product    string
	From       string // the word of the state before; empty: it becomes known
	To         belfry.LicenseState
	License    string // that decides; empty: none
	Reason     string
	Until      time.Time // zero: no other state comes by time alone
	Generation uint64    // of the configuration that it follows from
	At         time.Time
}

// A change is one occurrence of a subject.
type change struct {
	class      belfry.Class
	subject    string
	occurrence belfry.Occurrence
}

// A Producer is fed by Changed, Drifted and Known, which never wait and are safe
// for concurrent use with each other and with Run.
type Producer struct {
	node  string
	state func(product string) State
	check func(product string) error

	mu      sync.Mutex
	known   []string // products that patterns find, sorted
	clock   belfry.Occurrence
	running bool
	queue   []change
	skipped bool // changes before those of the queue were dropped
	wake    chan struct{}
}

// New makes a Producer of a node that knows no product. state is how a product
// stands, also one that nobody knows; check says what is no name of one. Both
// are called from Run and must not wait.
func New(node string, state func(product string) State, check func(product string) error) *Producer {
	p := &Producer{node: node, state: state, check: check, wake: make(chan struct{}, 1)}
	p.clock = p.drift(0, time.Now())
	return p
}

// Name is the folder's.
func (*Producer) Name() string { return "license" }

// Classes are license.state and license.clock.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{
		{
			Class: Class, Kind: belfry.State, Summary: "what a product may do on a node: unlocked, grace, expired, over_capacity, revoked, locked",
			Subject: "PRODUCT", Data: "belfry.v1.LicenseState", Globs: true, Remote: true, Optional: true,
		},
		{
			Class: Clock, Kind: belfry.State, Summary: "the clock of a node is more than a day before a time that has passed, and does not count for licenses", Subject: "NODE",
			Data: "belfry.v1.LicenseClock", Globs: true, Remote: true, Optional: true,
		},
	}
}

// CheckSubject refuses what is no name of a product.
func (p *Producer) CheckSubject(class belfry.Class, subject string) error {
	if class == Clock {
		return nil
	}
	return p.check(subject)
}

// Known gives the products that the document knows, sorted.
func (p *Producer) Known(products []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Equal(p.known, products) {
		return
	}
	p.known = slices.Clone(products)
	p.ring()
}

// Changed gives a state that is another one than before.
func (p *Producer) Changed(s State) { p.put(change{Class, s.Product, p.occurrence(s)}) }

// Drifted says by how much the node's clock is before a time that has passed;
// zero: it counts again.
func (p *Producer) Drifted(behind time.Duration, at time.Time) {
	o := p.drift(behind, at)
	p.mu.Lock()
	p.clock = o
	p.mu.Unlock()
	p.put(change{Clock, p.node, o})
}

func (p *Producer) put(c change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return
	}
	if len(p.queue) >= queueLimit {
		p.queue, p.skipped = p.queue[1:], true
	}
	p.queue = append(p.queue, c)
	p.ring()
}

func (p *Producer) ring() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// occurrence has the state's number as its code. Only a product that may work
// without a warning is as it should be.
func (p *Producer) occurrence(s State) belfry.Occurrence {
	edge := belfry.EdgeFailing
	if s.To == belfry.LicenseUnlocked {
		edge = belfry.EdgeRecovered
	}
	m := &belfryv1.LicenseState{
		Node: p.node, Product: s.Product, From: s.From, To: s.To.String(), License: s.License, Reason: s.Reason, Generation: s.Generation,
	}
	if !s.Until.IsZero() {
		m.Until = s.Until.UnixNano()
	}
	return belfry.Occurrence{Time: s.At, Code: int32(s.To), Edge: edge, Data: encode(m)}
}

func (p *Producer) drift(behind time.Duration, at time.Time) belfry.Occurrence {
	o, state := belfry.Occurrence{Time: at, Edge: belfry.EdgeRecovered}, "ok"
	if behind > 0 {
		o.Code, o.Edge, state = 1, belfry.EdgeFailing, "behind"
	}
	o.Data = encode(&belfryv1.LicenseClock{Node: p.node, State: state, Behind: int64(behind)})
	return o
}

func encode(m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // a text that is not UTF-8: a broken name
		return nil
	}
	return data
}

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	s := &session{producer: p, send: send, watches: map[event.WatchID]event.Watch{}}
	p.mu.Lock()
	p.running, p.queue, p.skipped, s.known = true, nil, false, p.known
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running, p.queue = false, nil
	}()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			if r.Watch == nil {
				delete(s.watches, r.Unwatch)
			} else if _, again := s.watches[r.Watch.ID]; !again {
				err = s.watch(*r.Watch)
			}
		case <-p.wake:
			err = s.apply()
		}
		if err != nil {
			return nil // ctx has ended
		}
	}
}

// A session is one call of Run.
type session struct {
	producer *Producer
	send     producer.Send
	watches  map[event.WatchID]event.Watch
	known    []string // that patterns know of
}

func (s *session) watch(w event.Watch) error {
	p := s.producer
	switch {
	case w.Entry == 0:
		s.watches[w.ID] = w
		return s.found(w, s.subjects(w.Class))
	case w.Class == Clock && w.Subject != p.node && w.Wait:
		s.watches[w.ID] = w
		return nil // no other node ever tells here, but that is what was asked for
	case w.Class == Clock && w.Subject != p.node:
		return s.send(event.End{Entry: w.Entry, Err: fmt.Errorf("%w: %s of %q; at this node there is %s", belfry.ErrNoEvent, w.Class, w.Subject, p.node)})
	}
	if err := p.CheckSubject(w.Class, w.Subject); err != nil {
		return s.send(event.End{Entry: w.Entry, Err: err})
	}
	s.watches[w.ID] = w
	state := p.stateOf(w)
	return s.send(event.Associate{Entry: w.Entry, State: &state})
}

// stateOf is how a subject stands now.
func (p *Producer) stateOf(w event.Watch) belfry.Occurrence {
	if w.Class == Class {
		return p.occurrence(p.state(w.Subject))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clock
}

func (s *session) subjects(class belfry.Class) []string {
	if class == Clock {
		return []string{s.producer.node}
	}
	return s.known
}

// found names to a pattern what it matches.
func (s *session) found(w event.Watch, subjects []string) error {
	for _, subject := range subjects {
		if !producer.Match(w.Subject, subject) {
			continue
		}
		if err := s.send(event.Found{Watch: w.ID, Subject: subject}); err != nil {
			return err
		}
	}
	return nil
}

// apply tells what has changed since. Products come first: an entry that a pattern
// makes of one begins with its present state.
func (s *session) apply() error {
	p := s.producer
	p.mu.Lock()
	queue, skipped, known := p.queue, p.skipped, p.known
	p.queue, p.skipped = nil, false
	p.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.watches)) {
		if w := s.watches[id]; w.Entry == 0 && w.Class == Class {
			added := slices.DeleteFunc(slices.Clone(known), func(name string) bool { return slices.Contains(s.known, name) })
			if err := s.found(w, added); err != nil {
				return err
			}
		}
	}
	s.known = known
	for _, c := range queue {
		c.occurrence.LowerBound = skipped
		for _, id := range slices.Sorted(maps.Keys(s.watches)) {
			if w := s.watches[id]; w.Entry != 0 && w.Class == c.class && w.Subject == c.subject {
				if err := s.send(event.Post{Entry: w.Entry, Occurrence: c.occurrence}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Package resource serves resource.state: whether what clients depend on can be
// used on this node.
//
// It watches nothing itself. It tells the agent which resources are asked for,
// and the agent hands it each state that its witness machine derives.
package resource

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// Class is the one class of this producer.
const Class belfry.Class = "resource.state"

// queueLimit is how many states wait for a producer whose messages the event
// machine does not take; beyond it the oldest go and their number is only a
// lower bound.
const queueLimit = 4096

// A State is what this node says of its own instance of a resource.
type State struct {
	Resource    belfry.Resource
	State       belfry.ResourceState
	Incarnation belfry.Incarnation // of this node
	Seq         uint64             // of the changes of this resource
	At          time.Time

	skipped bool // states before this one were dropped
}

// A Producer is fed by Changed and Declare, which never wait and are safe for
// concurrent use with each other and with Run.
type Producer struct {
	asked func(name belfry.Resource, on bool)

	mu      sync.Mutex
	held    []string // names that patterns find, sorted
	running bool
	queue   []State // what Run has not seen yet
	again   bool    // held has changed
	wake    chan struct{}
}

// New makes a Producer that holds nothing. It calls asked from Run with each
// resource that somebody begins or ceases to ask for; asked must not wait.
func New(asked func(name belfry.Resource, on bool)) *Producer {
	return &Producer{asked: asked, wake: make(chan struct{}, 1)}
}

// Name is the folder's.
func (*Producer) Name() string { return "resource" }

// Classes is resource.state.
func (*Producer) Classes() []belfry.ClassInfo {
	return []belfry.ClassInfo{{
		Class:    Class,
		Kind:     belfry.State,
		Summary:  "whether what clients depend on can be used on a node: available, unavailable",
		Subject:  "KIND/SUBJECT",
		Data:     "belfry.v1.ResourceState",
		Globs:    true,
		Remote:   true,
		Optional: true,
	}}
}

// CheckSubject refuses what is no name of a resource, or not its canonical one.
func (*Producer) CheckSubject(_ belfry.Class, subject string) error {
	name, err := belfry.ParseResource(subject)
	switch {
	case err != nil:
		return err
	case string(name) != subject:
		return fmt.Errorf("%w: resource %q; its name is %s", belfry.ErrUsage, subject, name)
	case name.Kind() == belfry.KindNode:
		return fmt.Errorf("%w: %s: a node does not tell of its own death; watch node.state:%s", belfry.ErrUsage, subject, name.Subject())
	}
	return nil
}

// Declare gives the resources that this node holds.
func (p *Producer) Declare(names []belfry.Resource) {
	held := make([]string, len(names))
	for i, name := range names {
		held[i] = string(name)
	}
	slices.Sort(held)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.again = held, true
	p.ring()
}

// Changed gives one new state.
func (p *Producer) Changed(s State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return
	}
	if len(p.queue) >= queueLimit {
		p.queue = p.queue[1:]
		p.queue[0].skipped = true
	}
	p.queue = append(p.queue, s)
	p.ring()
}

func (p *Producer) ring() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run serves watches until ctx ends.
func (p *Producer) Run(ctx context.Context, requests <-chan producer.Request, send producer.Send) error {
	s := &session{producer: p, send: send, watches: map[event.WatchID]*watched{}, users: map[string]int{}}
	p.mu.Lock()
	p.running, p.queue, s.held = true, nil, p.held
	p.mu.Unlock()
	defer s.end()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			if r.Watch != nil {
				err = s.watch(*r.Watch)
			} else {
				s.unwatch(r.Unwatch)
			}
		case <-p.wake:
			err = s.apply(p.take())
		}
		if err != nil {
			return nil // ctx has ended
		}
	}
}

func (p *Producer) take() (states []State, held []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	states = p.queue
	p.queue = nil
	if p.again {
		p.again, held = false, p.held
	}
	return states, held
}

// A session is one call of Run.
type session struct {
	producer *Producer
	send     producer.Send
	watches  map[event.WatchID]*watched
	users    map[string]int   // watches of each subject
	held     []string         // that patterns know of
	last     map[string]State // of what is watched
}

type watched struct {
	event.Watch
	known bool // it has an identifier
}

func (s *session) end() {
	s.producer.mu.Lock()
	s.producer.running, s.producer.queue = false, nil
	s.producer.mu.Unlock()
	for _, subject := range slices.Sorted(maps.Keys(s.users)) {
		s.producer.asked(belfry.Resource(subject), false)
	}
}

func (s *session) watch(w event.Watch) error {
	if s.watches[w.ID] != nil {
		return nil // a change: there is nothing in a Watch that matters here
	}
	s.watches[w.ID] = &watched{Watch: w}
	if w.Entry == 0 {
		return s.found(w, s.held)
	}
	if err := s.producer.CheckSubject(w.Class, w.Subject); err != nil {
		delete(s.watches, w.ID)
		return s.send(event.End{Entry: w.Entry, Err: err})
	}
	if !w.Wait && !slices.Contains(s.held, w.Subject) && !strings.HasPrefix(w.Subject, belfry.KindAddress+"/") {
		delete(s.watches, w.ID)
		return s.send(event.End{Entry: w.Entry, Err: fmt.Errorf("%w: this node holds no %s; it holds %s",
			belfry.ErrNoEvent, w.Subject, strings.Join(append(s.held, "no other"), ", "))})
	}
	if s.users[w.Subject]++; s.users[w.Subject] == 1 {
		s.producer.asked(belfry.Resource(w.Subject), true)
	}
	if state, ok := s.last[w.Subject]; ok {
		return s.tell(s.watches[w.ID], state)
	}
	return nil
}

func (s *session) unwatch(id event.WatchID) {
	w := s.watches[id]
	if w == nil {
		return
	}
	delete(s.watches, id)
	if w.Entry == 0 {
		return
	}
	if s.users[w.Subject]--; s.users[w.Subject] == 0 {
		delete(s.users, w.Subject)
		delete(s.last, w.Subject)
		s.producer.asked(belfry.Resource(w.Subject), false)
	}
}

// found names to a pattern what it matches.
func (s *session) found(w event.Watch, names []string) error {
	for _, name := range names {
		if !producer.Match(w.Subject, name) {
			continue
		}
		if err := s.send(event.Found{Watch: w.ID, Subject: name}); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) apply(states []State, held []string) error {
	if held != nil {
		added := slices.DeleteFunc(slices.Clone(held), func(name string) bool { return slices.Contains(s.held, name) })
		s.held = held
		for _, w := range s.sorted() {
			if w.Entry == 0 {
				if err := s.found(w.Watch, added); err != nil {
					return err
				}
			}
		}
	}
	for _, state := range states {
		subject := string(state.Resource)
		if s.users[subject] == 0 {
			continue
		}
		if s.last == nil {
			s.last = map[string]State{}
		}
		s.last[subject] = state
		for _, w := range s.sorted() {
			if w.Entry != 0 && w.Subject == subject {
				if err := s.tell(w, state); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// tell associates an entry with its first state and posts those that follow.
func (s *session) tell(w *watched, state State) error {
	o := occurrence(state)
	if w.known {
		return s.send(event.Post{Entry: w.Entry, Occurrence: o})
	}
	w.known = true
	return s.send(event.Associate{Entry: w.Entry, State: &o})
}

func (s *session) sorted() []*watched {
	all := make([]*watched, 0, len(s.watches))
	for _, id := range slices.Sorted(maps.Keys(s.watches)) {
		all = append(all, s.watches[id])
	}
	return all
}

// occurrence has the state's number as its code.
func occurrence(s State) belfry.Occurrence {
	edge := belfry.EdgeFailing
	if s.State == belfry.ResourceAvailable {
		edge = belfry.EdgeRecovered
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(&belfryv1.ResourceState{
		Resource: string(s.Resource), State: s.State.String(), Incarnation: uint32(s.Incarnation), Seq: s.Seq,
	})
	if err != nil { // it holds plain text and numbers only
		data = nil
	}
	return belfry.Occurrence{Time: s.At, Code: int32(s.State), Edge: edge, Data: data, LowerBound: s.skipped}
}

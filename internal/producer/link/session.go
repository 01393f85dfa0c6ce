package link

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A session is one call of Run. Its states are exactly as old as the last
// change it has posted, so that no state is given before the occurrence it
// comes from.
type session struct {
	producer *Producer
	send     producer.Send
	watches  map[event.WatchID]event.Watch
	states   map[key]belfry.Occurrence
	asked    []string // peers that the agent was told of last
}

func newSession(p *Producer, send producer.Send) *session {
	return &session{producer: p, send: send, watches: map[event.WatchID]event.Watch{}, states: p.begin()}
}

// ask tells the agent which peers are needed, if they are others than before,
// and takes the rows that it then has.
func (s *session) ask() error {
	var peers []string
	for _, w := range s.watches {
		if w.Entry != 0 {
			peer, _, _ := strings.Cut(w.Subject, "/")
			peers = append(peers, peer)
		}
	}
	slices.Sort(peers)
	peers = slices.Compact(peers)
	if slices.Equal(peers, s.asked) {
		return nil
	}
	s.asked = peers
	s.producer.interests(slices.Clone(peers))
	return s.apply(s.producer.take())
}

func (s *session) watch(w event.Watch) error {
	if _, ok := s.watches[w.ID]; ok {
		return nil // a change: there is nothing in a Watch that matters here
	}
	if w.Entry == 0 {
		s.watches[w.ID] = w
		for _, subject := range subjects(w.Class, s.states) {
			if err := s.found(w, subject); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.producer.CheckSubject(w.Class, w.Subject); err != nil { // it may come from a node that knows other forms
		return s.send(event.End{Entry: w.Entry, Err: err})
	}
	k := key{w.Class, w.Subject}
	if state, ok := s.states[k]; ok { // before asking, which may bring news of it
		if err := s.associate(w, state); err != nil {
			return err
		}
		s.watches[w.ID] = w
		return s.ask()
	}
	s.watches[w.ID] = w
	if err := s.ask(); err != nil {
		return err
	}
	if _, ok := s.states[k]; ok || w.Wait { // what came by asking is associated already
		return nil
	}
	delete(s.watches, w.ID)
	if err := s.send(event.End{Entry: w.Entry, Err: s.unknown(k)}); err != nil {
		return err
	}
	return s.ask()
}

func (s *session) unknown(k key) error {
	what, known := "link", subjects(k.class, s.states)
	if k.class == Contact {
		what = "peer"
	}
	if len(known) == 0 {
		return fmt.Errorf("%w: no %s %q; this node has none yet", belfry.ErrNoEvent, what, k.subject)
	}
	return fmt.Errorf("%w: no %s %q; watched now are %s, and any other member can be", belfry.ErrNoEvent, what, k.subject, strings.Join(known, ", "))
}

func (s *session) found(w event.Watch, subject string) error {
	if !producer.Match(w.Subject, subject) {
		return nil
	}
	return s.send(event.Found{Watch: w.ID, Subject: subject})
}

func (s *session) associate(w event.Watch, state belfry.Occurrence) error {
	return s.send(event.Associate{Entry: w.Entry, State: &state})
}

func (s *session) apply(items []item) error {
	for _, i := range items {
		var err error
		if i.view != nil {
			err = s.update(i.view)
		} else {
			err = s.change(i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// change posts one new state. A link that nobody knew begins with it.
func (s *session) change(i item) error {
	_, known := s.states[i.key]
	states := maps.Clone(s.states) // the producer's callers may hold it
	states[i.key] = i.state
	if !known {
		return s.update(states)
	}
	s.states = states
	i.change.LowerBound = i.skipped
	for _, w := range s.sorted() {
		if w.Entry == 0 || i.key != (key{w.Class, w.Subject}) {
			continue
		}
		if err := s.send(event.Post{Entry: w.Entry, Occurrence: i.change}); err != nil {
			return err
		}
	}
	return nil
}

// update takes a new set of links and peers: those that came are found, those
// that went are unknown from now on (cluster.md 10) and lose their identifier.
func (s *session) update(states map[key]belfry.Occurrence) error {
	old := s.states
	s.states = states
	for _, w := range s.sorted() {
		if err := s.refresh(w, old); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) refresh(w event.Watch, old map[key]belfry.Occurrence) error {
	if w.Entry == 0 {
		for _, subject := range subjects(w.Class, s.states) {
			if _, known := old[key{w.Class, subject}]; known {
				continue
			}
			if err := s.found(w, subject); err != nil {
				return err
			}
		}
		return nil
	}
	k := key{w.Class, w.Subject}
	state, is := s.states[k]
	before, was := old[k]
	switch {
	case is && !was:
		return s.associate(w, state)
	case was && !is:
		if err := s.send(event.Post{Entry: w.Entry, Occurrence: k.unwatched(belfry.LinkState(before.Code), time.Now())}); err != nil {
			return err
		}
		return s.send(event.Invalidate{Entry: w.Entry})
	}
	return nil
}

func (s *session) sorted() []event.Watch {
	all := make([]event.Watch, 0, len(s.watches))
	for _, id := range slices.Sorted(maps.Keys(s.watches)) {
		all = append(all, s.watches[id])
	}
	return all
}

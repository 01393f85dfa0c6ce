package adapter

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/netlink"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A session is one call of Run: what there is, and who watches it.
type session struct {
	inventory
	*producer.Following[adapter]
	netns uint64
	sys   string

	losses int       // how often the kernel lost messages
	lossy  bool      // not all was read anew since
	resync time.Time // when to try that again; zero: at once
}

// A target is a subject that is watched for one class.
type target = producer.Target[adapter]

func newSession(send producer.Send, netns uint64, sys string) *session {
	s := &session{
		inventory: inventory{byIndex: map[int]*adapter{}, byKey: map[string][]*adapter{}},
		netns:     netns, sys: sys,
	}
	s.Following = producer.NewFollowing(source{s}, producer.FollowingOptions{Send: send, Exclusive: true, EndAfter: endAfter})
	return s
}

// watch begins a watch, which may come from a node that knows other subjects.
func (s *session) watch(w event.Watch) error {
	err := checkSubject(w.Class, w.Subject)
	if w.Entry == 0 {
		err = checkPattern(w.Subject)
	}
	if err != nil {
		return s.Refuse(w, err)
	}
	return s.Watch(w)
}

// lose says that messages were lost: no count is exact any more.
func (s *session) lose() {
	s.losses++
	s.lossy = true
	s.Doubt()
}

// nextTimeout is when advance has something to do; zero: never.
func (s *session) nextTimeout() time.Time {
	next := s.NextTimeout()
	if next.IsZero() || !s.resync.IsZero() && s.resync.Before(next) {
		return s.resync
	}
	return next
}

// link takes what is so of an interface now.
func (s *session) link(now time.Time, i netlink.Interface) error {
	a := s.byIndex[i.Index]
	if a == nil {
		a = &adapter{
			Interface: i, path: devicePath(s.sys, i), state: stateOf(i), since: now, addresses: map[netlink.Address]bool{},
		}
		s.byIndex[i.Index] = a
		return s.rename(now, a, a.subjects(), added)
	}
	a.Interface = i
	if from, to := a.state, stateOf(i); from != to {
		a.state, a.since = to, now
		if err := s.tell(a, StateClass, a.stateChange(now, from, to, "")); err != nil {
			return err
		}
	}
	if keys := a.subjects(); !slices.Equal(keys, a.keys) {
		return s.rename(now, a, keys, renamed)
	}
	return nil
}

// gone takes out an interface. The kernel takes its addresses first, but may
// have lost what it said of that.
func (s *session) gone(now time.Time, index int) error {
	a := s.byIndex[index]
	if a == nil {
		return nil
	}
	for _, address := range a.sortedAddresses() {
		if err := s.address(now, address, false); err != nil {
			return err
		}
	}
	delete(s.byIndex, index)
	return s.rename(now, a, nil, removed)
}

// address takes what is so of an address now. One that can not be used counts
// for nothing.
func (s *session) address(now time.Time, address netlink.Address, there bool) error {
	a := s.byIndex[address.Index]
	there = there && address.Usable()
	address = identity(address)
	if a == nil || a.addresses[address] == there {
		return nil
	}
	if there {
		a.addresses[address] = true
		return s.tell(a, AddressAddedClass, a.addressChange(now, address))
	}
	delete(a.addresses, address)
	return s.tell(a, AddressRemovedClass, a.addressChange(now, address))
}

// tell posts an occurrence to all targets of a class that hold the interface.
func (s *session) tell(a *adapter, class belfry.Class, o belfry.Occurrence) error {
	for _, key := range a.keys {
		for _, t := range s.At(key) {
			if t.Class != class || t.Held != a {
				continue
			}
			if err := s.Post(t, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// rename gives an interface the subjects that name it now, and the targets of
// all these what they name now. An identifier is taken away everywhere before it
// is given anywhere.
func (s *session) rename(now time.Time, a *adapter, keys []string, why what) error {
	before := a.keys
	concerned := s.rekey(a, keys)
	for _, key := range keys {
		if slices.Contains(before, key) {
			continue
		}
		if err := s.Discover(key); err != nil {
			return err
		}
	}
	for _, key := range concerned {
		for _, t := range s.At(key) {
			if t.Held == nil || t.Held.has(key) {
				continue
			}
			if err := s.end(now, t, why.of(key)); err != nil {
				return err
			}
		}
	}
	for _, key := range concerned {
		next := s.find(key)
		if next == nil {
			continue
		}
		because := turned
		if next == a {
			because = why.of(key)
		}
		for _, t := range s.At(key) {
			if t.Held != nil {
				continue
			}
			if err := s.begin(now, t, next, because); err != nil {
				return err
			}
		}
	}
	return nil
}

// end says the last of an interface that the subject does not name any more,
// and then that it has gone.
func (s *session) end(now time.Time, t *target, why what) error {
	var err error
	switch t.Class {
	case StateClass:
		err = s.Post(t, t.Held.stateChange(now, t.Held.state, absent, why))
	case RemovedClass:
		err = s.Post(t, t.Held.change(now, why))
	}
	if err != nil {
		return err
	}
	return s.Release(now, t)
}

// begin holds what comes to be while it is watched: that is an occurrence, but
// for an interface that has been there and only got the subject.
func (s *session) begin(now time.Time, t *target, a *adapter, why what) error {
	if err := s.Hold(t, a); err != nil {
		return err
	}
	switch {
	case t.Class == StateClass:
		return s.Post(t, a.stateChange(now, absent, a.state, why))
	case t.Class == AddedClass && why != turned:
		return s.Post(t, a.change(now, why))
	}
	return nil
}

// A source answers for a session what its Following asks.
type source struct{ s *session }

func (source) Kind(subject string) string        { return kindOf(subject) }
func (src source) Subjects(kind string) []string { return src.s.listed(kind) }
func (src source) Find(subject string) *adapter  { return src.s.find(subject) }

// Absent says what there is instead.
func (src source) Absent(subject string) error {
	there := src.s.listed(kindOf(subject))
	const most = 8
	if len(there) > most {
		there = append(there[:most:most], "…")
	}
	if len(there) == 0 {
		return fmt.Errorf("%w: no interface %s; wait for it (--wait)", belfry.ErrNoEvent, subject)
	}
	return fmt.Errorf("%w: no interface %s; there are %s: name one, or wait for it (--wait)", belfry.ErrNoEvent, subject, strings.Join(there, ", "))
}

// Instance is INDEX@NAMESPACE.
func (src source) Instance(held *adapter) string {
	return fmt.Sprintf("%d@%d", held.Index, src.s.netns)
}

func (source) State(class belfry.Class, _ string, held *adapter) *belfry.Occurrence {
	if class != StateClass {
		return nil
	}
	state := held.stateChange(held.since, unknown, held.state, "")
	return &state
}

package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A session is one call of Run.
type session struct {
	tree     *tree
	send     producer.Send
	targets  map[event.WatchID]*target
	patterns map[event.WatchID]*pattern
	read     time.Time // when all targets are read next
	search   time.Time // when keys are looked for next
}

// A target is the watch of one key.
type target struct {
	watch event.Watch
	key   key
	found bool // a pattern found it: it ends when it is gone
	there bool
	value string // as it was read last
}

// A pattern is the watch of all keys that fit.
type pattern struct {
	watch event.Watch
	found map[string]bool // subjects
}

func newSession(root string, send producer.Send) *session {
	return &session{tree: &tree{root: root}, send: send, targets: map[event.WatchID]*target{}, patterns: map[event.WatchID]*pattern{}}
}

func (s *session) watch(now time.Time, w event.Watch) error {
	if len(s.targets) == 0 {
		s.read = now.Add(readEvery)
	}
	if t := s.targets[w.ID]; t != nil {
		t.watch = w
		return nil
	}
	if s.patterns[w.ID] != nil {
		return nil
	}
	if w.Entry == 0 {
		if len(s.patterns) == 0 {
			s.search = now.Add(searchEvery)
		}
		p := &pattern{watch: w, found: map[string]bool{}}
		s.patterns[w.ID] = p
		return s.find(p)
	}
	k, err := parseKey(w.Subject)
	if err != nil {
		return s.send(event.End{Entry: w.Entry, Err: err})
	}
	t := &target{watch: w, key: k}
	for _, p := range s.patterns {
		t.found = t.found || p.found[w.Subject]
	}
	s.targets[w.ID] = t
	return s.begin(t, true)
}

func (s *session) unwatch(id event.WatchID) {
	delete(s.targets, id)
	delete(s.patterns, id)
}

// begin learns the value that the first change is from. What was there once is
// waited for.
func (s *session) begin(t *target, first bool) error {
	err := s.tree.check(t.key.path)
	if err == nil {
		var value []byte
		value, err = s.tree.read(t.key.path)
		t.value, err = string(value), unreadable(t.key.path, err)
	}
	switch {
	case err == nil:
		t.there = true
		return s.send(event.Associate{Entry: t.watch.Entry})
	case !first, errors.Is(err, belfry.ErrNoEvent) && t.watch.Wait:
		return nil
	}
	delete(s.targets, t.watch.ID)
	return s.send(event.End{Entry: t.watch.Entry, Err: err})
}

// unreadable says of an error why the key can't be watched.
func unreadable(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case gone(err):
		return fmt.Errorf("%w: the key %s has gone this moment; wait for it (--wait)", belfry.ErrNoEvent, dotted(path))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s: %w; let the agent read it", belfry.ErrPermission, dotted(path), err)
	}
	return fmt.Errorf("%w: %s: %w; watch a key that has a value", belfry.ErrUnsupported, dotted(path), err)
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

// find tells the keys that fit, each once as long as it is there.
func (s *session) find(p *pattern) error {
	slash := hasSlashes(p.watch.Subject)
	there := map[string]bool{}
	dir, ok := base(p.watch.Subject)
	if !ok {
		return nil // nothing is ever called so
	}
	err := s.tree.settings(dir, func(path string) error {
		subject := in(path, slash)
		if !producer.Match(p.watch.Subject, subject) {
			return nil
		}
		if len(there) == maxKeys {
			return fmt.Errorf("%w: %s fits more than %d keys; narrow it", belfry.ErrLimit, p.watch.Subject, maxKeys)
		}
		there[subject] = true
		return nil
	})
	if err != nil {
		delete(s.patterns, p.watch.ID)
		return s.send(event.End{Watch: p.watch.ID, Err: err})
	}
	old := p.found
	p.found = there
	for _, subject := range slices.Sorted(maps.Keys(there)) {
		if old[subject] {
			continue
		}
		if err := s.send(event.Found{Watch: p.watch.ID, Subject: subject}); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) nextTimeout() (next time.Time) {
	if len(s.targets) > 0 {
		next = s.read
	}
	if len(s.patterns) > 0 && (next.IsZero() || s.search.Before(next)) {
		next = s.search
	}
	return next
}

func (s *session) advance(now time.Time) error {
	if len(s.targets) > 0 && !s.read.After(now) {
		s.read = now.Add(readEvery)
		for _, id := range slices.Sorted(maps.Keys(s.targets)) {
			if err := s.compare(now, s.targets[id]); err != nil {
				return err
			}
		}
	}
	if len(s.patterns) > 0 && !s.search.After(now) {
		s.search = now.Add(searchEvery)
		for _, id := range slices.Sorted(maps.Keys(s.patterns)) {
			if err := s.find(s.patterns[id]); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare reads one key and posts what has become of it.
func (s *session) compare(now time.Time, t *target) error {
	if !t.there {
		return s.begin(t, false)
	}
	value, err := s.tree.read(t.key.path)
	switch {
	case gone(err):
		return s.lost(t)
	case err != nil || string(value) == t.value: // an error is for this reading: some keys have no value at times
		return nil
	}
	old := t.value
	t.value = string(value)
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(&belfryv1.SysctlChange{
		Key: text(dotted(t.key.path)), Old: text(old), New: text(t.value),
	})
	if err != nil {
		return err
	}
	// Whatever it was in between is not known.
	return s.send(event.Post{Entry: t.watch.Entry, Occurrence: belfry.Occurrence{Time: now, Data: data, LowerBound: true}})
}

// lost waits for a key that is gone, unless only a pattern had found it.
func (s *session) lost(t *target) error {
	t.there = false
	if err := s.send(event.Invalidate{Entry: t.watch.Entry}); err != nil {
		return err
	}
	if !t.found || t.watch.Wait {
		return nil
	}
	delete(s.targets, t.watch.ID)
	for _, p := range s.patterns { // so that it is found again when it comes back
		delete(p.found, t.watch.Subject)
	}
	return s.send(event.End{Entry: t.watch.Entry, Err: fmt.Errorf("%w: the key %s is gone", belfry.ErrNoEvent, dotted(t.key.path))})
}

// text is a value as the data can hold it: cut, and UTF-8.
func text(s string) string { return strings.ToValidUTF8(s[:min(len(s), 1024)], "?") }

package file

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A session is one call of Run.
type session struct {
	in       *inotify
	send     producer.Send
	targets  map[event.WatchID]*target
	patterns map[event.WatchID]*pattern
	verify   time.Time // when paths are looked at again
}

// A target is the watch of one path.
type target struct {
	watch  event.Watch
	path   string // clean
	class  belfry.Class
	parent *watched
	held   *held     // nil: nothing is there
	had    bool      // something was there before: it is not refused any more
	found  bool      // a pattern found it: it ends when it is gone
	fresh  bool      // and saw it come to be
	goneAt time.Time // since when nothing is there; zero: something is, or never was
}

// held is what a target names now.
type held struct {
	meta
	watched *watched
	listed  map[string]bool // entries whose creation was told from a listing
	doubt   bool            // the next count is a lower bound
}

func newSession(in *inotify, send producer.Send) *session {
	return &session{in: in, send: send, targets: map[event.WatchID]*target{}, patterns: map[event.WatchID]*pattern{}}
}

// watch begins a watch; of one that is there already only Wait may differ.
func (s *session) watch(now time.Time, w event.Watch) error {
	if t := s.targets[w.ID]; t != nil {
		t.watch = w
		return nil
	}
	if s.patterns[w.ID] != nil {
		return nil
	}
	if err := checkSubject(w.Class, w.Subject); err != nil {
		return s.send(event.End{Entry: w.Entry, Watch: patternOnly(w), Err: err})
	}
	if w.Entry == 0 {
		return s.watchPattern(now, w)
	}
	t := &target{watch: w, path: filepath.Clean(w.Subject), class: w.Class}
	t.found, t.fresh = s.findings(t.path, t.class)
	s.targets[w.ID] = t
	s.attend(now, t)
	return s.reconcile(now, t, nothing)
}

// patternOnly is the ID of a watch without an entry: End names one of the two.
func patternOnly(w event.Watch) event.WatchID {
	if w.Entry != 0 {
		return 0
	}
	return w.ID
}

func (s *session) unwatch(id event.WatchID) {
	if t := s.targets[id]; t != nil {
		s.forget(t)
	}
	if p := s.patterns[id]; p != nil {
		s.forgetPattern(p)
	}
}

func (s *session) forget(t *target) {
	s.leave(t)
	s.letGo(t)
	delete(s.targets, t.watch.ID)
}

// attend watches the directory that holds the name. Where that fails the path
// is looked at each second instead.
func (s *session) attend(now time.Time, t *target) {
	if t.parent == nil && t.path != "/" {
		w, err := s.in.add(filepath.Dir(t.path), nameMask)
		if err == nil {
			t.parent = w
			w.addName(filepath.Base(t.path), t)
		}
	}
	if t.parent == nil && t.path != "/" {
		s.due(now.Add(searchEvery))
	} else {
		s.due(now.Add(verifyEvery))
	}
}

// due makes sure that paths are looked at again by then.
func (s *session) due(at time.Time) {
	if s.verify.IsZero() || at.Before(s.verify) {
		s.verify = at
	}
}

func (s *session) leave(t *target) {
	if t.parent != nil {
		t.parent.removeName(filepath.Base(t.path), t)
		s.in.drop(t.parent)
		t.parent = nil
	}
}

func (s *session) letGo(t *target) {
	if t.held != nil {
		delete(t.held.watched.self, t)
		s.in.drop(t.held.watched)
		t.held = nil
	}
}

// reconcile makes what is held equal to what is at the path. reason is why
// that may be something else or nothing, as far as it is known.
func (s *session) reconcile(now time.Time, t *target, reason what) error {
	m, err := look(t.path, t.class)
	if t.held != nil && err == nil && m.identity == t.held.identity && s.in.watches[t.held.watched.wd] == t.held.watched {
		return nil // told already, or nothing happened
	}
	another := false
	var before attributes
	if t.held != nil {
		another, before = err == nil, t.held.attributes
		if err := s.end(now, t, gone(t, reason, m, another)); err != nil {
			return err
		}
	}
	if err == nil {
		err = s.hold(t)
	}
	switch silent := another && reason != renamed && reason != removed; {
	case err != nil:
		return s.absent(now, t, err)
	case silent && t.class == AttributeClass:
		return s.succeed(now, t, before)
	default:
		return s.begin(now, t, silent)
	}
}

// hold watches the inode first and then looks what it is, so that nothing is
// missed in between.
func (s *session) hold(t *target) error {
	if err := supported(t.path); err != nil {
		return err
	}
	w, err := s.in.add(t.path, masks[t.class]|unix.IN_DONT_FOLLOW)
	if err != nil {
		return explain(t.path, err)
	}
	m, err := look(t.path, t.class)
	if err != nil {
		s.in.drop(w)
		return err
	}
	w.self[t] = true
	t.held = &held{meta: m, watched: w}
	return nil
}

// begin gives the entry its identifier. Something that came to be while it was
// waited for is an occurrence, unless it is the second half of a replacement.
func (s *session) begin(now time.Time, t *target, silent bool) error {
	came := (t.had || t.fresh || t.watch.Wait && !t.goneAt.IsZero()) && !silent
	t.had, t.fresh, t.goneAt = true, false, time.Time{}
	if err := s.send(event.Associate{Entry: t.watch.Entry, Instance: t.held.instance()}); err != nil {
		return err
	}
	switch {
	case came && t.class == DirClass:
		return s.list(now, t)
	case came:
		return s.post(now, t, created, "", false)
	}
	return nil
}

// end tells what became of what was held and takes the identifier away.
func (s *session) end(now time.Time, t *target, reason what) error {
	if err := s.post(now, t, reason, "", t.class == DirClass); err != nil {
		return err
	}
	instance := t.held.instance()
	s.letGo(t)
	return s.send(event.Invalidate{Entry: t.watch.Entry, Instance: instance})
}

// absent ends a watch that does not wait. One that has been there goes on.
func (s *session) absent(now time.Time, t *target, why error) error {
	if t.goneAt.IsZero() {
		t.goneAt = now
	}
	s.attend(now, t)
	if t.found {
		s.due(t.goneAt.Add(endAfter))
	}
	if t.had || t.watch.Wait && errors.Is(why, belfry.ErrNoEvent) {
		return nil
	}
	s.forget(t)
	return s.send(event.End{Entry: t.watch.Entry, Err: why})
}

// nextTimeout is when advance has something to do; zero: never.
func (s *session) nextTimeout() time.Time {
	if len(s.targets)+len(s.patterns) == 0 {
		return time.Time{}
	}
	return s.verify
}

// advance looks at every path again.
func (s *session) advance(now time.Time) error {
	if now.Before(s.verify) {
		return nil
	}
	return s.verifyAll(now, false)
}

// verifyAll looks at every path again. Trees are walked again only where
// records of them were lost or their root was.
func (s *session) verifyAll(now time.Time, walk bool) error {
	s.verify = now.Add(verifyEvery)
	for _, t := range sortedTargets(s.targets) {
		s.attend(now, t)
		if err := s.reconcile(now, t, nothing); err != nil {
			return err
		}
		if t.found && !t.watch.Wait && !t.goneAt.IsZero() && now.Sub(t.goneAt) >= endAfter {
			s.forget(t)
			if err := s.send(event.End{Entry: t.watch.Entry, Err: fmt.Errorf("%w: %s is gone", belfry.ErrNoEvent, t.path)}); err != nil {
				return err
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.patterns)) {
		p := s.patterns[id]
		if !walk && p.dirs[p.root] != nil {
			continue
		}
		if err := s.rescan(now, p); err != nil {
			return err
		}
	}
	return nil
}

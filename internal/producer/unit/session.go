package unit

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// endAfter is how long the entry of a unit that only a pattern found stays when
// there is no such unit any more.
const endAfter = 10 * time.Second

// A session is one call of Run: who watches what.
type session struct {
	*tracker
	following *producer.Following[unit]
	names     map[string]int // exact subjects, and how many watches have each
	watches   map[event.WatchID]event.Watch
	patterns  map[event.WatchID]string
}

func newSession(systemd *Systemd, send producer.Send) *session {
	s := &session{names: map[string]int{}, watches: map[event.WatchID]event.Watch{}, patterns: map[event.WatchID]string{}}
	s.tracker = newTracker(systemd, s)
	// Not exclusive: an alias names the same unit.
	s.following = producer.NewFollowing(source{s}, producer.FollowingOptions{Send: send, EndAfter: endAfter})
	return s
}

// nextTimeout is when advance has something to do; zero: never.
func (s *session) nextTimeout() time.Time {
	next := s.following.NextTimeout()
	if s.feed == nil && len(s.watches)+len(s.patterns) > 0 && (next.IsZero() || s.retry.Before(next)) {
		return s.retry
	}
	return next
}

func (s *session) advance(ctx context.Context, now time.Time) error {
	if len(s.watches)+len(s.patterns) > 0 {
		if err := s.connect(ctx, now); err != nil {
			return err
		}
	}
	return s.following.Advance(now)
}

// request takes a request after what systemd has said by then.
func (s *session) request(ctx context.Context, now time.Time, r producer.Request) error {
	if r.Watch == nil {
		s.unwatch(r.Unwatch)
		return nil
	}
	if err := s.hear(ctx, now); err != nil {
		return err
	}
	return s.watch(ctx, now, *r.Watch)
}

// watch begins a watch, which may come from a node that knows other subjects.
func (s *session) watch(ctx context.Context, now time.Time, w event.Watch) error {
	check := checkName
	if w.Entry == 0 {
		check = checkPattern
	}
	if err := check(w.Subject); err != nil {
		return s.following.Refuse(w, err)
	}
	if s.knows(w.ID) {
		return s.following.Watch(w)
	}
	s.note(w)
	var err error
	if w.Entry == 0 {
		err = s.wantAll(ctx, now, func(name string) bool { return producer.Match(w.Subject, name) })
	} else {
		err = s.want(ctx, now, w.Subject)
	}
	if err != nil {
		return err
	}
	if s.feed == nil && (!temporary(s.why) || !w.Wait && w.Entry != 0) {
		s.unwatch(w.ID)
		return s.following.Refuse(w, s.why)
	}
	if w.Entry != 0 && !w.Wait && s.byName[w.Subject] == nil {
		s.unwatch(w.ID)
		return s.following.Refuse(w, s.absent(w.Subject))
	}
	return s.following.Watch(w)
}

func (s *session) knows(id event.WatchID) bool {
	_, exact := s.watches[id]
	_, pattern := s.patterns[id]
	return exact || pattern
}

func (s *session) note(w event.Watch) {
	if w.Entry == 0 {
		s.patterns[w.ID] = w.Subject
		return
	}
	s.watches[w.ID] = w
	s.names[w.Subject]++
}

func (s *session) unwatch(id event.WatchID) {
	if w, ok := s.watches[id]; ok {
		delete(s.watches, id)
		if s.names[w.Subject]--; s.names[w.Subject] == 0 {
			delete(s.names, w.Subject)
		}
	}
	delete(s.patterns, id)
	s.following.Unwatch(id)
	s.prune()
}

// exact, asked and meant are what the tracker looks at.
func (s *session) exact() []string { return slices.Sorted(maps.Keys(s.names)) }

func (s *session) asked(name string) bool { return s.names[name] > 0 || len(s.following.At(name)) > 0 }

func (s *session) meant(name string) bool {
	for _, pattern := range s.patterns {
		if producer.Match(pattern, name) {
			return true
		}
	}
	return false
}

// appear takes a unit that is there. For who has waited for it that is news.
func (s *session) appear(now time.Time, u *unit) error {
	if err := s.following.Discover(u.name); err != nil {
		return err
	}
	for _, name := range u.names {
		for _, t := range s.following.At(name) {
			if t.Held != nil {
				continue
			}
			if err := s.following.Hold(t, u); err != nil {
				return err
			}
			if err := s.following.Post(t, u.occurrence(t.Subject)); err != nil {
				return err
			}
		}
	}
	return nil
}

// change takes a unit that is there and is not as it was. A start gives it
// another identifier, and is an occurrence even if the state is the same by now:
// systemd had more to say than it has said.
func (s *session) change(now time.Time, before unit, u *unit) error {
	started := before.instance() != u.instance()
	if !started && before.active == u.active {
		return nil
	}
	for _, name := range u.names {
		for _, t := range s.following.At(name) {
			if t.Held == nil {
				continue
			}
			if started {
				t.Held = &before
				if err := s.following.Release(now, t); err != nil {
					return err
				}
				if err := s.following.Hold(t, u); err != nil {
					return err
				}
			}
			if err := s.following.Post(t, u.occurrence(t.Subject)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) vanish(now time.Time, u *unit) error {
	for _, name := range u.names {
		for _, t := range s.following.At(name) {
			if t.Held == nil {
				continue
			}
			if err := s.following.Release(now, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// A source answers for a session what its Following asks.
type source struct{ s *session }

func (source) Kind(string) string { return "" }

// Subjects are the names of units, without aliases: a pattern finds each once.
func (src source) Subjects(string) (all []string) {
	for _, u := range src.s.byPath {
		all = append(all, u.name)
	}
	slices.Sort(all)
	return all
}

func (src source) Find(name string) *unit   { return src.s.byName[name] }
func (src source) Absent(name string) error { return src.s.absent(name) }
func (source) Instance(u *unit) string      { return u.instance() }

func (source) State(_ belfry.Class, name string, u *unit) *belfry.Occurrence {
	state := u.occurrence(name)
	state.LowerBound = false // it is so
	return &state
}

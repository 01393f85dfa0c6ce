package producer

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
)

// A Source is what a Following asks a producer whose subjects name objects that
// come and go: there may be several subjects for one object, and another object
// for a subject than before.
type Source[T any] interface {
	// Kind is which kind of subject it is. A pattern means the subjects of its
	// own kind.
	Kind(subject string) string

	// Subjects are those of a kind that name something now, sorted.
	Subjects(kind string) []string

	// Find is the object that a subject names now; nil: none.
	Find(subject string) *T

	// Absent says why an entry can not begin for which Find has nothing. It
	// wraps ErrNoEvent.
	Absent(subject string) error

	// Instance is the identifier of an object, until it goes.
	Instance(object *T) string

	// State is the present state of an object, as the subject names it, for a state
	// class; nil for others.
	State(class belfry.Class, subject string, object *T) *belfry.Occurrence
}

// FollowingOptions are how a Following does its work.
type FollowingOptions struct {
	Send Send

	// Exclusive: of the subjects of a kind, one names an object.
	Exclusive bool

	// EndAfter is how long a subject that only a pattern found is kept when its
	// object has gone.
	EndAfter time.Duration
}

// A Target is a subject that is watched for one class.
type Target[T any] struct {
	Class   belfry.Class
	Subject string
	Held    *T // that the subject names, by Hold and Release; nil: nothing is there

	watch  event.WatchID
	entry  event.EntryID // zero: a pattern has found it, and the event machine has not asked for it yet
	wait   bool
	doubt  bool      // the next count is a lower bound
	found  bool      // by a pattern: it ends some time after the object has gone
	goneAt time.Time // since when nothing is there

	// What there is to say of it until the machine has asked, so that an object
	// that goes again at once is counted as well.
	backlog []event.Message
	overrun bool // there was more than backlogLimit
}

const backlogLimit = 256

// A Following keeps the targets of one call of Run and says of them what the
// event machine expects, in order: it knows nothing of what objects are. Not
// safe for concurrent use.
type Following[T any] struct {
	source Source[T]
	opts   FollowingOptions

	targets   map[event.WatchID]*Target[T] // those that have an entry
	bySubject map[string][]*Target[T]      // all
	absent    map[*Target[T]]bool          // those that a pattern found and whose object has gone
	patterns  map[event.WatchID]event.Watch
	doubtful  bool
}

// NewFollowing makes one without a target.
func NewFollowing[T any](source Source[T], opts FollowingOptions) *Following[T] {
	return &Following[T]{
		source: source, opts: opts,
		targets: map[event.WatchID]*Target[T]{}, bySubject: map[string][]*Target[T]{},
		absent: map[*Target[T]]bool{}, patterns: map[event.WatchID]event.Watch{},
	}
}

// At are the targets of a subject. The result is valid until the next call.
func (f *Following[T]) At(subject string) []*Target[T] { return f.bySubject[subject] }

// Refuse ends a watch that can not be.
func (f *Following[T]) Refuse(w event.Watch, why error) error {
	if w.Entry != 0 {
		return f.opts.Send(event.End{Entry: w.Entry, Err: why})
	}
	return f.opts.Send(event.End{Watch: w.ID, Err: why})
}

// Watch begins a watch of a subject or pattern that can be; of one that is there
// already only Wait may differ.
func (f *Following[T]) Watch(w event.Watch) error {
	if t := f.targets[w.ID]; t != nil {
		t.wait = w.Wait
		return nil
	}
	if w.Entry == 0 {
		return f.pattern(w)
	}
	if t := f.waiting(w.Class, w.Subject); t != nil {
		return f.adopt(t, w)
	}
	object := f.source.Find(w.Subject)
	if object == nil && !w.Wait {
		return f.Refuse(w, f.source.Absent(w.Subject))
	}
	t := &Target[T]{Class: w.Class, Subject: w.Subject, watch: w.ID, entry: w.Entry, wait: w.Wait}
	t.found = f.isFound(t)
	f.targets[w.ID] = t
	f.bySubject[t.Subject] = append(f.bySubject[t.Subject], t)
	if object == nil {
		return nil
	}
	return f.Hold(t, object)
}

// waiting is the target of a subject that the machine has not asked for yet.
func (f *Following[T]) waiting(class belfry.Class, subject string) *Target[T] {
	for _, t := range f.bySubject[subject] {
		if t.Class == class && t.entry == 0 {
			return t
		}
	}
	return nil
}

// pattern tells of all subjects that there are and match.
func (f *Following[T]) pattern(w event.Watch) error {
	if _, known := f.patterns[w.ID]; known {
		return nil
	}
	f.patterns[w.ID] = w
	for _, subject := range f.source.Subjects(f.source.Kind(w.Subject)) {
		t, err := f.find(w, subject)
		if err == nil && t != nil {
			err = f.Hold(t, f.source.Find(subject))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// find tells of a subject that a pattern means. It answers the target that keeps
// what becomes of it from now on, if there was none.
func (f *Following[T]) find(w event.Watch, subject string) (*Target[T], error) {
	if !f.means(w, subject) {
		return nil, nil
	}
	if err := f.opts.Send(event.Found{Watch: w.ID, Subject: subject}); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(f.bySubject[subject], func(t *Target[T]) bool { return t.Class == w.Class }) {
		return nil, nil
	}
	t := &Target[T]{Class: w.Class, Subject: subject, found: true, doubt: f.doubtful}
	f.bySubject[subject] = append(f.bySubject[subject], t)
	return t, nil
}

func (f *Following[T]) means(w event.Watch, subject string) bool {
	return f.source.Kind(w.Subject) == f.source.Kind(subject) && Match(w.Subject, subject)
}

// isFound tells whether a pattern means a target.
func (f *Following[T]) isFound(t *Target[T]) bool {
	for _, w := range f.patterns {
		if w.Class == t.Class && f.means(w, t.Subject) {
			return true
		}
	}
	return false
}

// Discover tells of a subject that came to be and that nobody watches yet. What
// it names is still to be held.
func (f *Following[T]) Discover(subject string) error {
	var known []belfry.Class
	for _, t := range f.bySubject[subject] {
		known = append(known, t.Class)
	}
	all := make([]event.Watch, 0, len(f.patterns))
	for _, w := range f.patterns {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b event.Watch) int { return int(a.ID) - int(b.ID) })
	for _, w := range all {
		if slices.Contains(known, w.Class) {
			continue
		}
		if _, err := f.find(w, subject); err != nil {
			return err
		}
	}
	return nil
}

// Hold says that the subject names an object, which it held nothing before.
func (f *Following[T]) Hold(t *Target[T], object *T) error {
	t.Held = object
	delete(f.absent, t)
	return f.emit(t, f.associate(t))
}

func (f *Following[T]) associate(t *Target[T]) event.Associate {
	return event.Associate{
		Entry: t.entry, Instance: f.source.Instance(t.Held), Exclusive: f.opts.Exclusive, State: f.source.State(t.Class, t.Subject, t.Held),
	}
}

// Post counts one occurrence of what the target holds.
func (f *Following[T]) Post(t *Target[T], o belfry.Occurrence) error {
	o.Event.Instance = f.source.Instance(t.Held)
	o.LowerBound, t.doubt = o.LowerBound || t.doubt, false
	return f.emit(t, event.Post{Entry: t.entry, Occurrence: o})
}

// Release says that the subject does not name what it held any more. The last
// occurrence of that was posted before.
func (f *Following[T]) Release(now time.Time, t *Target[T]) error {
	instance := f.source.Instance(t.Held)
	t.Held, t.goneAt = nil, now
	if t.found {
		f.absent[t] = true
	}
	return f.emit(t, event.Invalidate{Entry: t.entry, Instance: instance})
}

// emit says something of a target, or keeps it until the machine asks.
func (f *Following[T]) emit(t *Target[T], m event.Message) error {
	if t.entry != 0 {
		return f.opts.Send(m)
	}
	if t.overrun = t.overrun || len(t.backlog) == backlogLimit; t.overrun {
		t.backlog = nil
	} else {
		t.backlog = append(t.backlog, m)
	}
	return nil
}

// adopt gives a target that a pattern has found its entry, and says what there
// is to say of it.
func (f *Following[T]) adopt(t *Target[T], w event.Watch) error {
	t.watch, t.entry, t.wait = w.ID, w.Entry, w.Wait
	f.targets[w.ID] = t
	messages := t.backlog
	if t.overrun { // what comes next stands for all of it
		t.doubt = true
		if t.Held != nil {
			messages = []event.Message{f.associate(t)}
		}
	}
	t.backlog, t.overrun = nil, false
	if len(messages) == 0 {
		return nil
	}
	for i, m := range messages {
		messages[i] = addressed(m, t.entry)
	}
	return f.opts.Send(messages...)
}

func addressed(m event.Message, entry event.EntryID) event.Message {
	switch m := m.(type) {
	case event.Post:
		m.Entry = entry
		return m
	case event.Associate:
		m.Entry = entry
		return m
	case event.Invalidate:
		m.Entry = entry
		return m
	}
	panic(fmt.Sprintf("%T in a backlog", m))
}

// Doubt says that something may have happened that nobody saw: the next count of
// each target is a lower bound, also of those that come until Certain.
func (f *Following[T]) Doubt() {
	f.doubtful = true
	for subject := range f.bySubject {
		f.DoubtAt(subject)
	}
}

// DoubtAt is Doubt of one subject.
func (f *Following[T]) DoubtAt(subject string) {
	for _, t := range f.bySubject[subject] {
		t.doubt = true
	}
}

// Certain says that all there is is known again.
func (f *Following[T]) Certain() { f.doubtful = false }

// Unwatch ends a watch.
func (f *Following[T]) Unwatch(id event.WatchID) {
	if t := f.targets[id]; t != nil {
		f.leave(t)
	}
	if _, ok := f.patterns[id]; !ok {
		return
	}
	delete(f.patterns, id)
	for _, same := range f.bySubject {
		for _, t := range slices.Clone(same) {
			if t.entry == 0 && !f.isFound(t) {
				f.forget(t)
			}
		}
	}
}

// leave ends the watch of a target. Where a pattern means it, the machine is
// about to ask for it again.
func (f *Following[T]) leave(t *Target[T]) {
	if t.Held == nil || !f.isFound(t) || f.waiting(t.Class, t.Subject) != nil {
		f.forget(t)
		return
	}
	delete(f.targets, t.watch)
	t.watch, t.entry, t.wait, t.found = 0, 0, false, true
	t.backlog = []event.Message{f.associate(t)}
}

func (f *Following[T]) forget(t *Target[T]) {
	if t.entry != 0 {
		delete(f.targets, t.watch)
	}
	delete(f.absent, t)
	rest := slices.DeleteFunc(f.bySubject[t.Subject], func(other *Target[T]) bool { return other == t })
	if len(rest) == 0 {
		delete(f.bySubject, t.Subject)
	} else {
		f.bySubject[t.Subject] = rest
	}
}

// Idle tells whether nothing is watched.
func (f *Following[T]) Idle() bool { return len(f.bySubject)+len(f.patterns) == 0 }

// NextTimeout is when Advance has something to do; zero: never.
func (f *Following[T]) NextTimeout() (next time.Time) {
	for t := range f.absent {
		if due := t.goneAt.Add(f.opts.EndAfter); next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}

// Advance ends what only a pattern found, once it has been gone for long enough.
// Somebody who waits for the very subject keeps it.
func (f *Following[T]) Advance(now time.Time) error {
	var due []*Target[T]
	for t := range f.absent {
		if !t.goneAt.Add(f.opts.EndAfter).After(now) {
			due = append(due, t)
		}
	}
	slices.SortFunc(due, func(a, b *Target[T]) int {
		return strings.Compare(a.Subject+" "+string(a.Class), b.Subject+" "+string(b.Class))
	})
	for _, t := range due {
		delete(f.absent, t)
		if t.wait {
			continue
		}
		f.forget(t)
		if t.entry == 0 {
			continue
		}
		if err := f.opts.Send(event.End{Entry: t.entry, Err: fmt.Errorf("%w: %s is gone", belfry.ErrNoEvent, t.Subject)}); err != nil {
			return err
		}
	}
	return nil
}

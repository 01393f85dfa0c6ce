package pressure

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A session is one call of Run.
type session struct {
	proc      string
	poll      *poller // nil: there is no trigger
	send      producer.Send
	targets   map[event.WatchID]*target
	tokens    map[uint64]*target
	lastToken uint64

	root   string    // of cgroups; empty: it has not been found
	rootAt time.Time // when it was
}

// A target is the watch of one event.
type target struct {
	watch    event.Watch
	subject  subject
	source   source // nil: it is not there
	stall    *stall // the source of pressure.*; nil: there is none, or it is another
	token    uint64 // of the stall's trigger; 0: none
	instance string
	last     counts
	due      time.Time // of the next reading, or search
	value    float64   // sent last
	told     bool      // a value was sent under the present identifier and threshold
}

func newSession(proc string, send producer.Send) *session {
	return &session{proc: proc, send: send, targets: map[event.WatchID]*target{}, tokens: map[uint64]*target{}}
}

// close closes all sources beside each other: the kernel takes 10 ms to end a
// trigger.
func (s *session) close() {
	var group sync.WaitGroup
	for _, t := range s.targets {
		if t.source != nil {
			group.Go(t.source.close)
		}
	}
	group.Wait()
	if s.poll != nil {
		s.poll.close()
	}
}

// triggers are what the kernel says; nil, which is never ready, without any.
func (s *session) triggers() (<-chan []signal, <-chan error) {
	if s.poll == nil {
		return nil, nil
	}
	return s.poll.signals, s.poll.failed
}

// watch begins a watch, or changes its threshold.
func (s *session) watch(now time.Time, w event.Watch) error {
	if t := s.targets[w.ID]; t != nil {
		old := t.watch
		t.watch = w
		if t.stall == nil || w.Threshold == old.Threshold {
			return nil
		}
		return s.retune(now, t)
	}
	if w.Entry == 0 { // no class of ours takes patterns
		return s.send(event.End{Watch: w.ID, Err: belfry.ErrUnsupported})
	}
	subject, err := parseSubject(w.Class, w.Subject)
	if err != nil {
		return s.send(event.End{Entry: w.Entry, Err: err})
	}
	t := &target{watch: w, subject: subject}
	s.targets[w.ID] = t
	return s.find(now, t, true)
}

func (s *session) unwatch(id event.WatchID) {
	if t := s.targets[id]; t != nil {
		s.let(t)
		delete(s.targets, id)
	}
}

// find looks for what is to be measured. What is not there yet is waited for;
// what can't be measured is refused, unless it could be before.
func (s *session) find(now time.Time, t *target, first bool) error {
	err := s.open(t)
	switch {
	case err == nil:
		return s.send(event.Associate{Entry: t.watch.Entry, Instance: t.instance})
	case !refusal(err):
		return err
	case !first, t.watch.Wait && errors.Is(err, belfry.ErrNoEvent):
		t.due = now.Add(searchEvery)
		return nil
	}
	delete(s.targets, t.watch.ID)
	return s.send(event.End{Entry: t.watch.Entry, Err: err})
}

// refusal tells whether an error is the answer to a watch, and no failure.
func refusal(err error) bool {
	for _, sentinel := range []error{belfry.ErrNoEvent, belfry.ErrUnsupported, belfry.ErrPermission, belfry.ErrLimit} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// open opens the source of a target, and takes the counters from which the
// first value will be measured.
func (s *session) open(t *target) (err error) {
	switch t.watch.Class {
	case CPUWait:
		t.source = newCPUWait(s.proc)
	case MemoryWait:
		t.source = newMemoryWait(s.proc)
	case PagingWait:
		t.source = newPagingWait(s.proc)
	default:
		if err := s.openStall(t); err != nil {
			return err
		}
	}
	if t.last, err = t.source.read(); err != nil {
		s.let(t)
		return err
	}
	t.due = t.last.at.Add(t.window())
	return nil
}

// rootFor is how long the root of cgroups is taken to be where it was: many may
// be looked for at once.
const rootFor = 10 * time.Second

func (s *session) locate(of subject, resource string) (place, error) {
	if of.cgroup == "" {
		return ofMachine(s.proc, resource), nil
	}
	if now := time.Now(); s.root == "" || now.Sub(s.rootAt) > rootFor {
		root, err := cgroupRoot(s.proc)
		if err != nil {
			return place{}, err
		}
		s.root, s.rootAt = root, now
	}
	return ofCgroup(s.root, of, resource)
}

func (s *session) openStall(t *target) error {
	resource := strings.TrimPrefix(string(t.watch.Class), "pressure.")
	at, err := s.locate(t.subject, resource)
	if err != nil {
		return err
	}
	defer at.close()
	opened, err := openStall(at, t.subject, resource, t.watch.Threshold)
	if err != nil {
		return err
	}
	t.source, t.stall, t.instance = opened, opened, at.instance
	if !opened.trigger {
		return nil
	}
	if s.poll == nil {
		if s.poll, err = newPoller(); err != nil {
			return err
		}
	}
	s.lastToken++
	t.token = s.lastToken
	s.tokens[t.token] = t
	return s.poll.add(opened.fd, t.token)
}

// let closes the source of a target, and what waits for triggers with the last
// of them.
func (s *session) let(t *target) {
	if t.source != nil {
		t.source.close()
	}
	delete(s.tokens, t.token)
	t.source, t.stall, t.token, t.told = nil, nil, 0, false
	if s.poll != nil && len(s.tokens) == 0 {
		s.poll.close()
		s.poll = nil
	}
}

func (t *target) window() time.Duration {
	if t.stall != nil {
		return t.stall.window
	}
	return readingWindow
}

// retune puts another trigger in force: a file takes one only, so it is opened
// again. The next value is sent whatever it is.
func (s *session) retune(now time.Time, t *target) error {
	instance := t.instance
	s.let(t)
	err := s.open(t)
	switch {
	case err == nil && t.instance == instance:
		return nil
	case err != nil && !refusal(err):
		return err
	}
	if err := s.send(event.Invalidate{Entry: t.watch.Entry, Instance: instance}); err != nil {
		return err
	}
	if err == nil {
		return s.send(event.Associate{Entry: t.watch.Entry, Instance: t.instance})
	}
	t.due = now.Add(searchEvery)
	return nil
}

// lost takes the identifier away from what is gone, and looks for the next of
// its name at once: it may have been replaced.
func (s *session) lost(now time.Time, t *target) error {
	s.let(t)
	if err := s.send(event.Invalidate{Entry: t.watch.Entry, Instance: t.instance}); err != nil {
		return err
	}
	return s.find(now, t, false)
}

// signalled takes what the kernel says.
func (s *session) signalled(now time.Time, all []signal) error {
	for _, one := range all {
		t := s.tokens[one.token]
		var err error
		switch {
		case t == nil: // closed meanwhile
		case one.gone:
			err = s.lost(now, t)
		case t.stall.fire():
			err = s.reached(now, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reached tells that the threshold is reached. By how much it is passed will
// be known in a window.
func (s *session) reached(now time.Time, t *target) error {
	c, err := t.source.read()
	if err != nil {
		return s.failed(now, t, err)
	}
	_, data := t.source.value(t.last, c)
	t.last, t.due = c, c.at.Add(t.window())
	return s.sample(t, t.stall.hi, data)
}

func (s *session) failed(now time.Time, t *target, err error) error {
	if !refusal(err) {
		return err
	}
	return s.lost(now, t)
}

func (s *session) nextTimeout() (next time.Time) {
	for _, t := range s.targets {
		if !t.quiet() && (next.IsZero() || t.due.Before(next)) {
			next = t.due
		}
	}
	return next
}

func (t *target) quiet() bool { return t.stall != nil && t.stall.quiet }

func (s *session) advance(now time.Time) error {
	for _, id := range slices.Sorted(maps.Keys(s.targets)) {
		t := s.targets[id]
		var err error
		switch {
		case t.quiet() || t.due.After(now):
		case t.source == nil:
			err = s.find(now, t, false)
		default:
			err = s.measure(now, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// measure reads, and sends the value if it is another one.
func (s *session) measure(now time.Time, t *target) error {
	c, err := t.source.read()
	if err != nil {
		return s.failed(now, t, err)
	}
	old := t.last
	t.last, t.due = c, c.at.Add(t.window())
	if !c.follows(old) {
		return nil
	}
	value, data := t.source.value(old, c)
	if t.stall != nil {
		value = t.stall.judge(value)
	}
	if t.told && value == t.value {
		return nil
	}
	return s.sample(t, value, data)
}

func (s *session) sample(t *target, value float64, data proto.Message) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil {
		return err
	}
	t.value, t.told = value, true
	return s.send(event.Sample{Entry: t.watch.Entry, Time: t.last.at, Value: value, Data: b})
}

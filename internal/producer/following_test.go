package producer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
)

// A thing is what the subjects of these tests name.
type thing struct{ number int }

// things are a source: the subject is the name of one, or KIND=NAME.
type things map[string]*thing

func (things) Kind(subject string) string {
	kind, _, ok := strings.Cut(subject, "=")
	if !ok {
		return ""
	}
	return kind
}

func (s things) Subjects(kind string) (all []string) {
	for subject := range s {
		if s.Kind(subject) == kind {
			all = append(all, subject)
		}
	}
	slices.Sort(all)
	return all
}

func (s things) Find(subject string) *thing { return s[subject] }

func (things) Absent(subject string) error {
	return fmt.Errorf("%w: no %s; make one", belfry.ErrNoEvent, subject)
}

func (things) Instance(t *thing) string { return fmt.Sprint(t.number) }

func (things) State(class belfry.Class, _ string, t *thing) *belfry.Occurrence {
	if class != "thing.state" {
		return nil
	}
	return &belfry.Occurrence{Code: int32(t.number)}
}

// A follower is a Following whose messages are read.
type follower struct {
	*Following[thing]
	things
	t    *testing.T
	now  time.Time
	sent []event.Message
}

func follow(t *testing.T) *follower {
	f := &follower{things: things{}, t: t, now: time.Unix(1000, 0)}
	f.Following = NewFollowing(f.things, FollowingOptions{
		Send: func(messages ...event.Message) error {
			f.sent = append(f.sent, messages...)
			return nil
		},
		Exclusive: true, EndAfter: time.Minute,
	})
	return f
}

func (f *follower) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *follower) ask(id, entry int, class belfry.Class, subject string, wait bool) {
	f.t.Helper()
	f.must(f.Watch(event.Watch{ID: event.WatchID(id), Entry: event.EntryID(entry), Class: class, Subject: subject, Wait: wait}))
}

// comes makes a thing, which its targets then hold.
func (f *follower) comes(subject string, number int) {
	f.t.Helper()
	f.things[subject] = &thing{number}
	f.must(f.Discover(subject))
	for _, t := range f.At(subject) {
		f.must(f.Hold(t, f.things[subject]))
		f.must(f.Post(t, belfry.Occurrence{Code: 1}))
	}
}

func (f *follower) goes(subject string) {
	f.t.Helper()
	delete(f.things, subject)
	for _, t := range f.At(subject) {
		f.must(f.Post(t, belfry.Occurrence{Code: 2}))
		f.must(f.Release(f.now, t))
	}
}

func (f *follower) expect(want ...string) {
	f.t.Helper()
	var got []string
	for _, m := range f.sent {
		switch m := m.(type) {
		case event.Found:
			got = append(got, fmt.Sprintf("found %s for %d", m.Subject, m.Watch))
		case event.Associate:
			state := ""
			if m.State != nil {
				state = fmt.Sprintf(": state %d", m.State.Code)
			}
			got = append(got, fmt.Sprintf("associate %d with %s%s", m.Entry, m.Instance, state))
		case event.Post:
			bound := map[bool]string{true: "at least "}[m.Occurrence.LowerBound]
			got = append(got, fmt.Sprintf("post %d of %s: %s%d", m.Entry, m.Occurrence.Event.Instance, bound, m.Occurrence.Code))
		case event.Invalidate:
			got = append(got, fmt.Sprintf("invalidate %d from %s", m.Entry, m.Instance))
		case event.End:
			got = append(got, fmt.Sprintf("end %d/%d: %v", m.Entry, m.Watch, m.Err))
		}
	}
	f.sent = nil
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestASubjectIsFollowed(t *testing.T) {
	t.Parallel()
	f := follow(t)
	f.ask(1, 1, "thing.done", "a", false)
	f.expect("end 1/0: no such event: no a; make one")
	f.ask(2, 2, "thing.done", "a", true)
	f.expect()
	f.comes("a", 7)
	f.ask(3, 3, "thing.state", "a", false)
	f.goes("a")
	f.comes("a", 8)
	f.expect("associate 2 with 7", "post 2 of 7: 1", "associate 3 with 7: state 7",
		"post 2 of 7: 2", "invalidate 2 from 7", "post 3 of 7: 2", "invalidate 3 from 7",
		"associate 2 with 8", "post 2 of 8: 1", "associate 3 with 8: state 8", "post 3 of 8: 1")
	f.Unwatch(2)
	f.Unwatch(3)
	f.Unwatch(4) // which there is not
	if !f.Idle() {
		t.Error("something is watched after the last watch")
	}
}

// A pattern means the subjects of its kind, and an object that has gone before
// the machine has asked for it counts all the same.
func TestWhatAPatternFindsIsKeptUntilItIsAskedFor(t *testing.T) {
	t.Parallel()
	f := follow(t)
	f.comes("a1", 1)
	f.comes("slot=a", 2)
	f.ask(1, 0, "thing.done", "a*", true)
	f.ask(2, 0, "thing.done", "slot=*", true)
	f.ask(3, 0, "thing.state", "", true)
	f.expect("found a1 for 1", "found slot=a for 2", "found a1 for 3")
	f.comes("a2", 3)
	f.goes("a2")
	f.comes("a2", 4)
	f.expect("found a2 for 1", "found a2 for 3")
	f.ask(4, 4, "thing.done", "a2", false)
	f.expect("associate 4 with 3", "post 4 of 3: 1", "post 4 of 3: 2", "invalidate 4 from 3", "associate 4 with 4", "post 4 of 4: 1")
	f.Unwatch(1)
	f.Unwatch(2)
	f.Unwatch(3)
	f.goes("a2")
	f.expect("post 4 of 4: 2", "invalidate 4 from 4")
	f.Unwatch(4)
	if !f.Idle() {
		t.Error("something is watched after the last watch")
	}
}

// What is kept for a machine that never asks is bounded, and what it then gets
// says so.
func TestABacklogIsBounded(t *testing.T) {
	t.Parallel()
	f := follow(t)
	f.ask(1, 0, "thing.done", "a*", true)
	f.comes("a", 1)
	for range 1000 {
		f.must(f.Post(f.At("a")[0], belfry.Occurrence{}))
	}
	if kept := len(f.At("a")[0].backlog); kept > backlogLimit {
		t.Errorf("%d messages are kept", kept)
	}
	f.ask(2, 2, "thing.done", "a", false)
	f.must(f.Post(f.At("a")[0], belfry.Occurrence{Code: 3}))
	f.must(f.Post(f.At("a")[0], belfry.Occurrence{Code: 4}))
	f.expect("found a for 1", "associate 2 with 1", "post 2 of 1: at least 3", "post 2 of 1: 4")
}

// The machine may let go of an entry and ask for the subject again, for a pattern.
func TestNothingIsLostBetweenTwoEntries(t *testing.T) {
	t.Parallel()
	f := follow(t)
	f.comes("a", 1)
	f.ask(1, 1, "thing.done", "a", false)
	f.ask(2, 0, "thing.done", "", true)
	f.Unwatch(1)
	f.goes("a")
	f.ask(3, 3, "thing.done", "a", false)
	f.expect("associate 1 with 1", "found a for 2", "associate 3 with 1", "post 3 of 1: 2", "invalidate 3 from 1")
	f.Unwatch(3)
	f.Unwatch(2)
	if !f.Idle() {
		t.Error("something is watched after the last watch")
	}
}

func TestWhatAPatternFoundEndsWhenItIsGone(t *testing.T) {
	t.Parallel()
	f := follow(t)
	f.comes("a", 1)
	f.comes("b", 2)
	f.ask(1, 0, "thing.done", "", true)
	f.ask(2, 2, "thing.done", "a", false)
	f.ask(3, 3, "thing.done", "b", false)
	f.ask(3, 3, "thing.done", "b", true) // somebody waits for it now
	f.comes("c", 3)                      // nobody asks for it
	for _, subject := range []string{"a", "b", "c"} {
		f.goes(subject)
	}
	f.sent = nil
	if want := f.now.Add(time.Minute); f.NextTimeout() != want {
		t.Errorf("next at %v, want %v", f.NextTimeout(), want)
	}
	f.must(f.Advance(f.now.Add(time.Minute - 1)))
	f.expect()
	f.must(f.Advance(f.now.Add(time.Minute)))
	f.expect("end 2/0: no such event: a is gone")
	if len(f.At("c")) > 0 || !f.NextTimeout().IsZero() {
		t.Error("what nobody asked for is kept")
	}
	f.comes("a", 4)
	f.comes("b", 5)
	f.expect("found a for 1", "associate 3 with 5", "post 3 of 5: 1")
}

func TestDoubtIsToldOnce(t *testing.T) {
	t.Parallel()
	f := follow(t)
	f.comes("a", 1)
	f.ask(1, 1, "thing.done", "a", false)
	f.ask(2, 0, "thing.done", "b*", true)
	f.Doubt()
	f.comes("b1", 2)
	f.Certain()
	f.comes("b2", 3)
	f.ask(3, 3, "thing.done", "b1", false)
	f.ask(4, 4, "thing.done", "b2", false)
	f.goes("a")
	f.goes("b1")
	f.expect("associate 1 with 1", "found b1 for 2", "found b2 for 2",
		"associate 3 with 2", "post 3 of 2: at least 1", "associate 4 with 3", "post 4 of 3: 1",
		"post 1 of 1: at least 2", "invalidate 1 from 1", "post 3 of 2: 2", "invalidate 3 from 2")
}

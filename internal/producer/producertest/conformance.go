package producertest

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// A Fixture tells how the world of one class is moved. Subject is there when
// Run begins and after each call of Undo. A nil function or an empty subject
// leaves out the cases that need it.
type Fixture struct {
	Class     belfry.Class
	Subject   string
	Threshold belfry.Threshold // value classes

	Cause   func() // makes exactly one occurrence of Subject, or moves the value
	Undo    func() // brings Subject back to where it was, so that Cause works again
	Replace func() // gives the name to another object; Undo brings back the first state

	// Arrives: what Cause makes happens to another object than the one that the
	// subject named before, whose identifier goes first.
	Arrives bool

	Absent    string // names nothing
	Malformed string // can not be a subject of the class
	Forbidden string // is there, but not for the user of this process

	// Overflow makes more occurrences than the source keeps while the machine
	// takes no messages.
	Overflow func()

	// Rounds is how often a watch is begun and ended to find what that leaves
	// behind, where the 10,000 of zero take too long.
	Rounds int
}

// quiet is how long nothing must come before it counts as nothing.
const quiet = 150 * time.Millisecond

// Run holds a producer to what the event machine relies on (events.md 3 and 8).
// The test must not be parallel: goroutines and descriptors of the process are counted.
func Run(t *testing.T, p producer.Producer, f Fixture) {
	t.Helper()
	c := conformance{producer: p, Fixture: f, info: Class(t, p, f.Class)}
	for _, test := range []struct {
		name, why string
		needs     bool
		run       func(*testing.T)
	}{
		{
			"classes are described",
			"`belfry event types` is all that users know of a class; thresholds, patterns and data are checked by it.",
			true, c.classes,
		},
		{
			"a cause is one occurrence",
			"Sequence numbers count what a producer posts: one too many or too few is a wrong number at every consumer.",
			f.Cause != nil, c.cause,
		},
		{
			"a cause without a watch is nothing",
			"Nobody registered: nothing may run or be sent (R1).",
			f.Cause != nil, c.unwatched,
		},
		{
			"nothing runs before the first watch and after the last",
			"A producer that nobody needs costs nothing: no goroutine, no descriptor.",
			true, c.idle,
		},
		{
			"watching over and over leaves nothing behind",
			"Registrations come and go for months in an agent that never restarts.",
			true, c.leaks,
		},
		{
			"a watch that is asked for again changes nothing",
			"The machine repeats a watch to change it; an entry that is associated stays so.",
			f.Threshold.IsZero(), c.again,
		},
		{
			"a replacement is told in order",
			"The last occurrence of the old object must be out before its identifier goes, and that before the new one comes (US8984119): " +
				"the machine refuses every other order.",
			f.Replace != nil, c.replace,
		},
		{
			"what is not there is refused, or waited for",
			"Without wait the user is told at once; with it the entry is blocked until something of that name comes.",
			f.Absent != "", c.absent,
		},
		{
			"what can not be is refused even if it is waited for",
			"Nothing of that name can ever come: silence would look like patience.",
			f.Malformed != "", c.malformed,
		},
		{
			"what may not be seen is refused",
			"Silence would look like nothing happening.",
			f.Forbidden != "", c.forbidden,
		},
		{
			"an overflow makes the count a lower bound",
			"A count is exact or it says that it is not.",
			f.Overflow != nil, c.overflow,
		},
	} {
		if !test.needs {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("why this matters: %s", test.why)
				}
			})
			test.run(t)
		})
	}
}

type conformance struct {
	producer producer.Producer
	info     belfry.ClassInfo
	Fixture
}

func (c *conformance) undo() {
	if c.Undo != nil {
		c.Undo()
	}
}

// begin watches the subject until it is associated, and until its first value.
func (c *conformance) begin(t *testing.T, d *Driver) (event.Watch, event.Associate) {
	t.Helper()
	w := d.Watch(event.Watch{Class: c.Class, Subject: c.Subject, Threshold: c.Threshold})
	a := NextOf[event.Associate](d)
	if a.Entry != w.Entry {
		t.Errorf("associate of entry %d, want %d", a.Entry, w.Entry)
	}
	if (a.State != nil) != (c.info.Kind == belfry.State) {
		t.Errorf("associate carries state %v; %s is a %v class", a.State, c.Class, c.info.Kind)
	}
	if c.info.Kind == belfry.Value {
		c.check(t, NextOf[event.Sample](d).Data)
	}
	return w, a
}

func (c *conformance) classes(t *testing.T) {
	for _, info := range c.producer.Classes() {
		if info.Summary == "" || strings.ToLower(info.Summary[:1]) != info.Summary[:1] || strings.Contains(info.Summary, "\n") {
			t.Errorf("%s: summary %q, want one line in lower case", info.Class, info.Summary)
		}
		if info.Subject == "" && (info.Globs || info.Optional || c.Subject != "" && info.Class == c.Class) {
			t.Errorf("%s: no form of the subject, though it has one", info.Class)
		}
		if (info.Unit != "") != (info.Kind == belfry.Value) {
			t.Errorf("%s: unit %q of a %v class", info.Class, info.Unit, info.Kind)
		}
		if info.Optional && !info.Globs {
			t.Errorf("%s: the subject is optional, but patterns are not allowed", info.Class)
		}
		if strings.HasSuffix(string(info.Class), ".*") != info.Custom {
			t.Errorf("%s: custom is %v", info.Class, info.Custom)
		}
		if info.Data != "" {
			if _, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(info.Data)); err != nil {
				t.Errorf("%s: data: %v", info.Class, err)
			}
		}
	}
}

// check reads data as the class's message.
func (c *conformance) check(t *testing.T, data []byte) {
	t.Helper()
	if len(data) > 4096 {
		t.Errorf("data has %d bytes, want at most 4096", len(data))
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(c.info.Data))
	if err != nil {
		t.Fatal(err)
	}
	m := kind.New().Interface()
	if err := proto.Unmarshal(data, m); err != nil {
		t.Errorf("data is no %s: %v", c.info.Data, err)
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		t.Errorf("data has fields that %s does not know", c.info.Data)
	}
}

func (c *conformance) cause(t *testing.T) {
	d := Start(t, c.producer)
	_, a := c.begin(t, d)
	before := time.Now()
	c.Cause()
	if c.info.Kind == belfry.Value {
		c.check(t, NextOf[event.Sample](d).Data)
	} else {
		if c.Arrives {
			NextOf[event.Invalidate](d)
			a = NextOf[event.Associate](d)
		}
		post := NextOf[event.Post](d)
		if post.Entry != a.Entry || post.Occurrence.Event.Instance != a.Instance {
			t.Errorf("post of entry %d, instance %q; want %d, %q", post.Entry, post.Occurrence.Event.Instance, a.Entry, a.Instance)
		}
		if post.Repeat > 1 {
			t.Errorf("post stands for %d occurrences, want 1", post.Repeat)
		}
		c.check(t, post.Occurrence.Data)
		if at := post.Occurrence.Time; c.info.Kind == belfry.Happening && (at.Before(before.Add(-time.Second)) || at.After(time.Now())) {
			t.Errorf("it happened at %v, want between %v and now", at, before)
		}
	}
	for _, m := range d.During(quiet) {
		if post, ok := m.(event.Post); ok {
			t.Errorf("second occurrence %+v, want one", post)
		}
	}
	d.Stop()
	c.undo()
}

func (c *conformance) unwatched(t *testing.T) {
	d := Start(t, c.producer)
	w, _ := c.begin(t, d)
	d.Unwatch(w.ID)
	for _, m := range d.During(0) { // what was on its way
		t.Logf("after the last watch: %#v", m)
	}
	c.Cause()
	for _, m := range d.During(quiet) {
		t.Errorf("message %#v, want none", m)
	}
	d.Stop()
	c.undo()
}

func (c *conformance) idle(t *testing.T) {
	d := Start(t, c.producer) // first use opens what the runtime keeps for good
	c.begin(t, d)
	d.Stop()
	before := count(t)
	messages := make(chan event.Message, 64)
	r := producer.NewRunner(producer.RunnerOptions{
		Producers: []producer.Producer{c.producer},
		Send: func(_ context.Context, sent ...event.Message) error {
			for _, m := range sent {
				messages <- m
			}
			return nil
		},
		Failed: func(_, reason string, _ uint64) { t.Errorf("the producer failed: %s", reason) },
	})
	before.same(t, "before the first watch")
	class := belfry.Class(strings.Replace(string(c.Class), "*", "conformance", 1))
	r.Watch([]event.Watch{{ID: 1, Class: class, Subject: c.Subject, Entry: 1, Threshold: c.Threshold}})
	select {
	case <-messages:
	case <-time.After(patience):
		t.Fatal("no answer to a watch")
	}
	r.Unwatch([]event.Unwatch{{ID: 1, Class: class}})
	before.same(t, "after the last watch")
	r.Stop()
}

func (c *conformance) leaks(t *testing.T) {
	d := Start(t, c.producer)
	d.Unwatch(1) // which there is not: when it is taken, Run has begun
	before := count(t)
	rounds := c.Rounds
	if rounds == 0 {
		rounds = 10_000
	}
	if testing.Short() {
		rounds = min(rounds, 100)
	}
	for range rounds {
		w, _ := c.begin(t, d)
		d.Unwatch(w.ID)
	}
	before.same(t, "after watching over and over")
}

func (c *conformance) again(t *testing.T) {
	d := Start(t, c.producer)
	w, _ := c.begin(t, d)
	w.Wait = true
	d.Watch(w)
	for _, m := range d.During(quiet) {
		t.Errorf("message %#v, want none", m)
	}
}

func (c *conformance) replace(t *testing.T) {
	d := Start(t, c.producer)
	w, a := c.begin(t, d)
	c.Replace()
	var posts int
	m := d.Next()
	for ; ; m = d.Next() { // the last of the old object
		post, ok := m.(event.Post)
		if !ok {
			break
		}
		posts++
		if post.Occurrence.Event.Instance != a.Instance {
			t.Errorf("occurrence of %q before its identifier came; want %q", post.Occurrence.Event.Instance, a.Instance)
		}
	}
	if c.info.Kind == belfry.Happening && posts == 0 {
		t.Error("the end of the old object is no occurrence")
	}
	if i, ok := m.(event.Invalidate); !ok || i.Entry != w.Entry || i.Instance != a.Instance {
		t.Fatalf("message %#v, want Invalidate of %q", m, a.Instance)
	}
	next := NextOf[event.Associate](d)
	if next.Entry != w.Entry || next.Instance == a.Instance {
		t.Errorf("%+v, want another identifier than %q", next, a.Instance)
	}
	d.Stop()
	c.undo()
}

func (c *conformance) absent(t *testing.T) {
	d := Start(t, c.producer)
	c.refused(t, d, event.Watch{Subject: c.Absent}, belfry.ErrNoEvent)
	d.Watch(event.Watch{Class: c.Class, Subject: c.Absent, Wait: true, Threshold: c.Threshold})
	for _, m := range d.During(quiet) {
		t.Errorf("message %#v while it is waited for, want none", m)
	}
}

func (c *conformance) malformed(t *testing.T) {
	d := Start(t, c.producer)
	c.refused(t, d, event.Watch{Subject: c.Malformed}, belfry.ErrUsage)
	c.refused(t, d, event.Watch{Subject: c.Malformed, Wait: true}, belfry.ErrUsage)
}

func (c *conformance) forbidden(t *testing.T) {
	d := Start(t, c.producer)
	c.refused(t, d, event.Watch{Subject: c.Forbidden}, belfry.ErrPermission)
	c.refused(t, d, event.Watch{Subject: c.Forbidden, Wait: true}, belfry.ErrPermission)
}

func (c *conformance) refused(t *testing.T, d *Driver, w event.Watch, want error) {
	t.Helper()
	w.Class, w.Threshold = c.Class, c.Threshold
	w = d.Watch(w)
	end := NextOf[event.End](d)
	if end.Entry != w.Entry || end.Watch != 0 || !errors.Is(end.Err, want) {
		t.Errorf("%s: %+v, want entry %d and %v", w.Subject, end, w.Entry, want)
	}
	if end.Err != nil && !strings.Contains(end.Err.Error(), "; ") {
		t.Errorf("%s: error %q says what is wrong, but not what would be right", w.Subject, end.Err)
	}
}

func (c *conformance) overflow(t *testing.T) {
	d := Start(t, c.producer)
	c.begin(t, d)
	resume := d.Pause()
	c.Overflow()
	resume()
	d.Until(func(m event.Message) bool {
		post, ok := m.(event.Post)
		return ok && post.Occurrence.LowerBound
	})
	d.Stop()
	c.undo()
}

// A footprint is what a producer must give back. Watches are what its
// descriptors hold in the kernel: those of inotify and epoll (proc_pid_fdinfo(5)).
type footprint struct{ goroutines, descriptors, watches int }

func count(t *testing.T) footprint {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	f := footprint{goroutines: runtime.NumGoroutine(), descriptors: len(fds)}
	for _, fd := range fds {
		info, _ := os.ReadFile("/proc/self/fdinfo/" + fd.Name()) // the one of ReadDir itself is gone
		f.watches += strings.Count(string(info), "inotify wd:") + strings.Count(string(info), "tfd:")
	}
	return f
}

// same fails unless no more is in use than before, soon.
func (before footprint) same(t *testing.T, when string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var now footprint
	for range int(patience / (10 * time.Millisecond)) {
		now = count(t)
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors && now.watches <= before.watches {
			return
		}
		<-tick.C
	}
	t.Errorf("%s: %+v are in use, want at most %+v", when, now, before)
}

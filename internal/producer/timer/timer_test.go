package timer

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// A testClock is moved by the test. Its wall's clock shows the time of the
// runtime, so that it can be compared with that, and what was added.
type testClock struct {
	mu    sync.Mutex
	added instant // wall: the zero time and what the wall's clock was set by
	due   due
	rings chan struct{}
}

func newTestClock() *testClock {
	return &testClock{added: instant{boot: time.Hour}, rings: make(chan struct{}, 1)}
}

// producer makes one that goes by this clock.
func (c *testClock) producer() *Producer {
	return &Producer{open: func() (clock, error) { return c, nil }, zone: time.UTC}
}

func (c *testClock) now() instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown()
}

func (c *testClock) shown() instant {
	return instant{time.Now().Round(0).Add(c.added.wall.Sub(time.Time{})), c.added.boot}
}

func (c *testClock) set(d due) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = d
	c.look()
	return nil
}

// look rings if a time has come. It is called with the lock held.
func (c *testClock) look() {
	now := c.shown()
	if !c.due.wall.IsZero() && !c.due.wall.After(now.wall) || c.due.boot > 0 && c.due.boot <= now.boot {
		c.ring()
	}
}

func (c *testClock) ring() {
	select {
	case c.rings <- struct{}{}:
	default:
	}
}

// move is what happens to the clocks; a wall's clock that is set rings.
func (c *testClock) move(wall, boot time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.added = instant{c.added.wall.Add(wall), c.added.boot + boot}
	if wall != boot {
		c.ring()
	}
	c.look()
}

func (c *testClock) rung() <-chan struct{} { return c.rings }
func (*testClock) failed() <-chan error    { return nil }
func (*testClock) close()                  {}

func TestConformance(t *testing.T) { // not parallel: it counts goroutines
	c := newTestClock()
	producertest.Run(t, c.producer(), producertest.Fixture{
		Class:     Class,
		Subject:   "every=1h",
		Cause:     func() { c.move(0, time.Hour) },
		Malformed: "at=25:00",
	})
}

func TestConformanceOfTheKernelsClock(t *testing.T) { // not parallel: it counts goroutines
	producertest.Run(t, New(), producertest.Fixture{Class: Class, Subject: "every=1h", Malformed: "every=0s"})
}

func fired(t *testing.T, p event.Post) *belfryv1.TimerFire {
	t.Helper()
	var f belfryv1.TimerFire
	if err := proto.Unmarshal(p.Occurrence.Data, &f); err != nil {
		t.Fatal(err)
	}
	return &f
}

func TestWhatWasMissedComesAsOneWithItsNumber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock()
		d := producertest.Start(t, c.producer())
		every := d.Watch(event.Watch{Class: Class, Subject: "every=5m"})
		if a := producertest.NextOf[event.Associate](d); a != (event.Associate{Entry: every.Entry}) {
			t.Errorf("%+v", a)
		}
		midnight := d.Watch(event.Watch{Class: Class, Subject: "at=00:00Z"}) // a bubble begins there: tomorrow's, too
		producertest.NextOf[event.Associate](d)
		if p := producertest.NextOf[event.Post](d); p.Entry != midnight.Entry || fired(t, p).GetMissed() != 0 {
			t.Errorf("%+v", p)
		}
		d.Quiet(time.Millisecond)
		c.move(50*time.Hour+time.Minute+1500*time.Millisecond, 50*time.Hour+time.Minute+1500*time.Millisecond) // asleep
		for _, want := range []struct {
			entry  event.EntryID
			repeat uint64
			late   float64
		}{
			{every.Entry, 600, 61.5},
			{midnight.Entry, 2, 2*3600 + 61.501},
		} {
			p := producertest.NextOf[event.Post](d)
			f := fired(t, p)
			due := time.Unix(0, f.GetDue())
			if p.Entry != want.entry || p.Repeat != want.repeat || f.GetMissed() != want.repeat-1 || f.GetLateSeconds() != want.late {
				t.Errorf("entry %d, repeat %d, %v; want %+v", p.Entry, p.Repeat, f, want)
			}
			if late := p.Occurrence.Time.Sub(due).Round(time.Millisecond).Seconds(); late != want.late || p.Occurrence.LowerBound {
				t.Errorf("%s after it was due, lower bound %v; want %v, false", p.Occurrence.Time.Sub(due), p.Occurrence.LowerBound, want.late)
			}
		}
		d.Unwatch(every.ID)
		c.move(0, time.Hour)
		d.Quiet(time.Second)
	})
}

func TestAClockThatIsSetIsHeardOf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock()
		d := producertest.Start(t, c.producer())
		w := d.Watch(event.Watch{Class: Class, Subject: "at=01:00Z"})
		producertest.NextOf[event.Associate](d)
		c.move(2*time.Hour, 0)
		if p := producertest.NextOf[event.Post](d); p.Entry != w.Entry || p.Repeat != 1 || fired(t, p).GetLateSeconds() != 3600 {
			t.Errorf("%+v, %v", p, fired(t, p))
		}
		c.move(-90*time.Minute, 0)
		c.move(45*time.Minute, 45*time.Minute) // 01:15 again
		d.Quiet(time.Second)
	})
}

func TestAMomentEndsItsRegistration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTestClock()
		d := producertest.Start(t, c.producer())
		at := time.Now().Add(time.Hour)
		subject := "at=" + at.Format(time.RFC3339)
		w := d.Watch(event.Watch{Class: Class, Subject: subject, Wait: true})
		producertest.NextOf[event.Associate](d)
		d.Quiet(time.Second)
		c.move(time.Hour, time.Hour)
		if p := producertest.NextOf[event.Post](d); p.Entry != w.Entry || fired(t, p).GetDue() != at.UnixNano() {
			t.Errorf("%+v, %v", p, fired(t, p))
		}
		if e := producertest.NextOf[event.End](d); e != (event.End{Entry: w.Entry}) {
			t.Errorf("%+v", e)
		}
		for _, wait := range []bool{false, true} { // it will not come again
			w := d.Watch(event.Watch{Class: Class, Subject: subject, Wait: wait})
			e := producertest.NextOf[event.End](d)
			want := fmt.Sprintf("no such event: %s has passed; write a time that is to come", at.UTC().Format(time.RFC3339))
			if e.Entry != w.Entry || !errors.Is(e.Err, belfry.ErrNoEvent) || e.Err.Error() != want {
				t.Errorf("%+v, want %s", e, want)
			}
		}
	})
}

// The kernel's own clocks, and real time.
func TestTheKernelRings(t *testing.T) {
	t.Parallel()
	d := producertest.Start(t, New())
	begin := time.Now()
	w := d.Watch(event.Watch{Class: Class, Subject: "every=1s"})
	producertest.NextOf[event.Associate](d)
	at := begin.Add(1500 * time.Millisecond)
	once := d.Watch(event.Watch{Class: Class, Subject: "at=" + at.Format(time.RFC3339Nano)})
	producertest.NextOf[event.Associate](d)
	var seen uint64
	happened := false
	for seen < 3 || !happened {
		switch m := d.Next().(type) {
		case event.End:
			if m != (event.End{Entry: once.Entry}) || !happened {
				t.Errorf("%+v", m)
			}
		case event.Post:
			f := fired(t, m)
			after := m.Occurrence.Time.Sub(begin)
			if m.Entry == once.Entry {
				happened = true
				if f.GetDue() != at.UnixNano() || m.Occurrence.Time.Before(at) {
					t.Errorf("due %v, happened at %v, want %v", time.Unix(0, f.GetDue()), m.Occurrence.Time, at)
				}
				continue
			}
			seen += m.Repeat
			if m.Entry != w.Entry || after < time.Duration(seen)*time.Second || f.GetMissed() != m.Repeat-1 {
				t.Errorf("%d times %s after the beginning, %v", seen, after, f)
			}
		}
	}
}

// A clock that is set between the last look at it and the arming of the timer
// would not be told: here it is as if it had been.
func TestAClockThatIsSetUnseenRings(t *testing.T) {
	t.Parallel()
	k, err := openKernelClock()
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	tomorrow := due{wall: k.now().wall.Add(24 * time.Hour)}
	if err := k.set(tomorrow); err != nil {
		t.Fatal(err)
	}
	select {
	case <-k.rung():
		t.Error("a ring for nothing")
	default:
	}
	k.seen.wall = k.seen.wall.Add(-time.Hour)
	if err := k.set(tomorrow); err != nil {
		t.Fatal(err)
	}
	select {
	case <-k.rung():
	default:
		t.Error("no ring")
	}
}

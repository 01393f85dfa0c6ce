package timer

import (
	"errors"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// A world moves both clocks.
type world struct{ now instant }

func newWorld(t testing.TB, wall string) *world {
	t.Helper()
	at, err := time.Parse(time.RFC3339, wall)
	if err != nil {
		t.Fatal(err)
	}
	return &world{instant{at, 100 * time.Hour}}
}

// pass is what happens to a machine that runs or sleeps; set is somebody who
// sets its clock.
func (w *world) pass(d time.Duration) { w.now = instant{w.now.wall.Add(d), w.now.boot + d} }
func (w *world) set(d time.Duration)  { w.now.wall = w.now.wall.Add(d) }

func TestAnIntervalIsNotMovedByClocksThatAreSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "2026-11-26T12:00:00Z")
	a := &interval{every: 5 * time.Minute}
	if err := a.begin(w.now); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		pass, set time.Duration
		count     uint64
		late      time.Duration
	}{
		{pass: 4 * time.Minute},
		{pass: time.Minute, count: 1},
		{pass: 5*time.Minute + 3*time.Second, count: 1, late: 3 * time.Second},
		{pass: 4*time.Minute + 57*time.Second, count: 1}, // lateness does not add up
		{set: 1000 * time.Hour},
		{set: -2000 * time.Hour},
		{pass: 5 * time.Minute, count: 1},
		{pass: 21 * time.Minute, count: 4, late: time.Minute}, // asleep
		{pass: 4 * time.Minute, count: 1},
	} {
		w.set(step.set)
		w.pass(step.pass)
		r := a.take(w.now)
		if r.count != step.count || r.over || r.count > 0 && w.now.wall.Sub(r.newest) != step.late {
			t.Errorf("step %d: %+v at %v, want %d, %s late", i, r, w.now.wall, step.count, step.late)
		}
	}
}

func TestADailyTimeHappensOnceWhateverTheClockDoes(t *testing.T) {
	t.Parallel()
	type step struct {
		pass, set time.Duration
		count     uint64
		newest    string // if count is not 0
		why       string
	}
	w := newWorld(t, "2026-11-26T02:00:00Z")
	a := &daily{hour: 3, zone: time.UTC}
	if err := a.begin(w.now); err != nil {
		t.Fatal(err)
	}
	for i, s := range []step{
		{pass: 59 * time.Minute, why: "02:59"},
		{pass: time.Minute, count: 1, newest: "2026-11-26T03:00:00Z", why: "03:00"},
		{set: -time.Minute, why: "set back to 02:59"},
		{pass: 2 * time.Minute, why: "03:01: it has happened"},
		{pass: 24 * time.Hour, count: 1, newest: "2026-11-27T03:00:00Z", why: "the next day at 03:01"},
		{pass: 72 * time.Hour, count: 3, newest: "2026-11-30T03:00:00Z", why: "asleep for three days"},
		{pass: 23 * time.Hour, why: "02:01 of December 1"},
		{set: 2 * time.Hour, count: 1, newest: "2026-12-01T03:00:00Z", why: "set forward over it, a little: it happens now"},
		{set: -150 * time.Minute, why: "set back over it, a little, to 01:31"},
		{pass: 2 * time.Hour, why: "03:31: it has happened"},
		{set: 10 * 24 * time.Hour, why: "put right, to December 11, 03:31: the ten days were none"},
		{pass: 24 * time.Hour, count: 1, newest: "2026-12-12T03:00:00Z", why: "December 12, 03:31"},
		{set: -365 * 24 * time.Hour, why: "put right, to 2025"},
		{pass: 24 * time.Hour, count: 1, newest: "2025-12-13T03:00:00Z", why: "it counts from now on"},
		{set: -4 * time.Hour, why: "put right by four hours, to 23:31"},
		{pass: 4 * time.Hour, count: 1, newest: "2025-12-13T03:00:00Z", why: "the time that the clock shows now is right"},
	} {
		w.set(s.set)
		w.pass(s.pass)
		r := a.take(w.now)
		newest := ""
		if r.count > 0 {
			newest = r.newest.Format(time.RFC3339)
		}
		if r.count != s.count || newest != s.newest || r.over {
			t.Errorf("step %d, %s: %d, newest %q at %v; want %d, %q", i, s.why, r.count, newest, w.now.wall, s.count, s.newest)
		}
		if again := a.take(w.now); again.count != 0 {
			t.Errorf("step %d, %s: once more %+v", i, s.why, again)
		}
	}
}

func TestOneMomentHappensOnce(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC)
	w := newWorld(t, "2026-12-24T17:00:00Z")
	a := &moment{at: at}
	if err := a.begin(w.now); err != nil {
		t.Fatal(err)
	}
	w.pass(30 * time.Minute)
	w.set(-10 * time.Minute)
	if r := a.take(w.now); r.count != 0 || a.next() != (due{wall: at}) {
		t.Errorf("%+v at %v", r, w.now.wall)
	}
	w.set(100 * time.Hour) // however far: the moment has passed
	if r := a.take(w.now); r != (ring{count: 1, newest: at, over: true}) {
		t.Errorf("%+v", r)
	}
	if err := (&moment{at: at}).begin(instant{wall: at}); !errors.Is(err, belfry.ErrNoEvent) {
		t.Errorf("the present is to come: %v", err)
	}
}

// In Berlin clocks go from 02:00 to 03:00 on 2026-03-29, and from 03:00 to 02:00
// on 2026-10-25.
func TestADayWhoseClocksAreMovedHasTheTimeOnce(t *testing.T) {
	t.Parallel()
	z := zone(t)
	havana, err := time.LoadLocation("America/Havana") // from 00:00 to 01:00 on 2026-03-08
	if err != nil {
		t.Skip("needs: tzdata")
	}
	for _, test := range []struct {
		why   string
		alarm daily
		from  string
		want  []string
	}{
		{"there is no 02:30", daily{hour: 2, minute: 30, zone: z}, "2026-03-28T00:00:00Z", []string{"2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"}},
		{"there is no 02:00", daily{hour: 2, zone: z}, "2026-03-29T00:00:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		{"03:00 is as ever", daily{hour: 3, zone: z}, "2026-03-29T00:00:00Z", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T03:00:00+02:00"}},
		{"02:30 is twice", daily{hour: 2, minute: 30, zone: z}, "2026-10-24T12:00:00Z", []string{"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"}},
		{"03:00 is once", daily{hour: 3, zone: z}, "2026-10-24T12:00:00Z", []string{"2026-10-25T03:00:00+01:00", "2026-10-26T03:00:00+01:00"}},
		{"there is no 00:30", daily{minute: 30, zone: havana}, "2026-03-07T12:00:00Z", []string{"2026-03-08T01:00:00-04:00", "2026-03-09T00:30:00-04:00"}},
		{"the end of a month and year", daily{hour: 23, zone: time.UTC}, "2026-12-30T23:30:00Z", []string{"2026-12-31T23:00:00Z", "2027-01-01T23:00:00Z"}},
	} {
		at := newWorld(t, test.from).now.wall
		for _, want := range test.want {
			at = test.alarm.from(at)
			if got := at.In(test.alarm.zone).Format(time.RFC3339); got != want {
				t.Errorf("%s: %s, want %s", test.why, got, want)
			}
			at = at.Add(time.Nanosecond)
		}
	}
}

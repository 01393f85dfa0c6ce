package timer

import (
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// An instant is what two clocks show at one moment.
type instant struct {
	wall time.Time     // CLOCK_REALTIME, which can be set
	boot time.Duration // CLOCK_BOOTTIME, which can't, and goes on while the machine is suspended
}

// set is by how much the wall's clock was set since an earlier moment.
func (i instant) set(earlier instant) time.Duration {
	return i.wall.Sub(earlier.wall) - (i.boot - earlier.boot)
}

// A due is when an alarm is to be looked at: by one of the clocks. The zero
// value is never.
type due struct {
	wall time.Time
	boot time.Duration
}

// A ring is what has come due of an alarm since it was looked at.
type ring struct {
	count  uint64    // 0: nothing has
	newest time.Time // when the newest of them was to happen, by the wall's clock
	over   bool      // nothing more will come
}

// An alarm knows when it is due. It has no clock of its own.
type alarm interface {
	// begin starts it. ErrNoEvent: its time has passed.
	begin(now instant) error

	// next is when to call take. It may be called before that, and is to be as
	// soon as the wall's clock is set.
	next() due

	// take is what has come due.
	take(now instant) ring
}

// An interval is due each time that it has passed, from its beginning.
type interval struct {
	every time.Duration
	at    time.Duration // boot: the next
}

func (i *interval) begin(now instant) error {
	i.at = now.boot + i.every
	return nil
}

func (i *interval) next() due { return due{boot: i.at} }

func (i *interval) take(now instant) ring {
	if now.boot < i.at {
		return ring{}
	}
	passed := (now.boot - i.at) / i.every // beyond the one that is due
	newest := i.at + passed*i.every
	i.at = newest + i.every
	return ring{count: uint64(passed) + 1, newest: now.wall.Add(newest - now.boot)}
}

// A moment is due once.
type moment struct{ at time.Time }

func (m *moment) begin(now instant) error {
	if !m.at.After(now.wall) {
		return fmt.Errorf("%w: %s has passed; write a time that is to come", belfry.ErrNoEvent, m.at.Format(time.RFC3339))
	}
	return nil
}

func (m *moment) next() due { return due{wall: m.at} }

func (m *moment) take(now instant) ring {
	if now.wall.Before(m.at) {
		return ring{}
	}
	return ring{count: 1, newest: m.at, over: true}
}

// correction is by how much a clock must be set at once for that to count as
// putting it right: what it skips did not happen then. It is cron(8)'s rule.
const correction = 3 * time.Hour

// A daily alarm is due at a time of day.
type daily struct {
	hour, minute, second int
	zone                 *time.Location
	at                   time.Time // the next
	last                 instant   // when it was looked at
}

func (d *daily) begin(now instant) error {
	d.last, d.at = now, d.from(now.wall)
	return nil
}

func (d *daily) next() due { return due{wall: d.at} }

// take counts what the wall's clock has passed. While the machine was suspended
// both clocks went on: what was due then has been missed. If only the wall's
// clock has moved somebody has set it: a little forward, and what it skips
// happens now; a little back, and what it repeats has happened already; by
// more, and it counts from now on.
func (d *daily) take(now instant) (r ring) {
	set := now.set(d.last)
	d.last = now
	if set.Abs() >= correction {
		d.at = d.from(now.wall)
	}
	for !d.at.After(now.wall) {
		r.count, r.newest = r.count+1, d.at
		d.at = d.from(d.at.Add(time.Nanosecond))
	}
	return r
}

// from is the first time that is due at t or later.
func (d *daily) from(t time.Time) time.Time {
	year, month, day := t.In(d.zone).Date()
	for day--; ; day++ { // a time that a day has not may be moved into the next one
		if at := d.on(year, month, day); !at.Before(t) {
			return at
		}
	}
}

// on is the time of one day. A time that the day has twice, since clocks are put
// back, is the first of them. One that it has not, since they are put forward,
// is when they are.
func (d *daily) on(year int, month time.Month, day int) time.Time {
	want := time.Date(year, month, day, d.hour, d.minute, d.second, 0, time.UTC)
	at := time.Date(year, month, day, d.hour, d.minute, d.second, 0, d.zone)
	start, end := at.ZoneBounds()
	switch shown := face(at); { // time.Date takes the offset from before the change, or from after
	case shown.Before(want):
		return end
	case shown.After(want):
		return start
	case start.IsZero():
		return at
	}
	_, offset := at.Zone()
	_, earlier := start.Add(-time.Second).Zone()
	if first := at.Add(time.Duration(offset-earlier) * time.Second); first.Before(start) && face(first).Equal(want) {
		return first
	}
	return at
}

// face is what a clock on the wall shows at t, as a time that can be compared.
func face(t time.Time) time.Time {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	return time.Date(year, month, day, hour, minute, second, 0, time.UTC)
}

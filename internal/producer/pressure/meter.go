package pressure

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// Windows of a value. The kernel takes 500 ms to 10 s for a trigger, and from
// who lacks CAP_SYS_RESOURCE only multiples of 2 s, since Linux 6.4
// (Documentation/accounting/psi.rst).
const (
	closeWindow   = 500 * time.Millisecond
	lawfulWindow  = 2 * time.Second
	readingWindow = time.Second // where there is no trigger
)

// A meter decides when a source is read next.
type meter struct {
	window  time.Duration // that a value is over
	trigger bool          // the kernel says when hi is reached
	hi      float64       // of the trigger
	rearm   float64       // at this value and below, nobody's threshold is passed
	fired   bool          // it said so since the last reading
	quiet   bool          // nothing is read until it says so
}

// triggered tells whether a trigger can serve a threshold: it knows of values
// that rise to one above zero. For a lower threshold there is no way but to read.
func triggered(t belfry.Threshold) bool { return t.HasHi && t.Hi > 0 && !t.HasLo }

// newMeter makes a meter; try puts a trigger for hi percent of a window in
// force.
func newMeter(t belfry.Threshold, try func(hi float64, window time.Duration) error) meter {
	m := meter{window: readingWindow}
	if !triggered(t) {
		return m
	}
	hi := min(t.Hi, 100) // what is higher is never reached
	for _, window := range []time.Duration{closeWindow, lawfulWindow} {
		err := try(hi, window)
		if err == nil {
			return meter{window: window, trigger: true, hi: hi, rearm: t.Hi - t.Hysteresis}
		}
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return m
}

// method is how it is measured, as the data says it.
func (m *meter) method() string {
	if m.trigger {
		return "trigger"
	}
	return "reading"
}

// fire takes the kernel's word, and tells whether that is all there is to go
// by: nothing was read in the window before.
func (m *meter) fire() (alone bool) {
	alone, m.quiet, m.fired = m.quiet, false, !m.quiet
	return alone
}

// judge takes the value of the window that has passed. The kernel's window may
// lie across two of ours: what it has said counts. When all is well again it
// alone is waited for.
func (m *meter) judge(value float64) float64 {
	value = min(value, 100)
	if m.fired {
		value = max(value, m.hi)
	}
	m.fired = false
	m.quiet = m.trigger && value < m.hi && value <= m.rearm
	return value
}

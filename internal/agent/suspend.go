package agent

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/wire"
)

const (
	// sleepLeast is the shortest suspension that is told. The two clocks differ
	// by a constant otherwise; reading them is exact to readingMost / 2.
	sleepLeast  = 10 * time.Millisecond
	readingMost = time.Millisecond
	// resumedStep is by how much the wall clock must be set at once for this to
	// count as the resume of a snapshot (cluster.md 3, Sealing).
	resumedStep = time.Second
)

// A clockReading is three clocks at one moment: clock_gettime(2).
type clockReading struct {
	mono time.Duration // CLOCK_MONOTONIC since a moment: stands still while the machine is suspended
	boot time.Duration // CLOCK_BOOTTIME: does not
	wall time.Duration // CLOCK_REALTIME: can be set
}

// monoZero is where the monotonic clock is read from.
var monoZero = time.Now()

// A clockWatch compares the clocks with what they showed before. Not safe for
// concurrent use.
type clockWatch struct {
	last  clockReading
	known bool
}

// compare tells how long the machine was suspended since the last reading, and
// whether it may have been resumed from a snapshot: then its wall clock is set
// to where the world is. An administrator who sets it looks the same, and a new
// boot for nothing costs three datagrams for each peer.
func (c *clockWatch) compare(now clockReading) (slept time.Duration, resumed bool) {
	last := c.last
	if !c.known {
		last, c.known = now, true
	}
	c.last = now
	if slept = (now.boot - now.mono) - (last.boot - last.mono); slept < sleepLeast {
		slept = 0
	}
	step := (now.wall - now.boot) - (last.wall - last.boot)
	return slept, step.Abs() > resumedStep
}

// readClocks reads all three within a millisecond; false if it was interrupted
// each time.
func readClocks() (clockReading, bool) {
	for range 5 {
		now := time.Now() // two clocks in one, without a system call
		boot := bootTime()
		if took := time.Since(now); took <= readingMost {
			return clockReading{mono: now.Sub(monoZero) + took/2, boot: boot, wall: time.Duration(now.UnixNano())}, true
		}
	}
	return clockReading{}, false
}

// bootTime does not tell the scheduler of its system call, which is short.
func bootTime() time.Duration {
	var ts unix.Timespec
	_, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic("agent: clock_gettime: " + errno.Error()) // it is there since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

// lookAtClocks is called by the cluster loop each time that it wakes. What it
// returns is how long the machine was suspended. It draws a new boot when one
// is due: no key may be used a second time with the same counter.
func (a *Agent) lookAtClocks() time.Duration {
	now, ok := readClocks()
	if !ok {
		return 0 // the next time will tell
	}
	slept, resumed := a.clocks.compare(now)
	if slept > 0 {
		a.log.Warn("machine was suspended", "for", slept)
	}
	err := a.udp.Keys(func(e *wire.Endpoint) error {
		if !resumed && !e.Spent() {
			return nil
		}
		return e.Reboot(newBoot())
	})
	switch {
	case err != nil: // the same boot drawn twice
		a.log.Error("no new boot", "err", err)
	case resumed:
		a.log.Warn("wall clock was set; new boot, in case that this is a snapshot")
	}
	return slept
}

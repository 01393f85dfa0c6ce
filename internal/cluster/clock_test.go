package cluster

import "time"

// A hostClock is a host's monotonic clock: it goes as fast as it likes, and
// stands still while the machine is suspended.
type hostClock struct {
	set   time.Time     // when its pace changed last
	ahead time.Duration // of the network's time, then
	ppm   int64         // it gains as many millionths of the time since
}

func (c *hostClock) at(now time.Time) time.Time {
	return now.Add(c.ahead + time.Duration(int64(now.Sub(c.set)/time.Microsecond)*c.ppm/1000))
}

// until is how long to wait for a time of this clock.
func (c *hostClock) until(now, next time.Time) time.Duration {
	left := max(0, next.Sub(c.at(now)))
	if c.ppm == 0 {
		return left
	}
	return time.Duration(int64(left)*1_000_000/(1_000_000+c.ppm)) + time.Microsecond
}

// turn changes its pace, and moves it.
func (c *hostClock) turn(now time.Time, by time.Duration, ppm int64) {
	c.ahead, c.set, c.ppm = c.at(now).Sub(now)+by, now, ppm
}

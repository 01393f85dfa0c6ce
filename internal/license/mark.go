package license

import (
	"slices"
	"time"
)

const (
	// clockSlack is how far a clock may be behind the mark and still be
	// believed: time zones set wrong by hand, and the error of the mark itself.
	clockSlack = 24 * time.Hour
	// markPace is how much faster than time a mark may rise: 48 h in 24 h. It
	// must be above 1, or a mark that is behind never catches up.
	markPace = 2
	// markStep is the most that one sample raises a mark, however long ago the
	// one before was.
	markStep = 48 * time.Hour
)

// A Mark is a time that has passed for certain: it never goes back, so that a
// clock that is set back does not bring an ended license to life. There are
// two: the committed one, which the leader raises by the [Median] of the
// members' clocks, and the one that each node saves hourly by its own clock;
// the greater one counts.
//
// It rises by at most 48 h in 24 h of uptime, so that one wrong clock can not
// push it into a future from which it never returns. Uptime is that of the
// agent, by the monotonic clock; the mark is of one run of the agent, and made
// anew by [MarkAt] at its start.
type Mark struct {
	at     time.Time
	uptime time.Duration // of the last sample
}

// MarkAt is a mark as it was saved, or the zero time for none: then the first
// sample is taken as it is. Uptime is that of now.
func MarkAt(at time.Time, uptime time.Duration) Mark { return Mark{at: at, uptime: max(uptime, 0)} }

// Time is the mark; zero if there is none yet.
func (m Mark) Time() time.Time { return m.at }

// Raise is the mark after a sample of a clock. What it may rise by counts
// from the sample before, whether that one raised it or not: allowance that is
// not used is lost, so that a long time of good clocks buys no great leap.
func (m Mark) Raise(sample time.Time, uptime time.Duration) Mark {
	allowed := min(markPace*min(max(uptime-m.uptime, 0), markStep), markStep)
	m.uptime = max(uptime, 0)
	switch highest := m.at.Add(allowed); {
	case m.at.IsZero(), sample.After(m.at) && !sample.After(highest):
		m.at = sample
	case sample.After(highest):
		m.at = highest
	}
	return m
}

// Adopt is the mark after a time that needs no doubt, because others have kept
// to the pace or have signed for it: the committed mark that this node reads,
// or the issued_at of a license that was verified, from which a new cluster
// begins. It never lowers the mark, and is no sample.
func (m Mark) Adopt(at time.Time) Mark {
	if at.After(m.at) {
		m.at = at
	}
	return m
}

// Median is the middle one of clocks, the lower one of two; zero for none. As
// long as no more than half of them are ahead, it is not.
func Median(clocks []time.Time) time.Time {
	if len(clocks) == 0 {
		return time.Time{}
	}
	sorted := slices.SortedFunc(slices.Values(clocks), time.Time.Compare)
	return sorted[(len(sorted)-1)/2]
}

// Clock is the time that counts: now, or the mark where now is more than 24 h
// before it. Behind is then how far, and else zero; what is not zero is
// reported (license.clock).
func Clock(now, mark time.Time) (clock time.Time, behind time.Duration) {
	if now.Before(mark.Add(-clockSlack)) {
		return mark, mark.Sub(now)
	}
	return now, 0
}

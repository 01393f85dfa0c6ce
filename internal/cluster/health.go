package cluster

import (
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// A machine asks to be woken at least this often, and more often while a
	// burst runs, so that it notices when it was not.
	healthTick, burstTick = 100 * time.Millisecond, 20 * time.Millisecond
	// latenessMax is the lateness that still says nothing.
	latenessMax = 50 * time.Millisecond
	// After a pause this node's own votes count for nothing this long.
	voteless = time.Second
	// healthMax is the worst score; from healthDeaf on this node's own vote is
	// no observer.
	healthMax, healthDeaf = 8, 4
	// healthHeals is how long without trouble takes one off the score.
	healthHeals = 5 * time.Second
	// pauseKept is the part of the longest pause that does not fade; what
	// exceeds it halves each day.
	pauseKept = 2 * time.Second
	pauseHalf = 24 * time.Hour
	pauseUnit = 700 * time.Millisecond
)

// health is what this node knows of itself: an observer that was paused blames
// itself first (cluster.md 9; the score is after Lifeguard).
type health struct {
	score uint8     // 0 to 8
	clean time.Time // since when nothing added to the score

	asked     time.Time // the driver was told to come back then
	quiet     time.Time // until then own votes count for nothing
	pauseEnd  time.Time // of the newest own pause
	lastPause time.Duration
	longest   longestPause
}

// worse adds one to the score.
func (h *health) worse(now time.Time) {
	h.score, h.clean = min(h.score+1, healthMax), now
}

// heal takes one off per clean stretch.
func (h *health) heal(now time.Time) {
	for h.score > 0 && now.Sub(h.clean) >= healthHeals {
		h.score, h.clean = h.score-1, h.clean.Add(healthHeals)
	}
}

// votes tells whether this node's own evidence counts.
func (h *health) votes(now time.Time) bool {
	return h.score < healthDeaf && !now.Before(h.quiet)
}

// longestPause is the longest pause of one node, fading.
type longestPause struct {
	d  time.Duration
	at time.Time
}

// saw takes a pause of length d into account.
func (l *longestPause) saw(now time.Time, d time.Duration) {
	if l.fade(now); d >= l.d {
		l.d, l.at = d, now
	}
}

// fade halves what exceeds 2 s, once a day.
func (l *longestPause) fade(now time.Time) time.Duration {
	for l.d > pauseKept && now.Sub(l.at) >= pauseHalf {
		l.d, l.at = pauseKept+(l.d-pauseKept)/2, l.at.Add(pauseHalf)
	}
	return l.d
}

// steps is the pause as heartbeats carry it: 0.7 s steps rounded up, 0 to 15.
func (l *longestPause) steps(now time.Time) uint8 {
	return uint8(min((l.fade(now)+pauseUnit-1)/pauseUnit, 15))
}

// advanceHealth notices that the driver came late.
func (m *Machine) advanceHealth(now time.Time) {
	h := &m.health
	h.heal(now)
	if late := now.Sub(h.asked); !h.asked.IsZero() && late > latenessMax {
		m.paused(now, late)
	}
}

// paused draws the consequences of an own pause: what was missed meanwhile
// says nothing about others. Bursts are void, deadlines move by the pause, and
// a link without fresh mail is unknown until something comes.
func (m *Machine) paused(now time.Time, d time.Duration) {
	h := &m.health
	h.worse(now)
	h.quiet, h.pauseEnd, h.lastPause = now.Add(voteless), now, d
	h.longest.saw(now, d)
	for _, p := range m.watched {
		p.burst = nil
		for _, r := range p.rows {
			r.tellPause = true
			r.pending, r.deviation, r.unechoed = nil, 0, nil
			if r.due.IsZero() || r.state == belfry.LinkDown {
				continue
			}
			if r.heard() && !r.due.Add(m.path(r).margin()).After(now) {
				r.receptions = 0
				m.setLink(now, r, belfry.LinkUnknown, "this node was paused for "+d.Round(time.Millisecond).String())
			}
			if r.lastRx.Before(now.Add(-d)) {
				r.due = r.due.Add(d) // no mail since the pause began
			}
			r.due = maxTime(r.due, h.quiet)
		}
		p.shift(d)
	}
}

package cluster

import (
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// A machine asks to be woken at least this often, and more often while a
	// burst runs, so that it notices when it was not.
	healthTick, burstTick = time.Second, 20 * time.Millisecond
	// latenessMax is the lateness that still says nothing.
	latenessMax = 50 * time.Millisecond
	// From pauseVoid on a pause voids what was measured before it. A shorter
	// one only takes its own length out of what is being measured: a busy
	// machine is late all the time, and has to judge none the less.
	pauseVoid = 500 * time.Millisecond
	// After such a pause this node's own votes count for nothing this long,
	// and then for as long at least they do count.
	voteless = time.Second
	// healthMax is the worst score; from healthDeaf on this node's own vote
	// needs another observer, or more of it (deafVote).
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
}

// A Health is what a node thinks of itself, for people.
type Health struct {
	Score     uint8         // 0 to 8; from 4 on its own word needs another observer
	LastPause time.Duration // newest own pause; 0: none
	Longest   time.Duration // longest own pause, fading
	Isolated  bool
}

// Health is this node's own.
func (m *Machine) Health() Health {
	return Health{Score: m.health.score, LastPause: m.health.lastPause, Longest: m.self.pause.d, Isolated: m.suspicion.isolated}
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

// votes tells whether this node's own evidence counts by itself.
func (h *health) votes(now time.Time) bool {
	return h.score < healthDeaf && !now.Before(h.quiet)
}

// hush makes own votes count for nothing for a while. Pauses that follow each
// other closely do not prolong it: else nobody would ever be judged.
func (h *health) hush(now time.Time) {
	if now.Sub(h.quiet) >= voteless {
		h.quiet = now.Add(voteless)
	}
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

// sawPause takes a pause of a node into account, this one or another.
func (m *Machine) sawPause(now time.Time, p *member, d time.Duration) {
	before := p.pause.fade(now)
	if p.pause.saw(now, d); p.pause.d > before && p.pause.d > pauseKept {
		m.out.Pauses = append(m.out.Pauses, Pause{Node: p.ID, D: p.pause.d, At: now})
	}
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
// says nothing about others. What waits for a deadline waits longer by the
// pause; of a long one, see void.
func (m *Machine) paused(now time.Time, d time.Duration) {
	h := &m.health
	h.worse(now)
	h.asked = now // else the same pause would be noticed again, as lateness
	h.pauseEnd, h.lastPause = now, d
	m.sawPause(now, m.self, d)
	for _, p := range m.watched {
		for _, r := range p.rows {
			r.tellPause = true
			r.wait(now, d)
		}
		p.shift(d)
	}
	if d >= pauseVoid {
		m.void(now, d)
	}
}

// void ends what was being measured before a long pause, or while mail was
// lost: bursts begin anew when own votes count again, and a link without fresh
// mail is unknown until something comes.
func (m *Machine) void(now time.Time, d time.Duration) {
	h := &m.health
	h.hush(now)
	for _, p := range m.watched {
		if b := p.burst; b != nil && b.own && !b.linkOnly {
			p.doubt = maxTime(p.doubt, b.due)
		}
		p.burst = nil
		for _, r := range p.rows {
			r.pending, r.deviation, r.unechoed = nil, 0, nil
			if r.due.IsZero() || r.state == belfry.LinkDown {
				continue
			}
			deadline := r.due.Add(m.path(r).margin())
			if r.lastRx.Before(now.Add(-d)) {
				deadline = deadline.Add(-d) // as it was before it was put off
			}
			if r.heard() && !deadline.After(now) {
				r.receptions = 0
				m.setLink(now, r, belfry.LinkUnknown, "this node was paused for "+d.Round(time.Millisecond).String())
			}
			r.due = maxTime(r.due, h.quiet)
		}
	}
}

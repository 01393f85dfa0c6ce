package cluster

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// answerTime is how long an answer to a claim of this node's own is remembered.
const answerTime = time.Minute

// An answer is somebody's "node alive" to a claim of this node's own.
type answer struct {
	by *member
	at time.Time
}

// corrected notes that a claim of this node's own was answered (US8433760).
func (m *Machine) corrected(now time.Time, p, by *member) {
	if by == p || p.held.Origin != m.self.Number || !doubtful(p.held.Verdict) {
		return
	}
	p.answers = slices.DeleteFunc(p.answers, func(a answer) bool { return now.Sub(a.at) >= answerTime })
	p.answers = append(p.answers, answer{by: by, at: now})
}

// answerer is the node that answered last and has to take part before this
// node claims again; nil: none, or it is no longer up.
func (p *member) answerer(now time.Time) *member {
	if len(p.answers) == 0 {
		return nil
	}
	last := p.answers[len(p.answers)-1]
	if now.Sub(last.at) >= answerTime/6 || last.by.held.Verdict != belfry.VerdictUp {
		return nil
	}
	return last.by
}

// answererAgrees tells whether who answered last misses p too by now.
func (p *member) answererAgrees(now time.Time) bool {
	by := p.answerer(now)
	return by == nil || slices.ContainsFunc(p.burst.results, func(r result) bool { return r.from == by && r.unanswered > 0 })
}

// mistrusted tells whether three claims on p were answered within a minute:
// this node's own vote then needs two other observers.
func (p *member) mistrusted(now time.Time) bool {
	n := len(p.answers)
	return n >= 3 && now.Sub(p.answers[n-3].at) < answerTime
}

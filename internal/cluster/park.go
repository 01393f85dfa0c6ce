package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// parkDoubted is how long a claim waits whose origin this node does not hold
	// up: else a heal replays what each side held of the other (cluster.md 8).
	parkDoubted = 2 * time.Second
	// parkHearsay is how long at least the subject has to answer for itself
	// before this node takes somebody's word that it is gone.
	parkHearsay    = 100 * time.Millisecond
	parkHearsayMax = time.Second
	// parkProbes is how often a subject is probed while a claim waits for it.
	parkProbes = 4
)

// A parked claim is one that this node does not hold yet, so that the subject
// can answer first: nobody who answers is gone because of what one other node
// says, and a node that lies takes no third node down.
type parked struct {
	claim  held
	since  time.Time
	until  time.Time
	next   time.Time // when the subject is probed again
	passed bool      // sent on meanwhile, to the subject too; it is not probed then
}

// parkTime is how long a claim has to wait before it is held; zero: not at all.
func (m *Machine) parkTime(now time.Time, p *member, claim held, from *member) time.Duration {
	if !doubtful(claim.Verdict) && claim.Verdict != belfry.VerdictLeft {
		return 0
	}
	if from == p { // it says so itself
		return 0
	}
	origin := m.numbered(claim.Origin)
	if origin == p { // says somebody else
		origin = from
	}
	switch {
	case origin == nil || origin.held.Verdict != belfry.VerdictUp:
		return parkDoubted
	case claim.Verdict == belfry.VerdictDown && p.held.Verdict == belfry.VerdictUnreachable && now.Sub(p.news) >= parkHearsayMax:
		return 0 // it is known to be silent, and had its time to answer that
	case claim.Verdict == belfry.VerdictLeft || !m.witnessed(p):
		return min(max(parkHearsay, 2*m.slowestRound()), parkHearsayMax)
	}
	return 0
}

// witnessed tells whether this node has seen itself that p is gone: its own
// evidence is complete, or the stream was reset.
func (m *Machine) witnessed(p *member) bool {
	return !p.exit.reset.IsZero() || p.missing() && p.burst.complete
}

// slowestRound is the longest time that a probe of this node's own has.
func (m *Machine) slowestRound() (slowest time.Duration) {
	for _, p := range m.peers {
		slowest = max(slowest, m.roundOf(p))
	}
	return slowest
}

// park keeps a claim until its subject had time to answer. Of two claims on one
// subject the greater stays, and its subject has the whole time for it.
func (m *Machine) park(now time.Time, p *member, claim held, wait time.Duration) {
	if p.parked == nil {
		m.parked = append(m.parked, p)
	} else if claim.compare(p.parked.claim) <= 0 {
		return
	}
	p.parked = &parked{claim: claim, since: now, until: now.Add(wait), next: now}
	if wait < parkDoubted { // others need not wait, and the subject hears it from all of them
		p.parked.passed, p.parked.next = true, p.parked.until
		m.spread(now, p)
	}
	m.advanceParked(now)
}

// advanceParked probes the subjects of parked claims, and takes the claims to
// which nobody answered.
func (m *Machine) advanceParked(now time.Time) {
	for _, p := range slices.Clone(m.parked) {
		switch k := p.parked; {
		case !k.until.After(now):
			m.note(p, now, belfry.NodeID{}, "", fmt.Sprintf("asked for %v, no answer", k.until.Sub(k.since).Round(time.Millisecond)))
			m.release(now, p)
		case !k.next.After(now):
			k.next = now.Add(parkDoubted / parkProbes)
			m.ask(now, p)
		}
	}
}

// ask probes p on one link, watched or not.
func (m *Machine) ask(now time.Time, p *member) {
	if len(p.rows) > 0 {
		m.sendHeartbeat(now, p.rows[0], true, false)
		return
	}
	m.sendUnwatched(now, p, 0, true, false)
}

// unpark forgets a parked claim.
func (m *Machine) unpark(p *member) {
	if p.parked != nil {
		p.parked = nil
		m.parked = slices.DeleteFunc(m.parked, func(q *member) bool { return q == p })
	}
}

// release takes a parked claim for what it says.
func (m *Machine) release(now time.Time, p *member) {
	k := p.parked
	m.unpark(p)
	switch {
	case k.claim.compare(p.held) <= 0:
	case k.passed:
		m.change(now, p, k.claim)
	default:
		m.adopt(now, p, k.claim)
	}
}

// disprove answers a parked claim: its subject was heard since.
func (m *Machine) disprove(now time.Time, p *member) {
	k := p.parked
	m.unpark(p)
	if k.claim.Incarnation < p.incarnation || k.claim.compare(p.held) <= 0 {
		return
	}
	if from := m.numbered(k.claim.Origin); from != nil {
		m.note(p, now, from.ID, "", "claims "+p.describe(k.claim)+", but it answers")
		m.answer(now, p, k.claim, from)
	}
}

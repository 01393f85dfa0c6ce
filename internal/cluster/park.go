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
	// parkSooner is how much earlier than this node missed it, or heard of it, a
	// silence may have begun: what honest observers take to find it out and to tell.
	parkSooner = 400 * time.Millisecond
)

// A parked claim is one that this node does not hold yet, so that the subject
// can answer first: nobody who answers is gone because of what one other node
// says, and a node that lies takes no third node down.
type parked struct {
	claim  held
	since  time.Time
	until  time.Time
	next   time.Time // when the subject is probed again
	passed bool      // sent on meanwhile, to the subject too
}

// parkTime is how long a claim has to wait before it is held; zero: not at all.
// A claim whose origin this node does not hold up is not passed on meanwhile.
func (m *Machine) parkTime(now time.Time, p *member, claim held, from *member) (wait time.Duration, pass bool) {
	if !doubtful(claim.Verdict) && claim.Verdict != belfry.VerdictLeft || from == p {
		return 0, true
	}
	origin := m.numbered(claim.Origin)
	if origin == p { // says somebody else
		origin = from
	}
	pass = origin != nil && origin.held.Verdict == belfry.VerdictUp
	switch {
	case claim.Verdict == belfry.VerdictDown || claim.Verdict == belfry.VerdictLeft:
		wait = max(0, m.goneAt(now, p, claim).Sub(now))
	case !m.witnessed(p):
		wait = min(max(parkHearsay, 2*m.slowestRound()), parkHearsayMax)
	}
	if !pass {
		wait = max(wait, parkDoubted)
	}
	return wait, pass
}

// goneAt is when somebody's word that p is gone may be believed: not before this
// node would say so itself, by what it knows of p's silence. Who lies must not
// make a pause that p survives one that it does not. An exit needs no time: the
// kernel is asked meanwhile, and says so at once.
func (m *Machine) goneAt(now time.Time, p *member, claim held) time.Time {
	if claim.Cause == belfry.CauseProcess && !p.exit.reset.IsZero() {
		return now
	}
	known := now // since when p may be silent, by what is known here
	switch {
	case p.missing() && p.burst.complete:
		known = p.burst.began.Add(-parkSooner)
	case p.held.Verdict == belfry.VerdictUnreachable || p.held.Verdict == belfry.VerdictStalled:
		known = p.news.Add(-parkSooner)
	}
	since, hold := maxTime(claim.Since, known), m.cfg.Allowance
	switch {
	case claim.Cause == belfry.CauseStalled:
		hold = m.cfg.StallMax
	case claim.Cause == belfry.CauseSilent && m.cfg.NodeTimeout > 0:
		hold = m.cfg.NodeTimeout
	}
	return since.Add(hold)
}

// exited tells whether a claim says that p's process has ended, which p's
// kernel can confirm.
func (k *parked) exited() bool {
	return k.claim.Cause == belfry.CauseProcess || k.claim.Verdict == belfry.VerdictLeft
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
func (m *Machine) park(now time.Time, p *member, claim held, wait time.Duration, pass bool) {
	if p.parked == nil {
		m.parked = append(m.parked, p)
	} else if claim.compare(p.parked.claim) <= 0 {
		return
	}
	k := &parked{claim: claim, since: now, until: now.Add(wait), next: now, passed: pass}
	p.parked = k
	if pass { // others need not wait, and the subject hears it from all of them
		if !k.exited() {
			k.next = now.Add(parkHearsayMax)
		}
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
			if k.exited() {
				p.exit.dialing = now
				m.out.Dial = append(m.out.Dial, Dial{Peer: p.ID, Link: m.linkTo(p)})
			} else {
				m.ask(now, p)
			}
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

// linkTo is the index of one link to p, watched or not.
func (m *Machine) linkTo(p *member) uint8 {
	if len(p.rows) > 0 {
		return p.rows[0].id.Index
	}
	return 0
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

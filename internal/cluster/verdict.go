package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// deafBurst is the shortest burst on which a node in ill health judges alone.
const deafBurst = time.Second

// evidence adds up what this node and its co-watchers found out about p.
func (m *Machine) evidence(now time.Time, p *member) (enough bool, observers int) {
	b := p.burst
	unanswered, worth, answered := 0, int64(0), 0
	for _, r := range b.results {
		if r.unanswered > 0 {
			unanswered += r.unanswered
			worth += int64(r.unanswered) * price(r.loss)
			observers++
		}
		if r.unanswered > 0 || now.Sub(r.at) < relayTime {
			answered++
		}
	}
	if !p.answererAgrees(now) {
		return false, observers
	}
	need, count := int64(0), enoughUnanswered
	for _, r := range p.rows {
		need = max(need, m.path(r).need())
	}
	deaf := !m.health.votes(now)
	mistrusted := p.mistrusted(now) && observers < min(2, len(m.coWatchers(p)))
	if deaf && answered == 0 {
		need, count = 2*need, 2*count
	}
	if b.unanswered > 0 && !mistrusted && (!deaf || m.deafVote(now, b, unanswered, answered)) {
		unanswered, worth, observers = unanswered+b.unanswered, worth+b.worth, observers+1
	}
	enough = worth >= need && unanswered >= count && observers >= min(2, 1+answered)
	return enough, observers
}

// deafVote tells whether the own evidence counts although this node is in ill
// health: when others miss the node too, or when there are none to ask and the
// burst is a long one. It must count in the end, since a machine that is busy
// for ever is ill for ever.
func (m *Machine) deafVote(now time.Time, b *burst, others, answered int) bool {
	if now.Before(m.health.quiet) {
		return false
	}
	if answered > 0 {
		return others >= enoughUnanswered/2
	}
	return now.Sub(b.began) >= deafBurst
}

// judge concludes on p what its burst and the time allow.
func (m *Machine) judge(now time.Time, p *member) {
	h := p.held
	if h.Cause == belfry.CauseRestarting && h.Verdict == belfry.VerdictStalled {
		if !now.Before(h.Since.Add(m.cfg.RestartHold)) {
			m.note(p, now, belfry.NodeID{}, "", fmt.Sprintf("restart hold of %v is over", m.cfg.RestartHold))
			m.conclude(now, p, belfry.VerdictDown, belfry.CauseProcess, h.Since, 1)
		}
		return
	}
	b := p.burst
	if b == nil || !b.own || b.linkOnly || now.Before(m.health.quiet) {
		return
	}
	enough, observers := m.evidence(now, p)
	if !enough && !b.complete {
		return
	}
	if !b.complete {
		b.complete = true
		m.noteEvidence(now, p)
	}
	observers = max(observers, 1)
	silent := b.kernel != kernelAnswers && b.kernel != kernelRefuses
	switch {
	case silent && m.suspicion.suspects():
		// Whether this node itself is cut off is about to be known.
	case b.kernel == kernelRefuses:
		m.conclude(now, p, belfry.VerdictDown, belfry.CauseProcess, b.began, observers)
	case b.kernel == kernelAnswers && now.Before(m.speaksBy(p)):
	case b.kernel == kernelAnswers && h.Verdict != belfry.VerdictStalled:
		m.conclude(now, p, belfry.VerdictStalled, belfry.CauseAgent, b.began, observers)
	case silent && h.Verdict != belfry.VerdictUnreachable:
		m.unreachable(now, p, observers)
	case silent && p.private && !m.suspicion.isolated:
		p.private = false
		m.spread(now, p)
	case h.Verdict == belfry.VerdictStalled && !now.Before(h.Since.Add(m.cfg.StallMax)):
		m.note(p, now, belfry.NodeID{}, "", fmt.Sprintf("stalled for %v", m.cfg.StallMax))
		m.conclude(now, p, belfry.VerdictDown, belfry.CauseStalled, h.Since, observers)
	case h.Verdict == belfry.VerdictUnreachable && !now.Before(m.deathAt(now, p)):
		m.note(p, now, belfry.NodeID{}, "", fmt.Sprintf("allowance of %v is over", m.downAt(now, p).Sub(h.Since)))
		m.conclude(now, p, belfry.VerdictDown, belfry.CauseSilent, h.Since, observers)
	}
}

// unreachable publishes that the evidence against p is complete. A node that is
// isolated keeps it for itself: to the others it is the one that is gone.
func (m *Machine) unreachable(now time.Time, p *member, observers int) {
	c := held{
		Incarnation: max(p.incarnation, p.held.Incarnation), Verdict: belfry.VerdictUnreachable, Cause: belfry.CauseSilent,
		Observers: uint8(observers), Since: p.burst.began, Origin: m.self.Number,
	}.follows(p.held)
	if !m.suspicion.isolated {
		m.adopt(now, p, c)
	} else if c.compare(p.held) > 0 {
		m.change(now, p, c)
		p.private = true
	}
}

// noteEvidence writes down what the completed evidence consists of.
func (m *Machine) noteEvidence(now time.Time, p *member) {
	b := p.burst
	if b.unanswered > 0 {
		m.note(p, now, belfry.NodeID{}, "", fmt.Sprintf("%d receptions missing", b.unanswered))
	}
	for _, r := range b.results {
		if r.unanswered > 0 {
			m.note(p, now, r.from.ID, "", fmt.Sprintf("%d receptions missing", r.unanswered))
		}
	}
}

// downAt is when an unreachable node becomes down: the allowance counts from
// the first missed deadline, not from the last heartbeat.
func (m *Machine) downAt(now time.Time, p *member) time.Time {
	if m.cfg.NodeTimeout > 0 {
		return maxTime(p.heard, p.vouched).Add(m.cfg.NodeTimeout)
	}
	survived := p.pause.fade(now) * 5 / 4
	return p.held.Since.Add(min(max(m.cfg.Allowance, survived), max(m.cfg.Allowance, m.cfg.AllowanceCap)))
}

// never is later than all that is planned.
const never = 1 << 62

// deathAt is when an unreachable node is judged down: when its allowance is
// over, and a little later while more observers are about to agree. An isolated
// node judges nobody.
func (m *Machine) deathAt(now time.Time, p *member) time.Time {
	due := m.downAt(now, p)
	switch {
	case m.suspicion.isolated || p.private:
		return now.Add(never)
	case !now.Before(due) && m.votesMissing(p):
		return due.Add(voteWait)
	}
	return due
}

// verdictTimer is when judge has something to say without new input.
func (m *Machine) verdictTimer(now time.Time, p *member) time.Time {
	h := p.held
	switch {
	case h.Verdict == belfry.VerdictStalled && h.Cause == belfry.CauseRestarting:
		return h.Since.Add(m.cfg.RestartHold)
	case p.burst == nil || !p.burst.complete || p.burst.linkOnly:
		return time.Time{} // of a node that is heard elsewhere, time alone makes nothing
	case now.Before(m.health.quiet):
		return m.health.quiet
	case p.burst.kernel == kernelAnswers && now.Before(m.speaksBy(p)):
		return m.speaksBy(p)
	case h.Verdict == belfry.VerdictStalled:
		return h.Since.Add(m.cfg.StallMax)
	case h.Verdict == belfry.VerdictUnreachable && m.suspicion.since.IsZero() && !p.private:
		return m.deathAt(now, p)
	}
	return time.Time{}
}

// conclude makes a verdict of this node's own and lets all know.
func (m *Machine) conclude(now time.Time, p *member, v belfry.Verdict, c belfry.Cause, since time.Time, observers int) {
	m.adopt(now, p, held{
		Incarnation: max(p.incarnation, p.held.Incarnation), Verdict: v, Cause: c,
		Observers: uint8(observers), Since: since, Origin: m.self.Number,
	}.follows(p.held))
}

// adopt takes a claim and sends it on. What does not stand against the claim
// held, for want of turns, is dropped: held claims never fall.
func (m *Machine) adopt(now time.Time, p *member, c held) {
	if c.compare(p.held) <= 0 {
		return
	}
	m.change(now, p, c)
	m.spread(now, p)
}

// change makes c the claim that is held of p.
func (m *Machine) change(now time.Time, p *member, c held) {
	old, wasInRing := p.held, p.inRing()
	m.count(p, old, c)
	p.held = c
	p.reach.moved(now, old, c)
	if c.Incarnation > max(old.Incarnation, p.running) {
		m.anew(now, p, c.Incarnation)
	}
	p.private = false
	if p.parked != nil && p.parked.claim.compare(c) <= 0 {
		m.unpark(p)
	}
	m.list(p)
	m.tell(now, p, c)
	if p.inRing() && !wasInRing {
		m.outside--
	} else if !p.inRing() && wasInRing {
		m.outside++
	}
	switch c.Verdict {
	case belfry.VerdictUp:
		p.closed = true
		p.exit.reset, p.exit.refused = time.Time{}, time.Time{}
		if p != m.self && c.Cause == belfry.CauseIndirect {
			p.vouched = maxTime(p.vouched, c.Since)
		}
		if b := p.burst; b != nil && b.own && b.complete {
			p.burst = nil
		}
	case belfry.VerdictDown, belfry.VerdictLeft:
		p.burst, p.doubt = nil, time.Time{}
		p.exit = exit{goodbye: c.Verdict == belfry.VerdictLeft}
		for _, r := range p.rows {
			m.setLink(now, r, belfry.LinkDown, "the node is "+c.Verdict.String())
			r.receptions, r.pending, r.due = 0, nil, time.Time{}
		}
		if c.Verdict == belfry.VerdictDown {
			m.probeFallen(now, p)
		}
	}
	started := (old.Verdict == belfry.VerdictJoining) != (c.Verdict == belfry.VerdictJoining)
	if p.inRing() != wasInRing || c.Verdict == belfry.VerdictLeft || started {
		m.rewatch(now)
	}
}

// list keeps the lists of those in doubt and of those that are down.
func (m *Machine) list(p *member) {
	v := p.held.Verdict
	m.doubted = listed(m.doubted, p, v == belfry.VerdictUnreachable || v == belfry.VerdictStalled)
	m.fallen = listed(m.fallen, p, v == belfry.VerdictDown)
}

// listed is a list by NodeID with p in it or not; a new one if it changes,
// since callers may be ranging over the old one.
func listed(list []*member, p *member, in bool) []*member {
	at, found := slices.BinarySearchFunc(list, p, func(a, b *member) int { return a.ID.Compare(b.ID) })
	switch {
	case in && !found:
		return slices.Insert(slices.Clone(list), at, p)
	case !in && found:
		return slices.Delete(slices.Clone(list), at, at+1)
	}
	return list
}

// rise notes that p itself proved a newer incarnation.
func (m *Machine) rise(now time.Time, p *member, inc belfry.Incarnation) {
	p.incarnation = inc
	p.reach.proved(now, inc)
	if inc != p.running { // nobody said so before, or somebody said too much
		m.anew(now, p, inc)
	}
}

// anew notes that another incarnation of p is running: all that was held
// against the older one is void. Others may have said so: only what p proves
// voids datagrams of an older one, else whoever lies could silence p.
func (m *Machine) anew(now time.Time, p *member, inc belfry.Incarnation) {
	before := p.running
	p.running, p.exit, p.burst, p.doubt = inc, exit{}, nil, time.Time{}
	p.oneWays, p.hearsay = nil, nil
	if before == 0 || p == m.self {
		return
	}
	m.note(p, now, belfry.NodeID{}, "", fmt.Sprintf("incarnation %d is running", inc))
	m.out.Changes = append(m.out.Changes, Restarted{Node: p.ID, Name: p.Name, Incarnation: inc, At: now})
}

// comeUp is the end of every trouble: p is heard and hears.
func (m *Machine) comeUp(now time.Time, p *member, why string) {
	m.note(p, now, belfry.NodeID{}, "", why)
	m.conclude(now, p, belfry.VerdictUp, belfry.CauseDirect, p.heard, 1)
}

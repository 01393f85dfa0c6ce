package cluster

import (
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// helloEvery bounds the replies to datagrams that prove nothing.
	helloEvery = 100 * time.Millisecond
	// healEvery is how often one of the down members is probed, in turn.
	healEvery = time.Second
)

// hello answers a datagram that is authentic but not bound to this node's
// present boot: the reply carries that boot, so the next one can be. Nothing
// else follows from it, since it may be a recording.
func (m *Machine) hello(now time.Time, p *member, d Datagram) {
	if !p.helloSent.IsZero() && now.Sub(p.helloSent) < helloEvery {
		return
	}
	p.helloSent = now
	hb, _ := d.Body.(*Heartbeat)
	answer := hb != nil && hb.Probe
	if r := p.row(d.Link); r != nil && p.boot == d.Boot {
		m.sendHeartbeat(now, r, !answer, answer)
		return
	}
	// Of a new start the row knows nothing: it would echo the old one's clock.
	m.sendUnwatched(now, p, d.Link, !answer, answer)
}

// newcomer looks at who sent a proven datagram: a newer incarnation, or the
// same one with a new boot (a resumed snapshot), begins its links anew.
func (m *Machine) newcomer(now time.Time, p *member, d Datagram) {
	restarted := d.Incarnation > p.incarnation
	if restarted {
		m.rise(now, p, d.Incarnation)
	}
	if p.boot != d.Boot {
		if p.boot != 0 || restarted {
			for _, r := range p.rows {
				r.reset()
				if r.state != belfry.LinkDown {
					m.setLink(now, r, belfry.LinkInit, "the peer started again")
				}
			}
		}
		p.boot = d.Boot
	}
	if restarted && p.held.Incarnation != 0 && p.held.Incarnation < d.Incarnation {
		switch p.held.Verdict {
		case belfry.VerdictUp, belfry.VerdictStalled, belfry.VerdictUnreachable:
			p.heard = maxTime(p.heard, now)
			m.comeUp(now, p, "its new incarnation answers")
		}
	}
}

// advanceJoin probes links that nothing was heard on yet, and completes those
// whose quick probes were lost.
func (m *Machine) advanceJoin(now time.Time, r *row) {
	if r.state == belfry.LinkInit && r.probesLeft > 0 && !r.nextProbe.After(now) {
		r.probesLeft--
		r.nextProbe = now.Add(initProbeEvery)
		m.sendHeartbeat(now, r, true, false)
	}
}

// hurry sends the next probe of the three-way check at once, so that a pair is
// up after a few round trips. Its number is bounded.
func (m *Machine) hurry(now time.Time, r *row) {
	if r.state != belfry.LinkInit || r.quick >= quickProbes {
		return
	}
	r.quick++
	m.sendHeartbeat(now, r, true, false)
}

// advanceHeal probes one down member, in turn: a healed cut or a node that was
// resumed is noticed even if it does not know that it was gone.
func (m *Machine) advanceHeal(now time.Time) {
	if len(m.fallen) == 0 || m.self.Stopped {
		m.heal = time.Time{}
		return
	}
	if m.heal.IsZero() {
		m.heal = now.Add(healEvery)
	}
	if m.heal.After(now) {
		return
	}
	m.heal = now.Add(healEvery)
	m.healTurn = (m.healTurn + 1) % len(m.fallen)
	p := m.fallen[m.healTurn]
	if len(p.rows) == 0 {
		for _, l := range m.links(p) {
			m.sendUnwatched(now, p, l.Index, true, false)
		}
	}
	for _, r := range p.rows {
		m.sendHeartbeat(now, r, true, false)
	}
}

// probeFallen tells a node that is held down from now on, if it still hears this
// one, that no more than the probes of advanceHeal are to be expected.
func (m *Machine) probeFallen(now time.Time, p *member) {
	if m.self.Stopped {
		return
	}
	if m.heal.IsZero() {
		m.heal = now.Add(healEvery)
	}
	for _, r := range p.rows {
		m.sendHeartbeat(now, r, true, false)
	}
}

// nextHeal is when each down member will have been probed again; the zero time
// while there are none. It is announced to them: one that hears this node and is
// not heard would otherwise take every second between two probes for a silence.
func (m *Machine) nextHeal() time.Time {
	if m.heal.IsZero() {
		return time.Time{}
	}
	return m.heal.Add(time.Duration(len(m.fallen)-1) * healEvery)
}

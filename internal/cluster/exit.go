package cluster

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// exit is what the stream and the kernel of a peer said about its process.
// Middleboxes forge resets, so a reset alone is no exit: it takes a refusal
// beside it (cluster.md 7).
type exit struct {
	goodbye bool      // it said why the stream ends: a reset is no evidence
	reset   time.Time // the stream ended without goodbye and nothing was heard since
	refused time.Time // ICMP port unreachable, and nothing was heard since
	dialing time.Time // a dial is under way since; zero: none
}

// dialTime is how long a dial may be under way before another one is asked for.
const dialTime = 2 * time.Second

// refusalTime is how long a refusal confirms a reset that follows it.
const refusalTime = time.Second

// stream takes what happened to the stream of a pair.
func (m *Machine) stream(now time.Time, s Stream) {
	p := m.find(s.Peer)
	if p == nil || p == m.self || p.Stopped || m.self.Stopped || s.Incarnation != 0 && s.Incarnation < p.incarnation {
		return
	}
	alive := p.held.Verdict == belfry.VerdictUp || p.held.Verdict == belfry.VerdictStalled || p.held.Verdict == belfry.VerdictUnreachable
	switch s.Event {
	case StreamUp:
		p.exit = exit{dialing: p.exit.dialing}
		m.meet(now, p)
	case StreamReset:
		if p.parked != nil && p.parked.claim.Cause == belfry.CauseProcess {
			m.release(now, p) // another watcher was faster; this is the proof
		}
		exited := p.held.Verdict == belfry.VerdictDown && p.held.Cause == belfry.CauseProcess
		if p.exit.goodbye || !alive && !exited {
			return
		}
		m.note(p, now, belfry.NodeID{}, "", "stream reset")
		if exited { // another watcher was faster
			m.confirm(now, p)
			return
		}
		p.exit.reset = now
		if !p.exit.refused.IsZero() && now.Sub(p.exit.refused) <= refusalTime {
			m.processGone(now, p)
			return
		}
		m.confirmExit(now, p)
	case GoodbyeLeave:
		m.note(p, now, belfry.NodeID{}, "", "goodbye: it leaves")
		m.conclude(now, p, belfry.VerdictLeft, belfry.CauseLeft, now, 1)
	case GoodbyeRestart:
		p.exit.goodbye = true
		if alive {
			m.note(p, now, belfry.NodeID{}, "", "goodbye: it restarts")
			p.burst = nil
			m.conclude(now, p, belfry.VerdictStalled, belfry.CauseRestarting, now, 1)
		}
	case GoodbyeRekey:
		p.exit.goodbye = true
	}
}

// confirmExit makes p's kernel say whether the process is gone: by the answer
// to a dial and by the one to a probe. A dying process may still hold both
// ports when its streams are reset already, so the burst goes on asking.
func (m *Machine) confirmExit(now time.Time, p *member) {
	if p.burst == nil || !p.burst.own {
		m.verify(now, p, now, now, false)
	}
	if p.burst == nil { // own votes do not count for the moment; exits do not wait
		for _, r := range p.rows {
			m.probe(now, r)
		}
	}
	m.dial(now, p)
}

// dial asks the driver to try p's stream port, unless it is at it.
func (m *Machine) dial(now time.Time, p *member) {
	if len(p.rows) == 0 || !p.exit.dialing.IsZero() && now.Sub(p.exit.dialing) < dialTime {
		return
	}
	p.exit.dialing = now
	if p.burst != nil {
		p.burst.dialed = now
	}
	m.out.Dial = append(m.out.Dial, Dial{Peer: p.ID, Link: p.rows[0].id.Index})
}

// dialed takes the answer.
func (m *Machine) dialed(now time.Time, d Dialed) {
	p := m.find(d.Peer)
	if p == nil {
		return
	}
	if d.Result == DialAnswered {
		m.agentAnswers(now, p)
		return
	}
	if p.exit.dialing.IsZero() {
		return
	}
	p.exit.dialing = time.Time{}
	if d.Result != DialTimeout {
		m.allay(now, now)
	}
	if k := p.parked; k != nil && k.exited() {
		switch {
		case d.Result == DialRefused:
			m.note(p, now, belfry.NodeID{}, m.network(p, d.Link), "dial refused")
			m.settle(now, p)
		case d.Result == DialAccepted && k.claim.Cause == belfry.CauseProcess:
			m.note(p, now, belfry.NodeID{}, m.network(p, d.Link), "dial accepted: its process runs")
			m.unpark(p)
		}
	}
	b := p.burst
	switch d.Result {
	case DialAccepted:
		if !p.exit.reset.IsZero() || b != nil && b.kernel != kernelAnswers {
			m.note(p, now, belfry.NodeID{}, m.network(p, d.Link), "dial accepted")
		}
		if b != nil {
			b.accept(now)
		}
	case DialRefused:
		if !p.exit.reset.IsZero() || b != nil && b.kernel != kernelRefuses {
			m.note(p, now, belfry.NodeID{}, m.network(p, d.Link), "dial refused")
		}
		if !p.exit.reset.IsZero() {
			m.processGone(now, p)
		} else if b != nil {
			b.kernel = kernelRefuses
		}
	case DialTimeout:
		if b != nil && b.kernel != kernelSilent {
			m.note(p, now, belfry.NodeID{}, m.network(p, d.Link), "dial not answered")
			b.kernel = kernelSilent
		}
	}
}

// settle takes a parked claim that p's kernel confirmed to this node. One that
// watches p is an observer then, and says so.
func (m *Machine) settle(now time.Time, p *member) {
	m.release(now, p)
	if len(p.rows) > 0 && p.held.Verdict == belfry.VerdictDown && p.held.Cause == belfry.CauseProcess {
		m.confirm(now, p)
	}
}

// agentAnswers is called when p's agent proved by TLS that it runs, although its
// datagrams do not come: a way is broken, in one direction perhaps, and no node.
// This node takes it for up, and its links for what they are.
func (m *Machine) agentAnswers(now time.Time, p *member) {
	m.allay(now, now)
	b := p.burst
	if b == nil || !b.own || b.linkOnly {
		return // it was heard meanwhile, or is down and has to come back by a link
	}
	m.note(p, now, belfry.NodeID{}, "", "the agent answers on its stream port")
	p.vouched, p.spoke, b.linkOnly = now, now, true
	p.exit.reset, p.exit.refused = time.Time{}, time.Time{}
	if p.held.Verdict != belfry.VerdictUp {
		m.conclude(now, p, belfry.VerdictUp, belfry.CauseIndirect, now, 1)
	}
}

// refused takes an ICMP port unreachable. Alone it only starts to verify.
func (m *Machine) refused(now time.Time, f Refused) {
	p := m.find(f.Peer)
	if p == nil || p.held.Cause == belfry.CauseRestarting {
		return
	}
	m.allay(now, now)
	if p.parked != nil && p.parked.claim.Cause == belfry.CauseProcess {
		m.settle(now, p)
	}
	switch p.held.Verdict {
	case belfry.VerdictUp, belfry.VerdictUnreachable, belfry.VerdictStalled:
	default:
		return
	}
	if p.exit.refused.IsZero() {
		m.note(p, now, belfry.NodeID{}, m.network(p, f.Link), "port unreachable")
	}
	p.exit.refused = now
	if !p.exit.reset.IsZero() {
		m.processGone(now, p)
		return
	}
	if p.burst == nil || !p.burst.own {
		m.verify(now, p, now, now, false)
	}
	if b := p.burst; b != nil && now.Sub(b.dialed) >= redial {
		m.dial(now, p)
	}
}

// processGone concludes that the agent's process ended: its stream was reset
// and its kernel refuses.
func (m *Machine) processGone(now time.Time, p *member) {
	since := p.exit.reset
	m.conclude(now, p, belfry.VerdictDown, belfry.CauseProcess, since, 1)
}

// network is the name of a link's network.
func (m *Machine) network(p *member, index uint8) string {
	if r := p.row(index); r != nil {
		return r.link.Network
	}
	return ""
}

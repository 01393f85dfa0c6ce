package cluster

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// announcedMax is the longest interval that a heartbeat can announce.
const announcedMax = 65535 * time.Millisecond

// datagram takes one datagram. Only proven ones count; a restarted node thus
// takes nothing that was recorded before its start (cluster.md 3).
func (m *Machine) datagram(now time.Time, d Datagram) {
	p := m.find(d.From)
	switch {
	case p == nil || p == m.self || p.Stopped || m.self.Stopped:
		m.drops.Stranger++
		return
	case d.Incarnation < max(p.incarnation, 1): // they count starts, from 1
		m.drops.OldIncarnation++
		return
	case !d.Proven:
		m.drops.Unproven++
		m.hello(now, p, d)
		return
	}
	at := d.At
	if at.IsZero() || at.After(now) {
		at = now
	}
	if p.held.Verdict == belfry.VerdictLeft && d.Incarnation == p.held.Incarnation && at.Sub(p.held.Since) < leaveTime {
		m.drops.Left++
		return
	}
	m.allay(now, at)
	m.newcomer(now, p, d)
	hb, _ := d.Body.(*Heartbeat)
	m.welcome(now, p, hb)
	r := p.row(d.Link)
	if seq := seqOf(d.Body); r != nil && seq != 0 {
		r.receive(at, m.start, seq, m.path(r), hb, m.health.pauseEnd)
		m.answered(now, at, p)
		m.judgeLink(now, p, r)
	} else {
		p.heard = maxTime(p.heard, at)
	}
	if p.parked != nil && at.After(p.parked.since) {
		m.disprove(now, p)
	}
	m.content(now, at, p, d)
}

// leaveTime is how long datagrams of a node that left may still arrive. What
// comes later is news: it did not leave, whoever said so.
const leaveTime = 2 * time.Second

// welcome makes rows for a member that comes back, and for one that sends
// heartbeats although this node's own order does not say so: as long as their
// views differ, their rings may too; and it may have been asked to.
func (m *Machine) welcome(now time.Time, p *member, hb *Heartbeat) {
	switch {
	case hb == nil:
	case hb.Wanted:
		p.wanted = now
	case !hb.Probe && !hb.Answer:
		p.wanted = time.Time{}
	}
	if len(p.rows) > 0 || hb == nil || p.inRing() && (hb.Probe || hb.Answer || hb.View == m.view) && !hb.Wanted {
		return
	}
	p.guest = true
	m.watch(now, p)
	m.rewatch(now)
}

// answered is called when p was heard: what was held against it ends.
func (m *Machine) answered(now, at time.Time, p *member) {
	p.heard = maxTime(p.heard, at)
	if at.After(p.exit.reset) {
		p.exit.reset = time.Time{}
	}
	if at.After(p.exit.refused) {
		p.exit.refused = time.Time{}
	}
	doubted := p.held.Verdict == belfry.VerdictUnreachable ||
		p.held.Verdict == belfry.VerdictStalled && p.held.Cause == belfry.CauseAgent
	if doubted && at.After(p.held.Since) {
		m.sawPause(now, p, at.Sub(p.held.Since))
		m.comeUp(now, p, "it answers")
	}
	m.answeredBurst(now, p)
}

// content acts on what the datagram says.
func (m *Machine) content(now, at time.Time, p *member, d Datagram) {
	switch body := d.Body.(type) {
	case *Heartbeat:
		if r := p.row(d.Link); r == nil && body.Probe {
			m.sendUnwatched(now, p, d.Link, false, true)
		} else if r != nil && body.Probe {
			m.sendHeartbeat(now, r, false, true)
		} else if r != nil {
			m.hurry(now, r)
		}
		m.gossip(now, at, p, body)
	case *RelayAsk:
		m.asked(now, p, body)
	case *RelayResult:
		m.resulted(now, at, p, body)
	case *Claims:
		m.heardClaims(now, at, p, body.Claims)
	case *View:
		m.viewAsked(now, p, body)
	}
}

// gossip takes what a heartbeat says of its sender and of third nodes.
func (m *Machine) gossip(now, at time.Time, p *member, hb *Heartbeat) {
	m.sawPause(now, p, max(time.Duration(hb.Pause)*pauseUnit, hb.ExactPause))
	m.heardOthers(now, at, p, hb)
	m.heardOneWays(now, at, p, hb)
	m.mention(p, hb)
	if q := m.numbered(hb.Fresh.Subject); q != nil && hb.Fresh.Verdict == belfry.VerdictUp {
		m.vouch(now, at.Add(-hb.Fresh.Age), q, p)
	}
	m.heardClaims(now, at, p, hb.Claims)
	m.compareView(now, p, hb.View)
}

// heartbeat sends the heartbeat that is due and plans the next.
func (m *Machine) heartbeat(now time.Time, r *row) {
	m.plan(now, r)
	r.beat(now)
	m.sendHeartbeat(now, r, false, false)
}

// plan chooses the interval of one row and the time of its next heartbeat.
// What a heartbeat announced is never put off afterwards: the interval changes
// only here.
func (m *Machine) plan(now time.Time, r *row) {
	p := m.path(r)
	out := p
	if !r.peerAt.IsZero() {
		out.loss = max(out.loss, r.peerLoss)
	}
	wish, why := out.interval(&m.cfg.Tunables, share{keff: m.keff(), ringLinks: m.ringLinks(r.link.Network)})
	switch q := m.byID[r.id.Peer]; {
	case q.onRequest(now):
		wish, why = extraEvery, "interest"
	case q.held.Verdict == belfry.VerdictJoining && !q.anyHeard() && !slices.Contains(m.paced, q):
		wish, why = extraEvery, "not started"
	}
	r.pace.sending(now, wish)
	r.adapted(now, p, why)
	r.nextTx = r.slot.following(m.start, now, m.cycle(), r.pace.interval)
}

// keff is the number of peers that the schedule is shared between.
func (m *Machine) keff() int { return max(1, len(m.paced)) }

// ringLinks counts the links to ring peers on one network.
func (m *Machine) ringLinks(network string) int {
	n := 0
	for _, p := range m.paced {
		for _, r := range p.rows {
			if r.link.Network == network {
				n++
			}
		}
	}
	return max(1, n)
}

// cycle is the shortest interval in use.
func (m *Machine) cycle() time.Duration {
	shortest := time.Duration(0)
	for _, p := range m.paced {
		for _, r := range p.rows {
			shortest = smallest(shortest, r.pace.interval)
		}
	}
	return shortest
}

// probe asks for one extra reception on a link; it counts as missing when it
// is not answered within a round.
func (m *Machine) probe(now time.Time, r *row) {
	r.pending = append(r.pending, probe{sent: now, due: now.Add(m.path(r).round())})
	m.sendHeartbeat(now, r, true, false)
}

// sendHeartbeat sends a heartbeat, a probe or an answer on a watched link.
func (m *Machine) sendHeartbeat(now time.Time, r *row, probe, answer bool) {
	hb := m.newHeartbeat(now, probe, answer)
	hb.Loss = r.seq.loss()
	next := r.nextTx
	if !m.byID[r.id.Peer].inRing() {
		next = m.nextHeal() // no heartbeats go there
	}
	hb.Announced = min(max(0, next.Sub(now)+time.Millisecond-1).Truncate(time.Millisecond), announcedMax)
	if hold := now.Sub(r.peerClockAt); !r.peerClockAt.IsZero() && hold <= holdMax {
		hb.Echo, hb.EchoOf, hb.Hold = true, r.peerClock, max(hold, 0).Truncate(clockUnit)
	}
	if r.tellPause {
		hb.ExactPause, r.tellPause = m.health.lastPause.Truncate(time.Millisecond), false
	}
	p := m.byID[r.id.Peer]
	if !probe && !answer {
		hb.Fresh, hb.OneWays = m.freshness(now, r), m.oneWays(now, p)
	}
	hb.Wanted = p.extra
	p.othersOf(r, hb)
	m.sendOn(now, r, hb)
}

// newHeartbeat is the part that all heartbeats of one moment share.
func (m *Machine) newHeartbeat(now time.Time, probe, answer bool) *Heartbeat {
	return &Heartbeat{
		Probe: probe, Answer: answer, SentAt: clockAt(m.start, now), View: m.view,
		Health: m.health.score, Pause: m.self.pause.steps(now), Claims: m.newestClaims(now),
	}
}

// freshness speaks of one node that this one hears itself, in turn.
func (m *Machine) freshness(now time.Time, r *row) belfry.Freshness {
	for range m.watched {
		r.fresh = (r.fresh + 1) % len(m.watched)
		p := m.watched[r.fresh]
		if p.ID == r.id.Peer || !p.anyHeard() {
			continue
		}
		age := min((now.Sub(p.heard)+ageUnit-1)/ageUnit, 4095) * ageUnit
		return belfry.Freshness{Subject: p.Number, Verdict: p.held.Verdict, Age: max(age, 0)}
	}
	return belfry.Freshness{}
}

// sendOn sends a body on a watched link; every one takes the next number.
func (m *Machine) sendOn(now time.Time, r *row, body Body) {
	r.txSeq = nextSeq(r.txSeq)
	r.lastTx = now
	r.sent++
	address(body, r.id.Index, r.shown.state, r.txSeq)
	m.out.Send = append(m.out.Send, Send{To: r.id.Peer, Link: r.id.Index, Body: body})
}

// send sends a body to a member, on its best link.
func (m *Machine) send(now time.Time, to *member, body Body) {
	if to == m.self || to.Stopped {
		return
	}
	if len(to.rows) == 0 {
		m.sendTo(to.Member, body)
		return
	}
	best := slices.IndexFunc(to.rows, (*row).usable)
	m.sendOn(now, to.rows[max(best, 0)], body)
}

// sendTo sends a body to a member that is not watched.
func (m *Machine) sendTo(to *Member, body Body) {
	if links := m.table.links(m.self.Member, to); len(links) > 0 {
		address(body, links[0].Index, belfry.LinkUnknown, 0)
		m.out.Send = append(m.out.Send, Send{To: to.ID, Link: links[0].Index, Body: body})
	}
}

// sendUnwatched sends a probe or an answer where there is no row.
func (m *Machine) sendUnwatched(now time.Time, p *member, link uint8, probe, answer bool) {
	hb := m.newHeartbeat(now, probe, answer)
	address(hb, link, belfry.LinkUnknown, 0)
	m.out.Send = append(m.out.Send, Send{To: p.ID, Link: link, Body: hb})
}

// address fills in what all bodies begin with.
func address(body Body, link uint8, state belfry.LinkState, seq uint16) {
	switch b := body.(type) {
	case *Heartbeat:
		b.Link, b.LinkState, b.Seq = link, state, seq
	case *RelayAsk:
		b.Link, b.LinkState, b.Seq = link, state, seq
	case *RelayResult:
		b.Link, b.LinkState, b.Seq = link, state, seq
	case *Claims:
		b.Link, b.LinkState, b.Seq = link, state, seq
	case *View:
		b.Link, b.LinkState, b.Seq = link, state, seq
	}
}

func seqOf(body Body) uint16 {
	switch b := body.(type) {
	case *Heartbeat:
		return b.Seq
	case *RelayAsk:
		return b.Seq
	case *RelayResult:
		return b.Seq
	case *Claims:
		return b.Seq
	case *View:
		return b.Seq
	}
	return 0
}

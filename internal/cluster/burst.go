package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// probesPerRound is what own probes fill up to where co-watchers are few.
	probesPerRound = 4
	// After slowAfter rounds a burst slows down to slowRound.
	slowAfter, slowRound = 16, 250 * time.Millisecond
	// enoughUnanswered is the fewest unanswered receptions that complete the
	// evidence, whatever they are worth.
	enoughUnanswered = 8
	// speakTime is how long an agent has, whose kernel accepted a dial, to prove
	// by TLS that it runs, before it is taken for stalled; two rounds of its path
	// come on top.
	speakTime = 100 * time.Millisecond
	// relayTime is how long a co-watcher probes for an asker that is not heard
	// from again.
	relayTime = 3 * time.Second
	// redial is the time between two dials of a silent node.
	redial = time.Second
	// heardAgoMax is the longest time that a result can carry.
	heardAgoMax = 65535 * time.Millisecond
)

// kernel is what the dials said about the machine below a silent agent.
type kernel uint8

const (
	kernelUnknown kernel = iota
	kernelSilent
	kernelAnswers // it accepts connections: the agent is stalled
	kernelRefuses // it lives, the process is gone
)

// A burst verifies a silence: probes by this node and by its co-watchers, whose
// unanswered counts add up to evidence (cluster.md 6).
type burst struct {
	number   uint16
	own      bool      // began with a miss of this node; else it only serves askers
	linkOnly bool      // the node is heard elsewhere: only the silent links are at stake
	due      time.Time // when the missed heartbeat was due
	began    time.Time // the first missed deadline
	ticks    int
	next     time.Time

	unanswered int   // by this node, over all links
	worth      int64 // of those, 1/1000 nat
	kernel     kernel
	dialed     time.Time
	accepted   time.Time // when the first dial was: its agent has a moment to answer too
	complete   bool

	results []result // of co-watchers, in the order of their first result
	askers  []asker
	expires time.Time // of a burst that only serves askers
}

// accept notes that a dial was accepted.
func (b *burst) accept(now time.Time) {
	if b.kernel != kernelAnswers {
		b.kernel, b.accepted = kernelAnswers, now
	}
}

// speaksBy is until when p's agent may still prove that it runs.
func (m *Machine) speaksBy(p *member) time.Time {
	return p.burst.accepted.Add(speakTime + 2*m.roundOf(p))
}

// A result is the newest count of one co-watcher.
type result struct {
	from       *member
	at         time.Time
	unanswered int
	loss       uint8
}

type asker struct {
	who   *member
	burst uint16
}

// miss is called for receptions that were due on one row and did not come.
func (m *Machine) miss(now time.Time, p *member, r *row, due time.Time, missed int) {
	path := m.path(r)
	if b := p.burst; b != nil {
		b.unanswered += missed
		b.worth += int64(missed) * price(path.loss)
	}
	if due.IsZero() {
		return // probes only: the burst that sent them runs
	}
	elsewhere := maxTime(p.heard, p.vouched).After(due)
	if b := p.burst; b != nil && b.own && (!b.linkOnly || elsewhere) {
		return
	}
	m.verify(now, p, due, now, elsewhere)
	if p.burst != nil && p.burst.own {
		p.burst.unanswered, p.burst.worth = missed, int64(missed)*price(path.loss)
		m.note(p, now, belfry.NodeID{}, r.link.Network, fmt.Sprintf("heartbeat missed, maximum wait %v", r.maxWait(path).Round(time.Millisecond)))
	}
}

// verify begins a burst of this node's own. It does nothing while this node's
// votes do not count after a pause, and for nodes whose silence is no news.
func (m *Machine) verify(now time.Time, p *member, due, began time.Time, linkOnly bool) {
	switch p.held.Verdict {
	case belfry.VerdictUp, belfry.VerdictUnreachable, belfry.VerdictStalled:
	default:
		return
	}
	if now.Before(m.health.quiet) || p.held.Cause == belfry.CauseRestarting {
		return
	}
	m.bursts++
	b := &burst{number: m.bursts, own: true, linkOnly: linkOnly, due: due, began: began, next: now}
	if p.burst != nil {
		b.askers = p.burst.askers
	}
	p.burst, p.doubt, p.verified = b, time.Time{}, now
	if !linkOnly {
		m.suspect(now)
	}
}

// advanceBurst does the rounds of p's burst.
func (m *Machine) advanceBurst(now time.Time, p *member) {
	b := p.burst
	if b == nil || b.next.After(now) {
		return
	}
	if m.burstOver(now, p) {
		p.burst = nil
		return
	}
	others := m.coWatchers(p)
	if by := p.answerer(now); by != nil && !slices.Contains(others, by) {
		others = append(others, by)
	}
	perRound := 1
	if b.own && !b.linkOnly {
		perRound = max(1, probesPerRound-len(others))
	}
	round := 0 // round 0 is one probe; the others have perRound
	if b.ticks > 0 {
		round = 1 + (b.ticks-1)/perRound
	}
	length := m.roundOf(p)
	if round > slowAfter {
		length, perRound = max(length, slowRound), 1
	}
	for _, r := range p.rows {
		if !b.linkOnly || r.deviation > 0 && r.state != belfry.LinkDown {
			m.probe(now, r)
		}
	}
	if b.ticks == 0 || (b.ticks-1)%perRound == 0 {
		m.startRound(now, p, others, round, length)
	}
	if b.ticks++; b.ticks == 1 {
		perRound = 1
	}
	b.next = now.Add(length / time.Duration(perRound))
}

// startRound does what happens once per round: dial, ask, report.
func (m *Machine) startRound(now time.Time, p *member, others []*member, round int, length time.Duration) {
	b := p.burst
	for _, a := range b.askers {
		m.sendResult(now, p, a)
	}
	if b.own && round > 0 && !p.exit.reset.IsZero() {
		m.dial(now, p)
	}
	if !b.own || b.linkOnly || round == 0 {
		return
	}
	if (round >= 2 || !p.spoke.IsZero()) && now.Sub(b.dialed) >= redial {
		m.dial(now, p)
	}
	for _, w := range others {
		i := slices.IndexFunc(b.results, func(r result) bool { return r.from == w })
		if i < 0 || now.Sub(b.results[i].at) >= 2*length {
			m.send(now, w, &RelayAsk{Subject: p.Number, Burst: b.number})
		}
	}
}

// burstOver tells whether there is nothing left to find out.
func (m *Machine) burstOver(now time.Time, p *member) bool {
	b := p.burst
	if !b.own {
		return !now.Before(b.expires)
	}
	return b.linkOnly && !slices.ContainsFunc(p.rows, func(r *row) bool {
		return r.deviation > 0 && r.state != belfry.LinkDown
	})
}

// roundOf is the shortest round over p's links.
func (m *Machine) roundOf(p *member) time.Duration {
	shortest := time.Duration(0)
	for _, r := range p.rows {
		shortest = smallest(shortest, m.path(r).round())
	}
	return shortest
}

// asked begins to probe a subject for a co-watcher, or reports to it from the
// burst that already runs.
func (m *Machine) asked(now time.Time, from *member, ask *RelayAsk) {
	p := m.numbered(ask.Subject)
	if p == nil || len(p.rows) == 0 || !p.inRing() || now.Before(m.health.quiet) {
		return
	}
	if p.burst == nil {
		m.bursts++
		p.burst = &burst{number: m.bursts, began: now, due: now, next: now}
	}
	b := p.burst
	b.expires = now.Add(relayTime)
	i := slices.IndexFunc(b.askers, func(a asker) bool { return a.who == from })
	if i < 0 {
		b.askers = append(b.askers, asker{who: from, burst: ask.Burst})
		return
	}
	b.askers[i].burst = ask.Burst
}

func (m *Machine) sendResult(now time.Time, p *member, a asker) {
	b := p.burst
	ago := heardAgoMax
	if last := maxTime(p.heard, p.spoke); !last.IsZero() {
		ago = min((now.Sub(last) + time.Millisecond - 1).Truncate(time.Millisecond), heardAgoMax)
	}
	loss := uint8(0)
	for _, r := range p.rows {
		loss = max(loss, m.path(r).loss)
	}
	m.send(now, a.who, &RelayResult{
		Subject: p.Number, Burst: a.burst, Unanswered: uint8(min(b.unanswered, 255)), Loss: loss,
		HeardAgo: max(ago, 0), KernelAnswers: b.kernel == kernelAnswers,
	})
}

// resulted takes the count of a co-watcher. If it heard the subject after the
// missed heartbeat was due, the node lives and only the link is at stake.
func (m *Machine) resulted(now, at time.Time, from *member, res *RelayResult) {
	p := m.numbered(res.Subject)
	if p == nil || p.burst == nil || !p.burst.own || p.burst.number != res.Burst {
		return
	}
	b := p.burst
	if res.HeardAgo < heardAgoMax {
		m.vouch(now, at.Add(-res.HeardAgo), p, from)
	}
	if p.burst != b || b.linkOnly {
		return
	}
	if res.KernelAnswers && b.kernel != kernelRefuses {
		b.accept(now)
	}
	i := slices.IndexFunc(b.results, func(r result) bool { return r.from == from })
	if i < 0 {
		i = len(b.results)
		b.results = append(b.results, result{from: from})
	}
	b.results[i].at, b.results[i].unanswered, b.results[i].loss = at, int(res.Unanswered), res.Loss
}

// vouch takes another node's word that p was heard at the time t.
func (m *Machine) vouch(now, t time.Time, p *member, from *member) {
	if p == m.self || !t.After(p.vouched) {
		return
	}
	p.vouched = t
	if p.private && t.After(p.held.Since) {
		// Nobody else was told, so nobody else takes it back.
		m.note(p, now, from.ID, "", "heard it "+now.Sub(t).Round(time.Millisecond).String()+" ago")
		m.change(now, p, held{
			Incarnation: p.held.Incarnation, Turn: p.held.Turn, Verdict: belfry.VerdictUp, Cause: belfry.CauseIndirect,
			Observers: 1, Since: t, Origin: from.Number,
		})
	}
	if t.After(p.doubt) {
		p.doubt = time.Time{}
	}
	if b := p.burst; b != nil && b.own && !b.linkOnly && t.After(b.due) {
		b.linkOnly = true
		m.health.worse(now)
		m.note(p, now, from.ID, "", "heard it "+now.Sub(t).Round(time.Millisecond).String()+" ago")
	}
}

// answeredBurst ends p's burst: it was heard. Askers are told at once.
func (m *Machine) answeredBurst(now time.Time, p *member) {
	p.doubt = time.Time{}
	b := p.burst
	if b == nil {
		return
	}
	if b.linkOnly && slices.ContainsFunc(p.rows, func(r *row) bool { return r.deviation > 0 }) {
		return // heard on one link, another one is still silent
	}
	b.unanswered = 0
	for _, a := range b.askers {
		m.sendResult(now, p, a)
	}
	if b.own && p.held.Verdict == belfry.VerdictUp {
		m.note(p, now, belfry.NodeID{}, "", "heard again after "+now.Sub(b.began).Round(time.Millisecond).String())
		p.closed = true
	}
	if b.own && slices.ContainsFunc(p.rows, func(r *row) bool { return r.deviation > 0 }) {
		b.linkOnly, b.complete, b.askers = true, false, nil
		return
	}
	p.burst = nil
}

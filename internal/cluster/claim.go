package cluster

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	ageUnit = 10 * time.Millisecond
	ageMax  = 65535 * ageUnit

	// piggybackMax is how many of the newest claims ride in a heartbeat, and
	// piggybackTime for how long.
	piggybackMax  = 8
	piggybackTime = 10 * time.Second
	// spreadEvery separates the rounds in which a claim is sent on.
	spreadEvery = 50 * time.Millisecond
	// claimsMax is what one datagram of 1,200 bytes holds of 14-byte claims.
	claimsMax = 80
	// manyMembers is where drawing at random becomes cheaper than listing all.
	manyMembers = 64
	// viewEvery bounds how often a peer whose view differs is sent all claims.
	viewEvery = time.Second
)

// held is the verdict that this node holds of a member, as a claim with times
// instead of ages. The order of claims is (incarnation, turn, verdict).
type held struct {
	Incarnation belfry.Incarnation
	Turn        uint16
	Verdict     belfry.Verdict
	Cause       belfry.Cause
	Observers   uint8
	Since       time.Time // when the silence began, or when the proof of life came
	Origin      belfry.NodeNumber
}

// compare orders claims on one subject; the greater one stands.
func (c held) compare(other held) int {
	return cmp.Or(
		cmp.Compare(c.Incarnation, other.Incarnation),
		cmp.Compare(c.Turn, other.Turn),
		cmp.Compare(c.Verdict, other.Verdict))
}

// follows gives c the lowest turn in which it stands against the other: worse
// verdicts stand in the same turn, a better one takes the next. After the last
// turn there is none: c does not stand then, and only a new incarnation does.
func (c held) follows(other held) held {
	c.Turn = 0
	if c.Incarnation == other.Incarnation {
		c.Turn = other.Turn
		if c.Verdict <= other.Verdict && c.Turn < math.MaxUint16 {
			c.Turn++
		}
	}
	return c
}

// hash is the claim's share of the view hash.
func (c held) hash(number belfry.NodeNumber) uint32 {
	packed := uint64(number)<<48 | uint64(c.Incarnation)<<16 | uint64(c.Turn)
	return uint32(mix64(mix64(packed)+uint64(c.Verdict))) & clockMask
}

// mix64 is the finaliser of SplitMix64.
func mix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// told tells whether this node says something of p to others.
func (p *member) told() bool {
	return p.held.Incarnation != 0 && !p.private || p.parked != nil && p.parked.passed
}

// claimOf is the claim on p as it travels: the one held, or the one that is
// passed on while p has time to answer.
func claimOf(now time.Time, p *member) belfry.Claim {
	c := p.held
	if p.parked != nil && p.parked.passed {
		c = p.parked.claim
	}
	age := min(max(now.Sub(c.Since), 0), ageMax)
	return belfry.Claim{
		Subject: p.Number, Incarnation: c.Incarnation, Turn: c.Turn,
		Verdict: c.Verdict, Cause: c.Cause, Observers: c.Observers,
		Age: (age + ageUnit - 1) / ageUnit * ageUnit, Origin: c.Origin,
	}
}

// A rumour is a claim on its way to random members.
type rumour struct {
	about  *member
	rounds int
	next   time.Time
}

// spread sends p's claim on, from now, and keeps it among the newest.
func (m *Machine) spread(now time.Time, p *member) {
	p.news = now
	m.news = append(slices.DeleteFunc(m.news, func(q *member) bool { return q == p }), p)
	m.rumours = slices.DeleteFunc(m.rumours, func(r rumour) bool { return r.about == p })
	m.rumours = append(m.rumours, rumour{about: p, rounds: m.cfg.FanOutRounds, next: now})
}

// advanceRumours sends what is due, all of it to the same few members.
func (m *Machine) advanceRumours(now time.Time) {
	var due []*member
	for i := range m.rumours {
		if r := &m.rumours[i]; !r.next.After(now) {
			due = append(due, r.about)
			r.rounds--
			r.next = now.Add(spreadEvery)
		}
	}
	if len(due) == 0 {
		return
	}
	m.rumours = slices.DeleteFunc(m.rumours, func(r rumour) bool { return r.rounds == 0 })
	to := m.randomMembers(due)
	for _, row := range to {
		m.sendClaims(now, row, due)
	}
	for _, p := range due {
		// The subject hears it too: if it lives, it answers.
		if p.accused() && !slices.Contains(to, p.at) {
			m.sendClaims(now, p.at, []*member{p})
		}
	}
}

// accused tells whether what is said of p is something that it may refute.
func (p *member) accused() bool {
	return doubtful(p.held.Verdict) || p.parked != nil && p.parked.passed
}

func doubtful(v belfry.Verdict) bool {
	return v == belfry.VerdictStalled || v == belfry.VerdictUnreachable || v == belfry.VerdictDown
}

// randomMembers draws up to F members that are up, without the only subject.
func (m *Machine) randomMembers(subjects []*member) []int32 {
	return m.draw(m.cfg.FanOut, func(row int32) bool {
		return row != m.self.at && (len(subjects) > 1 || subjects[0].at != row) && m.heldOf(row).Verdict == belfry.VerdictUp
	})
}

// draw draws up to so many members at random of those that may be drawn. In a
// large table it tries; in a small one, or where few may, it lists them.
func (m *Machine) draw(wanted int, may func(row int32) bool) []int32 {
	n := int32(m.table.Len())
	picked := make([]int32, 0, wanted)
	if n > manyMembers {
		for range 8 * wanted {
			if row := m.rng.Int32N(n); len(picked) < wanted && may(row) && !slices.Contains(picked, row) {
				picked = append(picked, row)
			}
		}
	}
	if len(picked) == wanted {
		return picked
	}
	picked = picked[:0]
	for row := range n {
		if may(row) {
			picked = append(picked, row)
		}
	}
	wanted = min(wanted, len(picked))
	for i := range wanted {
		j := i + m.rng.IntN(len(picked)-i)
		picked[i], picked[j] = picked[j], picked[i]
	}
	return picked[:wanted]
}

// sendClaims sends what is held of the subjects to one member.
func (m *Machine) sendClaims(now time.Time, to int32, subjects []*member) {
	var claims []belfry.Claim
	for _, p := range subjects {
		if p.told() {
			claims = append(claims, claimOf(now, p))
		}
	}
	m.sendAll(now, to, claims)
}

// sendAll sends claims to one member, in as many datagrams as they need. It
// does not begin to hold anything about that member. A node that is stopped
// itself sends nothing.
func (m *Machine) sendAll(now time.Time, to int32, claims []belfry.Claim) {
	if to == m.self.at || m.self.Stopped || m.table.rows[to].Stopped {
		return
	}
	p := m.byID[m.table.rows[to].ID]
	for chunk := range slices.Chunk(claims, claimsMax) {
		if p != nil {
			m.send(now, p, &Claims{Claims: chunk})
		} else {
			m.sendTo(&m.table.rows[to], &Claims{Claims: chunk})
		}
	}
}

// newestClaims are those that ride in a heartbeat.
func (m *Machine) newestClaims(now time.Time) []belfry.Claim {
	var claims []belfry.Claim
	for i := len(m.news) - 1; i >= 0 && len(claims) < piggybackMax; i-- {
		if p := m.news[i]; p.told() && now.Sub(p.news) < piggybackTime {
			claims = append(claims, claimOf(now, p))
		}
	}
	return claims
}

// heardClaims weighs what a member says of others.
func (m *Machine) heardClaims(now, at time.Time, from *member, claims []belfry.Claim) {
	for _, c := range claims {
		p := m.numbered(c.Subject)
		if p == nil || c.Incarnation == 0 || p.Stopped {
			continue
		}
		if !goesWith(c.Verdict, c.Cause) {
			m.drops.Claim++
			continue
		}
		claim := held{
			Incarnation: c.Incarnation, Turn: c.Turn, Verdict: c.Verdict, Cause: c.Cause,
			Observers: c.Observers, Since: at.Add(-c.Age), Origin: c.Origin,
		}
		switch {
		case from != p && !p.reach.reached(now, p.held, claim):
			m.drops.Claim++
		case p == m.self:
			m.refute(now, from, claim)
		case c.Verdict == belfry.VerdictUp:
			m.vouch(now, at.Add(-c.Age), p, from)
			m.consider(now, p, claim, from)
		default:
			m.consider(now, p, claim, from)
		}
	}
}

// goesWith tells whether a verdict can have a cause. What follows from a verdict
// depends on its cause, so another pair is no claim.
func goesWith(v belfry.Verdict, c belfry.Cause) bool {
	switch c {
	case belfry.CauseNone:
		return v == belfry.VerdictJoining
	case belfry.CauseDirect, belfry.CauseIndirect:
		return v == belfry.VerdictUp
	case belfry.CauseAgent, belfry.CauseRestarting:
		return v == belfry.VerdictStalled
	case belfry.CauseSilent:
		return v == belfry.VerdictUnreachable || v == belfry.VerdictDown
	case belfry.CauseProcess, belfry.CauseStalled:
		return v == belfry.VerdictDown
	case belfry.CauseLeft, belfry.CauseStopped, belfry.CauseRemoved:
		return v == belfry.VerdictLeft
	}
	return false
}

// consider adopts a claim if it is greater than the one held, or answers it.
func (m *Machine) consider(now time.Time, p *member, claim held, from *member) {
	switch order := claim.compare(p.held); {
	case order == 0:
		m.agree(now, p, claim, from)
		return
	case order < 0:
		return
	}
	silence := doubtful(claim.Verdict) && claim.Cause != belfry.CauseProcess
	since := claim.Since
	if claim.Cause == belfry.CauseRestarting {
		// What it sent until its goodbye refutes nothing, and ages are rounded up
		// by each who passes them on.
		since = since.Add(parkHearsay)
	}
	if silence && p.heard.After(since) { // of whatever incarnation: that number is hearsay
		m.answer(now, p, claim, from)
		return
	}
	if claim.Verdict == belfry.VerdictUp {
		m.corrected(now, p, from)
	}
	if p.parked == nil || claim.compare(p.parked.claim) > 0 {
		if claim.Verdict != belfry.VerdictUp || p.held.Verdict != belfry.VerdictUp {
			m.note(p, now, from.ID, "", "claims "+p.describe(claim))
		}
	}
	if wait, pass := m.parkTime(now, p, claim, from); wait > 0 {
		m.park(now, p, claim, wait, pass)
		return
	}
	if claim.Verdict == belfry.VerdictUp && !p.anyHeard() {
		claim.Cause = belfry.CauseIndirect
	}
	witnessed := claim.Verdict == belfry.VerdictDown && claim.Cause == belfry.CauseProcess && !p.exit.reset.IsZero()
	m.adopt(now, p, claim)
	if witnessed { // this node saw the reset too and was about to confirm it
		m.confirm(now, p)
	}
}

// agree notes that another node came to the verdict that is held, by itself:
// a claim that was only passed on names the same origin.
func (m *Machine) agree(now time.Time, p *member, claim held, from *member) {
	if !doubtful(claim.Verdict) || claim.Origin != from.Number || claim.Origin == p.held.Origin || p.wrote(from.ID, p.held.Since) {
		return
	}
	m.note(p, now, from.ID, "", "agrees: "+p.describe(claim))
	p.held.Observers = max(p.held.Observers, 2)
}

// confirm makes a verdict that others brought this node's own as well, and
// lets them know.
func (m *Machine) confirm(now time.Time, p *member) {
	if p.held.Origin == m.self.Number {
		return
	}
	p.held.Origin = m.self.Number
	p.held.Observers = max(p.held.Observers, 2)
	m.spread(now, p)
}

// answer is "node alive" against "node down" (US8433760): this node heard the
// subject after the silence is said to have begun.
func (m *Machine) answer(now time.Time, p *member, claim held, from *member) {
	alive := held{
		Incarnation: claim.Incarnation, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect,
		Observers: 1, Since: p.heard, Origin: m.self.Number,
	}.follows(claim)
	m.adopt(now, p, alive)
	m.sendClaims(now, from.at, []*member{p})
}

// refute is the answer of the subject itself. It also takes over an incarnation
// that it has not reached: the number orders claims, and somebody lied or
// remembers a start that this node forgot.
func (m *Machine) refute(now time.Time, from *member, claim held) {
	if claim.compare(m.self.held) <= 0 {
		if claim.Verdict != belfry.VerdictUp && claim.Verdict != belfry.VerdictJoining {
			m.sendClaims(now, from.at, []*member{m.self}) // it did not hear of the answer
		}
		return
	}
	if claim.Verdict == belfry.VerdictDown || claim.Verdict == belfry.VerdictLeft {
		m.out.Changes = append(m.out.Changes, WasDown{
			Verdict: claim.Verdict, Cause: claim.Cause, Incarnation: claim.Incarnation, By: from.ID, Since: claim.Since, At: now,
		})
	}
	alive := held{
		Incarnation: claim.Incarnation, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect,
		Observers: 1, Since: now, Origin: m.self.Number,
	}.follows(claim)
	if claim.Verdict == belfry.VerdictUp {
		alive.Turn = claim.Turn // others raised it for this node: follow
	}
	m.adopt(now, m.self, alive)
	m.sendClaims(now, from.at, []*member{m.self})
}

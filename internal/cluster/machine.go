// Package cluster knows which nodes and links are alive: heartbeats, the
// database of links, verification and verdicts as one pure machine.
//
// The driver hands in what arrived, calls Advance, and does what Take says. It
// must hand in everything readable before it calls Advance, else a node that
// slept judges others without having read its mail. DESIGN.md has the reasons.
package cluster

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A Machine is not safe for concurrent use; its driver owns it.
type Machine struct {
	cfg   Config
	rng   *rand.Rand // draws the members that claims are sent to
	start time.Time  // origin of the send clock and of the schedule

	self    *member
	table   *Table
	tableAt time.Time                 // when it came
	byID    map[belfry.NodeID]*member // those of whom more is held than the table says
	outside int                       // members that are down or left
	peers   []*member                 // this node's neighbours, in ring order
	paced   []*member                 // of these, those that the schedule is shared between
	watched []*member                 // those with rows, by NodeID
	fallen  []*member                 // those that are down, by NodeID
	doubted []*member                 // those that are stalled or unreachable, by NodeID

	view     uint32   // hash of all claims held
	buckets  []uint32 // the same, of each 64 numbers
	news     []*member
	rumours  []rumour
	parked   []*member // those with a claim that is not held yet, oldest first
	unposted []*member // those whose verdict consumers were not told yet
	views    uint64    // number of the newest change that was posted

	suspicion suspicion
	pairsAt   time.Time // when pairs were looked at last
	pairsSeen [][2]belfry.NodeID
	pairsTold [][2]belfry.NodeID

	health   health
	heal     time.Time
	healTurn int
	bursts   uint16 // number of the newest burst
	version  uint64 // of the link database

	removedLinks []RemovedLink     // oldest first
	interfaces   map[string]*iface // by network
	interests    []belfry.NodeID   // beside the ring
	last         time.Time         // of the newest Advance
	drops        Drops
	out          Output
}

// Drops counts the datagrams that had no effect, by reason.
type Drops struct {
	Stranger       uint64 // sender is not a member, is stopped, or is this node
	OldIncarnation uint64 // sender's incarnation was replaced
	Left           uint64 // sender left in this incarnation
	Unproven       uint64 // not bound to this node's present boot; answered with it at most
	Claim          uint64 // claims, not datagrams: of no form that there is, or in a turn that can not have been reached
}

// New is a machine whose only member is this node. cfg must be valid.
func New(cfg Config, now time.Time, rng *rand.Rand) *Machine {
	m := &Machine{cfg: cfg, rng: rng, start: now, byID: map[belfry.NodeID]*member{}, interfaces: map[string]*iface{}}
	m.table = NewTable(cfg.Cluster, 0, []Member{{ID: cfg.Self, Number: cfg.Number, Name: cfg.Name}})
	m.buckets = slices.Clone(m.table.buckets)
	m.self = m.member(0)
	m.self.incarnation, m.self.running, m.self.posted = cfg.Incarnation, cfg.Incarnation, belfry.VerdictUp
	m.self.reach.proved(now, cfg.Incarnation)
	m.self.held = held{
		Incarnation: cfg.Incarnation, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect,
		Observers: 1, Since: now, Origin: cfg.Number,
	}
	m.view = m.buckets[bucketOf(cfg.Number)]
	m.count(m.self, m.self.base(), m.self.held)
	return m
}

// Receive takes one input. Messages about nodes that are no members change
// nothing.
func (m *Machine) Receive(now time.Time, msg Message) {
	switch msg := msg.(type) {
	case Datagram:
		m.datagram(now, msg)
	case Stream:
		m.stream(now, msg)
	case Dialed:
		m.dialed(now, msg)
	case Refused:
		m.refused(now, msg)
	case Members:
		m.setMembers(now, msg.Table)
	case Settings:
		m.cfg.Tunables = msg.Tunables
		m.rewatch(now)
	case Interface:
		m.setInterface(now, msg)
	case Interests:
		m.setInterests(now, msg.Peers)
	case Unreachable:
		m.noWay(now, msg)
	case Congested:
		m.paused(now, latenessMax)
		m.void(now, latenessMax) // what was not sent was not asked
	case Suspended:
		m.paused(now, msg.D)
	case Dropped:
		m.paused(now, latenessMax)
		m.void(now, latenessMax) // what was dropped may have been the answers
	}
}

// Advance does what is due.
func (m *Machine) Advance(now time.Time) {
	m.advanceHealth(now)
	m.advanceInterfaces(now)
	m.last = now
	for _, p := range m.watched {
		for _, r := range p.rows {
			m.advanceRow(now, p, r)
		}
		m.advanceDoubt(now, p)
		m.judge(now, p)
		m.advanceBurst(now, p)
	}
	m.advanceHeal(now)
	m.advanceParked(now)
	m.advanceSuspicion(now)
	m.advancePosts(now)
	m.advanceTransitive(now)
	m.advanceRumours(now)
	m.health.asked = m.NextTimeout()
}

// advanceRow looks at one link: what is missing, its state, its heartbeat.
func (m *Machine) advanceRow(now time.Time, p *member, r *row) {
	due := r.due
	if missed := r.overdue(now, m.path(r)); missed > 0 {
		if r.due.Equal(due) {
			due = time.Time{}
		}
		m.miss(now, p, r, due, missed)
	}
	m.judgeLink(now, p, r)
	m.show(now, p, r) // what fades, or ages
	if p.guest && p.burst == nil && r.state == belfry.LinkDown && p.held.Verdict == belfry.VerdictUp {
		m.unwatch(p)
		m.rewatch(now)
	}
	if len(p.rows) == 0 {
		return // nobody watches it here any longer
	}
	m.advanceJoin(now, r)
	if p.inRing() && !m.self.Stopped && !r.nextTx.After(now) {
		m.heartbeat(now, r)
	}
}

// judgeLink moves a row to the state it should have.
func (m *Machine) judgeLink(now time.Time, p *member, r *row) {
	state, reason := r.judge(now, m.path(r))
	if state == r.state {
		return
	}
	if state == belfry.LinkDown && p.spoke.After(r.lastRx) {
		reason = "datagrams: the agent answers on its stream port; " + reason
	}
	m.setLink(now, r, state, reason)
	if !r.usable() {
		m.lostWay(p)
		return
	}
	switch p.held.Verdict {
	case belfry.VerdictJoining, belfry.VerdictDown, belfry.VerdictLeft:
		m.comeUp(now, p, "two-way link")
	case belfry.VerdictUp:
		p.held.Cause = belfry.CauseDirect
	}
}

// advanceDoubt verifies a node whose verdict rests on nothing that this node
// does itself.
func (m *Machine) advanceDoubt(now time.Time, p *member) {
	t := m.doubtAt(p)
	if t.IsZero() || t.After(now) {
		return
	}
	text := "nobody vouches for it any longer"
	if !p.doubt.IsZero() {
		text = "verified again after an own pause"
	}
	m.verify(now, p, t, now, false)
	if p.burst != nil && p.held.Verdict == belfry.VerdictUp {
		m.note(p, now, belfry.NodeID{}, "", text)
	}
}

// doubtAt is when p has to be verified without a miss of this node's own: when
// it is in doubt already and no burst runs, as after an own pause; or when the
// word of others that it lives is too old and there is no link of its own.
// Each peer speaks of each other peer once in Keff cycles.
func (m *Machine) doubtAt(p *member) time.Time {
	if p.burst != nil && p.burst.own || p.held.Cause == belfry.CauseRestarting {
		return time.Time{}
	}
	switch p.held.Verdict {
	case belfry.VerdictUnreachable, belfry.VerdictStalled:
		return m.again(p)
	case belfry.VerdictUp:
		switch {
		case !p.doubt.IsZero():
			return m.again(p)
		case slices.ContainsFunc(p.rows, (*row).watching):
			return time.Time{}
		}
		last := maxTime(p.heard, p.vouched).Add(time.Duration(m.keff()+1)*m.cycle() + time.Second)
		return maxTime(last, m.health.quiet)
	}
	return time.Time{}
}

// again is when p may be verified once more: a round after the last time, since
// who is verified is sent a probe at once, and not while own votes do not count.
func (m *Machine) again(p *member) time.Time {
	return maxTime(maxTime(m.last, p.verified.Add(m.roundOf(p))), m.health.quiet)
}

// NextTimeout is when Advance has something to do without new input; the zero
// time while there is nobody to watch.
func (m *Machine) NextTimeout() (next time.Time) {
	if len(m.watched)+len(m.rumours)+len(m.fallen)+len(m.parked)+len(m.unposted) == 0 {
		return time.Time{}
	}
	next = m.last.Add(healthTick)
	for _, p := range m.watched {
		silent := !p.inRing() || m.self.Stopped
		for _, r := range p.rows {
			next = sooner(next, r.next(m.path(r), silent))
		}
		if p.burst != nil {
			next = sooner(sooner(next, p.burst.next), m.last.Add(burstTick))
		}
		next = sooner(sooner(sooner(next, m.verdictTimer(m.last, p)), m.doubtAt(p)), p.returnDue())
	}
	for _, r := range m.rumours {
		next = sooner(next, r.next)
	}
	for _, p := range m.parked {
		next = sooner(next, minTime(p.parked.next, p.parked.until))
	}
	if m.suspicion.suspects() {
		next = sooner(next, m.suspicion.next)
	}
	return sooner(sooner(sooner(next, m.nextPost(m.last)), m.heal), m.interfaceDue())
}

// Take gives away what has come together since the last call.
func (m *Machine) Take() Output {
	out := m.out
	m.out = Output{}
	return out
}

// View is the hash of all claims held, 24 bits: equal on nodes that agree.
func (m *Machine) View() uint32 { return m.view }

// Generation is that of the member table in use.
func (m *Machine) Generation() uint64 { return m.table.generation }

// Drops is the counters so far.
func (m *Machine) Drops() Drops { return m.drops }

package cluster

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// suspectProbes is how many other members are asked whether this node is
	// still heard, suspectEvery how often, and suspectTime how long they have.
	suspectProbes = 3
	suspectEvery  = 100 * time.Millisecond
	suspectTime   = 400 * time.Millisecond

	// strongVote is how many unanswered receptions make an observer one that
	// counts against the watermarks.
	strongVote = 4
	// voteWait is how long a death waits for observers that are about to agree.
	voteWait = 500 * time.Millisecond
)

// suspicion is what this node thinks of its own network: when it misses most of
// its peers, the fault is likely its own (cluster.md 9).
type suspicion struct {
	since    time.Time // the first of the misses; zero: no suspicion
	until    time.Time // others are asked until then
	next     time.Time // when they are asked again; zero: no more
	asked    []int32   // rows
	isolated bool
	allayed  time.Time // when somebody answered the last time
}

// suspects tells whether this node's word on others has to wait.
func (s *suspicion) suspects() bool { return !s.since.IsZero() && !s.isolated }

// missing tells whether this node verifies that p is silent altogether.
func (p *member) missing() bool { return p.burst != nil && p.burst.own && !p.burst.linkOnly }

// suspect begins to doubt this node itself when it misses more than half of its
// peers, and two at least. They need not have fallen silent at once: a cut that
// takes a while to be complete leaves this node alone all the same.
func (m *Machine) suspect(now time.Time) {
	s := &m.suspicion
	if !s.since.IsZero() || !s.allayed.IsZero() && now.Sub(s.allayed) < m.cycle() {
		return
	}
	missing, since := 0, now
	for _, p := range m.peers {
		if p.missing() {
			missing++
			since = minTime(since, p.burst.began)
		}
	}
	if missing < 2 || 2*missing <= len(m.paced) {
		return
	}
	s.since, s.next, s.until = since, now, now.Add(max(suspectTime, 4*m.slowestRound()))
	s.asked = m.draw(suspectProbes, func(row int32) bool {
		p := m.byID[m.table.rows[row].ID]
		return row != m.self.at && m.heldOf(row).Verdict == belfry.VerdictUp && (p == nil || !p.missing())
	})
}

// advanceSuspicion asks others, and gives up on this node when none answers.
func (m *Machine) advanceSuspicion(now time.Time) {
	s := &m.suspicion
	if !s.suspects() || s.next.After(now) {
		return
	}
	if !now.Before(s.until) {
		s.isolated = true
		m.out.Changes = append(m.out.Changes, Isolated{On: true, Since: s.since, At: now})
		return
	}
	for _, row := range s.asked {
		m.ask(now, m.member(row))
	}
	s.next = minTime(now.Add(suspectEvery), s.until)
}

// allay ends the suspicion: somebody was heard since it began, be it a kernel
// that accepts or refuses for an agent that says nothing. What an isolated
// node held against others begins anew: it is verified again with those who can
// be asked now, and the allowance counts from here.
func (m *Machine) allay(now, at time.Time) {
	s := &m.suspicion
	if s.since.IsZero() || at.Before(s.since) {
		return
	}
	isolated := s.isolated
	*s = suspicion{allayed: now}
	if !isolated {
		return
	}
	m.out.Changes = append(m.out.Changes, Isolated{On: false, At: now})
	for _, p := range m.doubted {
		if p.held.Verdict == belfry.VerdictUnreachable {
			p.held.Since = now
			m.verify(now, p, now, now, false)
		}
	}
}

// votesMissing tells whether observers are about to agree on p's death: more
// than a few have, and not yet most of those that look (after Rapid). Watchers
// that took p over a moment ago, from others that died with it, do not look yet.
func (m *Machine) votesMissing(p *member) bool {
	votes, observers := 0, 1
	if p.burst.unanswered >= strongVote {
		votes++
	}
	for _, r := range p.burst.results {
		if r.from.held.Verdict != belfry.VerdictUp {
			continue
		}
		observers++
		if r.unanswered >= strongVote {
			votes++
		}
	}
	low, high := min(2, observers), (3*observers+3)/4
	return votes >= low && votes < high
}

// transitiveEvery is how often pairs are looked at that do not reach each
// other; what is seen twice in a row is told.
const transitiveEvery = time.Second

// unmentionedMax is how many heartbeats of a node in a row may speak of others,
// in turn, without a word of one that it hears.
const unmentionedMax = 12

// mention notes of which third node a heartbeat speaks. In a full mesh each
// node thus knows who hears whom.
func (m *Machine) mention(p *member, hb *Heartbeat) {
	if hb.Probe || hb.Answer || !m.fullMesh() {
		p.unmentioned = nil
		return
	}
	if p.unmentioned == nil {
		p.unmentioned = map[belfry.NodeNumber]int{}
	}
	for _, q := range m.peers {
		if q != p {
			p.unmentioned[q.Number]++
		}
	}
	p.unmentioned[hb.Fresh.Subject] = 0
}

// advanceTransitive looks for pairs of nodes that are both up and do not reach
// each other. Membership is not formed anew for it: nobody is to blame.
func (m *Machine) advanceTransitive(now time.Time) {
	if now.Sub(m.pairsAt) < transitiveEvery || len(m.peers) < 2 || !m.suspicion.since.IsZero() {
		return
	}
	m.pairsAt = now
	pairs := m.brokenPairs(now)
	twice := slices.Equal(pairs, m.pairsSeen)
	m.pairsSeen = pairs
	if !twice || slices.Equal(pairs, m.pairsTold) {
		return
	}
	m.pairsTold = pairs
	m.out.Changes = append(m.out.Changes, NonTransitive{Pairs: slices.Clone(pairs), Connected: m.connected(pairs), At: now})
}

// brokenPairs are this node's own, and in a full mesh those of others.
func (m *Machine) brokenPairs(now time.Time) (pairs [][2]belfry.NodeID) {
	add := func(a, b *member) {
		pair := [2]belfry.NodeID{a.ID, b.ID}
		if b.ID.Compare(a.ID) < 0 {
			pair[0], pair[1] = pair[1], pair[0]
		}
		if !slices.Contains(pairs, pair) {
			pairs = append(pairs, pair)
		}
	}
	for _, p := range m.peers {
		if p.held.Verdict != belfry.VerdictUp {
			continue
		}
		if !slices.ContainsFunc(p.rows, (*row).twoWay) && now.Sub(p.rowsSince()) > transitiveEvery {
			add(m.self, p)
			continue
		}
		for _, q := range m.peers {
			if q.held.Verdict == belfry.VerdictUp && p.unmentioned[q.Number] > unmentionedMax {
				add(p, q)
			}
		}
	}
	slices.SortFunc(pairs, func(a, b [2]belfry.NodeID) int {
		if c := a[0].Compare(b[0]); c != 0 {
			return c
		}
		return a[1].Compare(b[1])
	})
	return pairs
}

// twoWay tells whether the link may be relied on, or was until a moment ago.
func (r *row) twoWay() bool { return r.usable() || r.state == belfry.LinkUnknown }

// rowsSince is when the newest of p's rows came to its state.
func (p *member) rowsSince() (since time.Time) {
	for _, r := range p.rows {
		since = maxTime(since, r.since)
	}
	return since
}

// connected is the largest set of nodes of which none is in a pair with
// another; of several the one with the lowest ids. In a full mesh only, where
// there are few nodes and all pairs are known.
func (m *Machine) connected(pairs [][2]belfry.NodeID) []belfry.NodeID {
	if len(pairs) == 0 || !m.fullMesh() {
		return nil
	}
	var up []belfry.NodeID
	for _, p := range append(slices.Clone(m.peers), m.self) {
		if p.held.Verdict == belfry.VerdictUp {
			up = append(up, p.ID)
		}
	}
	slices.SortFunc(up, belfry.NodeID.Compare)
	var best []belfry.NodeID
	for set := 1; set < 1<<len(up); set++ {
		var of []belfry.NodeID
		for i, id := range up {
			if set>>i&1 == 1 {
				of = append(of, id)
			}
		}
		torn := slices.ContainsFunc(pairs, func(p [2]belfry.NodeID) bool {
			return slices.Contains(of, p[0]) && slices.Contains(of, p[1])
		})
		if !torn && (len(of) > len(best) || len(of) == len(best) && slices.CompareFunc(of, best, belfry.NodeID.Compare) < 0) {
			best = of
		}
	}
	return best
}

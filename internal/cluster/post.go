package cluster

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// massWait is how long posting a silent death waits for others that are about
// to follow: a rack is one change, not forty (after Rapid; cluster.md 9).
const massWait = 500 * time.Millisecond

// A verdict is determined when it is held, and posted when consumers are told.
// Both happen at once, but for down: Tunables.NodeDownDelay can put it off, and
// silent deaths that fall due together are posted together. What changes back
// meanwhile is not posted at all (cluster.md 11).

// tell posts a new verdict, or plans to.
func (m *Machine) tell(now time.Time, p *member, c held) {
	m.unposted = slices.DeleteFunc(m.unposted, func(q *member) bool { return q == p })
	p.postAt = time.Time{}
	if c.Verdict == p.posted {
		return
	}
	if c.Verdict == belfry.VerdictDown && (m.cfg.NodeDownDelay > 0 || c.Cause == belfry.CauseSilent) {
		p.postAt, p.determined = now.Add(m.cfg.NodeDownDelay), now
		m.unposted = append(m.unposted, p)
		m.advancePosts(now)
		return
	}
	m.views++
	m.post(p, c, now)
}

// post hands one verdict to the consumers.
func (m *Machine) post(p *member, c held, determined time.Time) {
	from := p.posted
	p.posted, p.postAt = c.Verdict, time.Time{}
	m.out.Changes = append(m.out.Changes, NodeChange{
		Node: p.ID, Name: p.Name, From: from, To: c.Verdict, Cause: c.Cause,
		Incarnation: c.Incarnation, Turn: c.Turn, Observers: int(c.Observers),
		Since: c.Since, At: determined, View: m.views, Evidence: slices.Clone(p.evidence),
	})
}

// advancePosts posts what is due: process ends each at its time, silent deaths
// in one change with those that fall due within massWait of the first.
func (m *Machine) advancePosts(now time.Time) {
	if len(m.unposted) == 0 {
		return
	}
	var due []*member
	first, last := time.Time{}, time.Time{}
	for _, p := range m.unposted {
		if p.held.Cause != belfry.CauseSilent {
			if !p.postAt.After(now) {
				due = append(due, p)
			}
			continue
		}
		first, last = sooner(first, p.postAt), maxTime(last, p.postAt)
	}
	if !first.IsZero() && !first.After(now) && !m.postBatchAt(now, first, last).After(now) {
		for _, p := range m.unposted {
			if p.held.Cause == belfry.CauseSilent && !p.postAt.After(now) {
				due = append(due, p)
			}
		}
	}
	if len(due) == 0 {
		return
	}
	m.unposted = slices.DeleteFunc(m.unposted, func(p *member) bool { return slices.Contains(due, p) })
	m.views++
	for _, p := range due {
		m.post(p, p.held, p.determined)
	}
}

// postBatchAt is when silent deaths are posted of which the first and the last
// are due then: as soon as nobody else is about to follow.
func (m *Machine) postBatchAt(now, first, last time.Time) time.Time {
	at, end := first, first.Add(massWait)
	if !last.After(end) {
		at = last
	}
	for _, q := range m.doubted {
		if q.held.Verdict != belfry.VerdictUnreachable {
			continue
		}
		if due := m.downAt(now, q).Add(m.cfg.NodeDownDelay); !due.After(end) {
			at = maxTime(at, minTime(due.Add(dueSlack), end))
		}
	}
	return at
}

// dueSlack is left to a verdict that falls due elsewhere and has to travel.
const dueSlack = 50 * time.Millisecond

// nextPost is when advancePosts has something to do.
func (m *Machine) nextPost(now time.Time) (next time.Time) {
	first, last := time.Time{}, time.Time{}
	for _, p := range m.unposted {
		if p.held.Cause != belfry.CauseSilent {
			next = sooner(next, p.postAt)
			continue
		}
		first, last = sooner(first, p.postAt), maxTime(last, p.postAt)
	}
	if !first.IsZero() {
		next = sooner(next, m.postBatchAt(now, first, last))
	}
	return next
}

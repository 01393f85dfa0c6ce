package repository

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	maxWaiting  = 64                     // notices that wait for one read
	answerEvery = 100 * time.Millisecond // between two reports to one asker
	tellFor     = 6 * time.Second        // the poll brings it to whoever has not heard by then
)

// tellAfter is when members that have not reported a generation are told again;
// from then on every second.
var tellAfter = [...]time.Duration{50 * time.Millisecond, 200 * time.Millisecond, time.Second}

// jobNotes is how much had been said when the job began: what comes later is
// not judged by it.
type jobNotes struct{ waiting int }

// noticed judges a notice before anything is read for it.
func (m *Machine) noticed(now time.Time, n Noticed) {
	switch {
	case n.Notice.Cluster != m.cfg.Cluster:
		m.count(OutcomeForeign)
	case m.mode == Blank || m.mode == Leaving:
		m.count(OutcomeNotEnrolled)
	case n.Notice.Kind == NoticeHeld:
		m.count(OutcomeHeld)
		if n.Notice.Repository == m.held.Repository {
			m.reported(n.From, n.Notice.Generation)
			m.elsewhere(now, n.Notice) // this node may be the one that has not heard
		}
	case n.Notice.Repository != m.held.Repository:
		m.stranger(now, n)
	case !m.newer(n.Notice):
		m.count(OutcomeOld)
		m.answer(now, n.From)
	default:
		m.readFor(now, n)
	}
}

// newer tells whether a notice names what this node does not hold.
func (m *Machine) newer(n Notice) bool {
	return n.Epoch > m.held.Epoch || n.Epoch == m.held.Epoch && n.Generation > m.held.Generation
}

// stranger looks once whether there is such a repository: the document that this
// node holds names another one, so that it takes nothing from it.
func (m *Machine) stranger(now time.Time, n Noticed) {
	if !m.mayScan(now) {
		m.count(OutcomeNotFound)
		return
	}
	m.unknown = append(m.unknown, n)
}

// mayScan is a scan for a notice, rarely: notices must not keep the devices busy.
func (m *Machine) mayScan(now time.Time) bool {
	if !m.scanAsked.IsZero() && now.Sub(m.scanAsked) < scanUnknown {
		return false
	}
	m.scanAsked = now
	return true
}

// readFor has the storage read for a notice, now or as soon as it may be.
func (m *Machine) readFor(now time.Time, n Noticed) {
	if !m.open {
		if !m.mayScan(now) {
			m.count(OutcomeNotFound)
			return
		}
		m.scan = now
	}
	if len(m.waiting) == maxWaiting {
		m.count(OutcomeLimited)
		return
	}
	m.elsewhere(now, n.Notice)
	m.waiting = append(m.waiting, n)
	if m.wake.IsZero() {
		m.wake = now
	}
}

// named are the values that notices have told of, and those that a conflict has.
func (m *Machine) named() (all []Digest) {
	for _, p := range m.waiting {
		if !slices.Contains(all, p.Notice.Digest) {
			all = append(all, p.Notice.Digest)
		}
	}
	if d := m.swap.found; d != (Digest{}) && !slices.Contains(all, d) {
		all = append(all, d)
	}
	return all
}

// settle ends the notices that had come before the job began.
func (m *Machine) settle(outcome func(Notice) Outcome) {
	for _, p := range m.waiting[:m.during.waiting] {
		m.count(outcome(p.Notice))
	}
	m.waiting = slices.Delete(m.waiting, 0, m.during.waiting)
	m.during.waiting = 0
}

// satisfy ends the notices that came while what they name was on its way.
func (m *Machine) satisfy() {
	m.waiting = slices.DeleteFunc(m.waiting, func(n Noticed) bool {
		if m.newer(n.Notice) {
			return false
		}
		m.count(OutcomeConfirmed)
		return true
	})
	if len(m.waiting) == 0 {
		m.wake = time.Time{}
	}
}

// answer reports to a member that seems not to know what this node holds. A
// report is never answered, so that two members do not go on for ever.
func (m *Machine) answer(now time.Time, to belfry.NodeID) {
	if last, ok := m.answered[to]; ok && now.Sub(last) < answerEvery {
		return
	}
	if m.held.Document.Key(to) == nil {
		return
	}
	m.answered[to] = now
	m.send(to, m.notice(NoticeHeld, m.held.Version))
}

func (m *Machine) notice(kind NoticeKind, v Version) Notice {
	return Notice{Kind: kind, Cluster: m.cfg.Cluster, Repository: v.Repository, Epoch: v.Epoch, Generation: v.Generation, Digest: v.Digest}
}

func (m *Machine) send(to belfry.NodeID, n Notice) {
	m.out.Notices = append(m.out.Notices, Send{To: to, Notice: n})
}

// A telling is one generation that this node has committed, on its way to the
// members.
type telling struct {
	notice Notice
	left   []belfry.NodeID // that have not reported it, in the order of the document
	begun  time.Time
	times  int
	next   time.Time // zero: nobody is told
}

// tell begins with everybody at once: also with a node that is just removed, who
// could hear nothing later.
func (m *Machine) tell(now time.Time, kind NoticeKind, v Version, documents ...*Document) {
	if kind == 0 {
		kind = NoticeConfiguration
	}
	t := telling{notice: m.notice(kind, v), begun: now, next: now}
	for _, d := range documents {
		for i := range d.Nodes {
			if id := d.Nodes[i].ID; id != m.cfg.Self && !slices.Contains(t.left, id) {
				t.left = append(t.left, id)
			}
		}
	}
	m.telling = t
	m.advanceTelling(now)
}

func (m *Machine) advanceTelling(now time.Time) {
	t := &m.telling
	if t.next.IsZero() || t.next.After(now) {
		return
	}
	for _, id := range t.left {
		m.send(id, t.notice)
	}
	switch {
	case len(t.left) == 0 || now.Sub(t.begun) >= tellFor:
		*t = telling{}
		return
	case t.times < len(tellAfter):
		t.next = t.begun.Add(tellAfter[t.times])
	default:
		t.next = now.Add(time.Second)
	}
	t.times++
}

// reported takes the word of a member for what it holds.
func (m *Machine) reported(by belfry.NodeID, generation uint64) {
	m.out.Reports = append(m.out.Reports, Report{Node: by, Generation: generation})
	t := &m.telling
	if t.next.IsZero() || generation < t.notice.Generation {
		return
	}
	t.left = slices.DeleteFunc(t.left, func(id belfry.NodeID) bool { return id == by })
	if len(t.left) == 0 {
		*t = telling{}
	}
}

// greeted compares what two members hold when they meet.
func (m *Machine) greeted(now time.Time, g Greeted) {
	switch {
	case m.mode == Blank || m.mode == Leaving || m.held.Document.Key(g.Node) == nil:
	case g.Generation < m.held.Generation:
		m.send(g.Node, m.notice(NoticeConfiguration, m.held.Version))
	case g.Generation > m.held.Generation:
		m.wake = now
	default:
		m.reported(g.Node, g.Generation)
	}
}

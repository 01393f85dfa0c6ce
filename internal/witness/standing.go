package witness

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// A peers says whether the other witnesses are asked how they do: while clients
// are registered here, and for a while after one has asked for witnesses. Nobody
// asks for the sake of asking (requirements R1).
type peers struct {
	on    bool
	until time.Time // a client has asked; zero: none, or too long ago
	ready time.Time // until then the others have their time to answer

	mark alarm
}

func (p *peers) ask(m *Machine, now time.Time) {
	if !p.on {
		p.ready = now.Add(peersWait)
	}
	p.until = now.Add(consulted)
	m.alarms.set(p, p.until)
}

func (p *peers) alarm() *alarm { return &p.mark }

func (p *peers) ring(_ *Machine, now time.Time) time.Time {
	if p.until.After(now) {
		return p.until
	}
	p.until = time.Time{}
	return time.Time{}
}

// look puts out whether it is otherwise than before.
func (p *peers) look(m *Machine) {
	on := len(m.registrations) > 0 || !p.until.IsZero()
	if on == p.on {
		return
	}
	p.on = on
	m.out.Peers = &on
	if !on { // what they said is old when it is asked for again
		for _, n := range m.nodes {
			n.heard = false
		}
	}
}

// PeersHeard is when a ranking need not wait any longer for what the other
// witnesses say of themselves; zero: it need not now.
func (m *Machine) PeersHeard(now time.Time) time.Time {
	if !now.Before(m.peers.ready) {
		return time.Time{}
	}
	for _, n := range m.members {
		if n.ID != m.cfg.Node && n.verdict == belfry.VerdictUp && !n.heard {
			return m.peers.ready
		}
	}
	return time.Time{}
}

// A standing is what others were told of this witness last.
type standing struct {
	told Standing
	said bool
	at   time.Time // of that; the earliest for another number is later
	now  time.Time // of the last ring or message, which look has no other way to know

	mark alarm
}

func (s *standing) alarm() *alarm { return &s.mark }

// ring lets look tell what has waited.
func (s *standing) ring(_ *Machine, now time.Time) time.Time {
	s.now = now
	return time.Time{}
}

// look tells each other state at once; numbers when they have doubled or halved,
// and not more often than once in a while: the ranking reads no more of them.
func (s *standing) look(m *Machine) {
	is := Standing{m.cfg.Off, m.node(m.cfg.Node).draining, len(m.registrations)}
	more, was := is.Registrations+1, s.told.Registrations+1
	switch {
	case !s.said, is.Off != s.told.Off, is.Draining != s.told.Draining:
	case more < 2*was && 2*more > was:
		return
	case s.now.Before(s.at.Add(standingEvery)):
		m.alarms.set(s, s.at.Add(standingEvery))
		return
	}
	s.told, s.said, s.at = is, true, s.now
	m.out.Standing = &is
}

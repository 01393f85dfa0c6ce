package event

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A pattern is one pattern watch: a producer answers it with Found for each
// subject there is and comes to be. All registrations and interests of the
// same class and pattern share it.
type pattern struct {
	key
	watch    WatchID
	answered bool // its producer has found something
	holds    int
	local    []*registration
	remote   []*interest
}

// holdPattern makes a registration share the pattern watch of a class.
func (m *Machine) holdPattern(r *registration, info *belfry.ClassInfo) {
	p := m.patternFor(info, r.wish.subject)
	p.local = append(p.local, r)
	r.patterns = append(r.patterns, p)
}

func (m *Machine) patternFor(info *belfry.ClassInfo, subject string) *pattern {
	k := key{info.Class, subject}
	p := m.patterns[k]
	if p == nil {
		m.nextWatch++
		p = &pattern{key: k, watch: m.nextWatch}
		m.patterns[k] = p
		m.watches[p.watch] = watched{pattern: p}
		m.out.Watch = append(m.out.Watch, Watch{ID: p.watch, Class: info.Class, Subject: subject, Wait: true})
	}
	p.holds++
	return p
}

// releasePattern ends the watch with its last holder.
func (m *Machine) releasePattern(p *pattern) {
	p.holds--
	if p.holds > 0 || m.patterns[p.key] != p {
		return
	}
	delete(m.patterns, p.key)
	delete(m.watches, p.watch)
	m.out.Unwatch = append(m.out.Unwatch, Unwatch{ID: p.watch, Class: p.class})
}

// foundSubject makes the entry of a subject that fits a pattern.
func (m *Machine) foundSubject(now time.Time, msg Found) {
	p := m.watches[msg.Watch].pattern
	if p == nil {
		return // the watch ended while the message was on its way
	}
	if !p.answered {
		p.answered = true
		for _, r := range p.local {
			if r.request != 0 {
				m.heard(r, awaitWord)
			}
		}
	}
	k := key{p.class, msg.Subject}
	fits := p.subject == "" || matchGlob(p.subject, msg.Subject)
	if !fits || m.index.find(k) != nil {
		return
	}
	if !m.roomForOne(now) {
		m.refuse(0, belfry.NodeID{}, refusal(belfry.ErrLimit, "%s: patterns have found %d subjects; narrow them", label(k.class, k.subject), maxFound))
		return
	}
	e := m.entryFor(now, m.classes.find(p.class), k, false)
	m.adopt(e)
	m.joinOpen(now, e)
	m.release(now, e)
}

// adopt counts an entry that no registration names.
func (m *Machine) adopt(e *entry) {
	e.adopted = true
	m.found++
	if len(m.made) > 2*m.found+maxRefused {
		m.made = slices.DeleteFunc(m.made, func(e *entry) bool { return !e.adopted })
	}
	m.made = append(m.made, e)
}

// roomForOne makes room for one more entry that a pattern or a send makes. It
// lets go of the oldest that only Send made and that hold nothing: their
// subjects may be as many as there are jobs.
func (m *Machine) roomForOne(now time.Time) bool {
	const tries = 64
	for range min(tries, len(m.made)) {
		if m.found < maxFound {
			return true
		}
		e := m.made[0]
		m.made = m.made[1:]
		switch {
		case !e.adopted: // gone already
		case e.info.Custom && e.idle():
			m.forget(now, e)
		default:
			m.made = append(m.made, e)
		}
	}
	return m.found < maxFound
}

// idle tells whether nothing of an entry is queued anywhere and no
// registration names it.
func (e *entry) idle() bool {
	for _, a := range e.private {
		if a.reg.looksOn() { // what it has names the source, and needs no entry
			continue
		}
		if a.reg.home == e || a.last > a.reg.queue.head || a.snap != nil {
			return false
		}
	}
	for _, r := range e.plain {
		if !r.consumer.remote() || r.dirty && !r.resting || r.snap != nil || slices.ContainsFunc(r.interests, func(i *interest) bool { return i.wish.exact }) {
			return false
		}
	}
	return true
}

// forget drops an entry that patterns still match: it comes back, under a new
// EntryID, with the next send.
func (m *Machine) forget(now time.Time, e *entry) {
	e.holds++                // so that the last detach does not drop it under our feet
	for len(e.remotes) > 0 { // a peer forgets it too, or its mirrors would grow for ever
		m.endRemote(now, e, e.remotes[len(e.remotes)-1], nil)
	}
	for len(e.private) > 0 {
		a := e.private[len(e.private)-1]
		if a.skipped > 0 { // nothing else would tell
			a.tellEnded(now)
		}
		m.detach(now, a)
	}
	e.holds = 0
	m.drop(now, e)
}

// endPattern takes the registrations of a pattern that its producer can not
// serve.
func (m *Machine) endPattern(now time.Time, p *pattern, err error) {
	if err == nil {
		err = refusal(belfry.ErrUnsupported, "%s: the producer can not list what there is; name one subject", label(p.class, p.subject))
	}
	src := &source{origin: m.self, class: p.class, subject: p.subject}
	for _, r := range slices.Clone(p.local) {
		if r.removed {
			continue
		}
		if r.request != 0 {
			m.reject(now, r, err)
			continue
		}
		r.patterns = slices.DeleteFunc(r.patterns, func(q *pattern) bool { return q == p })
		m.releasePattern(p)
		if len(r.patterns) == 0 && r.want == nil {
			m.finish(now, r, src, 0)
		}
	}
	p.local = nil
	for _, i := range slices.Clone(p.remote) {
		m.refuseInterest(now, i, err)
	}
	m.refuse(0, belfry.NodeID{}, err)
}

// sortedEntries lists the entries by EntryID: in the order they were made.
func (m *Machine) sortedEntries() []*entry {
	list := make([]*entry, 0, m.entries.Len())
	for _, e := range m.entries.All() {
		list = append(list, e)
	}
	return list
}

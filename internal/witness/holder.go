package witness

import (
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// An own is this node's own instance of a resource, which it observes while
// anybody asks.
type own struct {
	name    belfry.Resource
	asked   bool
	holds   bool
	sources []string // that are observed
	state   belfry.ResourceState
	seq     uint64 // of its changes; it goes on when it is asked for again
	told    bool   // since it was asked for
}

// A source is something that is observed, for one or several resources.
type source struct {
	users int
	state belfry.ResourceState
}

// asked begins or ends the observation of one resource.
func (m *Machine) asked(now time.Time, msg Asked) {
	o := m.owns[msg.Resource]
	if o == nil {
		if !msg.On || len(m.owns) >= maxOwn {
			return
		}
		o = &own{name: msg.Resource}
		m.owns[msg.Resource] = o
	}
	if o.asked == msg.On {
		return
	}
	o.asked, o.told = msg.On, false
	m.hold(now, o)
}

// wants is what has to be observed of a resource here.
func (m *Machine) wants(o *own) (sources []string, holds bool) {
	d := m.declarations[o.name]
	switch {
	case !o.asked:
		return nil, o.holds
	case d != nil && d.Own:
		return d.Sources, true
	case o.name.Kind() == belfry.KindAddress && d == nil:
		return []string{"address:" + o.name.Subject()}, true
	}
	return nil, false
}

// hold brings the observation in line with who asks and with the
// configuration.
func (m *Machine) hold(now time.Time, o *own) {
	sources, holds := m.wants(o)
	for _, s := range sources {
		if !slices.Contains(o.sources, s) {
			m.observe(s, true)
		}
	}
	for _, s := range o.sources {
		if !slices.Contains(sources, s) {
			m.observe(s, false)
		}
	}
	held := o.holds
	o.sources, o.holds = slices.Clone(sources), holds
	switch {
	case !o.asked:
	case holds:
		m.tell(now, o, m.judgeOwn(o))
	case held && o.told:
		m.tell(now, o, belfry.ResourceUnavailable) // it is held here no longer
	}
}

// observe counts the users of a source.
func (m *Machine) observe(name string, on bool) {
	s := m.sources[name]
	switch {
	case on && s == nil:
		m.sources[name] = &source{users: 1}
		m.out.Observe = append(m.out.Observe, Observe{name, true})
	case on:
		s.users++
	case s.users > 1:
		s.users--
	default:
		delete(m.sources, name)
		m.out.Observe = append(m.out.Observe, Observe{name, false})
	}
}

func (m *Machine) observed(now time.Time, msg Observed) {
	s := m.sources[msg.Source]
	if s == nil || s.state == msg.State {
		return
	}
	s.state = msg.State
	m.probedNow(now, msg.Source, msg.State)
	for _, o := range m.sortedOwns() {
		if slices.Contains(o.sources, msg.Source) {
			m.tell(later(now, msg.At), o, m.judgeOwn(o))
		}
	}
}

// judgeOwn needs all sources to be available; without any it is as the node.
func (m *Machine) judgeOwn(o *own) belfry.ResourceState {
	all := belfry.ResourceAvailable
	for _, name := range o.sources {
		switch m.sources[name].state {
		case belfry.ResourceUnavailable:
			return belfry.ResourceUnavailable
		case belfry.ResourceUnknown:
			all = belfry.ResourceUnknown
		case belfry.ResourceAvailable:
		}
	}
	return all
}

// tell reports a state to whoever asked: once when it is first known, and then
// each change. What is not known yet is no state.
func (m *Machine) tell(now time.Time, o *own, state belfry.ResourceState) {
	if state == belfry.ResourceUnknown || o.told && state == o.state {
		return
	}
	if state != o.state {
		o.seq++
	}
	o.state, o.told = state, true
	r := Report{Resource: o.name, Node: m.cfg.Node, Incarnation: m.cfg.Incarnation, Seq: o.seq, State: state, At: now}
	m.out.Own = append(m.out.Own, r)
	m.report(now, r)
}

func (m *Machine) sortedOwns() []*own {
	all := make([]*own, 0, len(m.owns))
	for _, o := range m.owns {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b *own) int { return cmp.Compare(a.name, b.name) })
	return all
}

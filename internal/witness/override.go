package witness

import (
	"bytes"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// setOverride holds a resource in a state.
func (m *Machine) setOverride(now time.Time, msg Override) {
	r := m.resources[msg.Resource]
	if msg.DryRun {
		m.answer(Answer{Call: msg.Call, Matched: r.registered()})
		return
	}
	over := !msg.Until.After(now)
	if r == nil && over {
		m.answer(Answer{Call: msg.Call}) // it is held in no state here
		return
	}
	if r == nil && len(m.resources) >= maxKnown {
		m.answer(Answer{Call: msg.Call, Err: refusal(belfry.ErrLimit, "%d resources are held here; end some of them first", len(m.resources))})
		return
	}
	if r == nil {
		r = m.resource(now, msg.Resource)
	}
	r.override, r.missing = override{msg.State, msg.Until}, false // it is what the operator says
	if over {
		r.override = override{}
	}
	m.alarms.set(r, r.override.until)
	m.hasHeld()
	r.conclude(m)
	r.since = now
	m.answer(Answer{Call: msg.Call, Matched: r.registered()})
	for _, s := range slices.Clone(r.subs) {
		s.look(m, now)
	}
	m.forgetUnused(r)
}

// registered is the keys of all who are registered for a resource, in order.
func (r *resource) registered() (keys []Key) {
	if r == nil {
		return nil
	}
	for _, s := range r.subs {
		keys = append(keys, s.reg.key)
	}
	slices.SortFunc(keys, func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
	return keys
}

// hasHeld gives out all overrides, for who keeps them over a restart.
func (m *Machine) hasHeld() {
	held := []Holding{}
	for _, r := range m.sortedResources() {
		if !r.override.until.IsZero() {
			held = append(held, Holding{r.name, r.override.state, r.override.until})
		}
	}
	m.out.Held = &held
}

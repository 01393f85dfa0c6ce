package witness

import (
	"bytes"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// principal is what limits count by.
func (o Owner) principal() string { return o.Protocol + "\x00" + o.Principal }

// count adds to the registrations of an owner.
func (m *Machine) count(o Owner, n int) {
	for of, key := range map[*map[string]int]string{&m.perPrincipal: o.principal(), &m.perSource: o.Source} {
		if key == "" {
			continue
		}
		if (*of)[key] += n; (*of)[key] == 0 {
			delete(*of, key)
		}
	}
}

func (o Owner) owns(r *registration) bool {
	return r.owner.Protocol == o.Protocol && r.owner.Principal == o.Principal
}

// register adds a registration or replaces it.
func (m *Machine) register(now time.Time, msg *Register) {
	old := m.registrations[msg.Key]
	if err := m.admit(msg, old); err != nil {
		m.answer(Answer{Call: msg.Call, Key: msg.Key, Err: err})
		return
	}
	r := &registration{
		key: msg.Key, owner: msg.Owner, client: msg.Client, at: m.at(msg.At), atText: msg.At,
		eager: msg.Eager, certain: msg.Certain, endless: msg.Endless, missing: msg.AllowMissing,
		created: now, used: now, held: true, call: msg.Call, known: msg.Known,
	}
	m.attach(now, r, msg.Resources)
	if old != nil {
		r.inherit(old, msg.LastMove, now)
		m.replace(old)
	}
	m.registrations[r.key] = r
	m.count(r.owner, 1)
	if r.call != 0 {
		m.calls[r.call] = r
	}
	r.tryAnswer(m, now)
}

// attach connects a registration with its resources, each once, and asks for
// their reports.
func (m *Machine) attach(now time.Time, r *registration, names []belfry.Resource) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	r.subs = make([]sub, len(names))
	for i, name := range names {
		s := &r.subs[i]
		*s = sub{reg: r, resource: m.resource(now, name)}
		m.believe(now, s)
		s.place = len(s.resource.subs)
		s.resource.subs = append(s.resource.subs, s)
		m.interest(s.resource, true)
	}
}

// believe takes a client's word for who holds a resource, because that one may
// be dead and can not say so itself.
func (m *Machine) believe(now time.Time, s *sub) {
	known := s.reg.knows(s.resource.name)
	if known == nil || s.resource.kind == belfry.KindNode || s.resource.declared != nil && len(s.resource.declared.Holders) > 0 {
		return
	}
	before := len(s.resource.instances)
	if n := m.nodes[known.Version.Origin]; n != nil && n.known && known.Version.Reported {
		s.resource.instance(m, now, n)
	}
	if n := s.reg.at; n != nil && known.At != belfry.ResourceUnknown {
		s.resource.instance(m, now, n)
	}
	if len(s.resource.instances) != before {
		s.resource.changed(m, now)
	}
}

// admit refuses what can not be registered.
func (m *Machine) admit(msg *Register, old *registration) error {
	switch {
	case old != nil && !msg.Owner.owns(old):
		return refusal(belfry.ErrPermission, "registration %s belongs to another client; draw a key of your own", msg.Key)
	case msg.Key == Key{}:
		return refusal(belfry.ErrUsage, "no key; draw 16 random bytes")
	case len(msg.Resources) == 0:
		return refusal(belfry.ErrUsage, "no resource; name at least one")
	case len(msg.Resources) > maxResources:
		return refusal(belfry.ErrLimit, "%d resources; one registration has at most %d, make several", len(msg.Resources), maxResources)
	case len(msg.Client) > maxName || len(msg.At) > maxName:
		return refusal(belfry.ErrUsage, "a name of more than %d bytes; use a shorter one", maxName)
	}
	for _, name := range msg.Resources {
		if canonical, err := belfry.ParseResource(string(name)); err != nil {
			return err
		} else if canonical != name {
			return refusal(belfry.ErrUsage, "resource %q; its name is %s", name, canonical)
		}
		if name.Kind() == belfry.KindEvent && m.cfg.CheckEvent != nil {
			if err := m.cfg.CheckEvent(name.Event()); err != nil {
				return err
			}
		}
	}
	if m.cfg.Off {
		return refusal(belfry.ErrUnsupported, "agent %s serves no clients, witness.enabled is false; register at another one", m.cfg.Name)
	}
	if old != nil {
		return nil
	}
	of := m.perPrincipal[msg.Owner.principal()]
	switch {
	case m.node(m.cfg.Node).draining:
		return refusal(belfry.ErrRestricted, "witness %s is being drained; register at another one", m.cfg.Name)
	case len(m.registrations) >= m.cfg.Registrations:
		return refusal(belfry.ErrLimit, "%d registrations at witness %s; register at another one, or raise witness.max_registrations", len(m.registrations), m.cfg.Name)
	case of >= m.cfg.PerPrincipal:
		return refusal(belfry.ErrLimit, "%d registrations of %s; end some, or raise witness.max_per_principal", of, msg.Owner.Principal)
	case msg.Owner.Source != "" && m.perSource[msg.Owner.Source] >= m.cfg.PerSource:
		return refusal(belfry.ErrLimit, "%d registrations from %s; end some, or raise witness.max_per_source", m.perSource[msg.Owner.Source], msg.Owner.Source)
	case len(m.resources) >= maxKnown:
		return refusal(belfry.ErrLimit, "%d resources are registered here; register at another witness", len(m.resources))
	}
	return nil
}

// inherit keeps what must not begin anew.
func (r *registration) inherit(old *registration, lastMove string, now time.Time) {
	r.created, r.seq, r.moving, r.lastMove, r.leave = old.created, old.seq, old.moving, old.lastMove, old.leave
	last := old.lastMove
	if r.moving == nil && last.move.ID != "" && last.move.ID != lastMove && now.Before(last.at.Add(movesKept)) {
		r.moving = &last.move // it was handed out and never arrived
	}
}

// replace ends what waited for the registration before this one.
func (m *Machine) replace(old *registration) {
	err := refusal(belfry.ErrStale, "registration %s was made again; its newer call is answered", old.key)
	calls := []CallID{}
	if old.held {
		calls = append(calls, old.call)
	}
	for _, w := range old.waits {
		calls = append(calls, w.call)
	}
	for _, c := range calls {
		delete(m.calls, c)
		m.answer(Answer{Call: c, Key: old.key, Err: err})
	}
	old.ended, old.waits = true, nil
	m.count(old.owner, -1)
	old.unlink(m)
}

// find is the registration that an owner may use.
func (m *Machine) find(o Owner, k Key) (*registration, error) {
	r := m.registrations[k]
	switch {
	case r == nil:
		return nil, errGone(k)
	case !o.owns(r):
		return nil, refusal(belfry.ErrPermission, "registration %s belongs to another client; use your own", k)
	}
	return r, nil
}

func (m *Machine) unregister(msg Unregister) {
	r, err := m.find(msg.Owner, msg.Key)
	if err == nil {
		m.drop(r, "")
	}
	m.answer(Answer{Call: msg.Call, Key: msg.Key, Err: err})
}

// wait queues one call for the next changes.
func (m *Machine) wait(now time.Time, msg Wait) {
	r, err := m.find(msg.Owner, msg.Key)
	if err == nil && m.cfg.Off && !r.pends() {
		err = refusal(belfry.ErrUnsupported, "agent %s serves no clients any more, witness.enabled is false; register at another one", m.cfg.Name)
	}
	if err == nil && len(r.waits) >= maxWaits {
		err = refusal(belfry.ErrLimit, "%d calls wait for registration %s; wait for the first to be answered", len(r.waits), msg.Key)
	}
	if err != nil {
		m.answer(Answer{Call: msg.Call, Key: msg.Key, Err: err})
		return
	}
	w := wait{call: msg.Call}
	switch {
	case msg.For == 0:
		w.due = now.Add(m.cfg.KeepAlive)
	case msg.For > 0:
		w.due = now.Add(msg.For)
	}
	r.waits = append(r.waits, w)
	m.calls[msg.Call] = r
	m.alarms.set(r, w.due)
	r.serve(m, now)
}

// cancel ends a call that nobody waits for any more.
func (m *Machine) cancel(now time.Time, msg Cancel) {
	r := m.calls[msg.Call]
	if r == nil {
		return
	}
	delete(m.calls, msg.Call)
	if r.held && r.call == msg.Call {
		m.drop(r, "")
		return
	}
	r.waits = slices.DeleteFunc(r.waits, func(w wait) bool { return w.call == msg.Call })
	r.used = now
	m.alarms.set(r, r.next(m))
}

func (m *Machine) ownerGone(msg OwnerGone) {
	for _, r := range m.sorted() {
		if r.owner.Protocol == msg.Protocol && r.owner.Connection == msg.Connection && msg.Connection != 0 {
			m.drop(r, "gone")
		}
	}
}

// sorted is all registrations by key.
func (m *Machine) sorted() []*registration {
	all := make([]*registration, 0, len(m.registrations))
	for _, r := range m.registrations {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *registration) int { return bytes.Compare(a.key[:], b.key[:]) })
	return all
}

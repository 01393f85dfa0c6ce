package witness

import (
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A resource is one that somebody here is registered for, or that is declared.
type resource struct {
	name        belfry.Resource
	kind        string
	declared    *Declaration // nil: it is in no configuration
	missing     bool         // nobody is known to hold it
	instances   []*instance  // by node
	subs        []*sub       // of the registrations, in no order that means anything
	interesting bool         // reports are asked for

	ready    time.Time // from then on a registration is answered; zero: at once
	settles  time.Time // until then silence says nothing
	override override

	// What it is, without the override's word and with it.
	state, eager belfry.ResourceState
	version      belfry.ResourceVersion
	concluded    uint64    // changes that this witness has concluded
	since        time.Time // of the last change

	mark alarm
}

type override struct {
	state belfry.ResourceState
	until time.Time
}

func (o override) holds(now time.Time) bool { return now.Before(o.until) }

// An instance is a resource on one of its holders.
type instance struct {
	resource *resource
	node     *node
	report   Report    // zero: none yet
	awaited  time.Time // a report is, until then; zero: none is
	unheard  time.Time // from then on it is a doubt that its reports do not arrive; zero: they do
	doubted  bool      // that time has come
	probe    string    // what is observed in place of its agent, which is down; empty: nothing
	decided  time.Time // until then the probe has to have answered
	probed   belfry.ResourceState
	state    belfry.ResourceState
	eager    belfry.ResourceState
	kept     bool // it is unavailable only because it was: how it is now it has not said

	mark alarm
}

func (i *instance) alarm() *alarm { return &i.mark }

// ring ends the wait for a report: what is held counts. It also ends that for a
// probe, whose silence says enough.
func (i *instance) ring(m *Machine, now time.Time) (next time.Time) {
	over := false
	for _, t := range []*time.Time{&i.awaited, &i.decided, &i.unheard} {
		if t.After(now) {
			next = sooner(next, *t)
		} else if !t.IsZero() {
			i.doubted = i.doubted || t == &i.unheard
			*t, over = time.Time{}, true
		}
	}
	if i.probe != "" && i.decided.IsZero() && i.probed == belfry.ResourceUnknown {
		i.probed = belfry.ResourceUnavailable
	}
	if over {
		m.probe(now, i)
		i.resource.changed(m, now)
	}
	return next
}

// judge is the table of witness.md 2.
func (i *instance) judge() belfry.ResourceState {
	n := i.node
	i.kept = false
	switch {
	case i.probe != "":
		if i.probed == belfry.ResourceUnknown && i.state == belfry.ResourceUnavailable {
			return belfry.ResourceUnavailable // it was so before its agent went
		}
		return i.probed
	case !n.known, n.verdict == belfry.VerdictLeft, n.verdict == belfry.VerdictDown:
		return belfry.ResourceUnavailable
	case n.verdict == belfry.VerdictUp:
		return i.reported()
	case n.verdict == belfry.VerdictJoining && i.state == belfry.ResourceUnavailable:
		return i.keep() // it comes back, and has not said how
	}
	return belfry.ResourceUnknown // joining, stalled, unreachable: a doubt is no failure
}

// silent tells whether what the holder says is known not to arrive here.
func (i *instance) silent() bool { return i.node.cut || i.doubted }

// heard ends the doubt of what was not.
func (i *instance) heard() { i.unheard, i.doubted = time.Time{}, false }

// reported is the state of a holder that is up.
func (i *instance) reported() belfry.ResourceState {
	switch {
	case i.resource.kind == belfry.KindNode:
		return belfry.ResourceAvailable
	case i.silent() && i.state != belfry.ResourceUnavailable:
		return belfry.ResourceUnknown
	case i.silent():
		return i.keep()
	case !i.awaited.IsZero() && i.state == belfry.ResourceUnavailable:
		return i.keep()
	case !i.awaited.IsZero() || i.report.Incarnation != i.node.incarnation:
		return belfry.ResourceUnknown
	}
	return i.report.State
}

// keep has it stay unavailable, as whoever was told so holds it. Who comes to use this
// holder meanwhile, because of a move, was not, and for that one nobody knows.
func (i *instance) keep() belfry.ResourceState {
	i.kept = true
	return belfry.ResourceUnavailable
}

// instance finds or makes the one of a node.
func (r *resource) instance(m *Machine, now time.Time, n *node) *instance {
	at, found := slices.BinarySearchFunc(r.instances, n, func(i *instance, n *node) int { return i.node.ID.Compare(n.ID) })
	if found {
		return r.instances[at]
	}
	i := &instance{resource: r, node: n}
	r.instances = slices.Insert(r.instances, at, i)
	n.instances = append(n.instances, i)
	r.missing = false
	if n.verdict == belfry.VerdictUp {
		m.await(now, i)
	}
	m.probe(now, i)
	return i
}

// on is the instance of a node; nil: it holds none.
func (r *resource) on(n *node) *instance {
	for _, i := range r.instances {
		if i.node == n {
			return i
		}
	}
	return nil
}

// changed derives everything anew and tells who is registered. It is called
// with each input that may matter, and does nothing where none did.
func (r *resource) changed(m *Machine, now time.Time) {
	state, eager, moved := r.derive()
	r.state, r.eager = state, eager
	if moved != nil {
		r.number(m, moved)
		r.since = now
	}
	if r.readiness(now) || moved != nil {
		for _, s := range slices.Clone(r.subs) { // an answer may end a registration
			s.look(m, now)
		}
	}
}

// derive judges each instance, and the whole. moved is the last instance that
// is otherwise than before; nil: none.
func (r *resource) derive() (state, eager belfry.ResourceState, moved *instance) {
	var all, eagerAll []belfry.ResourceState
	for _, i := range r.instances {
		was, wasEager := i.state, i.eager
		i.state = i.judge()
		i.eager = i.state
		if i.node.known && i.node.verdict == belfry.VerdictUnreachable {
			i.eager = belfry.ResourceUnavailable
		}
		again := r.byReport(i) && r.version != i.version() // it may have flapped between two reports
		if i.state != was || i.eager != wasEager || again {
			moved = i
		}
		all, eagerAll = append(all, i.state), append(eagerAll, i.eager)
	}
	return whole(all), whole(eagerAll), moved
}

// whole is available if any is, else unknown if any is.
func whole(states []belfry.ResourceState) belfry.ResourceState {
	switch {
	case slices.Contains(states, belfry.ResourceAvailable):
		return belfry.ResourceAvailable
	case len(states) == 0 || slices.Contains(states, belfry.ResourceUnknown):
		return belfry.ResourceUnknown
	}
	return belfry.ResourceUnavailable
}

// byReport tells whether the state of the whole is what one holder said: there
// is no other, and no doubt of it.
func (r *resource) byReport(i *instance) bool {
	return len(r.instances) == 1 && i.awaited.IsZero() && !i.silent() && r.kind != belfry.KindNode && r.kind != belfry.KindEvent && i.node.known &&
		i.node.verdict == belfry.VerdictUp && i.report.Seq > 0 && i.report.Incarnation == i.node.incarnation
}

// version is that of what the holder said last.
func (i *instance) version() belfry.ResourceVersion {
	return belfry.ResourceVersion{Origin: i.node.ID, Incarnation: i.report.Incarnation, Seq: i.report.Seq, Reported: true}
}

// number gives the change its version.
func (r *resource) number(m *Machine, i *instance) {
	if r.byReport(i) {
		r.version = i.version()
		return
	}
	r.conclude(m)
}

// conclude numbers a change that is this witness's own word.
func (r *resource) conclude(m *Machine) {
	r.concluded++
	r.version = belfry.ResourceVersion{Origin: m.cfg.Node, Incarnation: m.cfg.Incarnation, Seq: r.concluded}
}

// readiness tells whether the answer of a registration need not wait any
// longer than was thought.
func (r *resource) readiness(now time.Time) bool {
	if !now.Before(r.ready) {
		return false
	}
	spoken, waiting := 0, 0
	for _, i := range r.instances {
		if !i.awaited.IsZero() {
			waiting++
		} else {
			spoken++
		}
	}
	ready := r.ready
	switch {
	case r.kind == belfry.KindNode || r.declared != nil && len(r.declared.Holders) > 0 && waiting == 0:
		ready = now
	case spoken > 0 && waiting == 0 && now.Add(moreHolders).Before(ready):
		ready = now.Add(moreHolders)
	}
	if ready.Equal(r.ready) {
		return false
	}
	r.ready = ready
	return true
}

// settled is when silence of the holders begins to mean something.
func (r *resource) settled() time.Time {
	t := r.settles
	if len(r.instances) > 0 {
		t = time.Time{}
	}
	for _, i := range r.instances {
		t = later(t, i.awaited)
	}
	return t
}

func (r *resource) alarm() *alarm { return &r.mark }

// ring ends an override.
func (r *resource) ring(m *Machine, now time.Time) time.Time {
	switch {
	case r.override.until.IsZero():
		return time.Time{}
	case r.override.holds(now):
		return r.override.until
	}
	r.override = override{}
	m.hasHeld()
	r.conclude(m)
	r.since = now
	for _, s := range slices.Clone(r.subs) {
		s.look(m, now)
	}
	m.forgetUnused(r)
	return time.Time{}
}

// resource finds or makes one.
func (m *Machine) resource(now time.Time, name belfry.Resource) *resource {
	if r := m.resources[name]; r != nil {
		return r
	}
	r := &resource{name: name, kind: name.Kind(), declared: m.declaration(name)}
	r.missing = r.kind != belfry.KindEvent // which may be on any node, at any time
	if r.kind != belfry.KindNode {
		r.ready, r.settles = now.Add(answerHold), now.Add(firstReport)
	}
	m.resources[name] = r
	m.place(now, r)
	r.state, r.eager, _ = r.derive()
	r.conclude(m)
	r.since = now
	return r
}

// place puts a resource where it is known to be without a report.
func (m *Machine) place(now time.Time, r *resource) {
	switch {
	case r.kind == belfry.KindNode:
		if n := m.named(r.name.Subject()); n != nil {
			r.instance(m, now, n)
		}
	case r.declared != nil:
		r.missing = false
		for _, name := range r.declared.Holders {
			if n := m.named(name); n != nil {
				r.instance(m, now, n)
			}
		}
	}
}

// interest asks for the reports on a resource, or for none any more.
func (m *Machine) interest(r *resource, on bool) {
	if r.kind == belfry.KindNode || r.interesting == on {
		return
	}
	r.interesting = on
	m.out.Interest = append(m.out.Interest, Interest{r.name, on})
}

// forgetUnused lets a resource go that nobody needs.
func (m *Machine) forgetUnused(r *resource) {
	if len(r.subs) > 0 {
		return
	}
	m.interest(r, false)
	if !r.override.until.IsZero() {
		return
	}
	delete(m.resources, r.name)
	for _, i := range r.instances {
		n := i.node
		if at := slices.Index(n.instances, i); at >= 0 {
			n.instances = slices.Delete(n.instances, at, at+1)
		}
		i.awaited = time.Time{}
		m.unprobe(i)
	}
}

func (m *Machine) sortedResources() []*resource {
	all := make([]*resource, 0, len(m.resources))
	for _, r := range m.resources {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *resource) int { return cmp.Compare(a.name, b.name) })
	return all
}

// report takes a holder's word. Older ones than what is held change nothing.
func (m *Machine) report(now time.Time, msg Report) {
	r := m.resources[msg.Resource]
	if r == nil || msg.Seq == 0 || r.kind == belfry.KindNode {
		return
	}
	i := r.instance(m, now, m.node(msg.Node))
	if had := i.report; msg.Incarnation < had.Incarnation || msg.Incarnation == had.Incarnation && msg.Seq < had.Seq {
		return
	}
	i.report = msg
	if i.node.incarnation == 0 { // reports may be here before the first verdict
		i.node.incarnation = msg.Incarnation
	}
	if msg.Incarnation == i.node.incarnation {
		i.heard()
		m.spoken(now, i.node)
		i.awaited = time.Time{}
		m.probe(now, i)
	}
	r.changed(m, now)
}

// occurred tells of an event that has no two states: as it is, and not as a level
// (witness.md 2).
func (m *Machine) occurred(now time.Time, msg Occurred) {
	r := m.resources[msg.Resource]
	if r == nil || msg.Count == 0 {
		return
	}
	r.conclude(m)
	r.since = later(now, msg.At)
	for _, s := range slices.Clone(r.subs) {
		if s.reg.ended || s.reg.held {
			continue // what it is answered with comes afterwards
		}
		m.order++
		s.told = s.level(now)
		s.push(pending{level: s.told, count: msg.Count, first: r.since, last: r.since, order: m.order, once: m.node(msg.Node)})
		s.reg.serve(m, now)
	}
}

// covered says that what is held of a holder is what it says now, unless it says
// something else at once: what happened in between is on its way.
func (m *Machine) covered(now time.Time, msg Covered) {
	r := m.resources[msg.Resource]
	if r == nil {
		return
	}
	m.spoken(now, m.node(msg.Node))
	i := r.on(m.node(msg.Node))
	if i == nil {
		return
	}
	if i.doubted {
		i.awaited = now.Add(firstReport)
	}
	i.heard()
	if i.awaited.IsZero() || i.report.Seq == 0 || i.report.Incarnation != i.node.incarnation {
		return
	}
	i.awaited = sooner(i.awaited, now.Add(coveredHold))
	m.alarms.set(i, i.awaited)
}

// uncovered says that what is held of a holder may be old. A stream that is
// dialled anew is back long before that is a doubt.
func (m *Machine) uncovered(now time.Time, msg Uncovered) {
	r := m.resources[msg.Resource]
	if r == nil || r.kind == belfry.KindNode {
		return
	}
	if i := r.on(m.node(msg.Node)); i != nil && i.unheard.IsZero() && !i.doubted {
		i.unheard = now.Add(firstReport)
		m.alarms.set(i, i.unheard)
	}
}

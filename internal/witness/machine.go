// Package witness tells clients of other nodes about the resources that they
// depend on, so that a client of a dead node does not wait for TCP
// (WO2012134729). It holds resources, registrations and what each client has
// been told, as one pure machine; DESIGN.md has the reasons.
//
// The driver hands in what arrived, calls Advance, and does what Take says.
package witness

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A Machine is not safe for concurrent use; its driver owns it.
type Machine struct {
	cfg Config
	rng *rand.Rand // nothing here is random yet; the one shape asks for it
	out Output

	nodes   map[belfry.NodeID]*node
	members []*node // by id

	declarations map[belfry.Resource]*Declaration
	resources    map[belfry.Resource]*resource

	owns    map[belfry.Resource]*own
	sources map[string]*source

	registrations map[Key]*registration
	perPrincipal  map[string]int
	perSource     map[string]int
	calls         map[CallID]*registration // that are not answered yet
	order         uint64                   // of the newest change that is to be told

	probed   []*instance // whose holder's agent is down, oldest first
	peers    peers
	standing standing
	alarms   alarms
}

// New makes a Machine that knows no other node. cfg must be valid.
func New(cfg Config, _ time.Time, rng *rand.Rand) *Machine {
	return &Machine{
		cfg: cfg, rng: rng,
		nodes:        map[belfry.NodeID]*node{},
		declarations: map[belfry.Resource]*Declaration{}, resources: map[belfry.Resource]*resource{},
		owns: map[belfry.Resource]*own{}, sources: map[string]*source{},
		registrations: map[Key]*registration{}, perPrincipal: map[string]int{}, perSource: map[string]int{}, calls: map[CallID]*registration{},
	}
}

// Receive takes one input. Refusals are values in Output.
func (m *Machine) Receive(now time.Time, msg Message) {
	switch msg := msg.(type) {
	case Members:
		m.setMembers(now, msg)
	case Verdict:
		m.setVerdict(now, msg)
	case Link:
		m.setLink(now, msg)
	case Peer:
		n := m.node(msg.Node)
		n.heard, n.off, n.leaving, n.registrations = true, msg.Off, msg.Draining, msg.Registrations
	case Consulted:
		m.peers.ask(m, now)
	case Drained:
		m.setDrained(now, msg)
	case Configured:
		m.configure(now, msg.Config)
	case Declared:
		m.declare(now, msg)
	case Report:
		m.report(now, msg)
	case Occurred:
		m.occurred(now, msg)
	case Covered:
		m.covered(now, msg)
	case Uncovered:
		m.uncovered(now, msg)
	case Asked:
		m.asked(now, msg)
	case Observed:
		m.observed(now, msg)
	case Override:
		m.setOverride(now, msg)
	default:
		m.receiveCall(now, msg)
	}
}

func (m *Machine) receiveCall(now time.Time, msg Message) {
	switch msg := msg.(type) {
	case Register:
		m.register(now, &msg)
	case Unregister:
		m.unregister(msg)
	case Wait:
		m.wait(now, msg)
	case Cancel:
		m.cancel(now, msg)
	case OwnerGone:
		m.ownerGone(msg)
	case Move:
		m.move(now, msg)
	case Drain:
		m.setDrain(now, msg)
	case Force:
		m.force(now, msg)
	}
}

// Advance does what is due.
func (m *Machine) Advance(now time.Time) {
	m.standing.now = now
	m.alarms.ring(m, now)
}

// NextTimeout is the zero time when nothing is due, ever.
func (m *Machine) NextTimeout() time.Time { return m.alarms.next() }

// Take returns what the driver has to do. The slices are given away.
func (m *Machine) Take() Output {
	m.peers.look(m)
	m.standing.look(m)
	o := m.out
	m.out = Output{}
	return o
}

// configure takes other limits and times; what was registered stays, and who is
// registered where nobody is served any more is told to go.
func (m *Machine) configure(now time.Time, cfg Config) {
	cfg.Node, cfg.Name, cfg.Incarnation = m.cfg.Node, m.cfg.Name, m.cfg.Incarnation
	cfg.CheckEvent = m.cfg.CheckEvent
	off := cfg.Off && !m.cfg.Off
	m.cfg = cfg
	for _, r := range m.sorted() {
		if off {
			r.leave = true
			r.serve(m, now)
		}
		if !r.held {
			m.alarms.set(r, r.next(m))
		}
	}
}

func (m *Machine) answer(a Answer) {
	if a.Call != 0 {
		m.out.Answers = append(m.out.Answers, a)
	}
}

// declare takes the resources of the configuration.
func (m *Machine) declare(now time.Time, msg Declared) {
	declarations := make(map[belfry.Resource]*Declaration, len(msg.Resources))
	for i := range msg.Resources {
		d := msg.Resources[i]
		declarations[d.Name] = &d
	}
	m.declarations = declarations
	for _, r := range m.sortedResources() {
		r.declared = m.declaration(r.name)
		m.place(now, r)
		if r.declared != nil && len(r.declared.Holders) > 0 {
			m.displace(r)
		}
		for _, i := range r.instances {
			m.probe(now, i)
		}
		r.changed(m, now)
	}
	for _, o := range m.sortedOwns() {
		m.hold(now, o)
	}
}

// declaration is what the configuration says of a resource; nil: nothing. One that
// is bound to a node has that one holder.
func (m *Machine) declaration(name belfry.Resource) *Declaration {
	d := m.declarations[name.Everywhere()]
	if where := name.Node(); d != nil && where != "" {
		if len(d.Holders) > 0 && !slices.Contains(d.Holders, where) {
			return nil
		}
		one := *d
		one.Name, one.Holders, one.Own = name, []string{where}, d.Own && where == m.cfg.Name
		return &one
	}
	return d
}

// displace takes a resource from holders that the configuration has no longer.
func (m *Machine) displace(r *resource) {
	for _, i := range slices.Clone(r.instances) {
		if slices.Contains(r.declared.Holders, i.node.Name) {
			continue
		}
		r.instances = slices.DeleteFunc(r.instances, func(one *instance) bool { return one == i })
		i.node.instances = slices.DeleteFunc(i.node.instances, func(one *instance) bool { return one == i })
		i.awaited = time.Time{}
		m.unprobe(i)
	}
}

// refusal is an error that wraps a sentinel and says what would be right.
func refusal(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{sentinel}, args...)...)
}

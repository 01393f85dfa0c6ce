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
	calls         map[CallID]*registration // that are not answered yet
	order         uint64                   // of the newest change that is to be told

	drain  drain
	alarms alarms
}

// New makes a Machine that knows no other node. cfg must be valid.
func New(cfg Config, _ time.Time, rng *rand.Rand) *Machine {
	return &Machine{
		cfg: cfg, rng: rng,
		nodes:        map[belfry.NodeID]*node{},
		declarations: map[belfry.Resource]*Declaration{}, resources: map[belfry.Resource]*resource{},
		owns: map[belfry.Resource]*own{}, sources: map[string]*source{},
		registrations: map[Key]*registration{}, perPrincipal: map[string]int{}, calls: map[CallID]*registration{},
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
		m.node(msg.Node).bad = !msg.Good
	case Peer:
		n := m.node(msg.Node)
		n.off, n.draining, n.registrations = msg.Off, msg.Draining, msg.Registrations
	case Declared:
		m.declare(now, msg)
	case Report:
		m.report(now, msg)
	case Covered:
		m.covered(now, msg)
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
func (m *Machine) Advance(now time.Time) { m.alarms.ring(m, now) }

// NextTimeout is the zero time when nothing is due, ever.
func (m *Machine) NextTimeout() time.Time { return m.alarms.next() }

// Take returns what the driver has to do. The slices are given away.
func (m *Machine) Take() Output {
	o := m.out
	m.out = Output{}
	return o
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
		r.declared = declarations[r.name]
		m.place(now, r)
		if r.declared != nil && len(r.declared.Holders) > 0 {
			m.displace(r)
		}
		r.changed(m, now)
	}
	for _, o := range m.sortedOwns() {
		m.hold(now, o)
	}
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
	}
}

// refusal is an error that wraps a sentinel and says what would be right.
func refusal(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{sentinel}, args...)...)
}

package witness

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A Status is one registration as listings show it.
type Status struct {
	Key       Key
	Owner     Owner
	Client    string
	At        string   // as the client said it
	AtNames   []string // all that the same is called
	Resources []ResourceStatus
	Waits     int
	Pending   int // changes that were not handed out
	Created   time.Time
	Seq       uint64
	Held      bool // its Register is not answered yet
}

// A ResourceStatus is a resource as a client, or this witness, sees it.
type ResourceStatus struct {
	Name          belfry.Resource
	Level         belfry.ResourceLevel
	HasAt         bool // Level.At counts
	Since         time.Time
	Registrations int
	Overridden    time.Time // until then; zero: it is not
	Instances     []InstanceStatus
}

// An InstanceStatus is a resource on one of its holders.
type InstanceStatus struct {
	Node    string
	Verdict belfry.Verdict
	State   belfry.ResourceState
	Awaited bool // the holder has not said yet how it is
}

// Registrations is all of them, by key.
func (m *Machine) Registrations(now time.Time) []Status {
	all := make([]Status, 0, len(m.registrations))
	for _, r := range m.sorted() {
		all = append(all, r.status(now))
	}
	return all
}

func (r *registration) status(now time.Time) Status {
	s := Status{
		Key: r.key, Owner: r.owner, Client: r.client, At: r.atText, Waits: len(r.waits),
		Created: r.created, Seq: r.seq, Held: r.held,
	}
	if r.atText != "" {
		s.AtNames = []string{r.atText}
	}
	if r.at != nil {
		s.AtNames = slices.Concat(s.AtNames, []string{r.at.Name}, r.at.Hosts, r.at.Addresses)
	}
	for i := range r.subs {
		one := &r.subs[i]
		s.Pending += len(one.pending)
		s.Resources = append(s.Resources, ResourceStatus{
			Name: one.resource.name, Level: one.level(now), HasAt: one.instance() != nil, Since: one.resource.since,
		})
	}
	if r.moving != nil {
		s.Pending++
	}
	return s
}

// A Load is what one protocol has registered here.
type Load struct {
	Registrations int
	Waits         int // calls that wait for changes
	Unread        int // registrations with changes that were not read
}

// Load is what is registered here, by protocol.
func (m *Machine) Load() map[string]Load {
	all := map[string]Load{}
	for _, r := range m.registrations { // sums: the order can not be seen
		l := all[r.owner.Protocol]
		l.Registrations++
		l.Waits += len(r.waits)
		if r.pends() {
			l.Unread++
		}
		all[r.owner.Protocol] = l
	}
	return all
}

// Len is the number of registrations.
func (m *Machine) Len() int { return len(m.registrations) }

// Off tells whether no client is served here.
func (m *Machine) Off() bool { return m.cfg.Off }

// Draining tells whether this node is being emptied.
func (m *Machine) Draining() bool { return m.node(m.cfg.Node).draining }

// Others are the other witnesses that have said how they do, by name of the node.
func (m *Machine) Others() map[string]Standing {
	all := map[string]Standing{}
	for _, n := range m.members {
		if n.heard && n.ID != m.cfg.Node && n.verdict == belfry.VerdictUp {
			all[n.Name] = Standing{Off: n.off, Draining: n.leaving, Registrations: n.registrations}
		}
	}
	return all
}

// Resources is all that somebody here is registered for or that is held in a
// state, by name.
func (m *Machine) Resources(now time.Time) []ResourceStatus {
	all := make([]ResourceStatus, 0, len(m.resources))
	for _, r := range m.sortedResources() {
		s := ResourceStatus{Name: r.name, Level: belfry.ResourceLevel{State: r.state, Version: r.version}, Since: r.since, Registrations: len(r.subs)}
		if r.override.holds(now) {
			s.Level.State, s.Overridden = r.override.state, r.override.until
		}
		for _, i := range r.instances {
			s.Instances = append(s.Instances, InstanceStatus{i.node.Name, i.node.verdict, i.state, !i.awaited.IsZero()})
		}
		all = append(all, s)
	}
	return all
}

// Held is the resources that this node is declared to hold, by name.
func (m *Machine) Held() (names []belfry.Resource) {
	for name, d := range m.declarations {
		if d.Own {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

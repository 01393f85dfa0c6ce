package witness

import (
	"cmp"
	"crypto/sha256"
	"math/bits"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
)

// A Question is a node information request (WO2012134729).
type Question struct {
	Client    string // its name: the spread of equals depends on it
	Accessed  string // the node or address that the client uses; empty: this node
	Resources []belfry.Resource
}

// A Witness is one node where a client may register.
type Witness struct {
	Node      belfry.NodeID
	Name      string
	Addresses []string
	Rank      int  // from 1: the order in which to try
	CoLocated bool // it is the node that is accessed: both die together
	HoldsOne  bool // it holds one of the resources
	Zone      string
	State     belfry.Verdict

	reluctance [5]int // what speaks against it, the weightiest first
	spread     [sha256.Size]byte
}

// NodeInformation is the witnesses of the cluster in the order in which a client
// should try them: those that share the fate of what it uses come last. Incomplete
// tells that there are fewer than two.
func (m *Machine) NodeInformation(q Question) (witnesses []Witness, incomplete bool) {
	accessed := m.node(m.cfg.Node)
	if q.Accessed != "" {
		if n := m.accessed(q.Accessed); n != nil {
			accessed = n
		}
	}
	for _, n := range m.members {
		if n.verdict != belfry.VerdictUp || m.isOff(n) || n.draining || n.leaving {
			continue
		}
		witnesses = append(witnesses, m.candidate(n, accessed, &q))
	}
	slices.SortFunc(witnesses, func(a, b Witness) int {
		return cmp.Or(slices.Compare(a.reluctance[:], b.reluctance[:]), slices.Compare(a.spread[:], b.spread[:]))
	})
	for i := range witnesses {
		witnesses[i].Rank = i + 1
	}
	return witnesses, len(witnesses) < 2
}

// candidate is the tuple of witness.md 4, greater for what speaks against it.
func (m *Machine) candidate(n, accessed *node, q *Question) Witness {
	w := Witness{
		Node: n.ID, Name: n.Name, Addresses: n.Addresses, Zone: n.Zone, State: n.verdict,
		CoLocated: n == accessed, HoldsOne: m.holdsOne(n, q.Resources),
	}
	registrations := n.registrations
	if n.ID == m.cfg.Node {
		registrations = len(m.registrations)
	}
	for i, against := range []bool{w.CoLocated, w.HoldsOne, n.Zone != "" && n.Zone == accessed.Zone, n.bad} {
		if against {
			w.reluctance[i] = 1
		}
	}
	w.reluctance[4] = bits.Len(uint(registrations+1)) - 1
	w.spread = sha256.Sum256(append([]byte(q.Client), n.ID[:]...))
	return w
}

func (m *Machine) holdsOne(n *node, names []belfry.Resource) bool {
	return slices.ContainsFunc(names, func(name belfry.Resource) bool {
		if name.Kind() == belfry.KindNode {
			return name.Subject() == n.Name
		}
		if d := m.declaration(name); d != nil && slices.Contains(d.Holders, n.Name) {
			return true
		}
		r := m.resources[name]
		if r == nil {
			return false
		}
		i := r.on(n)
		return i != nil && i.state != belfry.ResourceUnavailable
	})
}

func (m *Machine) isOff(n *node) bool { return n.off || n.ID == m.cfg.Node && m.cfg.Off }

// accessed finds the node that a client uses, also by an address that moves: that
// of the one node that holds it now. Nil: it is not known.
func (m *Machine) accessed(text string) *node {
	if n := m.at(text); n != nil {
		return n
	}
	if r := m.resources[belfry.Resource(belfry.KindAddress+"/"+text)]; r != nil {
		if n := r.oneHolder(); n != nil {
			return n
		}
	}
	for _, r := range m.sortedResources() {
		if r.declared != nil && (r.declared.Address == text || host(r.declared.Address) == text) {
			if n := r.oneHolder(); n != nil {
				return n
			}
		}
	}
	return nil
}

// oneHolder is the only node where a resource can be used; nil: there is none, or
// there are several.
func (r *resource) oneHolder() (holder *node) {
	for _, i := range r.instances {
		if i.state == belfry.ResourceAvailable && holder != nil {
			return nil
		}
		if i.state == belfry.ResourceAvailable {
			holder = i.node
		}
	}
	return holder
}

// host is an address without its port.
func host(address string) string {
	if at := strings.LastIndexByte(address, ':'); at > 0 {
		return strings.Trim(address[:at], "[]")
	}
	return address
}

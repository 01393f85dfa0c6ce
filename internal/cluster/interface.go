package cluster

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// An InterfaceState is how the local end of a network is.
type InterfaceState uint8

// The states of an interface. What was never told is up: heartbeats show
// whether it works.
const (
	InterfaceUp        InterfaceState = iota
	InterfaceNoCarrier                // nothing is at the other end
	InterfaceAdminDown                // somebody set it down
	InterfaceAbsent                   // no interface of this machine has the address
)

// carrierHold is how long a carrier has to be there before it counts again.
const carrierHold = 200 * time.Millisecond

// An Interface says how the one is now that has this node's address on a
// network.
type Interface struct {
	Network string
	State   InterfaceState
	Name    string // empty: not known
	Speed   uint64 // Mbit/s; 0: not known
	MTU     int    // bytes; 0: not known
}

// An iface is what is held of one interface.
type iface struct {
	Interface
	since time.Time // of its state
}

// works tells whether links over it may be judged by what is heard on them.
func (i *iface) works(now time.Time) bool {
	return i == nil || i.State == InterfaceUp && (i.since.IsZero() || now.Sub(i.since) >= carrierHold)
}

// state is what the links over it show while it does not work.
func (i *iface) state() (belfry.LinkState, string) {
	name := i.Name
	if name == "" {
		name = "the interface"
	}
	switch i.State {
	case InterfaceAdminDown:
		return belfry.LinkAdminDown, name + " is set down"
	case InterfaceAbsent:
		return belfry.LinkAdminDown, "this machine does not have the address"
	case InterfaceNoCarrier:
		return belfry.LinkNoCarrier, name + " has no carrier"
	}
	return belfry.LinkNoCarrier, name + " has its carrier again"
}

// setInterface ends what is expected over an interface that does not work: its
// silence says nothing of anybody. When it works again its links begin anew.
func (m *Machine) setInterface(now time.Time, told Interface) {
	i := m.interfaces[told.Network]
	if i == nil {
		i = &iface{}
		m.interfaces[told.Network] = i
	}
	was := i.State
	i.Interface = told
	switch {
	case was == told.State:
		return // its name, speed or MTU
	case was != InterfaceNoCarrier && told.State == InterfaceUp:
		i.since = now.Add(-carrierHold) // somebody wants it at once
	default:
		i.since = now
	}
	m.lookAtInterface(now, told.Network)
}

// lookAtInterface moves the links of a network to what its interface makes of
// them.
func (m *Machine) lookAtInterface(now time.Time, network string) {
	works := m.interfaces[network].works(now)
	for _, p := range m.watched {
		for _, r := range p.rows {
			if r.link.Network != network {
				continue
			}
			switch {
			case works && r.blocked:
				r.blocked = false
				m.setLink(now, r, belfry.LinkInit, "the interface works again")
				r.due = now.Add(initProbes * initProbeEvery)
			case !works:
				m.block(now, r)
				m.lostWay(p)
			}
			m.show(now, p, r)
		}
	}
}

// block ends what is expected on a row whose interface does not work. That
// somebody set it down is no flapping.
func (m *Machine) block(now time.Time, r *row) {
	state, reason := m.interfaces[r.link.Network].state()
	r.excused = r.excused || state == belfry.LinkAdminDown
	r.blocked = true
	m.setLink(now, r, belfry.LinkDown, reason)
	r.pending, r.deviation = nil, 0
}

// advanceInterfaces lets those work again whose carrier has stayed.
func (m *Machine) advanceInterfaces(now time.Time) {
	for network, i := range m.interfaces { // the order can not be seen: rows differ by network
		if i.State == InterfaceUp && !i.since.IsZero() && i.works(now) {
			i.since = time.Time{}
			m.lookAtInterface(now, network)
		}
	}
}

// interfaceDue is when the next one works again.
func (m *Machine) interfaceDue() (next time.Time) {
	for _, i := range m.interfaces { // the order can not be seen
		if i.State == InterfaceUp && !i.since.IsZero() {
			next = sooner(next, i.since.Add(carrierHold))
		}
	}
	return next
}

package repository

import "github.com/belfry-ha/belfry"

// A reach is the networks on which heartbeats go between a node and any other.
type reach struct {
	running  int // nodes that are not stopped
	nodes    map[belfry.NodeID]map[string]bool
	networks map[string]bool
}

// reachOf counts: on each network a node has all others there as partners, but
// for those to which its link is disabled.
func reachOf(d *Document) reach {
	r := reach{nodes: map[belfry.NodeID]map[string]bool{}, networks: map[string]bool{}}
	on := map[string]map[string]bool{} // network to the names of the running nodes there
	for _, n := range d.Nodes {
		if n.Intent == IntentStopped {
			continue
		}
		r.running++
		for _, a := range n.Addresses {
			if on[a.Network] == nil {
				on[a.Network] = map[string]bool{}
			}
			on[a.Network][n.Name] = true
		}
	}
	type end struct{ node, network string }
	disabled := map[end]int{}
	for _, l := range d.Links {
		if l.Disabled && on[l.Network][l.A] && on[l.Network][l.B] {
			disabled[end{l.A, l.Network}]++
			disabled[end{l.B, l.Network}]++
		}
	}
	for _, n := range d.Nodes {
		for _, a := range n.Addresses {
			if on[a.Network][n.Name] && len(on[a.Network])-1 > disabled[end{n.Name, a.Network}] {
				if r.nodes[n.ID] == nil {
					r.nodes[n.ID] = map[string]bool{}
				}
				r.nodes[n.ID][a.Network], r.networks[a.Network] = true, true
			}
		}
	}
	return r
}

// links tells what the changes do to the heartbeats. A link is lost to a node
// when no other node is heard on that network any more.
func (d *differ) links() {
	before, after := reachOf(d.a), reachOf(d.b)
	for _, n := range keysOf(before.networks) {
		if !after.networks[n] {
			d.follows("networks", "heartbeats on %s end", n)
		}
	}
	for _, n := range keysOf(after.networks) {
		if !before.networks[n] {
			d.follows("networks", "heartbeats on %s begin", n)
		}
	}
	stayed := d.a.byID()
	for _, n := range d.b.Nodes {
		was, is := before.nodes[n.ID], after.nodes[n.ID]
		if stayed[n.ID] == nil || n.Intent == IntentStopped || after.running < 2 {
			continue
		}
		switch {
		case len(was) == 1 && len(is) == 0:
			d.follows("networks", "%s loses its only link", n.Name)
		case len(was) > 1 && len(is) == 0:
			d.follows("networks", "%s loses all its %d links", n.Name, len(was))
		case len(was) > 1 && len(is) == 1:
			d.follows("networks", "%s has only %s left", n.Name, keysOf(is)[0])
		}
	}
}

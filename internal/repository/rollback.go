package repository

import "slices"

// Rollback is now with the operator's sections of a past generation: the
// cluster's name, networks, links, tunables, resources, witness, linked and
// handlers. All else is of now, so that nothing comes back that somebody took
// away for a reason: nodes, former, roles, repository, licenses, security,
// ops, epochs. It is to be made the next generation by [Follow], and validated.
//
// What the past says of nodes that are gone is left out; nodes that have
// another name since are called by it; a network that a node has an address
// on stays. A change that waits for its confirmation does so no more.
func Rollback(now, past Document) Document {
	to := now
	to.Cluster.Name = past.Cluster.Name
	to.Tunables, to.Linked = past.Tunables, past.Linked
	to.Confirm = nil

	called := map[string]string{} // the names of now by those of then
	here := now.byID()
	for _, was := range past.Nodes {
		if is := here[was.ID]; is != nil {
			called[was.Name] = is.Name
		}
	}
	to.Networks = usedNetworks(&now, past.Networks)
	to.Links = nil
	for _, l := range past.Links {
		a, b := called[l.A], called[l.B]
		if a == "" || b == "" {
			continue
		}
		l.A, l.B = a, b
		if a > b {
			l.A, l.B, l.AtA, l.AtB = b, a, l.AtB, l.AtA
		}
		to.Links = append(to.Links, l)
	}
	to.Resources = nil
	for _, r := range past.Resources {
		if r.Holders = renamed(r.Holders, called); len(r.Holders) > 0 {
			to.Resources = append(to.Resources, r)
		}
	}
	to.Witness = Witness{NetNames: past.Witness.NetNames, Drained: renamed(past.Witness.Drained, called)}
	to.Handlers = nil
	for _, h := range past.Handlers {
		watched := len(h.Nodes)
		if h.Nodes = renamed(h.Nodes, called); len(h.Nodes) > 0 || watched == 0 { // none would mean all
			to.Handlers = append(to.Handlers, h)
		}
	}
	return to
}

func renamed(names []string, called map[string]string) (now []string) {
	for _, n := range names {
		if is := called[n]; is != "" {
			now = append(now, is)
		}
	}
	return now
}

// usedNetworks are those of the past, and those of now that a node needs.
func usedNetworks(now *Document, past []Network) []Network {
	all := slices.Clone(past)
	for _, n := range now.Networks {
		if slices.ContainsFunc(all, func(p Network) bool { return p.Name == n.Name }) {
			continue
		}
		if slices.ContainsFunc(now.Nodes, func(node Node) bool {
			return slices.ContainsFunc(node.Addresses, func(a Address) bool { return a.Network == n.Name })
		}) {
			all = append(all, n)
		}
	}
	return all
}

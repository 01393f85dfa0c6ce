package main

import (
	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// Refusals remember which of the nodes that a watch names refuse it. Without
// names it is about all nodes, of which another one may come at any time.
type refusals struct {
	asked map[offer]bool // true: refused
	names string         // of a node that refuses
	why   string
}

// An offer is one registration at one node.
type offer struct {
	registration uint32
	node         belfry.NodeID
}

// ask notes the nodes that a registration names.
func (r *refusals) ask(registration uint32, nodes []belfry.NodeID) {
	if r.asked == nil {
		r.asked = map[offer]bool{}
	}
	for _, node := range nodes {
		r.asked[offer{registration, node}] = false
	}
}

// learn takes what a node says of a registration.
func (r *refusals) learn(registration uint32, node belfry.NodeID, state client.CoverageState, name, why string) {
	of := offer{registration, node}
	if _, ok := r.asked[of]; !ok {
		return
	}
	if r.asked[of] = state == client.CoverageRefused; r.asked[of] {
		r.names, r.why = name, why
	}
}

// err ends a watch of which nothing can come any more.
func (r *refusals) err() error {
	for _, refused := range r.asked {
		if !refused {
			return nil
		}
	}
	if len(r.asked) == 0 {
		return nil
	}
	return failf(belfry.ErrUnsupported, "no node delivers what is watched; %s says: %s", r.names, r.why)
}

// tellCoverage names the nodes whose events will not come.
func (w *watcher) tellCoverage(r belfry.Registration, registered client.Registered) {
	w.refused.ask(registered.Number, r.Nodes)
	for _, c := range registered.Coverage {
		s := selector{class: r.Class, subject: r.Subject}
		if c.State == client.CoverageRefused {
			w.refused.learn(registered.Number, c.Node, c.State, c.NodeName, withoutSentinel(c.Err))
		}
		switch c.State {
		case client.CoverageRefused:
			w.notef("%s does not deliver %s: %v", c.NodeName, s, c.Err)
		case client.CoverageUnreachable:
			w.notef("%s can not be reached; its events of %s come when it is back", c.NodeName, s)
		}
	}
}

// tellRefused names a node that refuses what it was asked for only after the
// registration was in force, as a producer does that looks first. The error ends
// a watch that all nodes refuse.
func (w *watcher) tellRefused(n *belfry.Notification) error {
	w.refused.learn(n.Registration, n.Node, client.CoverageState(n.Code), w.nodeName(n), n.Reason)
	if client.CoverageState(n.Code) == client.CoverageRefused {
		w.notef("%s does not deliver %s: %s", w.nodeName(n), selector{class: string(n.Event.Class), subject: n.Event.Subject}, n.Reason)
	}
	return w.refused.err()
}

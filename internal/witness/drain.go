package witness

import (
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A drain sends clients away from a node at a rate, so that those who take them in
// are not flooded. Each node has its own.
type drain struct {
	node  *node
	id    string
	rate  int
	queue []Key
	begun time.Time
	done  int
	told  map[belfry.Resource]int // clients that were moved, by resource

	mark alarm
}

// DrainID is the id of the moves of a drain that one generation of the
// configuration began: the same at each witness.
func DrainID(generation uint64) string { return fmt.Sprintf("drain-%d", generation) }

// setDrain empties a node, or lets it fill again. Where it is emptied already the
// rate and the id of what is left are others.
func (m *Machine) setDrain(now time.Time, msg Drain) {
	n := m.nodes[msg.Node]
	if n == nil || !n.known {
		m.answer(Answer{Call: msg.Call, Err: refusal(belfry.ErrNotFound, "node %s is not a member; name one that is", msg.Node)})
		return
	}
	if !msg.On {
		if !msg.DryRun {
			m.fill(n)
		}
		m.answer(Answer{Call: msg.Call})
		return
	}
	queue := m.drainable(n)
	if !msg.DryRun {
		rate := msg.Rate
		if rate == 0 {
			rate = drainRate
		}
		m.empty(now, n, &drain{node: n, id: msg.ID, rate: min(max(rate, 1), 10_000), queue: slices.Clone(queue)})
	}
	m.answer(Answer{Call: msg.Call, Matched: queue})
}

// setDrained follows the configuration. What was begun by a call only, at this
// witness, is none of its business.
func (m *Machine) setDrained(now time.Time, msg Drained) {
	for _, n := range m.members {
		is := slices.Contains(msg.Nodes, n.ID)
		switch {
		case is && !n.kept && !n.draining:
			m.empty(now.Add(drainHead), n, &drain{node: n, id: DrainID(msg.Generation), rate: drainRate, queue: m.drainable(n)})
		case !is && n.kept:
			m.fill(n)
		}
		n.kept = is
	}
}

// drainable are the registrations that a drain of a node is about: those at its
// own witness, and those of clients that use it and have somewhere to go.
func (m *Machine) drainable(n *node) []Key {
	var chosen []*registration
	for _, r := range m.sorted() {
		if n.ID == m.cfg.Node || r.at == n && len(r.elsewhere(n)) > 0 {
			chosen = append(chosen, r)
		}
	}
	return keysOf(chosen)
}

func (m *Machine) empty(from time.Time, n *node, d *drain) {
	m.fill(n)
	d.begun, d.told = from, map[belfry.Resource]int{}
	n.draining, n.drain = true, d
	m.alarms.set(d, from.Add(drainEvery))
}

// fill ends a drain.
func (m *Machine) fill(n *node) {
	if n.drain != nil {
		n.drain.queue = nil
		n.drain.say(m)
	}
	n.draining, n.drain = false, nil
}

func (d *drain) alarm() *alarm { return &d.mark }

// ring sends as many away as the rate has allowed since the drain began.
func (d *drain) ring(m *Machine, now time.Time) time.Time {
	allowed := int(now.Sub(d.begun) * time.Duration(d.rate) / time.Second)
	for ; len(d.queue) > 0 && d.done < allowed; d.done++ {
		if r := m.registrations[d.queue[0]]; r != nil {
			d.send(m, now, r)
		}
		d.queue = d.queue[1:]
	}
	if len(d.queue) == 0 {
		d.say(m)
		return time.Time{}
	}
	return later(now.Add(drainEvery), d.begun.Add(time.Duration(d.done+1)*time.Second/time.Duration(d.rate)))
}

func (d *drain) send(m *Machine, now time.Time, r *registration) {
	if to := r.elsewhere(d.node); r.at == d.node && len(to) > 0 && r.lastMove.move.ID != d.id {
		r.moving = &belfry.Move{ID: d.id, To: to, Addresses: to, Reason: belfry.MoveDrain}
		r.tally(d.told)
	}
	r.leave = r.leave || d.node.ID == m.cfg.Node
	r.serve(m, now)
}

// say puts out whom the drain has moved.
func (d *drain) say(m *Machine) {
	m.moved(belfry.Move{ID: d.id, Reason: belfry.MoveDrain}, d.node.Name, d.told)
	d.told = map[belfry.Resource]int{}
}

package witness

import (
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// Means tells whether a registration meets all that a selector names.
func (s *Selector) Means(r *Status) bool {
	none := !s.All && s.Key == (Key{}) && s.Client == nil && s.Principal == nil && s.Protocol == "" && s.Resource == "" && s.At == ""
	switch {
	case none,
		s.Key != (Key{}) && s.Key != r.Key,
		s.Client != nil && !s.Client.MatchString(r.Client),
		s.Principal != nil && !s.Principal.MatchString(r.Owner.Principal),
		s.Protocol != "" && s.Protocol != r.Owner.Protocol,
		s.At != "" && !slices.Contains(r.AtNames, s.At),
		s.Resource != "" && !slices.ContainsFunc(r.Resources, func(one ResourceStatus) bool { return one.Name == s.Resource }):
		return false
	}
	return true
}

func (m *Machine) selected(now time.Time, s *Selector) (chosen []*registration) {
	for _, r := range m.sorted() {
		if status := r.status(now); s.Means(&status) {
			chosen = append(chosen, r)
		}
	}
	return chosen
}

func keysOf(all []*registration) []Key {
	keys := make([]Key, len(all))
	for i, r := range all {
		keys[i] = r.key
	}
	return keys
}

// move asks the chosen clients to go. A newer move replaces one that was not
// handed out yet.
func (m *Machine) move(now time.Time, msg Move) {
	if msg.Move.ID == "" || len(msg.Move.To) == 0 {
		m.answer(Answer{Call: msg.Call, Err: refusal(belfry.ErrUsage, "a move has an id and somewhere to go to; name a node or an address")})
		return
	}
	chosen := m.selected(now, &msg.Select)
	a := Answer{Call: msg.Call, Matched: keysOf(chosen)}
	msg.Move.Addresses = m.addresses(msg.Move.To)
	if !msg.DryRun {
		for _, r := range chosen {
			r.send(m, now, msg.Move)
		}
	}
	m.answer(a)
}

// addresses are those of nodes, where they are members; what is no node is one
// itself.
func (m *Machine) addresses(places []string) (all []string) {
	for _, to := range places {
		if n := m.named(to); n != nil {
			all = append(all, n.Hosts...)
		} else {
			all = append(all, to)
		}
	}
	return all
}

func (r *registration) send(m *Machine, now time.Time, move belfry.Move) {
	r.moving = &move
	r.serve(m, now)
}

func (m *Machine) force(now time.Time, msg Force) {
	chosen := m.selected(now, &msg.Select)
	a := Answer{Call: msg.Call, Matched: keysOf(chosen)}
	if !msg.DryRun {
		for _, r := range chosen {
			m.drop(r, "forced")
		}
	}
	m.answer(a)
}

// A drain sends clients away at a rate, so that those who take them in are not
// flooded.
type drain struct {
	node  *node // nil: none runs
	id    string
	rate  int
	queue []Key
	begun time.Time
	done  int

	mark alarm
}

// setDrain empties a node, or lets it fill again.
func (m *Machine) setDrain(now time.Time, msg Drain) {
	n := m.nodes[msg.Node]
	if n == nil || !n.known {
		m.answer(Answer{Call: msg.Call, Err: refusal(belfry.ErrNotFound, "node %s is not a member; name one that is", msg.Node)})
		return
	}
	if !msg.On {
		if !msg.DryRun {
			n.draining, m.drain.queue = false, nil
		}
		m.answer(Answer{Call: msg.Call})
		return
	}
	var chosen []*registration
	for _, r := range m.sorted() {
		if n.ID == m.cfg.Node || r.at == n && len(r.elsewhere(n)) > 0 {
			chosen = append(chosen, r)
		}
	}
	a := Answer{Call: msg.Call, Matched: keysOf(chosen)}
	if !msg.DryRun {
		n.draining = true
		rate := msg.Rate
		if rate == 0 {
			rate = 50
		}
		m.drain.node, m.drain.id, m.drain.rate, m.drain.queue = n, msg.ID, min(max(rate, 1), 10_000), a.Matched
		m.drain.begun, m.drain.done = now, 0
		a.Matched = slices.Clone(a.Matched)
		m.alarms.set(&m.drain, now.Add(drainEvery))
	}
	m.answer(a)
}

func (d *drain) alarm() *alarm { return &d.mark }

// ring sends as many away as the rate has allowed since the drain began.
func (d *drain) ring(m *Machine, now time.Time) time.Time {
	allowed := int(now.Sub(d.begun) * time.Duration(d.rate) / time.Second)
	for ; len(d.queue) > 0 && d.done < allowed; d.done++ {
		if r := m.registrations[d.queue[0]]; r != nil {
			d.empty(m, now, r)
		}
		d.queue = d.queue[1:]
	}
	if len(d.queue) == 0 {
		return time.Time{}
	}
	return later(now.Add(drainEvery), d.begun.Add(time.Duration(d.done+1)*time.Second/time.Duration(d.rate)))
}

func (d *drain) empty(m *Machine, now time.Time, r *registration) {
	if r.at == d.node {
		if to := r.elsewhere(d.node); len(to) > 0 {
			r.moving = &belfry.Move{ID: d.id, To: to, Addresses: to, Reason: belfry.MoveDrain}
		}
	}
	r.leave = r.leave || d.node.ID == m.cfg.Node
	r.serve(m, now)
}

// elsewhere is where else a client's resources can be used.
func (r *registration) elsewhere(than *node) (to []string) {
	for i := range r.subs {
		for _, one := range r.subs[i].resource.instances {
			if one.node == than || one.state != belfry.ResourceAvailable {
				continue
			}
			for _, a := range one.node.Hosts {
				if !slices.Contains(to, a) {
					to = append(to, a)
				}
			}
		}
	}
	return to
}

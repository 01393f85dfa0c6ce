package witness

import (
	"maps"
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
		told := map[belfry.Resource]int{}
		for _, r := range chosen {
			r.send(m, now, msg.Move)
			r.tally(told)
		}
		m.moved(msg.Move, "", told)
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

// tally counts a client for each of its resources.
func (r *registration) tally(told map[belfry.Resource]int) {
	for i := range r.subs {
		told[r.subs[i].resource.name]++
	}
}

// moved puts out how many clients of each resource were asked to go.
func (m *Machine) moved(move belfry.Move, from string, told map[belfry.Resource]int) {
	for _, name := range slices.Sorted(maps.Keys(told)) {
		m.out.Moved = append(m.out.Moved, Moved{name, move, from, told[name]})
	}
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

// elsewhere is where else a client's resources can be used. Nodes and events are
// not used, they are heard of.
func (r *registration) elsewhere(than *node) (to []string) {
	for i := range r.subs {
		if kind := r.subs[i].resource.kind; kind == belfry.KindNode || kind == belfry.KindEvent {
			continue
		}
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

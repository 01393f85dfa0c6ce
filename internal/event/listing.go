package event

import (
	"cmp"
	"maps"
	"slices"

	"github.com/belfry-ha/belfry"
)

// Status lists the entries and the interests of other nodes.
func (m *Machine) Status() Status {
	var s Status
	for _, e := range m.sortedEntries() {
		if e.onlyLookedAt() {
			continue
		}
		s.Entries = append(s.Entries, e.status())
	}
	s.Entries = append(s.Entries, m.patternStatus()...)
	slices.SortStableFunc(s.Entries, func(a, b EntryStatus) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Subject, b.Subject))
	})
	for _, p := range m.peers {
		if len(p.held) == 0 {
			continue
		}
		i := InterestStatus{Node: p.node, Name: p.name, Version: p.version, Interests: len(p.held), Live: p.live, Since: p.since}
		if p.consumer != nil {
			i.Unacknowledged = len(p.consumer.sent)
			i.Queued = p.consumer.queued()
		}
		s.Interests = append(s.Interests, i)
	}
	slices.SortStableFunc(s.Interests, func(a, b InterestStatus) int { return cmp.Compare(a.Name, b.Name) })
	for _, w := range m.wanted.list {
		if want := m.wantStatus(w); len(want.Coverage) > 0 { // else no other node is asked
			s.Wants = append(s.Wants, want)
		}
	}
	slices.SortStableFunc(s.Wants, func(a, b WantStatus) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Subject, b.Subject))
	})
	return s
}

func (m *Machine) wantStatus(w *want) WantStatus {
	s := WantStatus{Number: w.Number, Class: w.Class, Subject: w.Subject, Coverage: m.coverageElsewhere(w)}
	for _, r := range w.regs {
		s.Consumers = append(s.Consumers, ConsumerStatus{Kind: r.consumer.kind.String(), Name: r.consumer.name, Registration: r.number})
	}
	slices.SortStableFunc(s.Consumers, compareConsumers)
	return s
}

func compareConsumers(a, b ConsumerStatus) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Registration, b.Registration))
}

// patternStatus lists the local registrations that may match several events,
// so that one without any event yet is seen too.
func (m *Machine) patternStatus() (list []EntryStatus) {
	at := map[key]int{}
	for _, r := range m.globs {
		if r.looksOn() {
			continue
		}
		k := key{belfry.Class(r.spec.Class), r.spec.Subject}
		i, ok := at[k]
		if !ok {
			i = len(list)
			at[k] = i
			list = append(list, EntryStatus{Class: k.class, Subject: k.subject, State: belfry.EntryActive, Pattern: true})
		}
		list[i].Consumers = append(list[i].Consumers, r.status(true))
	}
	return list
}

// Counters returns copies.
func (m *Machine) Counters() Counters {
	c := m.counters
	c.Posted, c.Coalesced, c.Lost = map[belfry.Class]uint64{}, map[belfry.Class]uint64{}, maps.Clone(c.Lost)
	for class, t := range m.tallies { // into maps: the order can not be seen
		if t.posted > 0 {
			c.Posted[class] = t.posted
		}
		if t.coalesced > 0 {
			c.Coalesced[class] = t.coalesced
		}
	}
	return c
}

// QueueLength is how many notifications wait for a consumer, unsent; 0 for
// one that is not open.
func (m *Machine) QueueLength(id ConsumerID) (n int) {
	if c := m.consumers[id]; c != nil {
		for _, r := range c.regs.All() { // a sum: the order can not be seen
			n += r.queued()
		}
	}
	return n
}

func (e *entry) status() EntryStatus {
	s := EntryStatus{
		Entry: e.entry, Class: e.class, Subject: e.subject, Instance: e.instance,
		State: e.state, Since: unix(e.since), Sequence: e.sequence, Held: HeldByListener,
	}
	if e.locals > 0 {
		s.Held = HeldByLocal
	}
	for _, r := range e.registrations() {
		if r.looksOn() || r.sparse && e.locals == 0 {
			continue
		}
		s.Consumers = append(s.Consumers, r.status(e.locals > 0))
	}
	slices.SortStableFunc(s.Consumers, compareConsumers)
	return s
}

func (r *registration) status(local bool) ConsumerStatus {
	s := ConsumerStatus{Kind: r.consumer.kind.String(), Name: r.consumer.name, Registration: r.number, Queued: r.queued(), Gaps: r.gaps}
	if r.consumer.remote() {
		s.Kind, s.Observed = "remote", local
	}
	return s
}

// queued counts the notifications that wait in a registration.
func (r *registration) queued() int {
	n := len(r.rest()) + len(r.snapshots)
	switch {
	case r.queue != nil:
		n += r.queue.len() + len(r.queue.losers)
		if r.queue.gap != nil {
			n++
		}
	case r.dirty && !r.left && !r.resting:
		for i := range r.entry.ring.runs {
			if r.entry.ring.runs[i].last > r.taken {
				n++
			}
		}
	}
	return n
}

// queued counts what waits for a consumer with pending registrations.
func (c *consumer) queued() (n int) {
	for _, r := range c.pending[c.popped:] {
		if !r.removed {
			n += r.queued()
		}
	}
	return n
}

// String is the word that listings use.
func (k ConsumerKind) String() string {
	switch k {
	case ConsumerHandler:
		return "handler"
	case ConsumerJournal:
		return "journal"
	}
	return "stream"
}

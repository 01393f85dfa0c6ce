package witness

import (
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A registration is what one client wants to be told.
type registration struct {
	key     Key
	owner   Owner
	client  string
	at      *node // the holder that the client uses; nil: it named none that there is
	atText  string
	eager   bool
	certain bool
	endless bool
	missing bool // resources may be unknown

	created  time.Time
	used     time.Time // when the last wait ended
	ended    bool
	held     bool    // its Register is not answered yet
	call     CallID  // of that
	known    []Known // of it
	subs     []sub   // never grows: resources point to them
	waits    []wait
	seq      uint64 // of the newest change that was handed out
	moving   *belfry.Move
	lastMove moved
	leave    bool // to be told to register elsewhere

	mark alarm
}

// A moved is a move that was handed out.
type moved struct {
	move belfry.Move
	at   time.Time
}

// A wait is one call that is to be answered with the next changes.
type wait struct {
	call CallID
	due  time.Time // zero: never
}

// A sub is one resource of a registration.
type sub struct {
	reg      *registration
	resource *resource
	place    int                     // in resource.subs
	told     belfry.ResourceLevel    // with what is pending
	given    [2]belfry.ResourceState // State and At that the client has heard of last
	settle   time.Time               // until then what is new is not: see answerHold
	pending  []pending               // at most two
}

// A pending is what one resource has to tell.
type pending struct {
	level       belfry.ResourceLevel
	count       uint64
	first, last time.Time
	at          bool   // the holder in use changed
	once        *node  // it happened there, and left no state; nil: it is a state
	order       uint64 // of the newest change, among all of this machine
}

// bad tells whether a client must not miss it.
func (p *pending) bad() bool {
	return p.level.State == belfry.ResourceUnavailable || p.level.At == belfry.ResourceUnavailable
}

// level is what the resource is for this registration.
func (s *sub) level(now time.Time) (l belfry.ResourceLevel) {
	r := s.resource
	l.Version = r.version
	state := func(plain, eager belfry.ResourceState) belfry.ResourceState {
		switch {
		case r.override.holds(now):
			return r.override.state
		case s.reg.eager:
			return eager
		}
		return plain
	}
	l.State = state(r.state, r.eager)
	if i := s.instance(); i != nil && i.kept && s.told.At != belfry.ResourceUnavailable {
		l.At = state(belfry.ResourceUnknown, belfry.ResourceUnknown)
	} else if i != nil {
		l.At = state(i.state, i.eager)
	}
	return l
}

// instance is the one that the client uses; nil: not known.
func (s *sub) instance() *instance {
	if s.reg.at == nil || s.resource.kind == belfry.KindNode {
		return nil
	}
	return s.resource.on(s.reg.at)
}

// look compares what there is with what the client was told.
func (s *sub) look(m *Machine, now time.Time) {
	switch {
	case s.reg.ended:
		return
	case s.reg.held:
		s.reg.tryAnswer(m, now)
		return
	case now.Before(s.settle):
		return
	}
	l := s.level(now)
	if s.reg.certain && (l.State == belfry.ResourceUnknown || l.State == s.told.State && l.At == s.told.At) {
		return
	}
	n := s.told.News(l)
	if n == 0 {
		return
	}
	m.order++
	p := pending{
		level: l, count: n, first: s.resource.since, last: s.resource.since, order: m.order,
		at: s.instance() != nil && l.At != s.told.At,
	}
	s.told = l
	s.push(p)
	s.reg.serve(m, now)
}

// push merges into what waits: at most two, and never without the unavailable
// that the client has not heard of (witness.md 3).
func (s *sub) push(p pending) {
	last := len(s.pending) - 1
	if last >= 0 && s.pending[last].level.State == p.level.State && s.pending[last].level.At == p.level.At {
		s.pending[last] = s.pending[last].then(p)
		return
	}
	s.pending = append(s.pending, p)
	if len(s.pending) < 3 {
		return
	}
	a, b := s.pending[0], s.pending[1]
	if p.bad() || !a.bad() && !b.bad() {
		s.pending = append(s.pending[:0], a.then(b).then(p))
		return
	}
	kept := a.then(b)
	if !b.bad() {
		kept.level = a.level
	}
	s.pending = append(s.pending[:0], kept, p)
}

// then is two changes in a row as one.
func (p pending) then(next pending) pending {
	next.first = p.first
	next.count += p.count
	next.at = next.at || p.at
	if next.once != nil && p.once != next.once {
		next.once = &node{} // at several
	}
	return next
}

// hand is what the client reads, who has heard of it then.
func (s *sub) hand(p pending) belfry.ResourceChange {
	now := [2]belfry.ResourceState{p.level.State, p.level.At}
	c := belfry.ResourceChange{
		Count: p.count, Resource: s.resource.name, Level: p.level, HasAt: s.instance() != nil,
		First: p.first, Last: p.last, AtAffected: p.at, Flapped: p.count > 0 && now == s.given && p.once == nil,
	}
	s.given = now
	c.Holder, c.Addresses = s.resource.where()
	if p.once != nil {
		c.Holder = p.once.Name
	}
	return c
}

// where is the one holder, and the addresses at which the resource can be used.
func (r *resource) where() (holder string, addresses []string) {
	var holders []*instance
	for _, i := range r.instances {
		if i.state == belfry.ResourceAvailable {
			holders = append(holders, i)
		}
	}
	if len(holders) == 1 {
		holder = holders[0].node.Name
	} else if len(r.instances) == 1 {
		holder = r.instances[0].node.Name
	}
	for _, i := range holders {
		switch {
		case r.kind == belfry.KindAddress:
			return holder, []string{r.name.Subject()}
		case r.declared != nil && r.declared.Address != "":
			return holder, []string{r.declared.Address}
		}
		addresses = append(addresses, i.node.Hosts...)
	}
	return holder, addresses
}

func (r *registration) alarm() *alarm { return &r.mark }

// ring looks at all that is due of a registration.
func (r *registration) ring(m *Machine, now time.Time) time.Time {
	if r.ended {
		return time.Time{}
	}
	if r.held {
		return r.tryAnswer(m, now)
	}
	for i := range r.subs {
		if s := &r.subs[i]; !s.settle.IsZero() && !now.Before(s.settle) {
			s.settle = time.Time{}
			s.look(m, now)
		}
	}
	for len(r.waits) > 0 && !r.waits[0].due.IsZero() && !r.waits[0].due.After(now) {
		r.end(m, now, 0, Answer{})
	}
	if r.unused(m, now) {
		m.drop(r, "unused")
		return time.Time{}
	}
	return r.next(m)
}

func (r *registration) unused(m *Machine, now time.Time) bool {
	return len(r.waits) == 0 && !r.endless && !now.Before(r.used.Add(m.cfg.Unused))
}

// next is when ring has something to do.
func (r *registration) next(m *Machine) (at time.Time) {
	if len(r.waits) == 0 && !r.endless {
		at = r.used.Add(m.cfg.Unused)
	}
	for _, w := range r.waits {
		at = sooner(at, w.due)
	}
	for i := range r.subs {
		at = sooner(at, r.subs[i].settle)
	}
	return at
}

// tryAnswer answers a held Register if there is nothing to wait for any more,
// else it says until when.
func (r *registration) tryAnswer(m *Machine, now time.Time) time.Time {
	var wait time.Time
	for i := range r.subs {
		wait = later(wait, r.subs[i].resource.ready)
	}
	if now.Before(wait) {
		m.alarms.set(r, wait)
		return wait
	}
	for i := range r.subs {
		s := &r.subs[i]
		if s.resource.missing && !r.missing && r.knows(s.resource.name) == nil {
			err := refusal(belfry.ErrNotFound, "no node holds %s; it is not declared, or is not the name of a member, or its holder has never been seen from here", s.resource.name)
			m.answer(Answer{Call: r.call, Key: r.key, Err: err})
			m.drop(r, "")
			return time.Time{}
		}
	}
	a := Answer{Call: r.call, Key: r.key}
	for i := range r.subs {
		a.States = append(a.States, r.subs[i].begin(now))
	}
	delete(m.calls, r.call)
	r.held, r.call, r.known, r.used = false, 0, nil, now
	m.answer(a)
	m.alarms.set(r, r.next(m))
	r.serve(m, now)
	return time.Time{}
}

// knows is what the client was told of a resource; nil: nothing.
func (r *registration) knows(name belfry.Resource) *belfry.ResourceLevel {
	for i := range r.known {
		if r.known[i].Resource == name {
			return &r.known[i].Level
		}
	}
	return nil
}

// begin is the snapshot of one resource: what it is, and how many changes the
// client has missed. Where this witness may know less than the one before, the
// client keeps what it knows until that is settled.
func (s *sub) begin(now time.Time) Present {
	known := s.reg.knows(s.resource.name)
	if known != nil {
		s.told = *known
	}
	l := s.level(now)
	s.pending, s.settle = nil, time.Time{}
	p := pending{level: l, first: s.resource.since, last: s.resource.since}
	if known == nil {
		s.told = l
		return Present{Change: s.hand(p)}
	}
	if s.instance() == nil { // the holder that it meant is none here
		known.At = l.At
	}
	s.told, s.given = *known, [2]belfry.ResourceState{known.State, known.At}
	if known.News(l) == 0 {
		p.level = *known
		return Present{Change: s.hand(p)}
	}
	if until := s.doubtful(*known, l, now); now.Before(until) {
		s.settle = until
		p.level = *known
		return Present{Change: s.hand(p)}
	}
	p.count = known.News(l)
	p.at = s.instance() != nil && l.At != known.At
	s.told = l
	return Present{Change: s.hand(p), Changed: p.count}
}

// doubtful is until when what is held here need not be the newer.
func (s *sub) doubtful(known, l belfry.ResourceLevel, now time.Time) time.Time {
	until := s.resource.settled()
	better := known.State == belfry.ResourceUnavailable && l.State == belfry.ResourceAvailable ||
		known.At == belfry.ResourceUnavailable && l.At == belfry.ResourceAvailable
	if better && known.Version.Origin != l.Version.Origin {
		until = later(until, now.Add(answerHold))
	}
	return until
}

// serve answers the oldest wait with all there is.
func (r *registration) serve(m *Machine, now time.Time) {
	if len(r.waits) == 0 || r.held || !r.pends() {
		return
	}
	r.end(m, now, 0, Answer{Changes: r.take(now)})
}

func (r *registration) pends() bool {
	return r.moving != nil || r.leave || slices.ContainsFunc(r.subs, func(s sub) bool { return len(s.pending) > 0 })
}

// take hands out what waits, in the order in which it happened.
func (r *registration) take(now time.Time) []belfry.ResourceChange {
	type item struct {
		order  uint64
		change belfry.ResourceChange
	}
	var items []item
	for i := range r.subs {
		s := &r.subs[i]
		for _, p := range s.pending {
			items = append(items, item{p.order, s.hand(p)})
		}
		s.pending = nil
	}
	slices.SortStableFunc(items, func(a, b item) int { return cmp.Compare(a.order, b.order) })
	var changes []belfry.ResourceChange
	for _, it := range items {
		r.seq += it.change.Count
		it.change.Seq = r.seq
		changes = append(changes, it.change)
	}
	if r.moving != nil {
		changes = append(changes, belfry.ResourceChange{Seq: r.seq, First: now, Last: now, Move: r.moving})
		r.lastMove, r.moving = moved{*r.moving, now}, nil
	}
	if r.leave {
		changes = append(changes, belfry.ResourceChange{Seq: r.seq, First: now, Last: now, Reregister: true})
		r.leave = false
	}
	return changes
}

// end answers one wait.
func (r *registration) end(m *Machine, now time.Time, at int, a Answer) {
	a.Call, a.Key = r.waits[at].call, r.key
	delete(m.calls, a.Call)
	r.waits = slices.Delete(r.waits, at, at+1)
	r.used = now
	m.answer(a)
	if len(r.waits) == 0 {
		m.alarms.set(r, r.next(m))
	}
}

// drop ends a registration with all its waits; an empty reason is the client's
// own.
func (m *Machine) drop(r *registration, reason string) {
	r.ended = true
	delete(m.registrations, r.key)
	m.count(r.owner, -1)
	delete(m.calls, r.call)
	if r.held && reason != "" {
		m.answer(Answer{Call: r.call, Key: r.key, Err: errGone(r.key)})
	}
	for _, w := range r.waits {
		delete(m.calls, w.call)
		m.answer(Answer{Call: w.call, Key: r.key, Err: errGone(r.key)})
	}
	r.waits = nil
	r.unlink(m)
	if reason != "" {
		m.out.Ended = append(m.out.Ended, Ended{r.key, r.client, reason})
	}
}

// unlink takes a registration out of its resources.
func (r *registration) unlink(m *Machine) {
	for i := range r.subs {
		s := &r.subs[i]
		all := s.resource.subs
		last := len(all) - 1
		all[s.place] = all[last]
		all[s.place].place = s.place
		all[last] = nil
		s.resource.subs = all[:last]
		m.forgetUnused(s.resource)
	}
	r.subs = nil
}

func errGone(k Key) error {
	return refusal(belfry.ErrNotFound, "registration %s is not, or not any longer, at this witness; register again", k)
}

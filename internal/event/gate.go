package event

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// A gate holds back what a registration's rules about time do not let out yet,
// for one event: flap control first, then hold, then the interval. What it
// holds and then gives up is counted as skipped, so every occurrence is
// accounted for.
type gate struct {
	on  *attachment
	due alarm

	// flap
	changes  []int64 // when the newest High+1 occurrences came, oldest first
	flapping bool
	newest   item // while flapping

	// hold
	told    standing // the state told last
	holding *item    // a state that has not lasted long enough
	lasts   time.Time

	// interval
	waiting *item // came too soon after the last notification
	open    time.Time
}

// A standing is a state as hold compares it; before the first one it is not
// known.
type standing struct {
	code  int32
	edge  belfry.Edge
	known bool
}

func (it *item) standing() standing { return standing{code: it.code, edge: it.edge, known: true} }

// newGate is nil for a registration without rules about time.
func (m *Machine) newGate(a *attachment) *gate {
	if !a.reg.timed() {
		return nil
	}
	g := &gate{on: a, due: m.alarms.alarm()}
	g.due.gate = g
	if len(a.levels) > 0 { // a value is good until it is told that it is not
		g.told = standing{edge: belfry.EdgeRecovered, known: true}
	}
	return g
}

// take lets an occurrence through, or keeps it.
func (g *gate) take(now time.Time, it *item) {
	s := &g.on.reg.spec
	switch {
	case !s.Flap.IsZero() && g.flaps(now, it):
	case s.Hold > 0 && (g.holding != nil || g.on.lasting(it)):
		g.hold(now, it)
	default:
		g.pass(now, it)
	}
	g.on.reg.consumer.machine.setAlarm(g)
}

// lasting tells whether an occurrence is the begin of a state.
func (a *attachment) lasting(it *item) bool {
	return it.edge != belfry.EdgeNone || a.feed.info != nil && a.feed.info.Kind == belfry.State
}

// flaps counts an occurrence, and swallows it while there are too many.
func (g *gate) flaps(now time.Time, it *item) bool {
	a, f := g.on, &g.on.reg.spec.Flap
	for range min(it.count, uint64(f.High)+1) {
		if len(g.changes) > f.High {
			g.changes = append(g.changes[:0], g.changes[1:]...)
		}
		g.changes = append(g.changes, now.UnixNano())
	}
	if !g.flapping {
		if len(g.changes) <= f.High || now.UnixNano()-g.changes[0] >= int64(f.Window) {
			return false
		}
		g.giveUp()
		g.flapping = true
		a.refuse(it)
		g.say(belfry.KindFlapping, it)
	} else {
		a.refuse(it)
	}
	g.newest = *it
	return true
}

func (it *item) state(kind belfry.Kind) *state {
	return &state{kind: kind, sequence: it.last, time: it.time, code: it.code, edge: it.edge, body: it.body}
}

// settles is when the window will have fewer than Low occurrences.
func (g *gate) settles() time.Time {
	f := &g.on.reg.spec.Flap
	return unix(g.changes[len(g.changes)-f.Low] + int64(f.Window))
}

// say puts a notification about the event into the queue that stands for no
// occurrence but has all that was skipped.
func (g *gate) say(kind belfry.Kind, it *item) {
	a := g.on
	note := *it
	note.on, note.kind, note.count, note.skipped, note.lowerBound = a, kind, 0, 0, false
	note.first, note.firstTime = it.last, it.time
	a.account(&note)
	a.reg.queue.append(a, note)
}

// hold keeps a state until it has lasted. A return to the state told last
// sends nothing.
func (g *gate) hold(now time.Time, it *item) {
	a, s := g.on, it.standing()
	switch {
	case g.holding != nil && g.holding.merges(it) && (!a.reg.detailed || g.holding.same(it.body)):
		a.extend(g.holding, it)
	case g.holding != nil && g.holding.standing() == s: // of a new identifier, or after a gap: it goes on
		a.skip(&g.holding)
		g.holding = a.keep(it)
	case s == g.told && g.holding != nil:
		a.skip(&g.holding)
		a.refuse(it)
	case s == g.told:
		g.pass(now, it)
	default:
		a.skip(&g.holding)
		g.holding = a.keep(it)
		g.lasts = now.Add(a.reg.spec.Hold)
	}
}

// pass puts an occurrence to the other rules, and into the queue unless the
// last notification is too recent.
func (g *gate) pass(now time.Time, it *item) {
	a, interval := g.on, g.on.reg.spec.MinInterval
	switch {
	case !a.admits(it):
		a.refuse(it)
	case g.waiting != nil && g.waiting.merges(it):
		a.extend(g.waiting, it)
	case g.waiting != nil || now.Before(g.open):
		a.skip(&g.waiting)
		g.waiting = a.keep(it)
	default:
		if interval > 0 {
			g.open = now.Add(interval)
		}
		a.reg.queue.put(a, it)
	}
}

// keep copies an occurrence and what was skipped before it.
func (a *attachment) keep(it *item) *item {
	kept := *it
	kept.on, kept.skipped = a, 0
	a.account(&kept)
	return &kept
}

// extend adds an occurrence, and what was skipped between them, to one that is kept.
func (a *attachment) extend(kept, it *item) {
	kept.mixed = kept.mixed || it.mixed || !kept.same(it.body)
	kept.last, kept.time, kept.body = it.last, it.time, it.body
	kept.lowerBound = kept.lowerBound || it.lowerBound
	kept.count += it.count
	a.account(kept)
}

// skip gives up what is kept.
func (a *attachment) skip(kept **item) {
	if it := *kept; it != nil {
		a.refuse(it)
		a.skipped += it.skipped
		*kept = nil
	}
}

// let sends on what was kept. What was skipped after it comes with the next
// notification.
func (a *attachment) let(it *item, to func(*item)) {
	after, marked := a.skipped, a.marked
	a.skipped, a.marked = it.skipped, false
	to(it)
	a.skipped += after
	a.marked = a.marked || marked
}

// giveUp skips all that is kept: what comes now takes its place.
func (g *gate) giveUp() {
	g.on.skip(&g.holding)
	g.on.skip(&g.waiting)
}

// finish lets out what only came too soon, because the event ends now. A
// state that has not lasted is none.
func (g *gate) finish() {
	a := g.on
	if it := g.waiting; it != nil {
		g.waiting = nil
		a.let(it, func(it *item) { a.reg.queue.put(a, it) })
	}
	g.giveUp()
	a.reg.consumer.machine.setAlarm(g)
}

// end is finish for an entry in whose place another one comes. That the event
// changes too often says the one that follows, if it does.
func (g *gate) end() {
	g.finish()
	if g.flapping {
		g.flapping = false
		g.say(belfry.KindSettled, &g.newest)
	}
}

// follow begins as the gate of the entry before: what was told, and how often
// the event changed and was told of lately.
func (g *gate) follow(before *gate) {
	g.told, g.open, g.changes = before.told, before.open, before.changes
}

// lose gives up what is kept, because a gap goes out now. A state that was
// about to last still may: its number is behind the gap's, so it will be told
// as a state and not as an occurrence.
func (g *gate) lose() {
	held := g.holding
	g.giveUp()
	if held != nil {
		g.holding = &item{kind: belfry.KindState, on: g.on, run: held.run}
	}
	g.on.reg.consumer.machine.setAlarm(g)
}

// tell takes note of a state that the consumer is told past the rules.
func (g *gate) tell(s *state) {
	g.giveUp()
	g.told = s.standing()
	g.on.reg.consumer.machine.setAlarm(g)
}

// learn takes note of a state that the consumer is not told: the one that was
// there when it came, or one that another node reports after it was cut off.
func (g *gate) learn(s *state) {
	switch {
	case g.holding == nil:
		g.told = s.standing()
	case g.holding.standing() != s.standing():
		g.on.skip(&g.holding)
		if s.standing() != g.told {
			g.holding = &item{kind: belfry.KindState, on: g.on, run: run{
				first: s.sequence, last: s.sequence, firstTime: s.time, time: s.time, code: s.code, edge: s.edge, body: s.body,
			}}
		}
		g.on.reg.consumer.machine.setAlarm(g)
	}
}

func (s *state) standing() standing { return standing{code: s.code, edge: s.edge, known: true} }

// next is when something that is kept is due; zero: nothing is.
func (g *gate) next() (next time.Time) {
	first := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	if g.flapping {
		first(g.settles())
	}
	if g.holding != nil {
		first(g.lasts)
	}
	if g.waiting != nil {
		first(g.open)
	}
	return next
}

// advance lets out what is due.
func (g *gate) advance(now time.Time) {
	a := g.on
	if g.flapping && !g.settles().After(now) {
		g.flapping = false
		g.told = g.newest.standing()
		g.say(belfry.KindSettled, &g.newest)
		g.newest = item{}
		if interval := a.reg.spec.MinInterval; interval > 0 {
			g.open = now.Add(interval)
		}
	}
	if g.waiting != nil && !g.open.After(now) {
		it := g.waiting
		g.waiting = nil
		g.open = now.Add(a.reg.spec.MinInterval)
		a.let(it, func(it *item) { a.reg.queue.put(a, it) })
	}
	if g.holding != nil && !g.lasts.After(now) {
		it := g.holding
		g.holding, g.told = nil, it.standing()
		if it.kind == belfry.KindState {
			a.show(it.state(belfry.KindState))
		} else {
			a.let(it, func(it *item) { g.pass(now, it) })
		}
	}
	a.reg.consumer.machine.setAlarm(g)
}

// timed tells whether a registration has rules about time.
func (r *registration) timed() bool {
	return r.spec.Hold > 0 || r.spec.MinInterval > 0 || !r.spec.Flap.IsZero()
}

package event

import (
	"math"
	"slices"

	"github.com/belfry-ha/belfry"
)

// ring holds the last runs of one entry, oldest first (events.md 4). Plain
// registrations read from it; it is their common queue.
type ring struct {
	runs   []run
	marked uint64 // the newest number that is in no run and was a lower bound
}

func (g *ring) newest() *run {
	if len(g.runs) == 0 {
		return nil
	}
	return &g.runs[len(g.runs)-1]
}

// add appends a run; the oldest falls off. What falls off is not lost: a
// registration that has not taken it sees the hole and reports a gap.
func (g *ring) add(r run, most int) {
	if len(g.runs) == most {
		if g.runs[0].lowerBound {
			g.marked = g.runs[0].last
		}
		copy(g.runs, g.runs[1:])
		g.runs[len(g.runs)-1] = r
		return
	}
	g.runs = append(g.runs, r)
}

// lowerBound tells whether something after a number was one, of what fell off
// and of the oldest runs.
func (g *ring) lowerBound(last uint64, oldest int) bool {
	return g.marked > last || slices.ContainsFunc(g.runs[:oldest], func(r run) bool { return r.lowerBound && r.last > last })
}

// since is how many runs have something newer than a number.
func (g *ring) since(last uint64) (n int) {
	for n < len(g.runs) && g.runs[len(g.runs)-1-n].last > last {
		n++
	}
	return n
}

// takePlain gives the registration what it has not had of its entry's ring.
// When the basket is full it leaves the registration dirty.
func (r *registration) takePlain(b *basket) {
	if r.snap != nil {
		r.takeWithState(b)
		return
	}
	r.takeNew(b)
}

// takeWithState gives the state to begin with before what comes after it. A peer
// that goes on where it stopped has missed what led to the state, so it gets that
// first and then the state as it is by now.
func (r *registration) takeWithState(b *basket) {
	if r.snap.sequence > r.taken {
		if r.takeNew(b); r.dirty || b.full() {
			return
		}
		r.snap = r.entry.present
	}
	if b.full() {
		return
	}
	n := r.snap.notification(&r.entry.source, r)
	r.mark(&n, r.entry.locals == 0)
	b.add(n)
	r.snap = nil
	r.takeNew(b)
}

func (r *registration) takeNew(b *basket) {
	w := &r.entry.machine.written
	switch {
	case !r.dirty || r.resting:
		return
	case len(r.entry.plain) == 1 || r.sparse || r.skipped > 0: // nobody has the same
		b.writes = false
		r.takeRuns(b)
		return
	case w.share(b, r):
		return
	}
	before, key := len(b.notifications), r.partKey(b)
	r.takeRuns(b)
	w.keep(b, r, key, before)
}

// takeRuns goes on until the basket is full, or the registration has everything
// and is clean.
func (r *registration) takeRuns(b *basket) {
	e := r.entry
	runs := e.ring.runs
	if most := r.spec.Limit; most > 0 && len(runs) > most { // look back that many only
		runs = runs[len(runs)-most:]
	}
	marked := e.ring.lowerBound(r.taken, len(e.ring.runs)-len(runs))
	for i := range runs {
		v := &runs[i]
		if v.last <= r.taken {
			continue
		}
		if v.first > r.taken+1 {
			if b.full() {
				return
			}
			r.takeHole(b, v.first-1, v.firstTime, marked)
		}
		if v.unmonitored && r.sparse {
			r.pass(max(v.first, r.taken+1), v.last, v.lowerBound)
			continue
		}
		if b.full() {
			return
		}
		r.takeRun(v, b)
	}
	if r.taken < e.sequence { // held posts that fell off, with nothing after them yet
		if b.full() {
			return
		}
		r.takeHole(b, e.sequence, r.since, marked)
	}
	if r.sparse && e.locals == 0 {
		r.resting = true
		return
	}
	e.clean(r)
}

// pass leaves out what is not for a peer: it goes out with the number of what
// comes next.
func (r *registration) pass(first, last uint64, lowerBound bool) {
	r.skipped += last - first + 1
	r.marked = r.marked || lowerBound
	r.taken = last
}

// account puts what was left out to what goes out now.
func (r *registration) account(n *belfry.Notification) {
	if r.skipped > 0 {
		n.Skipped, n.LowerBound = r.skipped, n.LowerBound || r.marked
		r.skipped, r.marked = 0, false
	}
}

// drain takes what is left before the registration leaves its entry: what
// happens after that is not its business.
func (r *registration) drain() {
	if r.entry != nil {
		b := &basket{most: len(r.entry.ring.runs)*2 + 2, mostBytes: math.MaxInt}
		r.takePlain(b)
		r.over = &remains{append(r.rest(), b.notifications...)}
	}
}

func (r *registration) takeRun(v *run, b *basket) {
	n := b.next()
	r.entry.begin(n, belfry.KindOccurrence, r)
	v.fill(n)
	if v.first <= r.taken {
		n.First, n.FirstTime = r.taken+1, unix(r.since)
	}
	n.Count = n.Last - n.First + 1
	n.Mixed = n.Mixed && n.Count > 1
	r.mark(n, v.unmonitored)
	r.account(n)
	r.entry.tally.coalesced += n.Count - 1
	r.taken = v.last
	b.weigh(n)
}

// takeHole reports the numbers after taken up to last as a gap.
func (r *registration) takeHole(b *basket, last uint64, until int64, lowerBound bool) {
	n := r.entry.notification(belfry.KindGap, r)
	n.First, n.Last, n.LowerBound = r.taken+1, last, lowerBound
	n.FirstTime, n.Time = unix(r.since), unix(max(r.since, until))
	n.Gap = &belfry.Gap{
		Total: last - r.taken, Known: true, Resync: true, Reason: belfry.GapSlow,
		From: n.FirstTime, To: n.Time,
	}
	if r.taken < r.behind { // the peer was away
		n.Gap.Reason = belfry.GapLink
	}
	r.account(&n)
	r.taken = last
	r.gaps++
	r.entry.machine.counters.Lost[n.Gap.Reason] += n.Gap.Total
	b.add(n)
}

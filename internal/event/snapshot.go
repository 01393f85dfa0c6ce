package event

// snapshot makes a plain registration begin with a state. The state is shared
// and never written, so that nothing that happens before it is taken gets
// ahead of it: state first, then changes.
func (r *registration) snapshot(s *state) {
	r.snap = s
	r.wake()
}

// begun makes a registration with a queue begin an event with its state, if
// it asked for that.
func (a *attachment) begun(s *state) {
	if a.reg.spec.Snapshot {
		a.show(s)
	}
}

// show lets a state record go out before anything queued later. A later state
// replaces one that has not been taken: it is a present state, not a history.
func (a *attachment) show(s *state) {
	r := a.reg
	if a.snap == nil {
		r.snapshots = append(r.snapshots, a)
	}
	a.snap = s
	r.wake()
}

// takeSnapshots gives the states to begin with.
func (r *registration) takeSnapshots(b *basket) {
	i := 0
	for ; i < len(r.snapshots) && !b.full(); i++ {
		a := r.snapshots[i]
		if a.before != nil {
			b.add(a.before.notification(r))
			a.before = nil
			r.gaps++
			if b.full() {
				break
			}
		}
		r.takeState(b, a, a.snap)
		a.snap = nil
	}
	r.snapshots = r.snapshots[:copy(r.snapshots, r.snapshots[i:])]
}

func (r *registration) takeState(b *basket, a *attachment, s *state) {
	n := s.notification(&a.feed.source, r)
	if r.wantsEdge(n.Edge) && r.admits(&n) {
		b.add(n)
	}
}

// takeBehind gives the present state of each event of which something was
// dropped and nothing follows in the queue: without it the consumer would
// believe an old state for ever.
func (r *registration) takeBehind(b *basket) {
	q := r.queue
	for len(q.behind) > 0 && q.gap == nil && !b.full() {
		a := q.behind[0]
		q.behind = q.behind[1:]
		if a.behind && a.inFeed >= 0 {
			r.takeState(b, a, a.feed.present)
		}
		a.behind = false
	}
}

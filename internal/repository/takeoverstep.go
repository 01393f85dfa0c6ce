package repository

import (
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A step is how far an attempt of this node has come: it asks, which binds nobody, has
// a ballot promised, then a value accepted.
type step struct {
	kind    LetterKind // that was sent; zero: no attempt
	target  uint64
	ballot  EpochBallot
	to      []belfry.NodeID // members that it was sent to, this node too
	answers map[belfry.NodeID]Letter
	value   []byte
	voters  *Document // a majority of whose members is needed
}

// ask begins an attempt. A promise binds a member for as long as no epoch is chosen, also
// when the disks come back: so nobody is asked for one before it is known that a
// majority does without them, and that there is a place.
func (t *Takeover) ask(now time.Time) {
	held := &t.stand.Held
	t.step = step{target: TakeoverEpoch(held.Epoch), voters: &held.Document}
	if t.fenced() { // by one that knew of a later epoch
		t.step.target = t.state.Target
	}
	for _, n := range held.Document.Nodes {
		t.step.to = append(t.step.to, n.ID)
	}
	t.post(now, LetterAsk)
}

// post sends one step to all members, and does it here.
func (t *Takeover) post(now time.Time, kind LetterKind) {
	s := &t.step
	s.kind, s.answers = kind, map[belfry.NodeID]Letter{}
	t.next = now.Add(takeoverAnswer)
	own := Letter{From: t.self, To: t.self, Kind: kind, Target: s.target, Ballot: s.ballot, Value: s.value}
	own = t.answer(own)
	for _, id := range s.to {
		if id != t.self {
			t.send(Letter{To: id, Kind: kind, Target: s.target, Ballot: s.ballot, Value: s.value})
		}
	}
	t.answered(now, own)
}

// answered notes an answer to the present step.
func (t *Takeover) answered(now time.Time, l Letter) {
	s := &t.step
	t.round = max(t.round, l.Accepted.Round)
	if s.kind == 0 || l.Target != s.target || l.Ballot != s.ballot || !slices.Contains(s.to, l.From) {
		return
	}
	if l.Kind != LetterRefuse && l.Kind != s.kind+1 { // of another step
		return
	}
	s.answers[l.From] = l
	enough := s.kind == LetterAccept && t.count(s.voters) // no need to hear the others
	if len(s.answers) == len(s.to) || enough {
		t.evaluate(now)
	}
}

// count tells whether a majority of a document's members has done the step.
func (t *Takeover) count(d *Document) bool {
	n := 0
	for _, is := range d.Nodes {
		if l, ok := t.step.answers[is.ID]; ok && l.Kind == t.step.kind+1 {
			n++
		}
	}
	return n >= len(d.Nodes)/2+1
}

// fail ends the attempt.
func (t *Takeover) fail(now time.Time, format string, args ...any) {
	t.why = fmt.Errorf("%w: the members do not take the repository over: %s", belfry.ErrRestricted, fmt.Sprintf(format, args...))
	t.step, t.next = step{}, now.Add(takeoverRetry+t.spread(takeoverRetry))
}

// name is what people call a member.
func (t *Takeover) name(id belfry.NodeID) string {
	if n := t.stand.Held.Document.byID()[id]; n != nil {
		return n.Name
	}
	return id.String()
}

// evaluate goes to the next step with the answers that are there.
func (t *Takeover) evaluate(now time.Time) {
	s := &t.step
	for _, id := range s.to {
		switch l, ok := s.answers[id]; {
		case !ok:
		case l.Held.Epoch >= s.target:
			t.fail(now, "node %s is in epoch %d already; attach its disks here", t.name(id), l.Held.Epoch)
			return
		case !l.Lost:
			t.fail(now, "node %s reads it; look at the path to its disks from the others", t.name(id))
			return
		}
	}
	switch s.kind {
	case LetterAsk:
		t.asked(now)
	case LetterPrepare:
		t.promised(now)
	case LetterAccept:
		if !t.count(s.voters) {
			t.fail(now, "too few of the %d members have accepted epoch %d; a majority is needed", len(s.voters.Nodes), s.target)
			return
		}
		target, value, to := s.target, s.value, s.to
		t.chosen(now, target, value)
		for _, id := range to {
			if id != t.self {
				t.send(Letter{To: id, Kind: LetterChosen, Target: target, Value: value})
			}
		}
	}
}

func (t *Takeover) asked(now time.Time) {
	s := &t.step
	switch {
	case !t.count(s.voters):
		t.fail(now, "%d of %d members answer; a majority is needed; start the others", len(s.answers), len(s.to))
	case len(t.places(s.voters)) == 0:
		t.fail(now, "none of the %d spares is seen by all of the %d members that answer; attach one to all of them", len(s.voters.Repository.Spares), len(s.answers))
	default:
		s.ballot = EpochBallot{Round: t.round + 1, Node: t.self}
		t.round++
		t.post(now, LetterPrepare)
	}
}

// places are the spares that all see who answer, as many as there were disks, or
// one where two would make the loss of either the loss of both.
func (t *Takeover) places(d *Document) (spares []UUID) {
	if d.Repository.Areas == nil { // it has moved to etcd, as somebody knows
		return nil
	}
	for _, u := range d.Repository.Spares {
		everywhere := true
		for _, l := range t.step.answers { // the order can not be seen
			everywhere = everywhere && slices.Contains(l.Seen, u)
		}
		if everywhere {
			spares = append(spares, u)
		}
	}
	n := min(len(spares), len(d.Repository.Areas.Disks))
	if n == 2 {
		n = 1
	}
	return spares[:n]
}

// promised chooses the value: what may have been chosen before, else what follows
// from the newest document of those who have promised.
func (t *Takeover) promised(now time.Time) {
	s := &t.step
	var newest Document
	var version Version
	var accepted Letter
	for _, id := range s.to {
		l, ok := s.answers[id]
		if !ok || l.Kind != LetterPromise {
			continue
		}
		h, err := HeldOf(l.Held, l.Document)
		if err != nil {
			t.fail(now, "node %s: %s", t.name(id), err.Error())
			return
		}
		if newer(h.Version, version) {
			version, newest = h.Version, h.Document
		}
		if len(l.Value) > 0 && (len(accepted.Value) == 0 || accepted.Accepted.Before(l.Accepted)) {
			accepted = l
		}
	}
	if !t.count(&newest) {
		t.fail(now, "too few of the %d members have promised epoch %d; a majority is needed", len(newest.Nodes), s.target)
		return
	}
	s.value = accepted.Value
	if len(s.value) == 0 && !t.choose(now, newest) {
		return
	}
	s.voters, s.to = &newest, nil
	for _, n := range newest.Nodes {
		s.to = append(s.to, n.ID)
	}
	t.post(now, LetterAccept)
}

// newer orders what members hold. All that is held of one epoch was committed there,
// so that it lies on one line; the ballot says only who wrote it last.
func newer(a, b Version) bool {
	return a.Epoch > b.Epoch || a.Epoch == b.Epoch && a.Generation > b.Generation
}

// choose makes the value.
func (t *Takeover) choose(now time.Time, newest Document) bool {
	places := t.places(&newest)
	if len(places) == 0 || TakeoverEpoch(newest.Repository.Epoch) != t.step.target {
		t.fail(now, "none of the %d spares of generation %d is seen by all of the %d members that answer; attach one to all of them",
			len(newest.Repository.Spares), newest.Generation(), len(t.step.answers))
		return false
	}
	d, err := TakenOver(newest, places, t.self, "node "+t.name(t.self), now)
	if err == nil {
		t.step.value, err = Encode(d)
	}
	if err != nil {
		t.fail(now, "%s", err.Error())
		return false
	}
	return true
}

package repository

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// Times of the take-over.
const (
	takeoverTurn   = 2 * time.Second // between two members that could begin
	takeoverAnswer = 2 * time.Second // for the answers to each step
	takeoverRetry  = 3 * time.Second // and up to as much again
)

// A Takeover is the agreement of the members on the next epoch when too few disks
// are left: Paxos (Lamport, 1998) for one value, once for each epoch that they
// begin. A promise is also one to do nothing in earlier epochs any more, and carries
// what is held: so what a majority held before is in the value (ADR 0037).
//
// It is not safe for concurrent use; its driver owns it.
type Takeover struct {
	self  belfry.NodeID
	rng   *rand.Rand
	state EpochState
	stand Standing
	round uint64 // greatest that was heard of
	step  step
	next  time.Time // of the attempt, or the next one; zero: none is due
	again time.Time // when what was chosen is completed again
	why   error     // the last attempt came to nothing
	out   TakeoverOutput
}

// NewTakeover goes on from what was kept.
func NewTakeover(self belfry.NodeID, kept EpochState, _ time.Time, rng *rand.Rand) *Takeover {
	return &Takeover{self: self, rng: rng, state: kept, round: kept.Promised.Round}
}

// State is what was kept last.
func (t *Takeover) State() EpochState { return t.state }

// Why says why the last attempt came to nothing; nil: none did since the storage went.
func (t *Takeover) Why() error { return t.why }

// fenced: this node waits for an epoch that it has promised, and writes in none.
func (t *Takeover) fenced() bool { return t.state.Fences(t.stand.Held.Epoch) }

// lost: this node does without the storage, or must.
func (t *Takeover) lost() bool { return t.stand.Lost || t.fenced() }

// decided: the next epoch is chosen, and has to be found.
func (t *Takeover) decided() bool { return t.fenced() && t.state.Chosen }

// Receive takes one input.
func (t *Takeover) Receive(now time.Time, msg TakeoverMessage) {
	switch msg := msg.(type) {
	case Standing:
		t.stands(now, msg)
	case Letter:
		t.letter(now, msg)
	}
}

func (t *Takeover) stands(now time.Time, s Standing) {
	t.stand = s
	switch {
	case !t.lost() || t.decided() || !t.able():
		t.step, t.next = step{}, time.Time{}
		if !t.lost() {
			t.why = nil
		}
	case t.next.IsZero():
		t.next = now.Add(time.Duration(t.rank())*takeoverTurn + t.spread(takeoverTurn/2))
	}
}

// spread keeps members from doing the same at once.
func (t *Takeover) spread(d time.Duration) time.Duration {
	return time.Duration(t.rng.Int64N(int64(d) + 1))
}

// able tells whether this node could begin: with a slot it can write the new disks.
func (t *Takeover) able() bool {
	d := &t.stand.Held.Document
	n := d.byID()[t.self]
	return d.Repository.Areas != nil && len(d.Repository.Spares) > 0 && n != nil && n.Slot != nil
}

// rank is how many others come before this node: those that are up, by their slot.
func (t *Takeover) rank() (before int) {
	own := slotOf(t.stand.Held.Document.byID()[t.self].Slot)
	for _, n := range t.stand.Held.Document.Nodes {
		if n.Slot != nil && *n.Slot < own && slices.Contains(t.stand.Up, n.ID) {
			before++
		}
	}
	return before
}

// Advance does what is due.
func (t *Takeover) Advance(now time.Time) {
	if t.decided() && !t.again.After(now) {
		t.again = now.Add(takeoverRetry)
		t.out.Complete = t.state.Value
	}
	if t.next.IsZero() || t.next.After(now) {
		return
	}
	if t.step.kind == 0 {
		t.ask(now)
		return
	}
	t.evaluate(now)
}

// NextTimeout is the zero time when nothing is due, ever.
func (t *Takeover) NextTimeout() time.Time {
	if t.decided() {
		return t.again
	}
	return t.next
}

// Take gives away what has come together since the last call.
func (t *Takeover) Take() TakeoverOutput {
	out := t.out
	t.out = TakeoverOutput{}
	return out
}

// keep has the state made durable before anything else of this output.
func (t *Takeover) keep() {
	kept := t.state
	t.out.Keep = &kept
}

// send fills in what every letter says of its sender.
func (t *Takeover) send(l Letter) {
	l.From, l.Held, l.Lost, l.Seen = t.self, t.stand.Held.Version, t.lost(), t.stand.Seen
	t.out.Letters = append(t.out.Letters, l)
}

// letter routes. What is of an epoch that this node is in already gets that answer.
func (t *Takeover) letter(now time.Time, l Letter) {
	t.round = max(t.round, l.Ballot.Round)
	if l.Held.Epoch > t.stand.Held.Epoch && l.Held.Epoch >= t.state.Target {
		t.out.Look = true
	}
	switch l.Kind {
	case LetterAsk, LetterPrepare, LetterAccept:
		t.out.Letters = append(t.out.Letters, t.answer(l))
	case LetterChosen:
		t.chosen(now, l.Target, l.Value)
	case LetterStands, LetterPromise, LetterAccepted, LetterRefuse:
		t.answered(now, l)
	}
}

// answer is that of an acceptor.
func (t *Takeover) answer(l Letter) Letter {
	a := Letter{
		From: t.self, To: l.From, Kind: LetterRefuse, Target: l.Target, Ballot: l.Ballot, Held: t.stand.Held.Version,
		Lost: t.lost(), Seen: t.stand.Seen, Accepted: t.state.Promised,
	}
	switch {
	case t.state.Target == l.Target && t.state.Chosen:
		a.Kind, a.Value = LetterChosen, t.state.Value
	case t.stand.Held.Epoch >= l.Target || t.state.Target > l.Target: // that is over
	case l.Kind == LetterAsk:
		a.Kind = LetterStands
	case !t.lost():
	case l.Kind == LetterPrepare && t.promise(l.Target, l.Ballot):
		a.Kind, a.Document = LetterPromise, t.stand.Document
		a.Accepted, a.Value = t.state.Accepted, t.state.Value
	case l.Kind == LetterAccept && t.accept(l.Target, l.Ballot, l.Value):
		a.Kind = LetterAccepted
	}
	return a
}

// promise: nothing with a smaller ballot is accepted, and nothing done in an earlier
// epoch. A promise for an epoch that somebody holds ends all agreement on earlier
// ones: that is decided.
func (t *Takeover) promise(target uint64, b EpochBallot) bool {
	if target == t.state.Target && b.Before(t.state.Promised) {
		return false
	}
	if target > t.state.Target {
		t.state = EpochState{Target: target}
	}
	t.state.Promised = b
	t.keep()
	return true
}

func (t *Takeover) accept(target uint64, b EpochBallot, value []byte) bool {
	if target != t.state.Target || b.Before(t.state.Promised) {
		return false
	}
	t.state.Promised, t.state.Accepted, t.state.Value = b, b, value
	t.keep()
	return true
}

// chosen ends the agreement. A majority has accepted it; whoever says so has heard it
// from each of them, or from one who has.
func (t *Takeover) chosen(now time.Time, target uint64, value []byte) {
	if target <= t.stand.Held.Epoch || target < t.state.Target || t.decided() && target == t.state.Target {
		return
	}
	if d, err := Decode(value); err != nil || d.Repository.Epoch != target {
		t.why = fmt.Errorf("%w: a member says that another document was chosen for epoch %d", belfry.ErrUsage, target)
		return
	}
	if target > t.state.Target {
		t.state = EpochState{Target: target}
	}
	t.state.Value, t.state.Chosen = value, true
	t.keep()
	t.step, t.next, t.again, t.why = step{}, time.Time{}, now, nil
}

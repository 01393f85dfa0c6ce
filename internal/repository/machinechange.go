package repository

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// swapAttempts is how often a proposal whose outcome is not known is tried
// again, each time the storage says whether it happened. Not after swapFor: a
// backend that took so long has tried by itself, and somebody waits.
const (
	swapAttempts = 3
	swapFor      = time.Second
)

// An attempt is how far the first proposal of the queue has come.
type attempt struct {
	times int
	begun time.Time
	next  time.Time
	found Digest // what a conflict has shown; zero: nothing that has not been read
}

// change moves to a mode and says so.
func (m *Machine) change(to Mode, why error) {
	if m.mode == to && (m.why == nil) == (why == nil) && (why == nil || m.why.Error() == why.Error()) {
		return
	}
	m.out.Changes = append(m.out.Changes, ModeChange{From: m.mode, To: to, Was: m.why, Why: why})
	m.mode, m.why = to, why
	if to != Ready {
		m.refuse()
	}
}

// ready says that the repository holds what this node does.
func (m *Machine) ready() { m.change(Ready, m.away.why(len(m.disks()))) }

// restrict leaves this node to its local copy. Who has lost the disks looks for
// them.
func (m *Machine) restrict(why error) {
	if errors.Is(why, errLost) {
		m.open, m.scan = false, m.good
	}
	m.change(Restricted, why)
}

// refusal is the error of a change in a mode that takes none.
func (m *Machine) refusal() error {
	switch {
	case m.mode == Ready && (m.open || m.reopening):
		return nil
	case m.mode == Ready:
		return errMissing
	case m.mode == Blank || m.mode == Leaving:
		return fmt.Errorf("%w: this node is no member", belfry.ErrNotMember)
	case m.why != nil:
		return m.why
	}
	return fmt.Errorf("%w: the repository is being looked for; try again", belfry.ErrRestricted)
}

// refuse ends all proposals but one that may be happening.
func (m *Machine) refuse() {
	kept := m.queue[:0]
	for i, p := range m.queue {
		if i == 0 && m.job != nil && m.job.Kind == JobSwap {
			kept = append(kept, p)
			continue
		}
		m.result(p.ID, Version{}, m.refusal())
	}
	m.queue = kept
}

func (m *Machine) result(id uint64, v Version, err error) {
	if id != 0 {
		m.out.Results = append(m.out.Results, Result{ID: id, Version: v, Err: err})
	}
}

// propose judges a generation before it is written: nothing that this node
// would not take over is committed by it.
func (m *Machine) propose(p Propose) {
	if err := m.mayCommit(p); err != nil {
		m.result(p.ID, m.held.Version, err)
		return
	}
	m.queue = append(m.queue, p)
}

func (m *Machine) mayCommit(p Propose) error {
	if err := m.refusal(); err != nil {
		return err
	}
	if err := m.moving(); err != nil {
		return err
	}
	if !p.Base.Same(m.held.Version) {
		return fmt.Errorf("%w: generation %d is in force, not %d of the base; look at it and try again", belfry.ErrConflict, m.held.Generation, p.Base.Generation)
	}
	d, err := Decode(p.Document)
	if err == nil {
		err = errors.Join(d.Validate(m.cfg.Tunables), m.held.next(d))
	}
	if err == nil && d.Key(m.cfg.Self) == nil {
		// Records of a node that was removed count no more, its own last one neither.
		err = usage("propose", "", "a node does not commit its own removal; ask another member")
	}
	return err
}

// swapDue tells whether the first proposal is to be tried.
func (m *Machine) swapDue(now time.Time) bool {
	return m.mode == Ready && len(m.queue) > 0 && !m.swap.next.After(now)
}

// swapped is the end of one attempt.
func (m *Machine) swapped(now time.Time, job Job, d Done) {
	p := m.queue[0]
	elsewhere := errors.Is(d.Err, Moved) || errors.Is(d.Err, belfry.ErrNotFound) // under another path perhaps: a scan tells
	again := errors.Is(d.Err, Preempted) || errors.Is(d.Err, belfry.ErrUnknown) || elsewhere
	if elsewhere {
		m.close(now)
	}
	if again && m.swap.times < swapAttempts && now.Sub(m.swap.begun) < swapFor && m.mode == Ready {
		m.swap.times++
		m.swap.next = now.Add(BackOff(m.swap.times, m.rng))
		return
	}
	m.queue, m.swap = m.queue[1:], attempt{}
	switch {
	case d.Err == nil:
		m.committed(now, p, job, d.Version)
		return
	case isFatal(d.Err):
		m.restrict(d.Err)
	case errors.Is(d.Err, belfry.ErrConflict) && !errors.Is(d.Err, Preempted):
		m.swap.found = d.Version.Digest
	case errors.Is(d.Err, belfry.ErrNotFound):
		d.Err = missing(d.Err)
	}
	m.wake = now // whatever it was, the storage tells
	m.result(p.ID, d.Version, d.Err)
}

// committed tells everybody at once, and takes the generation over as any other.
func (m *Machine) committed(now time.Time, p Propose, job Job, v Version) {
	m.good = now
	if sha256.Sum256(job.Document) != v.Digest { // it happened at an earlier attempt, and others have followed
		m.swap.found, m.wake = v.Digest, now
		m.result(p.ID, v, nil)
		return
	}
	found := Snapshot{Version: v, Document: job.Document, Previous: p.Base.Digest, Op: p.Op, Writer: m.cfg.Self}
	before := m.held.Document
	m.take(found, p.ID)
	if m.taking == nil { // judged before it was proposed, on another base
		m.result(p.ID, v, m.why)
		return
	}
	m.tell(now, p.Kind, v, &before, &m.taking.document)
}

// rollbackDue is when a change that waits for a confirmation is undone. The
// deadline is by the cluster's time. The leader may have no copy of what was before,
// or be cut off from the storage: then others do it, each that can.
func (m *Machine) rollbackDue() time.Time {
	c := m.held.Document.Confirm
	if c == nil || m.mode != Ready {
		return time.Time{}
	}
	due := c.Deadline.Add(-m.ahead)
	if !m.leads {
		due = due.Add(rollbackOther)
	}
	if m.rolledFor == m.held.Generation {
		if again := m.rolled.Add(rollbackRetry); again.After(due) {
			return again
		}
	}
	return due
}

func (m *Machine) advanceRollback(now time.Time) {
	due := m.rollbackDue()
	if due.IsZero() || due.After(now) {
		return
	}
	c := *m.held.Document.Confirm
	m.rolled, m.rolledFor = now, m.held.Generation
	m.out.Rollback = &c
}

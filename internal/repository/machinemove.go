package repository

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

const (
	// moveOthers is how long who has not begun a move leaves its completion to
	// whoever has.
	moveOthers = 10 * time.Second
	moveRetry  = 2 * time.Second
	// moveLook is how soon the new place is looked for, and how often at most.
	moveLook = time.Second
)

// A relocation is how far this node has come with the move that the generation in
// force begins.
type relocation struct {
	next   time.Time // completion; zero: there is no move
	looked bool      // for the new place, since the last poll
	failed error     // of the last attempt
}

// relocate begins to follow a move, or ends it.
func (m *Machine) relocate(now time.Time, own bool) {
	m.move = relocation{}
	maps.DeleteFunc(m.away.since, func(u UUID, _ time.Time) bool { return !slices.Contains(m.disks(), u) })
	switch {
	case m.held.Document.Moving == nil:
	case own:
		m.move.next = now
	default:
		m.move.next, m.wake = now.Add(moveOthers), now.Add(moveLook)
	}
}

// moveDue tells whether this node is to complete the move. It needs nothing of the
// old place: what is in force here was committed there as the last generation.
func (m *Machine) moveDue(now time.Time) bool {
	return !m.move.next.IsZero() && !m.move.next.After(now)
}

// lookDue tells whether the read that is due is to be one of the new place, if
// there is one: another member may have completed the move.
func (m *Machine) lookDue(now time.Time) bool {
	return !m.move.next.IsZero() && !m.move.looked && now.Sub(m.scanAsked) >= moveLook
}

// moved is the end of a completion. Whoever was first, the new place is opened.
func (m *Machine) moved(now time.Time, d Done) {
	m.move.next = now.Add(moveRetry)
	if m.move.failed = d.Err; d.Err != nil {
		return
	}
	m.good = now
	m.close(now)
	if d.Snapshot.Document == nil { // others have followed
		return
	}
	before := m.held.Document
	m.take(d.Snapshot, 0)
	if m.taking != nil {
		m.tell(now, NoticeConfiguration, d.Snapshot.Version, &before, &m.taking.document)
	}
}

// elsewhere has the repository looked for because a notice names a later epoch than
// the one that is open.
func (m *Machine) elsewhere(now time.Time, n Notice) {
	if m.open && n.Epoch > m.held.Epoch && m.mayScan(now) {
		m.close(now)
	}
}

// moving is why nothing else is changed now.
func (m *Machine) moving() error {
	to := m.held.Document.Moving
	if to == nil {
		return nil
	}
	err := fmt.Errorf("%w: the repository moves to epoch %d; try again when it is there", belfry.ErrConflict, to.Epoch)
	if m.move.failed != nil {
		err = fmt.Errorf("%w; so far: %s", err, m.move.failed.Error())
	}
	return err
}

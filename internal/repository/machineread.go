package repository

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// Why changes are refused, beside the faults of the storage.
var (
	errLost    = fmt.Errorf("%w: the repository was not read for %s; bring it back, or name its folder in the setting repository.search", belfry.ErrRestricted, lostAfter)
	errMissing = fmt.Errorf("%w: the repository was not found on this machine; attach its disks, or name the folder of its file in the setting repository.search", belfry.ErrRestricted)
	errForked  = fmt.Errorf("%w: the repository holds another configuration under the generation that this node has; look with `belfry repository fsck`", belfry.ErrRestricted)
)

// lost is errLost with what the last read ended with, which says more: where a
// device hangs, or etcd does not answer, there is nothing to look for.
func lost(last error) error {
	switch {
	case last == nil:
		return errLost
	case errors.Is(last, belfry.ErrNotFound):
		return lostError{fmt.Errorf("%w: %s", errLost, last.Error())}
	}
	return lostError{fmt.Errorf("%w: the repository was not read for %s: %s", belfry.ErrRestricted, lostAfter, last.Error())}
}

// A lostError is errLost in other words.
type lostError struct{ error }

func (e lostError) Unwrap() []error { return []error{errLost, e.error} }

// missing is errMissing with what the driver says. That something was not found
// is no error of the change that is refused for it: its sentinel stays behind.
func missing(err error) error { return fmt.Errorf("%w: %s", errMissing, err.Error()) }

// A taking is a generation that was read or committed, and is not on this
// node's disk yet.
type taking struct {
	snapshot Snapshot
	document Document
	proposal uint64 // that made it; zero: another node's
}

// A doubt is a value that no record says is committed: its writer may have died
// before it could.
type doubt struct {
	version Version
	times   int // reads in a row that saw it
}

// done takes the end of the job.
func (m *Machine) done(now time.Time, d Done) {
	if m.job == nil || d.Job != m.job.ID {
		return
	}
	job := *m.job
	m.job = nil
	switch job.Kind {
	case JobScan:
		m.scanned(now, job, d.Err)
	case JobPoll:
		m.polled(now, job, d)
	case JobLoad:
		m.doubt = doubt{}
		if d.Err == nil {
			m.polled(now, job, d)
		} else {
			m.settle(func(Notice) Outcome { return OutcomeUnread })
		}
	case JobSwap:
		m.swapped(now, job, d)
	case JobKeep:
		m.kept(now, d.Err)
	case JobMove:
		m.moved(now, d)
	}
}

// scanned has found the disks, or not. Who does not find them looks again, ever
// more rarely.
func (m *Machine) scanned(now time.Time, job Job, err error) {
	if job.Repository != m.held.Repository {
		o := OutcomeUnconfirmed // it is there, and nobody has made it this cluster's
		if err != nil {
			o = OutcomeNotFound
		}
		for range m.unknown {
			m.count(o)
		}
		m.unknown = nil
		return
	}
	m.reopening = false
	if err != nil {
		m.scan, m.scanWait = now.Add(m.scanWait), min(2*m.scanWait, scanRarely)
		m.settle(func(Notice) Outcome { return OutcomeNotFound })
		m.failed = err
		if m.mode == Searching || m.mode == Restricted && errors.Is(m.why, errMissing) {
			m.restrict(missing(err))
		}
		m.refuse()
		return
	}
	m.open, m.wake, m.scanWait, m.move.looked = true, now, scanFirst, true
}

// close has the disks looked for, and opened anew.
func (m *Machine) close(now time.Time) { m.reopening, m.open, m.scan = m.open, false, now }

// polled judges what was read: validation order is the store's up to the
// digest, then decode, schema, meaning (repository.md, On-disk format).
func (m *Machine) polled(now time.Time, job Job, d Done) {
	if d.Err != nil {
		m.unread(now, d.Err)
		return
	}
	found := d.Snapshot
	m.good, m.failed, m.swap.found = now, nil, Digest{}
	if job.Kind == JobPoll {
		m.missing(now, found.Away)
	}
	m.doubtful(now, found.Newer)
	m.settle(func(n Notice) Outcome {
		if v := n.version(); v.Epoch <= found.Epoch && (v.Same(found.Version) || v.Generation < found.Generation) {
			return OutcomeConfirmed
		}
		return OutcomeUnconfirmed
	})
	switch {
	case found.Same(m.held.Version):
		if m.held.Before(found.Version) { // written once more
			m.held.Version = found.Version
		}
		m.ready()
	case tookOver(m.held.Epoch, found.Epoch) || found.Generation > m.held.Generation && !tookOver(found.Epoch, m.held.Epoch):
		m.take(found, 0)
	case found.Generation == m.held.Generation:
		m.restrict(errForked)
	case found.Before(m.held.Version): // a record of before; the store has seen what this node holds
		m.ready()
	default:
		m.restrict(fail("poll", found.Repository.String(), Regressed))
	}
}

// doubtful counts how often in a row the same value was there that nobody says
// is committed. The leader then finds out, by committing it (or what it finds).
func (m *Machine) doubtful(now time.Time, newer Version) {
	if newer == (Version{}) || newer != m.doubt.version {
		m.doubt = doubt{version: newer}
	}
	if newer != (Version{}) {
		m.doubt.times++
	}
	if m.leads && m.doubt.times >= undecidedMax {
		m.wake = now
	}
}

// unread takes a read that failed. What is damaged or forked stays so; all else
// may pass, and counts when it has lasted.
func (m *Machine) unread(now time.Time, err error) {
	m.settle(func(Notice) Outcome { return OutcomeUnread })
	switch {
	case errors.Is(err, Undecided):
		m.good = now
		m.doubtful(now, Version{Repository: m.held.Repository}) // the same each time
	case isFatal(err):
		m.restrict(err)
	case errors.Is(err, Moved), errors.Is(err, belfry.ErrNotFound):
		m.close(now)
	default:
		m.failed = err
		if m.mode == Searching { // it was found, and can not be read
			m.restrict(restrictedBy(err))
		}
		if m.mode == Restricted && now.Sub(m.good) >= lostAfter && now.Sub(m.scanAsked) >= scanRarely {
			m.scanAsked = now // it may be there under another name
			m.close(now)
		}
	}
}

// restrictedBy is an error of the storage as the reason to change nothing.
func restrictedBy(err error) error {
	if errors.Is(err, belfry.ErrRestricted) {
		return err
	}
	return fmt.Errorf("%w: %s", belfry.ErrRestricted, err.Error())
}

// isFatal tells of a state of the storage that does not pass by itself.
func isFatal(err error) bool {
	for _, f := range []Fault{Cloned, Damaged, Regressed} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// take judges a newer generation, and has it written to this node's disk before
// anything acts on it.
func (m *Machine) take(found Snapshot, proposal uint64) {
	document, err := m.judge(found)
	if err != nil {
		m.restrict(err)
		return
	}
	m.taking = &taking{found, document, proposal}
}

// judge reads a document and wants that it comes from the one that is held.
func (m *Machine) judge(found Snapshot) (Document, error) {
	d, err := Decode(found.Document)
	if err != nil {
		return d, restricted(err)
	}
	if d.Generation() != found.Generation || d.Repository.Epoch != found.Epoch || d.Repository.UUID != found.Repository {
		err = usage("take", found.Repository.String(), "the document is generation %d of repository %s, epoch %d, and its record says %d, %s, %d; want the same",
			d.Generation(), d.Repository.UUID, d.Repository.Epoch, found.Generation, found.Repository, found.Epoch)
		return d, restricted(err)
	}
	follows := descends
	if tookOver(m.held.Epoch, d.Repository.Epoch) && len(lossesOf(&m.held, &d)) > 0 {
		follows = overtakes
	}
	if err := errors.Join(d.Validate(m.cfg.Tunables), follows(&m.held, &d)); err != nil {
		return d, restricted(err)
	}
	return d, nil
}

// restricted says that a document is not taken over, and so nothing is changed.
func restricted(err error) error {
	return fmt.Errorf("%w: the committed configuration is not taken over: %w", belfry.ErrRestricted, err)
}

// kept brings a generation into force that is on this node's disk.
func (m *Machine) kept(now time.Time, err error) {
	t := m.taking
	m.taking = nil
	removed := t.document.Key(m.cfg.Self) == nil
	if errors.Is(err, Moved) { // this node has promised a later epoch meanwhile
		m.close(now)
		m.result(t.proposal, t.snapshot.Version, fmt.Errorf("%w: %w", belfry.ErrUnknown, err))
		return
	}
	if err != nil && !removed {
		err = fmt.Errorf("%w: generation %d is committed, and this node can not keep it; make room on the disk of its state directory: %w", belfry.ErrRestricted, t.snapshot.Generation, err)
		m.restrict(err)
		m.result(t.proposal, t.snapshot.Version, fmt.Errorf("%w: %w", belfry.ErrUnknown, err))
		return
	}
	var losses []Loss
	if tookOver(m.held.Epoch, t.snapshot.Epoch) {
		losses = lossesOf(&m.held, &t.document)
	}
	m.held = Held{t.snapshot.Version, t.document}
	m.out.Assimilation = &Assimilation{Held: m.held, Writer: t.snapshot.Writer, Removed: removed, Unkept: err, Losses: losses}
	if removed {
		m.change(Leaving, nil)
		return
	}
	m.read = time.Time{} // what was true costs the next notice no wait
	m.satisfy()
	m.relocate(now, t.proposal != 0)
	m.ready()
	m.result(t.proposal, t.snapshot.Version, nil)
	if w := t.snapshot.Writer; w != m.cfg.Self && t.document.Key(w) != nil {
		m.answered[w] = now
		m.send(w, m.notice(NoticeHeld, m.held.Version))
	}
	for id := range m.answered { // the order can not be seen
		if t.document.Key(id) == nil {
			delete(m.answered, id)
		}
	}
}

// descends wants that a document comes from the one that is held, over whatever
// generations this node has not seen.
func descends(from *Held, to *Document) error {
	held := &from.Document
	if to.Generation() == held.Generation()+1 {
		return from.next(*to)
	}
	n := succession{from: held, to: to}
	n.identity()
	n.epochs()
	n.kin()
	for _, e := range to.History {
		if e.Generation == held.Generation()+1 {
			n.want(e.Hash == from.Digest, "history", "generation %d is not the one that this node holds; want that one before", held.Generation())
		}
	}
	if err := n.err(); err != nil {
		return fail("follow", "", err)
	}
	return nil
}

// kin wants of generations that are not neighbours what holds over any number of
// them: who stays is who it was, and who was removed is no member again.
func (n *succession) kin() {
	a, b := n.from, n.to
	n.want(len(b.Former) >= len(a.Former), "former", "%d nodes after %d; it never shrinks", len(b.Former), len(a.Former))
	for i := range min(len(a.Former), len(b.Former)) {
		n.want(a.Former[i].equal(b.Former[i]), fmt.Sprintf("former[%d]", i), "is another one; who was a member stays listed")
	}
	before := a.byID()
	for i := range b.Nodes {
		is, path := &b.Nodes[i], fmt.Sprintf("nodes[%d]", i)
		if was := before[is.ID]; was != nil {
			n.want(is.Number == was.Number && bytes.Equal(is.Key, was.Key), path, "has another number or key; a node keeps both until it is removed")
			n.want(was.Slot == nil || slotOf(is.Slot) == *was.Slot, path+".slot", "%d after %d; a node keeps it until it is removed", slotOf(is.Slot), slotOf(was.Slot))
		}
	}
	n.want(b.Repository.UUID == a.Repository.UUID, "repository", "%s %s after %s %s; want the same", b.Repository.Kind, b.Repository.UUID, a.Repository.Kind, a.Repository.UUID)
	n.want(b.Repository.Kind == a.Repository.Kind || b.Repository.Epoch > a.Repository.Epoch, "repository.kind", "%s after %s in epoch %d; want the same", b.Repository.Kind, a.Repository.Kind, a.Repository.Epoch)
	n.want(b.Repository.Epoch >= a.Repository.Epoch, "repository.epoch", "%d after %d; it never falls", b.Repository.Epoch, a.Repository.Epoch)
}

// HeldOf is a generation from the bytes of a local copy. It wraps ErrUsage for
// bytes that are not of that version.
func HeldOf(v Version, document []byte) (Held, error) {
	if sha256.Sum256(document) != v.Digest {
		return Held{}, usage("hold", "", "the local copy of generation %d does not have its SHA-256; copy it from another member", v.Generation)
	}
	d, err := Decode(document)
	if err == nil && d.Generation() != v.Generation {
		err = usage("hold", "", "the local copy is of generation %d, not %d", d.Generation(), v.Generation)
	}
	return Held{v, d}, err
}

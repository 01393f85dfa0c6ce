package repository

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// Config is what a store must know of the host that uses it.
type Config struct {
	Node        belfry.NodeID
	Host        int    // slot of this node; -1: none, it only reads
	Incarnation uint64 // of the agent; another one of the same boot is another writer
	Boot        UUID   // boot id of this kernel
	Sign        Sign   // as Node; nil: it only reads
	Own         Verify // for Sign
	// Admit says whose signature counts: a member in the document this node
	// holds, or, with a candidate document, a node that is listed there with a
	// certificate under the pinned CA and not revoked.
	Admit func(signer belfry.NodeID, candidate []byte) (Verify, error)
	// Holds tells whether a document has op among the last operations.
	Holds func(doc []byte, op OpID) bool
	// Slots is how many host slots, from slot 0 on, a document or one before it
	// has ever given to nodes: it never falls. A node has its slot from a document
	// that was committed. Then a commit reads the records of these slots only
	// (DESIGN.md). It is called by a claim and a seal. Nil: all.
	Slots func(doc []byte) int
	// Local: all hosts are agents of this machine. What one of its kernels has
	// left unwritten is gone, so nothing need settle.
	Local bool
	// Settled: SettleTime has passed since the agent began in this boot.
	Settled bool
	// Moving tells whether a document begins the next epoch: then nothing follows
	// it in this one. Nil: none does.
	Moving func(doc []byte) bool
	Held   Version // newest this node has seen before; zero: none
}

// Store is the repository on one to three disks, for one host. It is not for
// concurrent use.
//
// It is Disk Paxos (Gafni and Lamport, 2003) with one value after the other:
// a claim is a promise, a commit an acceptance, both read back.
type Store struct {
	cfg      Config
	header   Header
	replicas []*replica

	sequence uint64   // of the own record written last
	claimed  Ballot   // may commit in it; zero: claim first
	base     Snapshot // greatest when claimed, then what was committed since
	unsealed bool     // base is chosen and no record says so yet
	slots    int      // that can have a writer as far as base says; of a claim only
	vouched  bool     // a record of ours was verified: others count what we sign
	floor    Version  // what is less was restored from a copy
	settling bool
	settled  bool
	fresh    bool // the boot record is not there yet: see Complete
}

// Open opens the disks of one repository, in any order. A majority of those
// that the newest boot record names must be there; disks of older epochs and
// other ones are left alone.
func Open(cfg Config, devices ...Device) (*Store, error) {
	s := &Store{cfg: cfg, floor: cfg.Held, settled: cfg.Settled}
	headers := make([]Header, len(devices))
	var problems []error
	for i, d := range devices {
		h, err := ReadHeader(d)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		headers[i] = h
		if cfg.Held.Repository != (UUID{}) && h.Repository != cfg.Held.Repository {
			return nil, usage("open", h.Disk().String(), "disk of repository %s; name those of %s", h.Repository, cfg.Held.Repository)
		}
		if s.header.Repository != (UUID{}) && h.Repository != s.header.Repository {
			return nil, usage("open", h.Disk().String(), "disk of repository %s beside one of %s; name those of one", h.Repository, s.header.Repository)
		}
		if h.Epoch > s.header.Epoch {
			s.header = h
		}
	}
	if s.header.Epoch == 0 {
		return nil, fail("open", "", errors.Join(append(problems, belfry.ErrNotFound)...))
	}
	if cfg.Host >= s.header.Layout.Hosts {
		return nil, usage("open", "", "host slot %d; 0 to %d", cfg.Host, s.header.Layout.Hosts-1)
	}
	for i, h := range headers {
		if h.Epoch == s.header.Epoch && !s.has(h.Disk()) {
			s.replicas = append(s.replicas, &replica{dev: devices[i], uuid: h.Disk()})
		}
	}
	return s, s.Reopen()
}

func (s *Store) has(disk UUID) bool {
	for _, r := range s.replicas {
		if r.uuid == disk {
			return true
		}
	}
	return false
}

// Header is the boot record, as of the first disk.
func (s *Store) Header() Header { return s.header }

// Reopen forgets what is known of the disks and reads it again.
func (s *Store) Reopen() error {
	s.claimed, s.unsealed = 0, false
	_, err := s.each("open", s.replicas, s.open)
	return err
}

// Settling tells that this host must not write yet: its newest record is not of
// this boot of the machine, so that the last writes of another may still land.
func (s *Store) Settling() bool { return s.settling && !s.cfg.Local }

// Settled says that [SettleTime] has passed since Open.
func (s *Store) Settled() error {
	s.settling, s.settled = false, true
	return s.Reopen()
}

// majority is how many disks each step needs.
func (s *Store) majority() int { return len(s.header.Disks)/2 + 1 }

// each does one step on each disk and returns those that did it. A disk that
// fails is opened anew by the next claim. Without a majority the error is the
// most telling one.
func (s *Store) each(op string, disks []*replica, step func(*replica) error) ([]*replica, error) {
	var done []*replica
	var problems []error
	for _, r := range disks {
		err := step(r)
		if err == nil {
			done = append(done, r)
			continue
		}
		r.opened = false
		err = fail(op, r.uuid.String(), err)
		for _, fatal := range []Fault{Cloned, Moved} {
			if errors.Is(err, fatal) {
				s.claimed = 0
				return nil, err
			}
		}
		problems = append(problems, err)
	}
	if len(done) >= s.majority() {
		return done, nil
	}
	s.claimed = 0
	why := errors.Join(problems...)
	for _, known := range []Fault{Damaged, Lost} {
		if errors.Is(why, known) {
			return nil, why
		}
	}
	return nil, errors.Join(fail(op, s.header.Repository.String(), TooFew), why)
}

// refresh reads a disk and checks that own records are as they must be.
func (s *Store) refresh(r *replica) error {
	if !r.opened {
		return s.open(r) // a reader has nothing to open: it reads, each time
	}
	if err := s.readAll(r, s.header.Layout.Hosts); err != nil {
		return err
	}
	err := s.readBack(r)
	if errors.Is(err, Lost) {
		s.claimed = 0
		return s.open(r)
	}
	return err
}

// Claim makes this host the one that may commit, until another one claims, and
// finds the value that the next one follows. Preempted: another one did.
func (s *Store) Claim() (Snapshot, error) {
	s.claimed = 0
	if s.cfg.Host < 0 || s.cfg.Sign == nil || !s.header.Writable() {
		return Snapshot{}, fail("claim", s.header.Repository.String(),
			fmt.Errorf("%w: this node has no host slot or may only read; ask another member", belfry.ErrRestricted))
	}
	disks, err := s.each("claim", s.replicas, s.refresh)
	if err != nil {
		return Snapshot{}, err
	}
	if s.Settling() {
		return Snapshot{}, fail("claim", s.header.Repository.String(), Settling)
	}
	ballot := s.highest(disks).next(s.cfg.Host)
	s.sequence++
	disks, err = s.each("claim", disks, func(r *replica) error {
		rec := r.value // the value is unchanged
		rec.Promised = ballot
		return s.publish(r, rec, nil, s.header.Layout.Hosts)
	})
	if err != nil {
		return Snapshot{}, err
	}
	found, err := s.latest("claim", disks)
	if err != nil {
		return Snapshot{}, err
	}
	if s.highest(disks) > ballot {
		return Snapshot{}, fail("claim", s.header.Repository.String(), Preempted)
	}
	s.claimed, s.base, s.unsealed = ballot, found, false
	s.slots = s.given(found.Document)
	return found, nil
}

// given is how many host slots can have a writer if doc is the value.
func (s *Store) given(doc []byte) int {
	if s.cfg.Slots == nil || s.fresh {
		return s.header.Layout.Hosts
	}
	return min(max(s.cfg.Slots(doc), s.cfg.Host+1), s.header.Layout.Hosts)
}

// publish writes an own record, with its payload if doc is not nil, makes both
// durable, and reads the records of so many host slots and the own ones back.
func (s *Store) publish(r *replica, rec Record, doc []byte, hosts int) error {
	number := 0
	if r.current == 0 {
		number = 1
	}
	rec.Repository, rec.Disk, rec.Epoch = s.header.Repository, r.uuid, s.header.Epoch
	rec.Host, rec.Copy = uint32(s.cfg.Host), uint16(number)
	rec.Writer, rec.Incarnation, rec.Boot, rec.Sequence = s.cfg.Node, s.cfg.Incarnation, s.cfg.Boot, s.sequence
	l := s.header.Layout
	if doc != nil { // first: it may be on its way while the record is signed
		if err := r.dev.WriteAt(padded(doc), l.Payload(s.cfg.Host, int(rec.Slot))); err != nil {
			return err
		}
	}
	block, err := EncodeRecord(rec, s.cfg.Sign)
	if err != nil {
		return err
	}
	if err := r.dev.WriteAt(block, l.Record(s.cfg.Host, number)); err != nil {
		return err
	}
	own := &r.cells[2*s.cfg.Host+number]
	if s.vouched { // if just this is read back, nothing is to be decoded or verified
		*own = cell{block: block, record: rec, signed: true, judged: true}
	}
	var written []*reading
	if doc != nil {
		written = append(written, &reading{record: &rec})
	}
	if err := r.dev.Flush(); err != nil {
		return err
	}
	if err := s.readAll(r, hosts, written...); err != nil {
		return err
	}
	r.own[number] = block
	if err := s.readBack(r); err != nil {
		return err
	}
	if doc != nil && !written[0].whole {
		return Lost
	}
	s.vouched = s.admit(own, nil)
	r.current, r.value = number, rec
	return nil
}

// Commit puts doc in the place of the claimed base, or of what this claim
// committed last. Nil: it is acknowledged, no crash undoes it. ErrUnknown: it
// may or may not become the value; claim again to know.
func (s *Store) Commit(doc []byte, op OpID) (Version, error) {
	if len(doc) == 0 || int64(len(doc)) > s.header.Layout.SlotSize {
		return Version{}, fail("commit", s.header.Repository.String(), fmt.Errorf(
			"%w: a document of %d bytes; 1 to %d, the slot size of the repository", belfry.ErrLimit, len(doc), s.header.Layout.SlotSize))
	}
	if s.cfg.Moving != nil && !s.fresh && s.cfg.Moving(s.base.Document) {
		return Version{}, fail("commit", s.header.Repository.String(), Moved)
	}
	return s.accept(Snapshot{
		Version:  Version{Generation: s.base.Generation + 1, Digest: sha256.Sum256(doc)},
		Document: bytes.Clone(doc), Previous: s.base.Digest, Op: op,
	})
}

// accept commits one value in the claimed ballot.
func (s *Store) accept(value Snapshot) (Version, error) {
	if s.claimed == 0 {
		return Version{}, usage("commit", s.header.Repository.String(), "no claim; claim first")
	}
	if s.unsealed {
		// A payload slot is free only when no chosen record points there.
		if err := s.Seal(); err != nil {
			return Version{}, err
		}
	}
	ballot := s.claimed
	value.Repository, value.Epoch, value.Ballot, value.Writer = s.header.Repository, s.header.Epoch, ballot, s.cfg.Node
	s.sequence++
	disks, err := s.each("commit", s.openDisks(), func(r *replica) error {
		rec := Record{
			Promised: ballot, Accepted: ballot, Generation: value.Generation, Payload: value.Digest,
			Previous: value.Previous, Op: value.Op, Length: uint32(len(value.Document)),
		}
		if r.value.Generation > 0 {
			rec.Slot = 1 - r.value.Slot
		}
		return s.publish(r, rec, value.Document, s.slots)
	})
	if err == nil && s.highest(disks) > ballot {
		err = fail("commit", s.header.Repository.String(), Preempted)
	}
	if err != nil {
		s.claimed = 0
		return Version{}, unknown(err)
	}
	s.base, s.floor, s.unsealed = value, value.Version, true
	return value.Version, nil
}

// unknown says that a value may be there whatever went wrong. What went wrong
// stays visible to errors.Is as well.
func unknown(err error) error {
	return fail("commit", "", fmt.Errorf("%w: the same update again tells whether it happened: %w", belfry.ErrUnknown, err))
}

// openDisks are those whose own records are known.
func (s *Store) openDisks() []*replica {
	var open []*replica
	for _, r := range s.replicas {
		if r.opened {
			open = append(open, r)
		}
	}
	return open
}

// Seal marks what was committed last as chosen, so that others need not claim
// to know. It is off the way of the acknowledgement; nothing to do is no error.
func (s *Store) Seal() error {
	if !s.unsealed {
		return nil
	}
	s.unsealed = false
	s.slots = s.given(s.base.Document)
	s.sequence++
	_, err := s.each("seal", s.openDisks(), func(r *replica) error {
		rec := r.value
		rec.Chosen = true
		return s.publish(r, rec, nil, s.slots)
	})
	return err
}

// Load is the value, committed again: it sees all that was acknowledged before
// it began, and what it returns is never undone.
func (s *Store) Load() (Snapshot, error) {
	if _, err := s.Claim(); err != nil {
		return Snapshot{}, err
	}
	return s.confirm()
}

// confirm commits the base unchanged. A base is only a proposal until then.
func (s *Store) confirm() (Snapshot, error) {
	if _, err := s.accept(s.base); err != nil {
		return Snapshot{}, err
	}
	return s.base.clone(), nil
}

func (v Snapshot) clone() Snapshot {
	v.Document = bytes.Clone(v.Document)
	return v
}

// CAS is as in [Backend], but for one attempt: after Preempted the caller waits
// [BackOff] and calls again, after ErrUnknown it calls again with the same op.
func (s *Store) CAS(base Version, doc []byte, op OpID) (Version, error) {
	if s.claimed == 0 || !s.base.Same(base) {
		if _, err := s.Claim(); err != nil {
			return Version{}, err
		}
	}
	if s.base.Op == op || s.cfg.Holds(s.base.Document, op) {
		found, err := s.confirm()
		return found.Version, err
	}
	if s.base.Same(base) {
		return s.Commit(doc, op)
	}
	// The conflict is told only of a value that stays. Otherwise an earlier
	// attempt with this op could become the value after the caller was told
	// that it did not.
	found, err := s.confirm()
	if err != nil {
		return Version{}, err
	}
	return found.Version, fail("commit", s.header.Repository.String(), fmt.Errorf(
		"%w: generation %d is there, not %d of the base; read it and try again", belfry.ErrConflict, found.Generation, base.Generation))
}

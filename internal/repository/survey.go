package repository

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"github.com/belfry-ha/belfry"
)

// A Survey is what lies on one disk, for people. It is made without the keys of
// the cluster: whose signature counts is taken from the newest document itself,
// so that a survey shows damage and mistakes, and is no protection.
type Survey struct {
	Header   Header      // that counts
	Copies   [2]error    // of the boot record: why A and B are not as Header; nil: they are
	Records  []Surveyed  // by position; empty positions are left out
	Newest   int         // of Records: the greatest (ballot, generation) with its document; -1: none
	Document *Document   // of the newest record; nil: it can not be read
	Why      error       // why it can not be read, or is not valid
	Raw      []byte      // the document as it lies there
	Problems []Problem   // all that is not as it must be
	damaged  []damagedAt // documents to repair
}

// A Surveyed is one position of a record that is not empty.
type Surveyed struct {
	Host, Copy int
	Record     Record // zero if Err is one
	Err        error  // why it is no record
	Payload    error  // why its document is not whole; nil: it is, or there is none
	Signed     Signed
}

// Signed says what a signature is worth by the newest document.
type Signed uint8

// The kinds of signatures.
const (
	SignedUnknown  Signed = iota // the document can not be read, or does not list the writer
	SignedByMember               // of a node of the document
	SignedByFormer               // of a node that was removed
	SignedWrong                  // not the writer's
)

// String is for tables.
func (s Signed) String() string {
	return [...]string{"unknown", "member", "former", "wrong"}[min(s, SignedWrong)]
}

// A damagedAt is a record whose document is not whole.
type damagedAt struct {
	place  string
	record Record
}

// Examine reads all that is in use on a disk. It writes nothing. What it finds
// while hosts write may be a write on its way: examine again.
func Examine(d Device) (Survey, error) {
	h, err := ReadHeader(d)
	if err != nil {
		return Survey{}, err
	}
	s := Survey{Header: h, Newest: -1}
	s.headers(d)
	store := &Store{header: h}
	r := &replica{dev: d, uuid: h.Disk()}
	if r.header, err = EncodeHeader(h); err != nil {
		return Survey{}, fail("examine", h.Disk().String(), err)
	}
	store.fresh = true // the boot record has been judged
	if err := store.readAll(r, h.Layout.Hosts); err != nil {
		return Survey{}, fail("examine", h.Disk().String(), err)
	}
	for i := range r.cells {
		if err := s.record(store, r, i); err != nil {
			return Survey{}, fail("examine", h.Disk().String(), err)
		}
	}
	s.document(store, r)
	s.signatures(r)
	return s, nil
}

// Lasting are the problems that an earlier survey has found as well. What only
// one of them has is a write on its way.
func (s *Survey) Lasting(earlier Survey) []Problem {
	return slices.DeleteFunc(slices.Clone(s.Problems), func(p Problem) bool {
		return !slices.ContainsFunc(earlier.Problems, func(q Problem) bool { return p.Place == q.Place && p.Err.Error() == q.Err.Error() })
	})
}

func (s *Survey) problem(place string, err error) {
	s.Problems = append(s.Problems, Problem{place, err})
}

// headers wants both copies of the boot record as the one that counts.
func (s *Survey) headers(d Device) {
	for _, p := range checkHeaders(d, s.Header) {
		s.Problems = append(s.Problems, p)
		number := 0
		if p.Place == headerB {
			number = 1
		}
		s.Copies[number] = p.Err
	}
}

// record looks at one position, and at the document that it leads to.
func (s *Survey) record(store *Store, r *replica, i int) error {
	c := &r.cells[i]
	if errors.Is(c.err, errEmpty) {
		return nil
	}
	of := Surveyed{Host: i / 2, Copy: i % 2, Record: c.record, Err: c.err}
	if c.err != nil {
		of.Record = Record{}
		s.problem(recordPlace(i), c.err)
		s.Records = append(s.Records, of)
		return nil
	}
	if c.record.Generation > 0 {
		_, err := store.payload(r, &c.record)
		if err != nil && !errors.Is(err, errBlock) {
			return err
		}
		if of.Payload = err; err != nil {
			// With the sequence, so that two surveys tell a document that is being
			// replaced from one that is damaged.
			s.problem("document of the "+recordPlace(i), fmt.Errorf("of sequence %d: %w", c.record.Sequence, err))
			s.damaged = append(s.damaged, damagedAt{"document of the " + recordPlace(i), c.record})
		}
	}
	s.Records = append(s.Records, of)
	return nil
}

func recordPlace(i int) string { return fmt.Sprintf("record of host %d, copy %d", i/2, i%2) }

// document reads that of the greatest record whose document is whole.
func (s *Survey) document(store *Store, r *replica) {
	for i, of := range s.Records {
		if of.Err != nil || of.Payload != nil || of.Record.Generation == 0 {
			continue
		}
		if s.Newest < 0 || s.Records[s.Newest].Record.version().Before(of.Record.version()) {
			s.Newest = i
		}
	}
	if s.Newest < 0 {
		s.problem("document", blockError("no record leads to one"))
		return
	}
	newest := s.Records[s.Newest].Record
	var err error
	if s.Raw, err = store.payload(r, &newest); err != nil {
		s.problem("document", err)
		return
	}
	d, err := Decode(s.Raw)
	if err == nil {
		s.Document = &d
		if err = d.Validate(nil); err == nil && d.Generation() != newest.Generation {
			err = blockError("document of generation %d in the record of generation %d", d.Generation(), newest.Generation)
		}
		if err == nil && d.Repository.UUID != s.Header.Repository {
			err = blockError("document of repository %s in %s", d.Repository.UUID, s.Header.Repository)
		}
	}
	if s.Why = err; err != nil {
		s.problem("document", err)
	}
}

// signatures judges them by the document.
func (s *Survey) signatures(r *replica) {
	if s.Document == nil {
		return
	}
	for i := range s.Records {
		of := &s.Records[i]
		if of.Err != nil {
			continue
		}
		key, signed := s.Document.signer(of.Record.Writer)
		if signed != SignedUnknown && len(key) != ed25519.PublicKeySize {
			continue // the document is not valid, which has been said
		}
		if of.Signed = signed; signed == SignedUnknown {
			s.problem(recordPlace(2*of.Host+of.Copy), blockError("signed by %s, which the newest document does not list", of.Record.Writer))
		} else if !verified(r.cells[2*of.Host+of.Copy].block, VerifyKey(key)) {
			of.Signed = SignedWrong
			s.problem(recordPlace(2*of.Host+of.Copy), blockError("signature is not that of %s", of.Record.Writer))
		}
	}
}

// signer is the key of a node that the document has ever listed.
func (d *Document) signer(id belfry.NodeID) ([]byte, Signed) {
	if key := d.Key(id); key != nil {
		return key, SignedByMember
	}
	for i := range d.Former {
		if d.Former[i].ID == id {
			return d.Former[i].Key, SignedByFormer
		}
	}
	return nil, SignedUnknown
}

// Repair writes what can be known for certain: a boot record from its other
// copy, and a document from one with the same hash. document finds such a one,
// on a mirror or in a node's local copy; it may be nil. No agent may be using the
// disk, on any machine. It returns the places that are whole again; what else the
// survey has found stays. A record is signed, so that only its host writes it
// anew, which it does at its next commit.
func (s *Survey) Repair(d Device, document func(Digest) []byte) (repaired []string, err error) {
	if !s.Header.Writable() {
		return nil, fail("repair", s.Header.Disk().String(), fmt.Errorf(
			"%w: features %#x of the repository; use a newer agent", belfry.ErrUnsupported, s.Header.ReadOnlyCompat))
	}
	block, err := EncodeHeader(s.Header)
	if err != nil {
		return nil, fail("repair", s.Header.Disk().String(), err)
	}
	for number, off := range []int64{0, d.Size()/BlockSize*BlockSize - BlockSize} {
		if s.Copies[number] == nil {
			continue
		}
		if err := rewrite(d, block, off); err != nil {
			return repaired, fail("repair", s.Header.Disk().String(), err)
		}
		repaired = append(repaired, []string{headerA, headerB}[number])
	}
	for _, at := range s.damaged {
		doc := s.Held(d, at.record.Payload)
		if doc == nil && document != nil {
			doc = document(at.record.Payload)
		}
		if doc == nil || len(doc) != int(at.record.Length) || !at.record.Payload.of(doc) {
			continue
		}
		if err := rewrite(d, padded(doc), s.Header.Layout.Payload(int(at.record.Host), int(at.record.Slot))); err != nil {
			return repaired, fail("repair", s.Header.Disk().String(), err)
		}
		repaired = append(repaired, at.place)
	}
	return repaired, nil
}

// Held finds a document of that hash on the disk: several hosts hold the same.
// Nil: it is not there, or not whole.
func (s *Survey) Held(d Device, want Digest) []byte {
	for _, of := range s.Records {
		if of.Err != nil || of.Payload != nil || of.Record.Payload != want || of.Record.Generation == 0 {
			continue
		}
		p := make([]byte, len(padded(make([]byte, of.Record.Length))))
		if err := d.ReadAt(p, s.Header.Layout.Payload(of.Host, int(of.Record.Slot))); err != nil {
			continue
		}
		if doc := p[:of.Record.Length]; want.of(doc) {
			return doc
		}
	}
	return nil
}

// rewrite makes a block durable, and wants it to be there then.
func rewrite(d Device, p []byte, off int64) error {
	if err := d.WriteAt(p, off); err != nil {
		return err
	}
	if err := d.Flush(); err != nil {
		return err
	}
	back := make([]byte, len(p))
	if err := d.ReadAt(back, off); err != nil {
		return err
	}
	if !bytes.Equal(back, p) {
		return Lost
	}
	return nil
}

package repository

import (
	"bytes"
	"crypto/sha256"
	"errors"
)

// A replica is one disk of the repository, and what this host knows of its
// own two records on it. Each disk is an acceptor of its own: a disk that has
// missed a write keeps the older value that it has, and never gets the newer
// one without its payload.
type replica struct {
	dev    Device
	uuid   UUID
	header []byte // as last read and found good

	opened  bool      // own records are known
	first   [2][]byte // own blocks as they were then
	own     [2][]byte // own blocks as they must be there now
	current int       // copy that is the newest valid one; -1: no valid record yet
	value   Record    // of the current copy; its Generation is zero if there is none

	boot  []byte // header A as last read
	cells []cell // the records as last read, decoded, by position
}

// A cell is one record position as last read. It is decoded again only when
// its bytes have changed.
type cell struct {
	block  []byte
	record Record
	err    error // errEmpty, errBlock: not a record
	signed bool  // by a signer that counts
	judged bool  // signed is known, as far as the document goes that this node holds
	// refused: the document that it points at does not list its signer either.
	refused bool
}

func (s *Store) place(r *replica, host, number int) place {
	return place{s.header.Repository, r.uuid, s.header.Epoch, host, number, s.header.Layout.SlotSize}
}

// open flushes, so that what is read is what a crash would leave, and finds
// this host's newest record with a whole payload.
func (s *Store) open(r *replica) error {
	r.opened = false
	if s.cfg.Host < 0 {
		return s.readAll(r, s.header.Layout.Hosts)
	}
	if err := r.dev.Flush(); err != nil {
		return err
	}
	if err := s.readAll(r, s.header.Layout.Hosts); err != nil {
		return err
	}
	r.current, r.value = -1, Record{}
	var newest Record
	for number := range 2 {
		c := &r.cells[2*s.cfg.Host+number]
		r.first[number], r.own[number] = c.block, c.block
		if c.err != nil || !s.mine(c) {
			continue
		}
		s.sequence = max(s.sequence, c.record.Sequence)
		if c.record.Sequence > newest.Sequence {
			newest = c.record
		}
		if r.current >= 0 && c.record.Sequence < r.value.Sequence {
			continue
		}
		switch _, err := s.payload(r, &c.record); {
		case err == nil:
			r.current, r.value = number, c.record
		case !errors.Is(err, errBlock):
			return err
		case c.record.Chosen:
			return Damaged
		}
	}
	if newest.Boot != s.cfg.Boot && !s.settled {
		// Also without any record: the very first write of the dead kernel may
		// be the one that still lands.
		s.settling = true
	}
	r.opened = true
	return nil
}

// mine tells whether a record in this host's slot has a signature that counts.
// One of another node that had the slot before does.
func (s *Store) mine(c *cell) bool {
	if s.admit(c, nil) {
		return true
	}
	return c.record.Writer == s.cfg.Node && s.cfg.Own != nil && verified(c.block, s.cfg.Own)
}

// readAll reads header A and the records of the first host slots, at once where
// they lie side by side, and a payload at the same time.
func (s *Store) readAll(r *replica, hosts int, payload ...*reading) error {
	l := s.header.Layout
	if r.cells == nil {
		r.cells = make([]cell, 2*l.Hosts)
	}
	end := (1 + 2*hosts) * BlockSize
	spans := []Span{{0, end}}
	if l.RecordOffset > BlockSize {
		spans = []Span{{0, BlockSize}, {l.RecordOffset, end - BlockSize}}
	}
	records := len(spans)
	for _, p := range payload {
		spans = append(spans, s.span(p.record))
	}
	err := gather(r.dev, spans, func(i int, p []byte) {
		switch {
		case i >= records:
			payload[i-records].whole = fits(p, payload[i-records].record)
			return
		case i == 0:
			r.boot, p = append(r.boot[:0], p[:BlockSize]...), p[BlockSize:]
		}
		s.decode(r, p)
	})
	if err != nil {
		return err
	}
	return s.sameEpoch(r)
}

// A reading is a payload that is read beside the records.
type reading struct {
	record *Record
	whole  bool // it fits the record
}

// decode takes the records that were read, and decodes those that have changed.
func (s *Store) decode(r *replica, records []byte) {
	for i := range len(records) / BlockSize {
		c, block := &r.cells[i], records[i*BlockSize:(i+1)*BlockSize]
		if c.block != nil && bytes.Equal(block, c.block) {
			continue
		}
		*c = cell{block: bytes.Clone(block)}
		c.record, c.err = decodeRecord(c.block, s.place(r, i/2, i%2))
	}
}

// sameEpoch checks that the boot record is the one that was opened.
func (s *Store) sameEpoch(r *replica) error {
	if s.fresh || bytes.Equal(r.boot, r.header) {
		return nil
	}
	// Torn, damaged, or written by one who has slept: both copies tell.
	h, err := ReadHeader(r.dev)
	if err != nil {
		return err
	}
	if h.Repository != s.header.Repository || h.Disk() != r.uuid || h.Epoch != s.header.Epoch {
		return Moved
	}
	r.header = bytes.Clone(r.boot)
	return nil
}

// payload reads the document that a record points at. errBlock: it is not there.
func (s *Store) payload(r *replica, rec *Record) ([]byte, error) {
	if rec.Generation == 0 {
		return nil, nil
	}
	at := s.span(rec)
	p := make([]byte, at.Len)
	if err := r.dev.ReadAt(p, at.Off); err != nil {
		return nil, err
	}
	if !fits(p, rec) {
		return nil, blockError("payload does not fit its record")
	}
	return p[:rec.Length], nil
}

// span is where the document of a record lies.
func (s *Store) span(rec *Record) Span {
	return Span{s.header.Layout.Payload(int(rec.Host), int(rec.Slot)), (int(rec.Length) + BlockSize - 1) / BlockSize * BlockSize}
}

// fits tells whether these blocks are the document of a record, and nothing else.
func fits(p []byte, rec *Record) bool {
	if sha256.Sum256(p[:rec.Length]) != rec.Payload || !allZero(p[rec.Length:]) {
		return false
	}
	return true
}

// readBack compares own records with what was written. Lost: what is there is
// older content of ours. Cloned: somebody else writes as this host.
func (s *Store) readBack(r *replica) error {
	for number := range 2 {
		c := &r.cells[2*s.cfg.Host+number]
		if bytes.Equal(c.block, r.own[number]) {
			continue
		}
		rec := c.record
		if c.err == nil && s.mine(c) &&
			(rec.Incarnation != s.cfg.Incarnation || rec.Boot != s.cfg.Boot || rec.Writer != s.cfg.Node || rec.Sequence > s.sequence) &&
			!bytes.Equal(c.block, r.first[number]) {
			return Cloned
		}
		return Lost
	}
	return nil
}

// admit tells whether the record's signer counts: a member in the document
// that this node holds, or in the candidate's.
func (s *Store) admit(c *cell, doc []byte) bool {
	if c.err != nil {
		return false
	}
	if c.judged && (c.signed || doc == nil) {
		return c.signed
	}
	verify, err := s.cfg.Admit(c.record.Writer, doc)
	c.judged = true
	c.signed = err == nil && verified(c.block, verify)
	return c.signed
}

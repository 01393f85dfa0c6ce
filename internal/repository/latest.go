package repository

import (
	"errors"
	"slices"
)

// A candidate is a record with a value, and the disk it was read from.
type candidate struct {
	disk *replica
	at   int // position among the records
	cell
}

// highest is the greatest promise on the disks, of signers that count.
func (s *Store) highest(disks []*replica) Ballot {
	var b Ballot
	for _, r := range disks {
		for i := range r.cells {
			if c := &r.cells[i]; s.admit(c, nil) {
				b = max(b, c.record.Promised)
			}
		}
	}
	return b
}

// latest is the value of the greatest (ballot, generation) on the disks. A
// record without its payload was never acknowledged, or is being overwritten
// while we read: it is dropped only if it is still the same afterwards.
func (s *Store) latest(op string, disks []*replica) (Snapshot, error) {
	return s.newest(op, disks, func(*Record) bool { return true })
}

// newest is latest among the records that counts accepts.
func (s *Store) newest(op string, disks []*replica, counts func(*Record) bool) (Snapshot, error) {
	var dropped []Version
	for {
		best := s.greatest(disks, func(r *Record) bool {
			return counts(r) && !slices.Contains(dropped, r.version())
		})
		if len(best) == 0 && s.fresh {
			return Snapshot{}, nil
		}
		if len(best) == 0 {
			return Snapshot{}, fail(op, s.header.Repository.String(), s.nothing(disks))
		}
		found, err := s.read(best)
		if err == nil {
			if s.admitListed(disks, found.Document) {
				continue // a new member's record may be greater
			}
			if found.Before(s.floor) && !s.above(disks) {
				return Snapshot{}, fail(op, s.header.Repository.String(), Regressed)
			}
			return found, nil
		}
		if !errors.Is(err, errBlock) {
			return Snapshot{}, fail(op, s.header.Repository.String(), err)
		}
		changed, err := s.changed(best)
		switch {
		case err != nil:
			return Snapshot{}, fail(op, s.header.Repository.String(), err)
		case changed: // start over
		case slices.ContainsFunc(best, func(c candidate) bool { return c.record.Chosen }):
			return Snapshot{}, fail(op, s.header.Repository.String(), Damaged)
		default:
			dropped = append(dropped, best[0].record.version())
		}
	}
}

// nothing says why no value was found. Records without the chosen mark are
// usual: a host that claims again before it seals leaves none.
func (s *Store) nothing(disks []*replica) Fault {
	switch all := s.greatest(disks, func(*Record) bool { return true }); {
	case len(all) == 0:
		return Damaged
	case all[0].record.version().Before(s.floor):
		return Regressed
	}
	return Undecided
}

// above tells whether any valid record reaches what this node has seen.
func (s *Store) above(disks []*replica) bool {
	all := s.greatest(disks, func(*Record) bool { return true })
	return len(all) > 0 && !all[0].record.version().Before(s.floor)
}

// greatest are all records that have the greatest version of those that count.
func (s *Store) greatest(disks []*replica, counts func(*Record) bool) []candidate {
	var best []candidate
	for _, r := range disks {
		for i := range r.cells {
			c := &r.cells[i]
			if c.err != nil || c.record.Generation == 0 || !counts(&c.record) || !s.counts(r, c) {
				continue
			}
			v := c.record.version()
			if len(best) > 0 {
				w := best[0].record.version()
				if v.Before(w) {
					continue
				}
				if w.Before(v) {
					best = best[:0]
				}
			}
			best = append(best, candidate{r, i, *c})
		}
	}
	return best
}

// counts tells whether the signer of a record with a value counts: one that is
// unknown may be listed in the very document that it has written.
func (s *Store) counts(r *replica, c *cell) bool {
	if s.admit(c, nil) {
		return true
	}
	if c.refused {
		return false
	}
	doc, err := s.payload(r, &c.record)
	if err != nil {
		return false
	}
	c.refused = !s.admit(c, doc)
	return !c.refused
}

// admitListed looks for records of signers that only this document lists. Their
// promises count as well.
func (s *Store) admitListed(disks []*replica, doc []byte) bool {
	var more bool
	for _, r := range disks {
		for i := range r.cells {
			if c := &r.cells[i]; c.err == nil && !c.signed && s.admit(c, doc) {
				more = true
			}
		}
	}
	return more
}

// read takes the first payload that fits.
func (s *Store) read(from []candidate) (Snapshot, error) {
	var problem error
	for i := range from {
		rec := &from[i].record
		doc, err := s.payload(from[i].disk, rec)
		if err != nil {
			problem = err
			continue
		}
		return Snapshot{Version: rec.version(), Document: doc, Previous: rec.Previous, Op: rec.Op, Writer: rec.Writer}, nil
	}
	return Snapshot{}, problem
}

// changed reads the disks again and tells whether one of the records is not
// what it was.
func (s *Store) changed(from []candidate) (bool, error) {
	var changed bool
	for i := range from {
		if i == 0 || from[i].disk != from[i-1].disk {
			if err := s.readAll(from[i].disk, s.header.Layout.Hosts); err != nil {
				return false, err
			}
		}
		changed = changed || string(from[i].block) != string(from[i].disk.cells[from[i].at].block)
	}
	return changed, nil
}

// Poll is the newest value that a record says is chosen, or that one of the
// named digests is of: those an authenticated notice has told of. It writes
// nothing and may lag. Undecided: there is nothing of the kind now.
func (s *Store) Poll(named ...Digest) (Snapshot, error) {
	disks, err := s.each("poll", s.replicas, s.refresh)
	if err != nil {
		return Snapshot{}, err
	}
	found, err := s.newest("poll", disks, func(r *Record) bool {
		return r.Chosen || slices.Contains(named, r.Payload)
	})
	if err != nil {
		return Snapshot{}, err
	}
	if s.floor.Before(found.Version) {
		s.floor = found.Version
	}
	for _, u := range s.header.Disks {
		if !slices.ContainsFunc(disks, func(r *replica) bool { return r.uuid == u }) {
			found.Away = append(found.Away, u)
		}
	}
	if all := s.greatest(disks, func(*Record) bool { return true }); len(all) > 0 {
		if v := all[0].record.version(); found.Before(v) && !v.Same(found.Version) {
			found.Newer = v
		}
	}
	return found, nil
}

// Forget drops what is known of signers: the document that this node holds has
// changed, and with it what Admit says.
func (s *Store) Forget() {
	s.vouched = false
	for _, r := range s.replicas {
		for i := range r.cells {
			c := &r.cells[i]
			c.signed, c.judged, c.refused = false, false, false
		}
	}
}

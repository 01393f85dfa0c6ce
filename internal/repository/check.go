package repository

import (
	"bytes"
	"errors"
)

// Places of the boot record.
const (
	headerA = "header A"
	headerB = "header B"
)

// A Problem is one thing that is not as it must be on a disk.
type Problem struct {
	Place string // "header A", "record of host 3, copy 0"
	Err   error
}

// Check reads all that is in use on a disk and reports what is wrong. It needs
// no keys, so that it looks at no signature, and it writes nothing. What it
// reports while hosts write may be a write on its way: check again.
func Check(d Device) []Problem {
	h, err := ReadHeader(d)
	if err != nil {
		return []Problem{{"header", err}}
	}
	problems := checkHeaders(d, h)
	s := &Store{header: h}
	r := &replica{dev: d, uuid: h.Disk()}
	if h, err := EncodeHeader(h); err == nil {
		r.header = h
	}
	if err := s.readAll(r, h.Layout.Hosts); err != nil {
		return append(problems, Problem{"records", err})
	}
	for i := range r.cells {
		c := &r.cells[i]
		where := recordPlace(i)
		switch {
		case errors.Is(c.err, errEmpty):
		case c.err != nil:
			problems = append(problems, Problem{where, c.err})
		case i%2 == 1 && r.cells[i-1].err == nil && r.cells[i-1].record.Payload == c.record.Payload && r.cells[i-1].record.Slot == c.record.Slot:
			// the document of the copy before
		default:
			if _, err := s.payload(r, &c.record); err != nil {
				problems = append(problems, Problem{"document of the " + where, err})
			}
		}
	}
	return problems
}

// checkHeaders wants both copies as the one that counts.
func checkHeaders(d Device, h Header) (problems []Problem) {
	want, err := EncodeHeader(h)
	if err != nil {
		return []Problem{{"header", err}}
	}
	last := d.Size()/BlockSize*BlockSize - BlockSize
	for _, at := range []struct {
		name string
		off  int64
	}{{headerA, 0}, {headerB, last}} {
		block := make([]byte, BlockSize)
		err := d.ReadAt(block, at.off)
		if err == nil && !bytes.Equal(block, want) {
			if _, err = DecodeHeader(block, d.Size()); err == nil {
				err = blockError("not the same as the other copy")
			}
		}
		if err != nil {
			problems = append(problems, Problem{at.name, err})
		}
	}
	return problems
}

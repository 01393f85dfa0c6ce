// Package numbered holds what has a number that counts up, as entries, and the
// introductions of a stream, have.
package numbered

import (
	"iter"
	"maps"
	"slices"
)

// perPage is how many numbers in a row share a page. A number far from all others
// costs a page, 128 bytes for pointers.
const perPage = 16

// A Table finds values by number. Neighbours lie side by side: who goes through
// thousands of them in about their order, as batches of different events do, finds
// one without a hash, and next to the one before; a map has each in another cache
// line. The zero value is empty and ready. Not safe for concurrent use, not even of
// readers: it remembers where it looked last.
type Table[T any] struct {
	pages map[uint64]*page[T]
	last  *page[T] // that was looked at
	at    uint64   // its number
	n     int
}

type page[T any] struct {
	there  uint16 // a bit for each value
	values [perPage]T
}

// find is nil where no value of the page is there.
func (t *Table[T]) find(number uint64) *page[T] {
	at := number / perPage
	if t.last != nil && t.at == at {
		return t.last
	}
	p := t.pages[at]
	if p != nil {
		t.last, t.at = p, at
	}
	return p
}

// Get is the value with a number; the zero value where there is none.
func (t *Table[T]) Get(number uint64) (v T, ok bool) {
	p := t.find(number)
	if p == nil || p.there&(1<<(number%perPage)) == 0 {
		return v, false
	}
	return p.values[number%perPage], true
}

// Set puts a value in its place.
func (t *Table[T]) Set(number uint64, v T) {
	p := t.find(number)
	if p == nil {
		if t.pages == nil {
			t.pages = map[uint64]*page[T]{}
		}
		p = &page[T]{}
		t.last, t.at = p, number/perPage
		t.pages[t.at] = p
	}
	if bit := uint16(1) << (number % perPage); p.there&bit == 0 {
		p.there |= bit
		t.n++
	}
	p.values[number%perPage] = v
}

// Delete takes a value out, if it is there.
func (t *Table[T]) Delete(number uint64) {
	p := t.find(number)
	bit := uint16(1) << (number % perPage)
	if p == nil || p.there&bit == 0 {
		return
	}
	var none T
	p.values[number%perPage] = none
	t.n--
	if p.there &^= bit; p.there == 0 {
		delete(t.pages, number/perPage)
		t.last = nil
	}
}

// Len is how many values there are.
func (t *Table[T]) Len() int { return t.n }

// All is every value by number, the lowest first. The table must not be changed
// meanwhile.
func (t *Table[T]) All() iter.Seq2[uint64, T] {
	return func(yield func(uint64, T) bool) {
		for _, at := range slices.Sorted(maps.Keys(t.pages)) {
			p := t.pages[at]
			for i := range uint64(perPage) {
				if p.there&(1<<i) != 0 && !yield(at*perPage+i, p.values[i]) {
					return
				}
			}
		}
	}
}

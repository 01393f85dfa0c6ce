package repository

import (
	"encoding/json"

	"github.com/belfry-ha/belfry"
)

// What a backend asks of the bytes of a document, without knowing more of it.

// SlotsGiven is how many host slots from the first on may hold records: one
// more than the greatest slot that a node of the document has, or had before
// it went. Reading that many finds every record that counts, for a slot is
// given by a document before its node writes. It never falls from one
// generation to the next. Of a document that can not be read it is [MaxHosts]:
// reading too many costs time, too few would lose a value.
func SlotsGiven(doc []byte) int {
	var of struct {
		Schema uint32 `json:"schema"`
		Nodes  []struct {
			Slot *int `json:"slot"`
		} `json:"nodes"`
		Former []struct {
			Slot *int `json:"slot"`
		} `json:"former"`
	}
	if err := json.Unmarshal(doc, &of); err != nil || of.Schema < 1 || of.Schema > Schema {
		return MaxHosts
	}
	given := 0
	for _, n := range of.Nodes {
		given = max(given, slotOf(n.Slot)+1)
	}
	for _, n := range of.Former {
		given = max(given, slotOf(n.Slot)+1)
	}
	return min(given, MaxHosts)
}

// HoldsOp tells whether a document has an operation among the last ones, for
// [Config]. One that can not be read has none.
func HoldsOp(doc []byte, op OpID) bool {
	var of struct {
		Ops []Operation `json:"ops"`
	}
	if err := json.Unmarshal(doc, &of); err != nil {
		return false
	}
	for _, o := range of.Ops {
		if o.ID == op {
			return true
		}
	}
	return false
}

// Moves tells whether a document begins the next epoch, for [Config]. Nothing
// may follow one that can not be read, either.
func Moves(doc []byte) bool {
	d, err := Decode(doc)
	return err != nil || d.Moving != nil
}

// Key finds the identity of a member in a document that may list a node which
// this agent does not know yet; nil: it does not list it. What else makes a
// signer admissible is the caller's to judge (repository.md, On-disk format).
func (d *Document) Key(id belfry.NodeID) []byte {
	for i := range d.Nodes {
		if d.Nodes[i].ID == id {
			return d.Nodes[i].Key
		}
	}
	return nil
}

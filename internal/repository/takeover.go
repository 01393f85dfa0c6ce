package repository

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// takeoverStep is between the epochs that members begin by their own agreement. The
// disks decide on all others, one after the other. So what a few members with the
// old disks still do can not have an epoch that the members agree on: whatever the
// disks say, it is of an earlier one (ADR 0037).
const takeoverStep = 1_000_000

// TakeoverEpoch is the epoch that the members begin by their agreement, if too few
// disks of this one are left.
func TakeoverEpoch(epoch uint64) uint64 { return (epoch/takeoverStep + 1) * takeoverStep }

// tookOver tells whether members have agreed on an epoch between these two.
func tookOver(from, to uint64) bool { return to >= TakeoverEpoch(from) }

// TakenOver is the first generation of the epoch that the members begin: what was
// replicated, on other disks. Nothing else is changed by it. ErrUsage: it is not on
// disks, or none is named.
func TakenOver(d Document, disks []UUID, node belfry.NodeID, author string, now time.Time) (Document, error) {
	areas := d.Repository.Areas
	if areas == nil || len(disks) == 0 || len(disks) > MaxDisks {
		return Document{}, usage("take over", d.Repository.UUID.String(), "%d disks for kind %s; want 1 to %d, for a repository on disks", len(disks), d.Repository.Kind, MaxDisks)
	}
	to := d
	to.Moving = nil
	to.Repository.Epoch = TakeoverEpoch(d.Repository.Epoch)
	l := LayoutAt(BlockSize, areas.Hosts, areas.SlotSize)
	to.Repository.Areas = &Areas{Hosts: l.Hosts, SlotSize: l.SlotSize, RecordOffset: l.RecordOffset, PayloadOffset: l.PayloadOffset, Disks: slices.Clone(disks)}
	to.Repository.Spares = slices.DeleteFunc(slices.Clone(d.Repository.Spares), func(u UUID) bool { return slices.Contains(disks, u) })
	if before := d.now(); now.Before(before) { // of another clock
		now = before
	}
	return Follow(d, to, Entry{
		Time: now.UTC().Truncate(time.Millisecond), Author: author, Node: node,
		Text: fmt.Sprintf("the members take the repository over in epoch %d", to.Repository.Epoch),
	})
}

// TakeoverMove is what is to be done on the disks of an epoch that the members have
// agreed on. It follows from its first document alone, so that any member can do
// it, and several may. ErrUsage: it is none.
func TakeoverMove(document []byte) (Move, error) {
	d, err := Decode(document)
	if err != nil {
		return Move{}, err
	}
	if d.Repository.Areas == nil || d.Repository.Epoch%takeoverStep != 0 || len(d.History) == 0 {
		return Move{}, usage("take over", d.Repository.UUID.String(), "generation %d of epoch %d begins no epoch of the members; want one that does", d.Generation(), d.Repository.Epoch)
	}
	digest := sha256.Sum256(document)
	m := Move{Document: document, Generation: d.Generation(), Previous: d.History[len(d.History)-1].Hash, Op: OpID(digest[:16])}
	m.Headers = d.headers(d.Repository.Epoch, d.Repository.Areas)
	return m, nil
}

// headers are the boot records of an epoch, one for each of its disks.
func (d *Document) headers(epoch uint64, areas *Areas) (all []Header) {
	h := Header{
		Repository: d.Repository.UUID, Cluster: d.Cluster.UUID, Epoch: epoch, Sequence: epoch,
		Disks: areas.Disks, Layout: areas.Layout(), Created: d.now().UTC().Truncate(time.Second), Label: d.Cluster.Name,
	}
	if len(d.Security.CA) > 0 {
		h.CA = sha256.Sum256(d.Security.CA[0])
	}
	for i := range areas.Disks {
		h.Index = uint8(i)
		all = append(all, h)
	}
	return all
}

// A Loss is a generation that was committed on disks that are lost, and that the
// members did not have when they took the repository over (config.lost).
type Loss struct {
	Epoch  uint64 // that it was held in
	Digest Digest
	Entry
}

// lossesOf are the generations of the history that is held, of which the one that comes
// into force knows nothing. What is older than its history is not judged.
func lossesOf(held *Held, to *Document) (all []Loss) {
	hashes := map[uint64]Digest{} // of generations, by what came into force
	for _, e := range to.History {
		hashes[e.Generation-1] = e.Hash
	}
	history := held.Document.History
	for i, e := range history {
		digest := held.Digest
		if i+1 < len(history) {
			digest = history[i+1].Hash
		}
		kept, known := hashes[e.Generation]
		if known && kept != digest || !known && len(to.History) > 0 && e.Generation >= to.History[0].Generation {
			all = append(all, Loss{Epoch: held.Epoch, Digest: digest, Entry: e})
		}
	}
	return all
}

// overtakes wants of a generation of an epoch that members have begun that it is of
// the same cluster. It knows nothing of what this node holds, which was lost.
func overtakes(from *Held, to *Document) error {
	n := succession{from: &from.Document, to: to}
	a, b := n.from, n.to
	n.want(b.Schema >= a.Schema, "schema", "%d after %d; it never falls", b.Schema, a.Schema)
	n.want(b.Cluster.UUID == a.Cluster.UUID, "cluster.uuid", "%s after %s; want the same cluster", b.Cluster.UUID, a.Cluster.UUID)
	n.want(b.Repository.UUID == a.Repository.UUID, "repository", "%s after %s; want the same", b.Repository.UUID, a.Repository.UUID)
	before := a.byID()
	for i := range b.Nodes {
		is := &b.Nodes[i]
		if was := before[is.ID]; was != nil {
			n.want(is.Number == was.Number && slices.Equal(is.Key, was.Key), fmt.Sprintf("nodes[%d]", i), "has another number or key; a node keeps both until it is removed")
		}
	}
	if err := n.err(); err != nil {
		return fail("follow", "", err)
	}
	return nil
}

// MembersMayChange wants that a majority of the members holds the generation that
// changes who they are, as long as they may have to agree on the next epoch: then any
// two majorities that could have one member in common who knows of the change before
// this one (ADR 0037). Holds tells of a member whether it says so now.
func MembersMayChange(from, to *Document, holds func(belfry.NodeID) bool) error {
	if len(from.Repository.Spares) == 0 || from.Repository.Areas == nil {
		return nil
	}
	all := len(from.Nodes)
	stay := from.byID()
	for _, n := range to.Nodes {
		if stay[n.ID] == nil {
			all++
		}
		delete(stay, n.ID)
	}
	if all == len(from.Nodes) && len(stay) == 0 {
		return nil
	}
	count := 0
	for _, n := range from.Nodes {
		if holds(n.ID) {
			count++
		}
	}
	switch a, b := len(from.Nodes)/2+1, len(to.Nodes)/2+1; {
	case count < a:
		return fmt.Errorf("%w: %d of %d members hold generation %d; while spares are listed a majority has to before the members change; start the others, or take the spares off the list with `belfry repository spare --remove`",
			belfry.ErrRestricted, count, len(from.Nodes), from.Generation())
	case a+b <= all:
		return fmt.Errorf("%w: %d members become %d at once; while spares are listed they change one after the other; try again", belfry.ErrRestricted, len(from.Nodes), len(to.Nodes))
	}
	return nil
}

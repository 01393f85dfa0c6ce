package repository

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// slotRest is how long the slot of a removed node is not given to another one,
// which also waits until no slot is left that nobody had.
const slotRest = 24 * time.Hour

// Follow makes to the generation after from, on the word of an entry: its
// generation and hash are filled in. The error is that of [Encode] for from.
func Follow(from, to Document, e Entry) (Document, error) {
	data, err := Encode(from)
	if err != nil {
		return Document{}, err
	}
	e.Generation, e.Hash = from.Generation()+1, sha256.Sum256(data)
	kept := from.History[max(0, len(from.History)+1-maxHistory):]
	to.History = append(slices.Clip(kept), e)
	return to, nil
}

// Completed is the first generation of the epoch that a document moves to. It
// follows from the document alone, so that all who complete a move write the
// same bytes. ErrUsage: it does not move.
func Completed(d Document) (Document, error) {
	m := d.Moving
	if m == nil || len(d.History) == 0 {
		return Document{}, usage("complete", "", "the document does not move; want one with the section moving")
	}
	to := d
	to.Moving = nil
	to.Repository.Epoch, to.Repository.Kind, to.Repository.Areas, to.Repository.Etcd = m.Epoch, d.NextKind(), m.Areas, m.Etcd
	if m.Areas == nil {
		to.Repository.Spares = nil // only disks have them
	}
	last := d.History[len(d.History)-1]
	return Follow(d, to, Entry{Time: last.Time, Author: last.Author, Node: last.Node, Text: fmt.Sprintf("the repository is in epoch %d", m.Epoch)})
}

// Next wants that a generation may follow another one, whoever made it and
// however: what never goes back does not, and who a node is stays. Both
// documents are valid by themselves. The errors name the path, at most 20, and
// wrap ErrUsage.
func Next(from, to Document) error {
	data, err := Encode(from)
	if err != nil {
		return fail("follow", "", err)
	}
	return Held{Version: Version{Digest: sha256.Sum256(data)}, Document: from}.next(to)
}

// next is [Next] of a generation whose digest is known.
func (h Held) next(to Document) error {
	n := succession{from: &h.Document, to: &to, digest: h.Digest}
	n.identity()
	n.history()
	n.former()
	n.nodes()
	n.slots()
	n.epochs()
	n.storage()
	if err := n.err(); err != nil {
		return fail("follow", "", err)
	}
	return nil
}

// A succession is two generations, one after the other.
type succession struct {
	from, to *Document
	digest   Digest // of from
	problems
}

func (n *succession) identity() {
	a, b := n.from, n.to
	n.want(b.Schema >= a.Schema, "schema", "%d after %d; it never falls", b.Schema, a.Schema)
	n.want(b.Cluster.UUID == a.Cluster.UUID, "cluster.uuid", "%s after %s; want the same cluster", b.Cluster.UUID, a.Cluster.UUID)
	n.want(b.Cluster.Created.Equal(a.Cluster.Created), "cluster.created", "is another one; it never changes")
	n.want(b.Cluster.LastNumber >= a.Cluster.LastNumber, "cluster.last_number", "%d after %d; it never falls", b.Cluster.LastNumber, a.Cluster.LastNumber)
	n.want(!b.Licenses.Mark.Before(a.Licenses.Mark), "licenses.mark", "is earlier; it never goes back")
	was := map[belfry.NodeID]uint64{}
	for _, o := range a.Ops {
		was[o.Node] = o.Generation
	}
	for i, o := range b.Ops {
		n.want(o.Generation >= was[o.Node], fmt.Sprintf("ops[%d].generation", i), "%d after %d; it never falls", o.Generation, was[o.Node])
	}
}

// history wants that one entry is appended, and the oldest goes for it only
// when there is no room.
func (n *succession) history() {
	a, b := n.from.History, n.to.History
	if len(a) == 0 || len(b) == 0 {
		n.usage("history", "%d entries after %d; want one more", len(b), len(a))
		return
	}
	kept := a[max(0, len(a)+1-maxHistory):]
	if len(b) != len(kept)+1 || !slices.EqualFunc(kept, b[:len(b)-1], Entry.equal) {
		n.usage("history", "what was written is changed or gone; want one more entry behind it")
		return
	}
	last, path := b[len(b)-1], fmt.Sprintf("history[%d]", len(b)-1)
	n.want(last.Generation == a[len(a)-1].Generation+1, path+".generation", "%d; want %d", last.Generation, a[len(a)-1].Generation+1)
	n.want(last.Hash == n.digest, path+".hash", "is not that of generation %d; want it from there", n.from.Generation())
}

func (e Entry) equal(o Entry) bool {
	sameTime := e.Time.Equal(o.Time)
	e.Time, o.Time = time.Time{}, time.Time{}
	return sameTime && e == o
}

// former wants that whoever goes is listed, as it was, and stays so.
func (n *succession) former() {
	a, b := n.from.Former, n.to.Former
	if len(b) < len(a) {
		n.usage("former", "%d nodes after %d; it never shrinks", len(b), len(a))
		return
	}
	for i, f := range a {
		n.want(f.equal(b[i]), fmt.Sprintf("former[%d]", i), "is another one; who was a member stays listed")
	}
	added := map[belfry.NodeID]int{}
	for i, f := range b[len(a):] {
		added[f.ID] = len(a) + i
	}
	stays := n.to.byID()
	for _, was := range n.from.Nodes {
		if stays[was.ID] != nil {
			continue
		}
		i, listed := added[was.ID]
		delete(added, was.ID)
		if !listed {
			n.usage("former", "node %s is gone and not listed; want it there", was.Name)
			continue
		}
		f, path := b[i], fmt.Sprintf("former[%d]", i)
		n.want(f.Number == was.Number && slotOf(f.Slot) == slotOf(was.Slot) && bytes.Equal(f.Key, was.Key), path, "is not what node %s was; want its number, slot and key", was.Name)
		n.want(f.Removed.Generation == n.to.Generation(), path+".removed.generation", "%d; want %d", f.Removed.Generation, n.to.Generation())
		n.want(f.Removed.Time.Equal(n.to.now()), path+".removed.time", "%s; want that of the generation, %s: the slot rests from then on",
			f.Removed.Time.Format(time.RFC3339Nano), n.to.now().Format(time.RFC3339Nano))
	}
	for id, i := range added {
		n.usage(fmt.Sprintf("former[%d].id", i), "%s was no member; want only those that go", id)
	}
}

func (f FormerNode) equal(o FormerNode) bool {
	return f.ID == o.ID && f.Number == o.Number && slotOf(f.Slot) == slotOf(o.Slot) && bytes.Equal(f.Key, o.Key) &&
		f.Removed.equal(o.Removed)
}

func (m Moment) equal(o Moment) bool { return m.Generation == o.Generation && m.Time.Equal(o.Time) }

// byID finds nodes.
func (d *Document) byID() map[belfry.NodeID]*Node {
	all := make(map[belfry.NodeID]*Node, len(d.Nodes))
	for i := range d.Nodes {
		all[d.Nodes[i].ID] = &d.Nodes[i]
	}
	return all
}

// nodes wants that who stays is who it was.
func (n *succession) nodes() {
	before := n.from.byID()
	for i := range n.to.Nodes {
		is, path := &n.to.Nodes[i], fmt.Sprintf("nodes[%d]", i)
		was := before[is.ID]
		if was == nil {
			n.want(is.Joined.Generation == n.to.Generation(), path+".joined.generation", "%d; node %s joins with %d", is.Joined.Generation, is.Name, n.to.Generation())
			continue
		}
		n.want(is.Number == was.Number, path+".number", "%d after %d; a node keeps it until it is removed", is.Number, was.Number)
		n.want(was.Slot == nil || slotOf(is.Slot) == *was.Slot, path+".slot", "%d after %d; a node keeps it until it is removed", slotOf(is.Slot), slotOf(was.Slot))
		n.want(bytes.Equal(is.Key, was.Key), path+".key", "is another one; a node keeps it until it is removed")
		n.want(is.Joined.equal(was.Joined), path+".joined", "is another moment; it never changes")
	}
}

// slots wants that a slot which somebody had is given again only when none is
// left that nobody had, and a day after its last owner went: the owner's last
// writes must not land in the records of the next one.
func (n *succession) slots() {
	hosts := MaxHosts
	if n.to.Repository.Areas != nil {
		hosts = n.to.Repository.Areas.Hosts
	}
	had, removed := map[int]bool{}, map[int]Moment{}
	for _, f := range n.to.Former {
		if f.Slot != nil {
			had[*f.Slot], removed[*f.Slot] = true, f.Removed
		}
	}
	for _, is := range n.to.Nodes {
		if is.Slot != nil {
			had[*is.Slot] = true
		}
	}
	unused := 0
	for slot := range hosts {
		if !had[slot] {
			unused++
		}
	}
	before := n.from.byID()
	for i, is := range n.to.Nodes {
		if is.Slot == nil || before[is.ID] != nil && before[is.ID].Slot != nil {
			continue
		}
		last, used := removed[*is.Slot]
		path := fmt.Sprintf("nodes[%d].slot", i)
		n.want(!used || unused == 0, path, "%d was that of a node that is gone, and %d were never used; want one of those", *is.Slot, unused)
		n.want(!used || n.to.now().Sub(last.Time) >= slotRest, path, "%d was that of a node that went %s ago; want one that was free for %s, or none",
			*is.Slot, n.to.now().Sub(last.Time), slotRest)
	}
}

// now is when the generation was made.
func (d *Document) now() time.Time {
	if len(d.History) == 0 {
		return time.Time{}
	}
	return d.History[len(d.History)-1].Time
}

// epochs wants that the keys of datagrams never go back, and are not replaced
// under the same number.
func (n *succession) epochs() {
	a, b := n.from.Security.Datagram, n.to.Security.Datagram
	n.want(b.Epoch >= a.Epoch, "security.datagram.epoch", "%d after %d; it never falls", b.Epoch, a.Epoch)
	n.want(b.Epoch != a.Epoch || a.Secret == Digest{} || b.Secret == a.Secret, "security.datagram.secret_hash",
		"is another one in epoch %d; a new secret begins a new epoch", b.Epoch)
}

// storage wants that the disks change with their epoch only, and nothing else
// with it.
func (n *succession) storage() {
	a, b := &n.from.Repository, &n.to.Repository
	switch {
	case a.Kind == KindMembers: // it begins, with whatever disks
		return
	case b.UUID != a.UUID:
		n.usage("repository", "%s %s after %s %s; a repository stays the same until all its members have left it", b.Kind, b.UUID, a.Kind, a.UUID)
	case b.Epoch < a.Epoch:
		n.usage("repository.epoch", "%d after %d; it never falls", b.Epoch, a.Epoch)
	case tookOver(a.Epoch, b.Epoch):
		n.want(b.Epoch == TakeoverEpoch(a.Epoch) && b.Kind == a.Kind && n.sameBut(b.Areas, b.Etcd), "repository.epoch", "%d after %d with other changes; an epoch begins with the same configuration", b.Epoch, a.Epoch)
	case n.from.Moving != nil:
		n.completion()
	case b.Epoch == a.Epoch:
		n.want(b.Kind == a.Kind, "repository.kind", "%s after %s in epoch %d; it changes by `belfry repository move`", b.Kind, a.Kind, a.Epoch)
		n.want(reflect.DeepEqual(a.Areas, b.Areas), "repository.areas", "are others in epoch %d; disks change by `belfry repository move`", a.Epoch)
	default: // other places on the same disks
		n.want(b.Kind == a.Kind && n.sameBut(b.Areas, b.Etcd), "repository.epoch", "%d after %d with other changes; an epoch begins with the same configuration", b.Epoch, a.Epoch)
	}
}

// completion is the only thing that follows a document that moves.
func (n *succession) completion() {
	m := n.from.Moving
	n.want(n.to.Repository.Epoch == m.Epoch, "repository.epoch", "%d; the repository moves to %d, want nothing else before that", n.to.Repository.Epoch, m.Epoch)
	n.want(n.to.Repository.Kind == n.from.NextKind() && n.sameBut(m.Areas, m.Etcd), "moving", "is completed with other changes; want the same document without it")
}

// sameBut tells whether the epoch begins with these areas, or this place in etcd,
// and the document as it was.
func (n *succession) sameBut(areas *Areas, etcd *Etcd) bool {
	want := *n.from
	want.Moving, want.History = nil, n.to.History
	want.Repository.Epoch, want.Repository.Areas, want.Repository.Etcd = n.to.Repository.Epoch, areas, etcd
	want.Repository.Kind = n.to.Repository.Kind
	want.Repository.Spares = n.to.Repository.Spares // one of them may be a disk now
	x, errX := Encode(want)
	y, errY := Encode(*n.to)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

package cluster

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/belfry-ha/belfry"
)

// A Member is one row of the member table.
type Member struct {
	ID        belfry.NodeID
	Number    belfry.NodeNumber // its name on the wire; unique, from 1
	Name      string
	Addresses []Address // one for each network that it is on, at most 16
	Stopped   bool      // held left by the configuration

	// Up is the incarnation that runs by the knowledge of who made the table;
	// zero: unknown. Such a member is up (indirect) from the start, until
	// something says otherwise. For simulations that begin warm.
	Up belfry.Incarnation
}

// An Address is where a node takes heartbeats on one network.
type Address struct {
	Network string // a pair has a link on each network that both are on
	Addr    netip.AddrPort
}

// base is the claim that is held of a member of whom nothing was heard yet.
func (t *Member) base() held {
	if t.Up == 0 {
		return held{Verdict: belfry.VerdictJoining}
	}
	return held{Incarnation: t.Up, Verdict: belfry.VerdictUp, Cause: belfry.CauseIndirect, Observers: 1, Origin: t.Number}
}

// A Table is one generation of the member table. It never changes, so that
// all machines of a process can share one: what a machine holds of its own
// about a member is kept beside it, and only where it differs. A node of a
// large cluster thus pays for those it watches and for news, not for all.
type Table struct {
	generation uint64
	rows       []Member // by NodeID
	byID       map[belfry.NodeID]int32
	byNumber   map[belfry.NodeNumber]int32
	ring       []int32 // rows, by place
	at         []int32 // where a row stands on the ring
	buckets    []uint32
}

// NewTable makes a table. Members must differ in id and number; of those that
// do not, the last one counts. The order of members does not matter.
func NewTable(cluster belfry.ClusterID, generation uint64, members []Member) *Table {
	t := &Table{
		generation: generation, rows: slices.Clone(members),
		byID: make(map[belfry.NodeID]int32, len(members)), byNumber: make(map[belfry.NodeNumber]int32, len(members)),
	}
	slices.SortStableFunc(t.rows, func(a, b Member) int { return a.ID.Compare(b.ID) })
	places := make([]uint64, len(t.rows))
	highest := belfry.NodeNumber(0)
	for i := range t.rows {
		row := &t.rows[i]
		t.byID[row.ID], t.byNumber[row.Number] = int32(i), int32(i)
		t.ring = append(t.ring, int32(i))
		places[i] = ringKey(cluster, row.ID)
		highest = max(highest, row.Number)
	}
	slices.SortFunc(t.ring, func(a, b int32) int { return cmp.Or(cmp.Compare(places[a], places[b]), cmp.Compare(a, b)) })
	t.at = make([]int32, len(t.rows))
	for place, row := range t.ring {
		t.at[row] = int32(place)
	}
	t.buckets = make([]uint32, bucketOf(highest)+1)
	for i := range t.rows {
		row := &t.rows[i]
		t.buckets[bucketOf(row.Number)] ^= row.base().hash(row.Number)
	}
	return t
}

// Len is the number of members.
func (t *Table) Len() int { return len(t.rows) }

// Generation is that of the configuration that lists these members.
func (t *Table) Generation() uint64 { return t.generation }

// links are the ways from one member to another: one for each network that
// both are on.
func (t *Table) links(from, to *Member) (links []Link) {
	for _, mine := range from.Addresses {
		for _, its := range to.Addresses {
			if mine.Network == its.Network {
				links = append(links, Link{Index: uint8(len(links)), Network: mine.Network, Local: mine.Addr, Remote: its.Addr})
			}
		}
	}
	return links
}

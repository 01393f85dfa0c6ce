package license

import (
	"cmp"
	"slices"

	"github.com/belfry-ha/belfry"
)

// A Member is one node of the committed document.
type Member struct {
	Node        belfry.NodeID
	Joined      uint64 // the generation that first lists it
	Cores       int64  // 0: not known
	MemoryBytes int64  // 0: not known
}

// Covered are the members that a license covers: in the order in which they
// joined (then by NodeID, since joins share a generation), as long as each
// still fits into all limits of the capacity. Of a license that is bound to
// nodes, only those count. The first member that does not fit ends it: if a
// smaller one behind it could slip in, then a member that leaves could take
// the license from one that stays.
//
// So a join never takes the license from a member, and joins at the same time
// can not be granted more than there is: what counts is the one order in the
// document. A member whose cores or memory are not known does not fit a
// license that counts them.
func Covered(l License, members []Member) []belfry.NodeID {
	rest := struct{ nodes, cores, memory int64 }{l.Capacity.Nodes, l.Capacity.Cores, l.Capacity.MemoryBytes}
	var covered []belfry.NodeID
	for _, m := range inJoinOrder(members) {
		if len(l.Binding.Nodes) > 0 && !slices.Contains(l.Binding.Nodes, m.Node) {
			continue
		}
		if l.Capacity.Nodes > 0 && rest.nodes < 1 ||
			l.Capacity.Cores > 0 && (m.Cores < 1 || m.Cores > rest.cores) ||
			l.Capacity.MemoryBytes > 0 && (m.MemoryBytes < 1 || m.MemoryBytes > rest.memory) {
			break
		}
		rest.nodes, rest.cores, rest.memory = rest.nodes-1, rest.cores-m.Cores, rest.memory-m.MemoryBytes
		covered = append(covered, m.Node)
	}
	return covered
}

func inJoinOrder(members []Member) []Member {
	return slices.SortedFunc(slices.Values(members), func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Joined, b.Joined), a.Node.Compare(b.Node))
	})
}

package agent

import (
	"fmt"
	"slices"

	"github.com/belfry-ha/belfry"
)

// A RemovedNode was a member. Its key is kept so that it, and nobody else, can be
// told.
type RemovedNode struct {
	ID  belfry.NodeID `json:"id"`
	Key PublicKey     `json:"key"`
}

// removed tells whether a node was a member once. An id is never given again.
func (t *Table) removed(id belfry.NodeID) bool {
	_, removed := t.removedNode(id)
	return removed
}

// removedNode finds a node that was a member once.
func (t *Table) removedNode(id belfry.NodeID) (RemovedNode, bool) {
	i := slices.IndexFunc(t.Removed, func(n RemovedNode) bool { return n.ID == id })
	if i < 0 {
		return RemovedNode{}, false
	}
	return t.Removed[i], true
}

// disowns says why t, which is held, does not let next in, however new it is: it
// is by a node that was removed, or lists one. Such a node may have gone on by
// itself, and have found a member that was down when it was removed.
func (t *Table) disowns(next *Table) error {
	if t.removed(next.Origin) {
		return fmt.Errorf("%w: it is by node %s, which was removed", belfry.ErrNotMember, next.Origin)
	}
	for _, n := range next.Nodes {
		if t.removed(n.ID) {
			return fmt.Errorf("%w: it lists node %s (%s), which was removed", belfry.ErrNotMember, n.Name, n.ID)
		}
	}
	return nil
}

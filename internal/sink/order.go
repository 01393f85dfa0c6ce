package sink

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/belfry-ha/belfry"
)

// Order is whose turn it is to run a handler that is shared by nodes, for one
// event, whatever agents told of it: the first of them, or the next where one is
// out. All nodes come to the same order whatever the order of nodes is, and when
// one goes only its events move (rendezvous hashing: Thaler and Ravishankar,
// "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on
// Networking 6, 1998).
func Order(handler string, e Event, nodes []belfry.NodeID) []belfry.NodeID {
	weight := make(map[belfry.NodeID]uint64, len(nodes))
	text := append([]byte(handler), 0)
	text = append(text, e.Node[:]...)
	text = append(append(append(text, e.Class...), 0), e.Subject...)
	for _, n := range nodes {
		sum := sha256.Sum256(append(bytes.Clone(text), n[:]...))
		weight[n] = binary.BigEndian.Uint64(sum[:])
	}
	order := slices.Clone(nodes)
	slices.SortFunc(order, func(a, b belfry.NodeID) int {
		if c := cmp.Compare(weight[b], weight[a]); c != 0 {
			return c
		}
		return bytes.Compare(a[:], b[:])
	})
	return order
}

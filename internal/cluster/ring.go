package cluster

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/belfry-ha/belfry"
)

// ringKey is a node's place on the ring: the first 8 bytes of
// SHA-256(cluster UUID ‖ NodeID). It is random, so that neighbours in a rack
// are not neighbours on the ring, and the same on every node.
func ringKey(cluster belfry.ClusterID, node belfry.NodeID) uint64 {
	sum := sha256.Sum256(slices.Concat(cluster[:], node[:]))
	return binary.BigEndian.Uint64(sum[:8])
}

// ringOrder sorts the members that are neither down nor left by their place.
func ringOrder(members []*member) []*member {
	var ring []*member
	for _, p := range members {
		if p.inRing() {
			ring = append(ring, p)
		}
	}
	slices.SortFunc(ring, func(a, b *member) int {
		return cmp.Or(cmp.Compare(a.place, b.place), a.ID.Compare(b.ID))
	})
	return ring
}

// neighbours are the members ±1 … ±k/2 places from of, in ring order from the
// one after it. Up to k+1 members it is everybody else: the full mesh. The
// relation is symmetric, so each heartbeat has one that carries its echo.
func neighbours(ring []*member, of *member, k int) []*member {
	at := slices.Index(ring, of)
	if at < 0 {
		return nil
	}
	n := len(ring)
	var peers []*member
	for step := 1; step < n; step++ {
		if step <= k/2 || n-step <= k/2 || n <= k+1 {
			peers = append(peers, ring[(at+step)%n])
		}
	}
	return peers
}

// coWatchers are the other members that watch p and are up.
func (m *Machine) coWatchers(p *member) []*member {
	var others []*member
	for _, w := range neighbours(m.ring, p, m.cfg.Watchers) {
		if w != m.self && w.held.Verdict == belfry.VerdictUp {
			others = append(others, w)
		}
	}
	return others
}

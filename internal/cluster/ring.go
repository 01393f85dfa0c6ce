package cluster

import (
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

// inRing tells whether the member of a row takes part in watching.
func (m *Machine) inRing(row int32) bool {
	t := &m.table.rows[row]
	if p := m.byID[t.ID]; p != nil {
		return p.inRing()
	}
	return !t.Stopped
}

// neighbours are the members ±1 … ±K/2 places from of, in ring order from the
// one after it; those that are down or left have no place. Up to K+1 members
// it is everybody else: the full mesh. The relation is symmetric, so each
// heartbeat has one that carries its echo.
func (m *Machine) neighbours(of *member) []*member {
	if !of.inRing() {
		return nil
	}
	k, all := m.cfg.Watchers, m.table.Len()-m.outside-1
	after, before := k/2, k/2
	if all <= k {
		after, before = all, 0
	}
	peers := make([]*member, 0, after+before)
	for place := m.table.at[of.at]; len(peers) < after; {
		place = (place + 1) % int32(len(m.table.ring))
		if row := m.table.ring[place]; m.inRing(row) {
			peers = append(peers, m.member(row))
		}
	}
	for place := m.table.at[of.at]; len(peers) < after+before; {
		place = (place - 1 + int32(len(m.table.ring))) % int32(len(m.table.ring))
		if row := m.table.ring[place]; m.inRing(row) {
			peers = append(peers, m.member(row))
		}
	}
	slices.Reverse(peers[after:])
	return peers
}

// coWatchers are the other members that watch p and are up.
func (m *Machine) coWatchers(p *member) []*member {
	return slices.DeleteFunc(m.neighbours(p), func(w *member) bool {
		return w == m.self || w.held.Verdict != belfry.VerdictUp
	})
}

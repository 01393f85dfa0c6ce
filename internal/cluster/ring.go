package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

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

// walkMost bounds how far a node looks along the ring for members that run.
const walkMost = 1024

// neighbours are the members ±1 … ±K/2 places from of, in ring order from the
// one after it; those that are down or left have no place. Up to K+1 members
// it is everybody else: the full mesh. The relation is symmetric, so each
// heartbeat has one that carries its echo.
//
// Members of which nothing was heard yet are beside the count: they may have
// been admitted long before their agents start, and must not take the places of
// those that watch. Up to K/2 on each side are among the neighbours, so that
// one that starts is heard at once.
func (m *Machine) neighbours(of *member) []*member {
	if !of.inRing() {
		return nil
	}
	if all := m.table.Len() - m.outside - 1; all <= m.cfg.Watchers {
		return m.walk(of, 1, all, nil)
	}
	after := m.walk(of, 1, m.cfg.Watchers/2, nil)
	before := m.walk(of, -1, m.cfg.Watchers/2, after)
	slices.Reverse(before)
	return append(after, before...)
}

// walk finds the neighbours on one side, those left out that were found on the
// other: half of members that run, and at most half of those that have not
// started.
func (m *Machine) walk(of *member, step, half int, other []*member) (peers []*member) {
	ring, running, starting := len(m.table.ring), 0, 0
	place := int(m.table.at[of.at])
	for range min(ring-1, walkMost) {
		place = (place + step + ring) % ring
		row := m.table.ring[place]
		switch {
		case !m.inRing(row):
			continue
		case m.heldOf(row).Verdict != belfry.VerdictJoining:
			running++
		case starting == half:
			continue
		default:
			starting++
		}
		if p := m.member(row); !slices.Contains(other, p) {
			peers = append(peers, p)
		}
		if running == half {
			break
		}
	}
	return peers
}

// pacing are the neighbours between which the schedule is shared: those that
// run, as far as any does.
func pacing(peers []*member) []*member {
	running := slices.DeleteFunc(slices.Clone(peers), func(p *member) bool { return p.held.Verdict == belfry.VerdictJoining })
	if len(running) == 0 {
		return peers
	}
	return running
}

// fullMesh tells whether this node watches all members that are not down or left.
func (m *Machine) fullMesh() bool {
	return len(m.peers) <= m.cfg.Watchers && len(m.peers) == m.table.Len()-m.outside-1
}

// meet watches a member to which there is a stream, where this node has heard
// nobody yet: all its neighbours may be members that have not started.
func (m *Machine) meet(now time.Time, p *member) {
	if len(p.rows) > 0 || p.held.Verdict != belfry.VerdictJoining || slices.ContainsFunc(m.peers, func(q *member) bool { return q.held.Verdict != belfry.VerdictJoining }) {
		return
	}
	guests := 0
	for _, q := range m.watched {
		if q.guest {
			guests++
		}
	}
	if guests < m.cfg.Watchers {
		p.guest = true
		m.watch(now, p)
		m.rewatch(now)
	}
}

// coWatchers are the other members that watch p and are up.
func (m *Machine) coWatchers(p *member) []*member {
	return slices.DeleteFunc(m.neighbours(p), func(w *member) bool {
		return w == m.self || w.held.Verdict != belfry.VerdictUp
	})
}

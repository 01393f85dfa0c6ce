package cluster

import (
	"time"

	"github.com/belfry-ha/belfry"
)

// bucketSize is how many node numbers share one hash of the view.
const bucketSize = 64

func bucketOf(n belfry.NodeNumber) int { return int(n) / bucketSize }

// compareView notices that a peer holds other claims than this node. When it
// differs twice in a row, the peer is told: in a small cluster all claims,
// which fit one datagram, else the hash of each bucket; it answers with its
// claims in those that differ.
func (m *Machine) compareView(now time.Time, from *member, view uint32) {
	if view == m.view {
		from.viewDiffers = 0
		if from.viewAgrees++; from.guest && !from.onRequest(now) && from.viewAgrees >= 2 && from.held.Verdict == belfry.VerdictUp {
			m.unwatch(from) // both draw the same ring now, and in it they are no neighbours
			m.rewatch(now)
		}
		return
	}
	from.viewAgrees = 0
	if from.viewDiffers++; from.viewDiffers < 2 || now.Sub(from.viewSent) < viewEvery {
		return
	}
	from.viewSent = now
	if m.table.Len() <= claimsMax {
		m.sendAll(now, from.at, m.claimsIn(now, 0, len(m.buckets)))
		return
	}
	for first := 0; first < len(m.buckets); first += viewBuckets {
		last := min(first+viewBuckets, len(m.buckets))
		m.send(now, from, &View{First: uint16(first), Buckets: append([]uint32(nil), m.buckets[first:last]...)})
	}
}

// viewBuckets is how many bucket hashes one datagram of 1,200 bytes holds.
const viewBuckets = 384

// claimsIn is what is held of the members in some buckets, by number.
func (m *Machine) claimsIn(now time.Time, first, last int) (claims []belfry.Claim) {
	for n := first * bucketSize; n < last*bucketSize; n++ {
		row, ok := m.table.byNumber[belfry.NodeNumber(n)]
		if !ok {
			continue
		}
		if p := m.byID[m.table.rows[row].ID]; p != nil && p.told() {
			claims = append(claims, claimOf(now, p))
		} else if t := &m.table.rows[row]; p == nil && t.Up != 0 {
			base := &member{Member: t, held: t.base()}
			base.held.Since = m.tableAt
			claims = append(claims, claimOf(now, base))
		}
	}
	return claims
}

// viewAsked answers the hashes of a peer with the claims of the buckets that
// differ, as many as viewClaims; the rest follows when it asks again.
func (m *Machine) viewAsked(now time.Time, from *member, v *View) {
	if !from.viewAnswered.IsZero() && now.Sub(from.viewAnswered) < viewAnswerEvery {
		return // an answer is larger than its question
	}
	from.viewAnswered = now
	var claims []belfry.Claim
	for i, theirs := range v.Buckets {
		if b := int(v.First) + i; b < len(m.buckets) && m.buckets[b] != theirs && len(claims) < viewClaims {
			claims = append(claims, m.claimsIn(now, b, b+1)...)
		}
	}
	m.sendAll(now, from.at, claims)
}

// viewClaims bounds what one question brings: 32 datagrams.
const viewClaims = 32 * claimsMax

// viewAnswerEvery bounds how often a member is answered.
const viewAnswerEvery = 100 * time.Millisecond

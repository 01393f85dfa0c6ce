package cluster

import (
	"slices"
	"time"
)

// A spell is what one window of receptions was like.
type spell struct {
	at       time.Duration // since the machine's start
	trip     time.Duration // median of its round trips
	delay    time.Duration // median of what the delays towards this node were above the least
	shortest time.Duration // of its round trips
}

// usual keeps one spell in usualEvery for usualFor: what is usual on a link.
type usual struct {
	spells [usualFor / usualEvery]spell // a ring
	n      int                          // ever
}

// learn keeps a spell; one that follows the last too soon leaves only what was
// the shortest.
func (u *usual) learn(s spell) {
	if u.n > 0 {
		if last := &u.spells[(u.n-1)%len(u.spells)]; s.at-last.at < usualEvery {
			last.shortest = min(last.shortest, s.shortest)
			return
		}
	}
	u.spells[u.n%len(u.spells)] = s
	u.n++
}

// young are those of the last 600 s, in no order.
func (u *usual) young(since time.Duration, each func(spell)) {
	for _, s := range u.spells[:min(u.n, len(u.spells))] {
		if since-s.at <= usualFor {
			each(s)
		}
	}
}

// median is what was usual in the last 600 s.
func (u *usual) median(since time.Duration) (m spell, known bool) {
	var trips, delays [len(usual{}.spells)]time.Duration
	n := 0
	u.young(since, func(s spell) {
		trips[n], delays[n] = s.trip, s.delay
		n++
	})
	if n < usualLeast {
		return spell{}, false
	}
	slices.Sort(trips[:n])
	slices.Sort(delays[:n])
	return spell{at: since, trip: trips[n/2], delay: delays[n/2]}, true
}

// shortest is the shortest round trip of the last 600 s and of now.
func (u *usual) shortest(now spell) time.Duration {
	least := now.shortest
	u.young(now.at, func(s spell) { least = min(least, s.shortest) })
	return least
}

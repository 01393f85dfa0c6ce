package cluster

import "time"

// A slot is the place of one link in the cycle: peer k of Keff, link l of L.
type slot struct {
	peer, peers int
	link, links int
}

// phase is the slot's offset in a cycle of length t.
func (s slot) phase(t time.Duration) time.Duration {
	peers, links := max(s.peers, 1), max(s.links, 1)
	return t * time.Duration(s.peer*links+s.link) / time.Duration(peers*links)
}

// stretched is the largest cycle·2^x that is not longer than interval: links
// with a longer interval keep to the slots of the shared cycle.
func stretched(cycle, interval time.Duration) time.Duration {
	if cycle <= 0 {
		return interval
	}
	for cycle*2 <= interval {
		cycle *= 2
	}
	return cycle
}

// following is the time of the slot's next heartbeat: the first slot that is at
// least a quarter of an interval away, so that a slot that moves never makes two
// of one. It is at most one and a quarter intervals away: while all intervals
// change, as they do once a cluster has settled, nobody goes unwatched for long.
func (s slot) following(start, now time.Time, cycle, interval time.Duration) time.Time {
	every := stretched(cycle, interval)
	earliest := now.Add(every/4).Sub(start) - s.phase(cycle)
	n := earliest / every
	if n*every < earliest {
		n++
	}
	return start.Add(n*every + s.phase(cycle))
}

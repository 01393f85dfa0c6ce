package transport

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/wire"
)

// Rates of wildcard sockets, in datagrams per second; a bucket holds one
// second's worth (cluster.md 3).
const (
	sourceRate = 2_000
	totalRate  = 100_000
)

// maxFailures is how many errors in a row say that a socket is of no use.
const maxFailures = 1000

// read empties one socket until it is closed, opening on this goroutine:
// nothing unauthenticated is handed on or kept.
func (u *UDP) read(s *socket) {
	b := newBatch()
	// A datagram can not have come before the socket was last seen empty. That
	// bounds what a step of the wall clock does to a timestamp.
	emptied := time.Now()
	var overflow uint32
	for failures := 0; failures < maxFailures; {
		var n int
		var errno syscall.Errno
		err := s.raw.Read(func(fd uintptr) bool {
			n, errno = b.receive(fd)
			if errno == syscall.EAGAIN {
				emptied, failures = time.Now(), 0
				return false
			}
			return true
		})
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			u.log.Error("socket can not be read", "local", s.local, "err", err)
			return
		case errno == syscall.ECONNREFUSED && s.connected:
			u.noteRefused(s.link)
			continue
		case errno != 0:
			// An error that ICMP brought is cleared by being told; another is not.
			u.log.Debug("socket error", "local", s.local, "err", errno)
			failures++
			continue
		}
		now := time.Now()
		var last datagram
		for i := range n {
			last = b.at(i)
			u.receive(s, last, arrival(now, last.stamp, emptied))
		}
		if lost := last.overflow - overflow; lost != 0 {
			overflow = last.overflow
			u.overflowed(s, lost)
		}
		if n < batchSize {
			emptied = now
		}
	}
	u.log.Error("socket is given up: only errors", "local", s.local)
}

// arrival turns the kernel's wall clock timestamp into a time with a monotonic
// reading, not before the socket was empty and not after now.
func arrival(now, stamp, emptied time.Time) time.Time {
	if stamp.IsZero() {
		return now
	}
	// Round strips the monotonic reading of now, so that both are wall clock.
	ago := now.Round(0).Sub(stamp)
	at := now.Add(-max(ago, 0))
	if at.Before(emptied) {
		return emptied
	}
	return at
}

// overflowed reports datagrams that the kernel dropped for want of room.
// Those of a wildcard socket are strangers', unless a watched link shares it.
func (u *UDP) overflowed(s *socket, n uint32) {
	u.stats.dropped.Add(uint64(n))
	if u.cfg.Dropped != nil && (s.connected || u.table.Load().watched[s.local]) {
		u.cfg.Dropped(n)
	}
}

// receive takes one datagram through the order of work of cluster.md 3.
func (u *UDP) receive(s *socket, d datagram, at time.Time) {
	u.stats.received.Add(1)
	u.stats.receivedBytes.Add(uint64(len(d.data)))
	opened, on, reason := u.open(s, d)
	if reason != wire.Accepted {
		u.reject(d.from, opened.From, reason)
		return
	}
	u.cfg.Deliver(Received{
		From: opened.From, Incarnation: opened.Incarnation, Boot: opened.Boot,
		Link: on, At: at, Proven: opened.Proven, Body: opened.Body,
	})
}

func (u *UDP) open(s *socket, d datagram) (opened wire.Opened, on uint8, reason wire.Reason) {
	table := u.table.Load()
	u.seal.Lock()
	defer u.seal.Unlock()
	now := time.Now() // under the lock, so that it does not fall from call to call
	opened, reason = u.cfg.Endpoint.Open(now, d.data, func(from belfry.NodeID) wire.Reason {
		l := table.from(s, from, d.from)
		if l == nil {
			return wire.RejectSource
		}
		on = l.id.index
		// What was queued on a connected socket before it was connected may be
		// anybody's; it is judged by where it came from, as all is.
		if (!s.connected || l.id != s.link) && !u.budget.take(now, l.id) {
			return wire.RejectRate
		}
		return wire.Accepted
	})
	_ = u.cfg.Endpoint.Wants() // who does not know our boot: the cluster machine answers what is not proven
	return opened, on, reason
}

// from is the link on which a node's datagram arrived at a socket from that
// address; nil if the address is not bound to that node there.
func (t *peerTable) from(s *socket, from belfry.NodeID, addr netip.AddrPort) *link {
	l := t.bound[linkKey{from, s.local, addr}]
	if l == nil && s.local.Addr().IsUnspecified() {
		// Which of the local addresses it came to is not known; the first link fits.
		for index := range uint8(16) {
			if c := t.links[linkID{from, index}]; c != nil && c.remote == addr {
				return c
			}
		}
	}
	return l
}

// reject counts, and logs one line per second and reason.
func (u *UDP) reject(from netip.AddrPort, node belfry.NodeID, reason wire.Reason) {
	u.stats.rejected[reason].Add(1)
	n := u.warned.count(time.Now(), reason)
	if n == 0 {
		return
	}
	if reason == wire.RejectDuplicate {
		u.log.Warn("two agents run as one node; stop the older one, its state was copied", "peer", node, "source", from, "count", n)
		return
	}
	u.log.Warn("datagram rejected", "reason", reason.String(), "source", from, "count", n)
}

// A rejectLog decides when a line is due. Safe for concurrent use.
type rejectLog struct {
	mu   sync.Mutex
	last map[wire.Reason]time.Time
	n    map[wire.Reason]uint64
}

// count is how many a line now stands for; 0: no line.
func (r *rejectLog) count(now time.Time, reason wire.Reason) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == nil {
		r.last, r.n = map[wire.Reason]time.Time{}, map[wire.Reason]uint64{}
	}
	r.n[reason]++
	if last, ok := r.last[reason]; ok && now.Sub(last) < time.Second {
		return 0
	}
	n := r.n[reason]
	r.last[reason], r.n[reason] = now, 0
	return n
}

// A budget bounds what wildcard sockets cost: per source and in all. A source
// is a link, since only bound addresses come so far; so the map is bounded by
// the member table. Guarded by UDP.seal.
type budget struct {
	total  bucket
	source map[linkID]*bucket
}

func (b *budget) take(now time.Time, source linkID) bool {
	if b.source == nil {
		b.source = map[linkID]*bucket{}
	}
	s := b.source[source]
	if s == nil {
		s = new(bucket)
		b.source[source] = s
	}
	// The source's first: a flood from one must not use up what all share.
	return s.take(now, sourceRate) && b.total.take(now, totalRate)
}

// A bucket fills at a rate and holds one second's worth. The zero value is full.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) take(now time.Time, rate float64) bool {
	if b.at.IsZero() {
		b.tokens = rate
	} else {
		b.tokens = min(rate, b.tokens+rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

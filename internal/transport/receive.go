package transport

import (
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

// batchesMost is how many batches one turn takes from one socket: all that may
// have come in while the process was stopped, since nobody is to be judged over
// unread mail, but only a part of a flood, since other sockets have their turn.
const batchesMost = 16

// Wait hands what has arrived to Deliver, and what was missed to Dropped, on the
// caller's goroutine. It returns when something did arrive, at the time (zero:
// there is none) or after Wake, whatever comes first. What arrives in between
// two calls waits in the kernel, which notes when it came. The error wraps
// [net.ErrClosed] and comes after Close. Not safe for concurrent use.
func (u *UDP) Wait(until time.Time) error {
	u.waiting.Lock()
	defer u.waiting.Unlock()
	ready, err := u.poller.wait(until)
	if err != nil {
		return &belfry.Error{Op: "udp.wait", Err: err}
	}
	for _, r := range ready {
		s := u.socketOf(int(r.Fd))
		for batches := 0; s != nil && batches < batchesMost && u.read(s); batches++ {
		}
	}
	return nil
}

// Wake ends a Wait, the present one or the next. Safe for concurrent use.
func (u *UDP) Wake() { u.poller.ring() }

func (u *UDP) socketOf(fd int) *socket {
	u.fds.Lock()
	defer u.fds.Unlock()
	return u.sockets[fd]
}

// read takes one batch from a socket, opening on this goroutine: nothing
// unauthenticated is handed on or kept. It tells whether there may be more.
func (u *UDP) read(s *socket) (more bool) {
	before := thisMoment()
	u.seal.Lock()
	fd, n, errno := s.fd, 0, syscall.EAGAIN
	if fd >= 0 {
		n, errno = u.batch.receive(uintptr(fd))
	}
	said, icmp := saidByICMP(errno)
	icmp = icmp && s.connected
	if errno != 0 && errno != syscall.EAGAIN && !icmp {
		// An error that ICMP brought is cleared by being told; another is not. Under
		// the lock, since the number may be another socket's later.
		if s.failures++; s.failures == maxFailures {
			u.poller.remove(fd)
			u.aside(func() { u.log.Error("socket is given up: only errors", "local", s.local, "err", errno) })
		}
	}
	u.seal.Unlock()
	switch {
	case errno == syscall.EAGAIN:
		s.emptied, s.failures = before, 0
		return false
	case icmp:
		u.note(s.link, said)
		return true // what was said is cleared; there may be datagrams
	case errno != 0:
		return false
	}
	s.failures = 0
	now := thisMoment()
	var last datagram
	for i := range n {
		last = u.batch.at(i)
		u.receive(s, last, arrival(now, s.emptied, last.stamp))
	}
	if lost := last.overflow - s.overflow; lost != 0 {
		s.overflow = last.overflow
		u.overflowed(s, lost)
	}
	if n < batchSize {
		s.emptied = before
	}
	return n == batchSize
}

// saidByICMP tells whether an error of a connected socket is what ICMP said of
// a datagram that was sent (icmp(7), RFC 1122 4.1.3.3, RFC 4443 3), and what it
// comes to: the peer's kernel has no socket, or there is no way to it. Linux
// hands on what is final: a port that is closed, a filter that refuses. The
// third, a datagram too large for a network on the way, is no fault of the link.
func saidByICMP(errno syscall.Errno) (said syscall.Errno, ok bool) {
	switch errno {
	case syscall.ECONNREFUSED, syscall.EMSGSIZE:
		return errno, true
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EACCES, syscall.ENOPROTOOPT, syscall.EPROTO:
		return syscall.EHOSTUNREACH, true
	}
	return 0, false
}

// A moment is one point in time on both clocks.
type moment struct {
	at   time.Time // carries a monotonic reading; only its differences count
	wall time.Time // what the wall clock showed
}

func thisMoment() moment {
	now := time.Now()
	return moment{at: now, wall: now.Round(0)} // Round strips the monotonic reading
}

// stepLeast is the least difference between the clocks that is taken for a step
// of the wall clock. It may also be slewed, by less than an eighth (adjtimex(2);
// chronyd's limit is a twelfth).
const stepLeast = 10 * time.Millisecond

// arrival turns the kernel's wall clock timestamp into a time with a monotonic
// reading. The datagram came between the moment when the socket was last seen
// empty and now. A step of the wall clock in between is seen from these two: as
// read at either of them the stamp gives two times, of which the later one that
// is not after now is right, unless the datagram waited longer than the step.
func arrival(now, emptied moment, stamp time.Time) time.Time {
	if stamp.IsZero() {
		return now.at
	}
	at := now.at.Add(stamp.Sub(now.wall))
	between := now.at.Sub(emptied.at)
	if step := now.wall.Sub(emptied.wall) - between; step.Abs() > stepLeast+between/8 {
		before := emptied.at.Add(stamp.Sub(emptied.wall)) // stamped before the step
		if at.After(now.at) || before.After(at) && !before.After(now.at) {
			at = before
		}
	}
	switch {
	case at.After(now.at):
		return now.at
	case at.Before(emptied.at):
		return emptied.at
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
		if reason == wire.RejectDuplicate && u.cfg.Duplicate != nil && u.twins.count(time.Now(), opened.From) > 0 {
			u.aside(func() { u.cfg.Duplicate(opened.From) })
		}
		return
	}
	u.cfg.Deliver(Received{
		From: opened.From, Incarnation: opened.Incarnation, Boot: opened.Boot,
		Link: on, At: at, Proven: opened.Proven, Body: opened.Body,
	})
}

func (u *UDP) open(s *socket, d datagram) (opened wire.Opened, on uint8, reason wire.Reason) {
	table, local := u.table.Load(), s.local
	if d.to.IsValid() {
		local = netip.AddrPortFrom(d.to, local.Port())
	}
	u.seal.Lock()
	defer u.seal.Unlock()
	now := time.Now() // under the lock, so that it does not fall from call to call
	opened, reason = u.cfg.Endpoint.Open(now, d.data, func(from belfry.NodeID) wire.Reason {
		l := table.bound[linkKey{from, local, d.from}]
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

// reject counts, and logs one line per second and reason.
func (u *UDP) reject(from netip.AddrPort, node belfry.NodeID, reason wire.Reason) {
	u.stats.rejected[reason].Add(1)
	n := u.warned.count(time.Now(), reason)
	if n == 0 {
		return
	}
	u.aside(func() {
		if reason == wire.RejectDuplicate {
			u.log.Warn("two agents run as one node; stop the older one, its state was copied", "peer", node, "source", from, "suppressed", n-1)
			return
		}
		u.log.Warn("datagram rejected", "reason", reason.String(), "source", from, "suppressed", n-1)
	})
}

// A tally lets one of a kind through each second. Its zero value is ready. Safe
// for concurrent use.
type tally[K comparable] struct {
	mu   sync.Mutex
	last map[K]time.Time
	n    map[K]uint64
}

// count is how many the one that is let through stands for; 0: it is not.
func (y *tally[K]) count(now time.Time, kind K) uint64 {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.n == nil {
		y.last, y.n = map[K]time.Time{}, map[K]uint64{}
	}
	y.n[kind]++
	if last, ok := y.last[kind]; ok && now.Sub(last) < time.Second {
		return 0
	}
	n := y.n[kind]
	y.last[kind], y.n[kind] = now, 0
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

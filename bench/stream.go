package main

import (
	"net"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/belfry-ha/belfry/internal/sim"
)

// What TCP does about what is lost (RFC 6298, tcp(7)): a connection that is
// not answered is asked for again after a second, then after twice as long, and
// so on; a segment after 200 ms, the least that Linux waits. stuckPoll is how
// often what is on its way over a cut connection is tried.
const (
	firstRetry  = time.Second
	retransmit  = 200 * time.Millisecond
	retransmits = 6 // of a segment; then it is as good as stuck
	stuckPoll   = 200 * time.Millisecond
)

// A stream is a connection on its way: two pipes, and a goroutine for each
// direction that carries what is written from one to the other. Its segments
// meet the fate of datagrams, and what is lost comes later.
type stream struct {
	from, to *endpoint // who dialled, and whom
	near     net.Conn  // the network's ends
	far      net.Conn
}

func (s *stream) close() {
	_ = s.near.Close()
	_ = s.far.Close()
}

// DialTimeout opens a stream.
func (e *endpoint) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return e.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout is DialTimeout; names are not needed.
func (e *endpoint) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	e.thaw()
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(e.addr), Err: err}
	}
	to := e.net.byAddr[a.Addr]
	if to == nil {
		return fail(syscall.EHOSTUNREACH)
	}
	deadline := time.Now().Add(timeout)
	for wait := firstRetry; ; wait *= 2 {
		delay, answers := e.net.reach(e, to)
		if !answers {
			if !e.net.sleep(min(wait, time.Until(deadline))) || !time.Now().Before(deadline) {
				return fail(syscall.ETIMEDOUT)
			}
			continue
		}
		if !e.net.sleep(delay) {
			return fail(syscall.ETIMEDOUT)
		}
		conn, ok := e.net.connect(e, to)
		if !ok {
			return fail(syscall.ECONNREFUSED)
		}
		return conn, nil
	}
}

// reach is the round trip between two nodes, and whether the other's kernel
// answers this time.
func (n *network) reach(from, to *endpoint) (roundTrip time.Duration, answers bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	there, back := n.hop(from, to), n.hop(to, from)
	kernel := to.gone != hostGone && (to.pause.over() || !to.pause.silent || to.pause.kernel)
	return there.Delay + back.Delay, !there.Lost && !back.Lost && kernel && from.gone == present
}

// hop is the fate of a segment now. n.mu is held.
func (n *network) hop(from, to *endpoint) sim.Fate {
	if n.begin.IsZero() {
		return sim.Fate{Delay: n.delay}
	}
	n.segment++
	return n.fate.Fate(from.index, to.index, onlyNetwork, time.Since(n.begin), firstSegment+n.segment)
}

// connect opens the stream once the dialler has its answer. Opening and
// closing count five segments without content: three from the dialler.
func (n *network) connect(from, to *endpoint) (net.Conn, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if to.gone == processGone || n.closed() {
		from.sent.add(1, segmentOverhead)
		to.sent.add(1, segmentOverhead)
		return nil, false
	}
	from.sent.add(3, 3*segmentOverhead)
	to.sent.add(2, 2*segmentOverhead)
	near, mine := net.Pipe()
	far, theirs := net.Pipe()
	s := &stream{from: from, to: to, near: near, far: far}
	n.streams[s] = struct{}{}
	go func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.carry(to, from, far, near)
		}()
		n.carry(from, to, near, far)
		<-done
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.streams, s)
	}()
	if to.pause.over() {
		to.accept(theirs)
	} else {
		to.waiting = append(to.waiting, theirs)
	}
	return mine, true
}

// carry copies one direction until its writer closes it.
func (n *network) carry(from, to *endpoint, in, out net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		size, err := in.Read(buf)
		if err != nil {
			if n.pass(from, to, 0) {
				_ = out.Close()
			}
			return
		}
		if !n.pass(from, to, size) {
			return
		}
		if _, err := out.Write(buf[:size]); err != nil {
			_ = in.Close()
			return
		}
	}
}

// pass waits while so many bytes are on their way; false when the run is over.
// No bytes are the end of the stream, which connect has counted.
func (n *network) pass(from, to *endpoint, size int) bool {
	if size > 0 {
		n.mu.Lock()
		segments := (size + segmentSize - 1) / segmentSize
		from.sent.add(segments, size+segments*segmentOverhead)
		n.mu.Unlock()
	}
	for {
		n.mu.Lock()
		delay, open := n.journey(from, to, size)
		n.mu.Unlock()
		if open {
			return n.sleep(delay)
		}
		if !n.sleep(stuckPoll) {
			return false
		}
	}
}

// journey is how long it takes until the last segment is there, with those
// that have to be sent again; not open: for now none gets through. n.mu is
// held.
func (n *network) journey(from, to *endpoint, size int) (longest time.Duration, open bool) {
	if from.gone == hostGone || to.gone == hostGone || !from.pause.over() || !to.pause.over() {
		return 0, false
	}
	if !n.begin.IsZero() && n.fate.Cut(from.index, to.index, onlyNetwork, time.Since(n.begin)) {
		return 0, false
	}
	for left := size; left > 0 || left == size; left -= segmentSize { // once at least
		f := n.hop(from, to)
		late, wait := f.Delay, retransmit
		for range retransmits {
			if !f.Lost {
				break
			}
			late, wait = late+wait, 2*wait
			from.sent.add(1, min(left, segmentSize)+segmentOverhead)
			f = n.hop(from, to)
		}
		longest = max(longest, late)
	}
	return longest, true
}

package main

import (
	"net"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// firstRetry is when a connection that is not answered is asked for again;
// then after twice as long, and so on (tcp(7), tcp_syn_retries). stuckPoll is
// how often what is on its way over a cut connection is tried.
const (
	firstRetry = time.Second
	stuckPoll  = 200 * time.Millisecond
)

// A stream is a connection on its way: two pipes, and a goroutine for each
// direction that carries what is written from one to the other. It is delayed
// and cut as datagrams are, and never loses anything.
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
// answers at all.
func (n *network) reach(from, to *endpoint) (roundTrip time.Duration, answers bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	there, open := n.hop(from, to)
	back, opened := n.hop(to, from)
	kernel := to.gone != hostGone && (to.pause.over() || !to.pause.silent || to.pause.kernel)
	return there + back, open && opened && kernel && from.gone == present
}

// hop is the delay of a segment now, and whether the way is open. n.mu is held.
func (n *network) hop(from, to *endpoint) (time.Duration, bool) {
	if n.begin.IsZero() {
		return n.delay, true
	}
	n.segment++
	at := time.Since(n.begin)
	return n.fate.Fate(from.index, to.index, onlyNetwork, at, firstSegment+n.segment).Delay, !n.fate.Cut(from.index, to.index, onlyNetwork, at)
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
		if err == nil {
			n.mu.Lock()
			segments := (size + segmentSize - 1) / segmentSize
			from.sent.add(segments, size+segments*segmentOverhead)
			n.mu.Unlock()
		}
		if !n.pass(from, to) {
			return
		}
		if err != nil {
			_ = out.Close()
			return
		}
		if _, err := out.Write(buf[:size]); err != nil {
			_ = in.Close()
			return
		}
	}
}

// pass waits while a segment is on its way; false when the run is over.
func (n *network) pass(from, to *endpoint) bool {
	for {
		n.mu.Lock()
		delay, open := n.hop(from, to)
		open = open && from.gone != hostGone && to.gone != hostGone && from.pause.over() && to.pause.over()
		n.mu.Unlock()
		if open {
			return n.sleep(delay)
		}
		if !n.sleep(stuckPoll) {
			return false
		}
	}
}

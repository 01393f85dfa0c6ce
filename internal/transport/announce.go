package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/belfry-ha/belfry/internal/wire"
)

// announceRate bounds the datagrams that are looked at in a second by a machine
// that waits to be told where its cluster is (security.md, Joining).
const announceRate = 200

// SendDatagram sends one datagram from an address of this machine, and takes no
// answer.
func SendDatagram(ctx context.Context, from netip.Addr, to netip.AddrPort, datagram []byte) error {
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: from.AsSlice()}}
	conn, err := dialer.DialContext(ctx, "udp", to.String())
	if err != nil {
		return fmt.Errorf("announce to %s: %w", to, err)
	}
	_, err = conn.Write(datagram)
	return errors.Join(err, conn.Close())
}

// AwaitDatagram listens on UDP at all of the addresses until accept takes a
// datagram, or ctx ends. Nothing is ever answered. accept is not called
// concurrently, and must not keep the datagram.
func AwaitDatagram(ctx context.Context, addrs []netip.AddrPort, accept func(from netip.Addr, datagram []byte) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &waiter{accept: accept, accepted: cancel}
	var group sync.WaitGroup
	for _, addr := range addrs {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		if err != nil {
			cancel()
			group.Wait()
			return fmt.Errorf("wait at %s: %w", addr, err)
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
		group.Go(func() {
			defer conn.Close()
			defer stop()
			w.read(ctx, conn)
		})
	}
	group.Wait()
	if w.done {
		return nil
	}
	return context.Cause(ctx)
}

// A waiter hands the datagrams of several sockets to one judge.
type waiter struct {
	mu       sync.Mutex
	accept   func(from netip.Addr, datagram []byte) bool
	accepted context.CancelFunc
	second   time.Time // begin of the one that is counted
	looked   int
	done     bool
}

func (w *waiter) read(ctx context.Context, conn *net.UDPConn) {
	buffer := make([]byte, wire.MaxReceive)
	for ctx.Err() == nil {
		size, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			continue // ctx has ended, or ICMP tells of a datagram that nobody here sent
		}
		w.judge(from.Addr().Unmap(), buffer[:size])
	}
}

func (w *waiter) judge(from netip.Addr, datagram []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Sub(w.second) >= time.Second {
		w.second, w.looked = now, 0
	}
	if w.looked++; !w.done && w.looked <= announceRate && w.accept(from, datagram) {
		w.done = true
		w.accepted()
	}
}

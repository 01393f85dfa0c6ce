// Package netlink reads what the kernel tells by netlink(7): messages about
// network interfaces and their addresses (rtnetlink(7)), asked for or
// multicast, and whatever else is multicast to a group. Producers share it; it
// keeps nothing of what it reads.
package netlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// receiveBuffer is how much the kernel keeps for a Listener that is busy. What
// it allows to those without CAP_NET_ADMIN may be less (socket(7), rmem_max).
const receiveBuffer = 1 << 20

// longest is more than the kernel puts into one datagram (netlink(7): 32 KiB,
// but for the interface of a card with many virtual functions).
const longest = 256 << 10

// A Listener gets what the kernel multicasts to some groups. Wait and Close are
// safe beside one goroutine that calls Receive.
type Listener struct {
	conn   *netlink.Conn
	raw    syscall.RawConn
	buffer []byte
}

// Listen hears groups of a family (unix.NETLINK_*), a bit each, in the network
// namespace of the calling thread. Nothing that happens after it returned is
// missed.
func Listen(family int, groups uint32) (*Listener, error) {
	conn, err := netlink.Dial(family, &netlink.Config{Groups: groups})
	if err != nil {
		return nil, err
	}
	l := &Listener{conn: conn, buffer: make([]byte, longest)}
	if l.raw, err = conn.SyscallConn(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetReadBuffer(receiveBuffer) // else there are overruns sooner, which are told
	return l, nil
}

// Wait returns nil when Receive has something, and an error after Close.
func (l *Listener) Wait() error {
	var failed error
	err := l.raw.Read(func(fd uintptr) bool {
		// An error of the socket counts as something, too, and poll(2) leaves it there.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			failed = os.NewSyscallError("poll", err)
		}
		return n > 0 || failed != nil
	})
	return errors.Join(failed, err)
}

// Signal sends to ready each time that Receive has something, and goes on when
// what it sent is closed. It ends with ctx, or with an error to failed, as after
// Close.
func (l *Listener) Signal(ctx context.Context, ready chan<- chan<- struct{}, failed chan<- error) {
	for {
		if err := l.Wait(); err != nil {
			failed <- err
			return
		}
		done := make(chan struct{})
		select {
		case ready <- done:
		case <-ctx.Done():
			return
		}
		<-done
	}
}

// Receive is the next datagram of the kernel's, valid until the next call, or
// nil when there is none by now; it never waits. The error wraps ENOBUFS when
// some were lost for want of room since the last call.
func (l *Listener) Receive() (datagram []byte, err error) {
	controlErr := l.raw.Control(func(fd uintptr) { datagram, err = receive(int(fd), l.buffer) })
	if controlErr != nil {
		return nil, controlErr
	}
	return datagram, err
}

func receive(fd int, buffer []byte) ([]byte, error) {
	for {
		n, _, flags, from, err := unix.Recvmsg(fd, buffer, nil, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, os.NewSyscallError("recvmsg", err)
		case flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("a datagram of more than %d bytes: %w", len(buffer), unix.ENOBUFS)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 { // the kernel; anybody else may be lying
			return buffer[:n], nil
		}
	}
}

// Messages takes a datagram of rtnetlink(7) apart. The data of a message is
// valid as long as the datagram's.
func Messages(datagram []byte) ([]syscall.NetlinkMessage, error) {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return nil, fmt.Errorf("a datagram of %d bytes that holds no messages: %w", len(datagram), err)
	}
	return messages, nil
}

// Close ends Wait.
func (l *Listener) Close() error { return l.conn.Close() }

package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is SO_RCVBUF in bytes (security.md, Datagrams under attack).
	receiveBuffer = 8 << 20
	// classSelector6 is DSCP CS6, network control (RFC 4594 3.1), in the place
	// that it has in the traffic class octet.
	classSelector6 = 48 << 2
)

// A socket is one UDP socket. It is no connection of package net, since the
// runtime must not poll it (see [poller]). Not safe for concurrent use.
type socket struct {
	fd        int            // -1: closed
	local     netip.AddrPort // as bound
	connected bool
	link      linkID  // connected: what it is for
	key       linkKey // connected

	absent bool // wildcard: this machine has not got its address; guarded by UDP.mu

	emptied  moment // when it was last seen empty, see arrival
	overflow uint32 // datagrams that its buffer has dropped, as told last
	failures int    // errors in a row
}

func (s *socket) close() error {
	fd := s.fd
	s.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// listenWildcard opens the socket that takes datagrams from anybody. It binds
// without SO_REUSEPORT and sets it afterwards: so a second agent on the same
// address is refused by the kernel in one step, and connected sockets can
// still be bound beside it (socket(7), SO_REUSEPORT: the kernel looks at the
// option of both sockets when the second one binds).
func listenWildcard(local netip.AddrPort) (*socket, error) {
	return open(local, func(fd int) error {
		return os.NewSyscallError("bind", unix.Bind(fd, sockaddr(local)))
	})
}

// connectLink opens a socket for the datagrams of one remote address. The
// kernel prefers it to the wildcard socket for that address.
func connectLink(local, remote netip.AddrPort) (*socket, error) {
	s, err := open(local, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		if err := unix.Bind(fd, sockaddr(local)); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("connect", unix.Connect(fd, sockaddr(remote)))
	})
	if err == nil {
		s.connected = true
	}
	return s, err
}

// open makes a socket of the family of an address, binds it and sets its
// options.
func open(local netip.AddrPort, bind func(fd int) error) (*socket, error) {
	family := unix.AF_INET6
	if local.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd, emptied: thisMoment()}
	if family == unix.AF_INET6 {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	}
	if err == nil {
		err = freeBind(fd, local.Addr())
	}
	if err == nil {
		err = bind(fd)
	}
	if err == nil {
		s.local, err = boundTo(fd)
	}
	if err == nil {
		err = s.options(fd)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// boundTo is the local address of a socket, with the port that it was given.
func boundTo(fd int) (netip.AddrPort, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)), nil
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(name.Addr)
		if name.ZoneId != 0 {
			addr = addr.WithZone(zone(name.ZoneId))
		}
		return netip.AddrPortFrom(addr, uint16(name.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("getsockname: %w: address of another family", syscall.EAFNOSUPPORT)
}

func (s *socket) options(fd int) error {
	// Without CAP_NET_ADMIN the buffer is what net.core.rmem_max allows.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	set := func(level, option, value int) error { return unix.SetsockoptInt(fd, level, option, value) }
	errs := []error{
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		set(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		set(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1),
	}
	if s.local.Addr().IsUnspecified() { // else the destination is known
		if s.local.Addr().Is4() {
			errs = append(errs, set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
		} else {
			errs = append(errs, set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
		}
	}
	// No fragments: what is larger than the path is lost, not cut. DSCP is a wish.
	if s.local.Addr().Is4() {
		errs = append(errs, set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE))
		_ = set(unix.IPPROTO_IP, unix.IP_TOS, classSelector6)
	} else {
		errs = append(errs, set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE))
		_ = set(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, classSelector6)
	}
	return errors.Join(errs...)
}

// send never waits: EAGAIN and ENOBUFS come back to the caller. pin is the
// ancillary data that pinTo makes, or nothing.
func (s *socket) send(datagram []byte, to netip.AddrPort, pin []byte) error {
	if s.fd < 0 {
		return net.ErrClosed
	}
	if s.connected {
		return sendConnected(uintptr(s.fd), datagram, pin)
	}
	_, err := unix.SendmsgN(s.fd, datagram, pin, sockaddr(to), unix.MSG_DONTWAIT)
	return err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	to := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		if ifi, err := net.InterfaceByName(zone); err == nil {
			to.ZoneId = uint32(ifi.Index)
		}
	}
	return to
}

func control(c syscall.RawConn, f func(fd int) error) (err error) {
	controlErr := c.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(controlErr, err)
}

// sendConnected sends on a connected socket without waiting. A raw system call
// does not tell the scheduler, which would wake its monitor thread for it: at a
// few datagrams a second that is most of what an agent costs.
func sendConnected(fd uintptr, datagram, pin []byte) error {
	vector := unix.Iovec{Base: unsafe.SliceData(datagram)}
	vector.SetLen(len(datagram))
	header := unix.Msghdr{Iov: &vector}
	header.SetIovlen(1)
	if len(pin) > 0 {
		header.Control = unsafe.SliceData(pin)
		header.SetControllen(len(pin))
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&header)), unix.MSG_DONTWAIT)
	if errno != 0 {
		return errno
	}
	return nil
}

package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
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

// A socket is one UDP socket. Its methods are safe for concurrent use.
type socket struct {
	conn      *net.UDPConn
	raw       syscall.RawConn
	local     netip.AddrPort // as bound
	connected bool
	link      linkID  // connected: what it is for
	key       linkKey // connected
}

func (s *socket) close() error { return s.conn.Close() }

// listenWildcard opens the socket that takes datagrams from anybody. It binds
// without SO_REUSEPORT and sets it afterwards: so a second agent on the same
// address is refused by the kernel in one step, and connected sockets can
// still be bound beside it (socket(7), SO_REUSEPORT: the kernel looks at the
// option of both sockets when the second one binds).
func listenWildcard(local netip.AddrPort) (*socket, error) {
	var config net.ListenConfig
	conn, err := config.ListenPacket(context.Background(), network(local), local.String())
	if err != nil {
		return nil, err
	}
	return newSocket(conn.(*net.UDPConn), false)
}

// connectLink opens a socket for the datagrams of one remote address. The
// kernel prefers it to the wildcard socket for that address.
func connectLink(local, remote netip.AddrPort) (*socket, error) {
	dialer := net.Dialer{
		LocalAddr: net.UDPAddrFromAddrPort(local),
		Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		},
	}
	conn, err := dialer.Dial(network(local), remote.String())
	if err != nil {
		return nil, err
	}
	return newSocket(conn.(*net.UDPConn), true)
}

func network(a netip.AddrPort) string {
	if a.Addr().Is4() {
		return "udp4"
	}
	return "udp6"
}

func newSocket(conn *net.UDPConn, connected bool) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err == nil {
		s := &socket{
			conn: conn, raw: raw, connected: connected,
			local: unmap(conn.LocalAddr().(*net.UDPAddr).AddrPort()),
		}
		if err = control(raw, s.options); err == nil {
			return s, nil
		}
	}
	return nil, errors.Join(err, conn.Close())
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
func (s *socket) send(datagram []byte, to netip.AddrPort, pin []byte) (err error) {
	writeErr := s.raw.Write(func(fd uintptr) bool {
		if s.connected {
			err = sendConnected(fd, datagram, pin)
		} else {
			_, err = unix.SendmsgN(int(fd), datagram, pin, sockaddr(to), unix.MSG_DONTWAIT)
		}
		return true
	})
	return errors.Join(writeErr, err)
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

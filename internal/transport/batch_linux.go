package transport

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/wire"
)

const (
	// batchSize is how many datagrams one system call may bring
	// (security.md, Datagrams under attack).
	batchSize = 64
	// bufferSize has one byte more than is looked at, so that a datagram that is
	// too large can be told from one that just fits.
	bufferSize = wire.MaxReceive + 1
	// controlSize holds a timestamp, an overflow count and a destination with
	// their headers.
	controlSize = 128
)

// A datagram is one element of a batch, valid until the next read.
type datagram struct {
	data     []byte
	from     netip.AddrPort
	to       netip.Addr // on sockets bound to all addresses, else invalid
	stamp    time.Time  // of the kernel, wall clock; zero: none
	overflow uint32     // datagrams that this socket's buffer has dropped since it was opened
}

// A batch reads up to 64 datagrams with one recvmmsg(2). Its memory is made
// once. Not safe for concurrent use; it must not be copied, since its headers
// point into it.
type batch struct {
	headers  [batchSize]mmsghdr
	vectors  [batchSize]unix.Iovec
	names    [batchSize]unix.RawSockaddrAny
	controls [batchSize][controlSize]byte
	buffers  [batchSize][bufferSize]byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

func newBatch() *batch {
	b := new(batch)
	for i := range b.headers {
		b.vectors[i].Base = &b.buffers[i][0]
		b.vectors[i].SetLen(bufferSize)
		h := &b.headers[i].header
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Control = &b.controls[i][0]
	}
	return b
}

// receive does not wait. errno is EAGAIN when there is nothing.
func (b *batch) receive(fd uintptr) (n int, errno syscall.Errno) {
	for i := range b.headers { // the kernel has overwritten the sizes
		h := &b.headers[i].header
		h.Namelen = unix.SizeofSockaddrAny
		h.SetControllen(controlSize)
		h.Flags = 0
	}
	for {
		r, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(r), 0
	}
}

// at is the i-th datagram of the last receive.
func (b *batch) at(i int) datagram {
	h := &b.headers[i]
	d := datagram{data: b.buffers[i][:h.length], from: addrOf(&b.names[i])}
	d.readControl(b.controls[i][:min(int(h.header.Controllen), controlSize)])
	return d
}

// readControl takes the timestamp (struct timespec), the overflow counter and
// the destination from the ancillary data: cmsg(3), socket(7), ip(7), ipv6(7).
func (d *datagram) readControl(data []byte) {
	for len(data) >= unix.CmsgSpace(0) {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&data[0]))
		if size := int(h.Len); size < unix.CmsgLen(0) || size > len(data) {
			return
		}
		body := data[unix.CmsgLen(0):h.Len]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(body) >= unix.SizeofInet4Pktinfo:
			d.to = netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&body[0])).Addr)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(body) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&body[0]))
			d.to = netip.AddrFrom16(info.Addr)
			if d.to.IsLinkLocalUnicast() {
				d.to = d.to.WithZone(zone(info.Ifindex))
			}
		case h.Level != unix.SOL_SOCKET:
		case h.Type == unix.SCM_TIMESTAMPNS && len(body) >= int(unsafe.Sizeof(unix.Timespec{})):
			ts := (*unix.Timespec)(unsafe.Pointer(&body[0]))
			d.stamp = time.Unix(ts.Unix())
		case h.Type == unix.SO_RXQ_OVFL && len(body) >= 4:
			d.overflow = binary.NativeEndian.Uint32(body)
		}
		next := min(unix.CmsgSpace(len(body)), len(data))
		data = data[next:]
	}
}

func addrOf(name *unix.RawSockaddrAny) netip.AddrPort {
	switch name.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(name))
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && addr.IsLinkLocalUnicast() {
			addr = addr.WithZone(zone(sa.Scope_id))
		}
		return netip.AddrPortFrom(addr, port(&sa.Port))
	}
	return netip.AddrPort{}
}

// port is in network byte order, whatever the machine's.
func port(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }

func zone(index uint32) string {
	if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
		return ifi.Name
	}
	return strconv.FormatUint(uint64(index), 10)
}

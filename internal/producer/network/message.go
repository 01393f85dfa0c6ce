package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// Only what is needed is taken from a message, so that a kernel which says more
// of an interface than today's is understood as well.

// loopback is the index of lo: it is made with its network namespace.
const loopback = 1

// An address is one that an interface has (struct ifaddrmsg, rtnetlink(7)).
type address struct {
	prefix netip.Prefix // the address itself, with the length of its network
	index  int          // of the interface
	flags  byte         // IFA_F_*
}

// holds tells whether it makes a the machine's own: lo's network is so as a
// whole (127.0.0.0/8).
func (a address) holds(addr netip.Addr) bool {
	addr = addr.WithZone("")
	return a.prefix.Addr() == addr || a.index == loopback && addr.Is4() && a.prefix.Contains(addr)
}

// usable tells whether the kernel sends from it.
func (a address) usable() bool { return a.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 }

// An iface is one interface (struct ifinfomsg, rtnetlink(7)).
type iface struct {
	index int
	name  string
	flags uint32 // IFF_*, netdevice(7)
	mtu   int
}

// indexOf is the interface that a message is about; 0 if it is too short. Both
// structs have it in one place.
func indexOf(data []byte) int {
	if len(data) < 8 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(data[4:])))
}

// parseAddress wraps ErrUsage if data is none.
func parseAddress(data []byte) (address, error) {
	if len(data) < unix.SizeofIfAddrmsg {
		return address{}, fmt.Errorf("%w: an address message of %d bytes; the least is %d", belfry.ErrUsage, len(data), unix.SizeofIfAddrmsg)
	}
	a := address{index: indexOf(data), flags: data[2]}
	bits := int(data[1])
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return address{}, fmt.Errorf("%w: address message: %w", belfry.ErrUsage, err)
	}
	var own, peer netip.Addr
	for attributes.Next() {
		switch attributes.Type() {
		case unix.IFA_LOCAL:
			own, _ = netip.AddrFromSlice(attributes.Bytes())
		case unix.IFA_ADDRESS: // of the other end, if there is one: then IFA_LOCAL stands too
			peer, _ = netip.AddrFromSlice(attributes.Bytes())
		}
	}
	if !own.IsValid() {
		own = peer
	}
	if a.prefix = netip.PrefixFrom(own, bits); attributes.Err() != nil || !a.prefix.IsValid() {
		return address{}, fmt.Errorf("%w: an address message with %v/%d (%v)", belfry.ErrUsage, own, bits, attributes.Err())
	}
	return a, nil
}

// parseInterface wraps ErrUsage if data is none.
func parseInterface(data []byte) (iface, error) {
	if len(data) < unix.SizeofIfInfomsg {
		return iface{}, fmt.Errorf("%w: an interface message of %d bytes; the least is %d", belfry.ErrUsage, len(data), unix.SizeofIfInfomsg)
	}
	i := iface{index: indexOf(data), flags: binary.NativeEndian.Uint32(data[8:])}
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return iface{}, fmt.Errorf("%w: interface message: %w", belfry.ErrUsage, err)
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.IFLA_IFNAME:
			i.name = attributes.String()
		case unix.IFLA_MTU:
			i.mtu = int(attributes.Uint32())
		}
	}
	if err := attributes.Err(); err != nil {
		return iface{}, fmt.Errorf("%w: interface message: %w", belfry.ErrUsage, err)
	}
	return i, nil
}

func (i iface) adminUp() bool { return i.flags&unix.IFF_UP != 0 }

// carrier is the lower layer's, and that of IEEE 802.1X: a port that is not yet
// let in has a cable but passes nothing (RFC 2863 3.1.12, dormant).
func (i iface) carrier() bool {
	const both = unix.IFF_LOWER_UP | unix.IFF_RUNNING
	return i.flags&both == both
}

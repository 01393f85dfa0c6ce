package netlink

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// Only what is needed is taken from a message, so that a kernel which says more
// of an interface than today's is understood as well.

// An Address is one that an interface has (struct ifaddrmsg, rtnetlink(7)).
type Address struct {
	Prefix netip.Prefix // the address itself, with the length of its network
	Peer   netip.Addr   // the other end, on a link of two; else invalid
	Index  int          // of the interface
	Flags  byte         // IFA_F_*
}

// Usable tells whether the kernel sends from it: not while it is checked for
// duplicates, nor when it was found to be one (RFC 4862 5.4).
func (a Address) Usable() bool { return a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 }

// An Interface is one network interface (struct ifinfomsg, rtnetlink(7)). Texts
// are empty where the kernel says nothing.
type Interface struct {
	// Family is AF_UNSPEC, or AF_BRIDGE in a message that is about the interface
	// as a port of a bridge: such a one that is deleted only leaves the bridge.
	Family byte

	Index     int
	Name      string
	Flags     uint32 // IFF_*, netdevice(7)
	State     byte   // its operational state, Oper* (RFC 2863 3.1.14)
	MTU       int    // bytes
	MAC       string // the hardware address it has now, "52:54:00:12:34:56"; empty for others than 6, 8 and 20 bytes, and for zeros
	Permanent string // the hardware address it was made with; virtual ones mostly have none
	Kind      string // of a virtual one: "veth", "bond"
	Bus       string // of the device behind it: "pci"; Linux 5.14
	Device    string // its name on that bus: "0000:00:03.0"
}

// The values of Interface.State (linux/if.h).
const (
	OperUnknown = iota // the driver does not say: it works when it has a carrier
	OperNotPresent
	OperDown
	OperLowerLayerDown
	OperTesting
	OperDormant
	OperUp
)

// AdminUp tells whether it is set up.
func (i Interface) AdminUp() bool { return i.Flags&unix.IFF_UP != 0 }

// Carrier is the lower layer's, and that of IEEE 802.1X: a port that is not yet
// let in has a cable but passes nothing (RFC 2863 3.1.12, dormant).
func (i Interface) Carrier() bool {
	const both = unix.IFF_LOWER_UP | unix.IFF_RUNNING
	return i.Flags&both == both
}

// Index is that of the interface that a message is about; 0 if it is too short.
// Both structs have it in one place.
func Index(data []byte) int {
	if len(data) < 8 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(data[4:])))
}

// ParseAddress reads the data of RTM_NEWADDR or RTM_DELADDR. It wraps ErrUsage
// if data is none.
func ParseAddress(data []byte) (Address, error) {
	if len(data) < unix.SizeofIfAddrmsg {
		return Address{}, fmt.Errorf("%w: an address message of %d bytes; the least is %d", belfry.ErrUsage, len(data), unix.SizeofIfAddrmsg)
	}
	a := Address{Index: Index(data), Flags: data[2]}
	bits := int(data[1])
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return Address{}, fmt.Errorf("%w: address message: %w", belfry.ErrUsage, err)
	}
	var own, other netip.Addr
	for attributes.Next() {
		switch attributes.Type() {
		case unix.IFA_LOCAL:
			own, _ = netip.AddrFromSlice(attributes.Bytes())
		case unix.IFA_ADDRESS: // of the other end, if there is one: then IFA_LOCAL stands too
			other, _ = netip.AddrFromSlice(attributes.Bytes())
		}
	}
	if !own.IsValid() {
		own = other
	}
	if own != other {
		a.Peer = other
	}
	if err := attributes.Err(); err != nil {
		return Address{}, fmt.Errorf("%w: an address message: %w", belfry.ErrUsage, err)
	}
	if a.Prefix = netip.PrefixFrom(own, bits); !a.Prefix.IsValid() {
		return Address{}, fmt.Errorf("%w: an address message with %v/%d", belfry.ErrUsage, own, bits)
	}
	return a, nil
}

// ParseInterface reads the data of RTM_NEWLINK or RTM_DELLINK. It wraps
// ErrUsage if data is none.
func ParseInterface(data []byte) (Interface, error) {
	if len(data) < unix.SizeofIfInfomsg {
		return Interface{}, fmt.Errorf("%w: an interface message of %d bytes; the least is %d", belfry.ErrUsage, len(data), unix.SizeofIfInfomsg)
	}
	i := Interface{Family: data[0], Index: Index(data), Flags: binary.NativeEndian.Uint32(data[8:])}
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return Interface{}, fmt.Errorf("%w: interface message: %w", belfry.ErrUsage, err)
	}
	for attributes.Next() {
		i.take(attributes)
	}
	if err := attributes.Err(); err != nil {
		return Interface{}, fmt.Errorf("%w: interface message: %w", belfry.ErrUsage, err)
	}
	return i, nil
}

func (i *Interface) take(attributes *netlink.AttributeDecoder) {
	switch attributes.Type() {
	case unix.IFLA_IFNAME:
		i.Name = attributes.String()
	case unix.IFLA_MTU:
		i.MTU = int(attributes.Uint32())
	case unix.IFLA_OPERSTATE:
		i.State = attributes.Uint8()
	case unix.IFLA_ADDRESS:
		i.MAC = mac(attributes.Bytes())
	case unix.IFLA_PERM_ADDRESS:
		i.Permanent = mac(attributes.Bytes())
	case unix.IFLA_PARENT_DEV_BUS_NAME:
		i.Bus = attributes.String()
	case unix.IFLA_PARENT_DEV_NAME:
		i.Device = attributes.String()
	case unix.IFLA_LINKINFO:
		attributes.Nested(func(info *netlink.AttributeDecoder) error {
			for info.Next() {
				if info.Type() == unix.IFLA_INFO_KIND {
					i.Kind = info.String()
				}
			}
			return info.Err()
		})
	}
}

// mac is the text of a hardware address. Those of tunnels are no such thing:
// they have four bytes, an address of IPv4, or sixteen.
func mac(b []byte) string {
	for _, octet := range b {
		if octet != 0 && (len(b) == 6 || len(b) == 8 || len(b) == 20) {
			return net.HardwareAddr(b).String()
		}
	}
	return ""
}

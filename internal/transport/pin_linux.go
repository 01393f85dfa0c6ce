package transport

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// An ownAddress is one address of this machine.
type ownAddress struct {
	prefix netip.Prefix // the address itself, with the length of its network
	index  int          // of its interface
}

// ownAddresses are those of all interfaces. What can not be read is left out:
// then the routing table decides alone.
func ownAddresses() (own []ownAddress) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				own = append(own, ownAddress{netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()), i.Index})
			}
		}
	}
	return own
}

// interfaceTo is the index of the interface by which datagrams of a link must
// leave: that of the local address, if the remote one is on its network. 0 where
// the routing table decides, since there is a router in between (the local
// address may then be on any interface, also on none that leads anywhere), or
// nothing leaves the machine, or the zone of the address says it already.
func interfaceTo(own []ownAddress, local, remote netip.Addr) (index int) {
	if local.Zone() != "" {
		return 0
	}
	for _, a := range own {
		if a.prefix.Addr() == remote {
			return 0
		}
		if a.prefix.Addr() == local && a.prefix.Contains(remote) {
			index = a.index
		}
	}
	return index
}

// pinTo is the ancillary data that names interface and source address of a
// datagram (IP_PKTINFO, ip(7); IPV6_PKTINFO, RFC 3542 6). Without it two
// networks with one prefix, or a route that is gone, would let the datagrams of
// one link leave by the interface of another, and both links would look alike.
func pinTo(index int, local netip.Addr) []byte {
	if local.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(index), Spec_dst: local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: uint32(index), Addr: local.As16()})
}

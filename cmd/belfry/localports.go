package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/agent"
)

// localAddresses gives node i the addresses 127.0.11.(i+1) on net1 and
// 127.0.12.(i+1) on net2, so that one of the two can be cut, and three ports.
func localAddresses(name, state string, i, base int) agent.LocalNode {
	port := uint16(base + i*portBlock)
	n := agent.LocalNode{Name: name, State: state, Web: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port+2)}
	for k := range byte(2) {
		addr := netip.AddrFrom4([4]byte{127, 0, 11 + k, byte(i + 1)})
		n.Networks = append(n.Networks, agent.Network{Name: fmt.Sprintf("net%d", k+1), Heartbeat: netip.AddrPortFrom(addr, port), Bits: 24})
	}
	n.Streams = netip.AddrPortFrom(n.Networks[0].Heartbeat.Addr(), port+1)
	return n
}

// findPorts takes the first free block of ports, and keeps other clusters of
// this machine from taking it meanwhile.
func (c *localCluster) findPorts(count int) (int, error) {
	for i := range blocks {
		base := firstPort + i*portBlock
		locks, err := reservePorts(base, count)
		if err != nil {
			continue
		}
		if c.allFree(count, base) {
			c.ports = locks
			return base, nil
		}
		closeAll(locks)
	}
	return 0, fmt.Errorf("%w: no free block of ports from %d on; stop another belfry up", belfry.ErrLimit, firstPort)
}

// reservePorts holds count blocks while the listeners are open, so that two
// clusters that start at one time do not choose the same: an abstract socket
// leaves nothing behind, whatever ends the process (unix(7)).
func reservePorts(base, count int) (locks []net.Listener, err error) {
	for i := range count {
		lock, err := net.Listen("unix", fmt.Sprintf("@belfry-up-%d", base+i*portBlock))
		if err != nil {
			closeAll(locks)
			return nil, err
		}
		locks = append(locks, lock)
	}
	return locks, nil
}

func closeAll(locks []net.Listener) {
	for _, lock := range locks {
		lock.Close()
	}
}

func (c *localCluster) allFree(count, base int) bool {
	for i := range count {
		n := localAddresses("", "", i, base)
		streams := []netip.AddrPort{n.Web}
		for _, network := range n.Networks {
			udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(network.Heartbeat))
			if err != nil {
				return false
			}
			udp.Close()
			streams = append(streams, netip.AddrPortFrom(network.Heartbeat.Addr(), n.Streams.Port()))
		}
		for _, a := range streams {
			tcp, err := net.Listen("tcp", a.String())
			if err != nil {
				return false
			}
			tcp.Close()
		}
	}
	return true
}

package transport

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// AddressesChanged says that interfaces or addresses of this machine are not
// what they were. A link whose local address came gets its socket, each leaves
// by the interface that has its address now, and what vanished is counted. It
// holds up neither Send nor Wait. Safe for concurrent use.
func (u *UDP) AddressesChanged() {
	own := ownAddresses()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return
	}
	u.lookFor(own)
	u.connect(own)
}

// lookFor notes which local addresses are there, and says once what changed.
// The sockets stay: a datagram to an address that is gone does not come in, one
// from it is refused by the kernel, and both end with its return. Called with mu.
func (u *UDP) lookFor(own []ownAddress) {
	for _, s := range u.wildcard {
		absent := !isOwn(own, s.local.Addr())
		switch {
		case absent == s.absent:
			continue
		case absent:
			u.stats.addressLosses.Add(1)
			u.log.Warn("a heartbeat address of this node is gone; its links wait for its return", "local", s.local)
		default:
			u.log.Info("a heartbeat address of this node is back", "local", s.local)
		}
		s.absent = absent
	}
}

// start notes which local addresses are missing from the beginning. It tells
// whether there is one that is not. Called before anybody else knows u.
func (u *UDP) start(own []ownAddress) (any bool) {
	for _, s := range u.wildcard {
		s.absent = !isOwn(own, s.local.Addr())
		any = any || !s.absent
	}
	for _, s := range u.wildcard {
		if any && s.absent {
			u.log.Warn("this machine has not got a heartbeat address of this node; it is taken when it comes", "local", s.local)
		}
	}
	return any
}

// isOwn tells whether this machine has an address: on lo its whole network.
// Where addresses can not be read, every address is taken for its own.
func isOwn(own []ownAddress, addr netip.Addr) bool {
	if len(own) == 0 || addr.IsUnspecified() {
		return true
	}
	addr = addr.WithZone("")
	for _, a := range own {
		if a.prefix.Addr() == addr || a.prefix.Addr().IsLoopback() && a.prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// freeBind lets a socket be bound to an address before this machine has it: an
// interface that comes late must not keep an agent from starting, and what was
// bound need not be bound again (IP_FREEBIND, ip(7); it asks for no privilege).
func freeBind(fd int, addr netip.Addr) error {
	level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
	if addr.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, 1))
}

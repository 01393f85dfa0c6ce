package network

import (
	"cmp"
	"errors"
	"net/netip"
	"os"
	"slices"
	"unsafe"

	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/netlink"
)

// loopback is the index of lo: it is made with its network namespace.
const loopback = 1

// A kernel is asked; it tells nothing by itself. Not safe for concurrent use.
type kernel struct {
	conn *mdlayher.Conn
	fd   int // any socket: ioctl(2) on it is about interfaces of its namespace

	// held are the indexes of the interfaces that had one of the addresses when
	// it was asked last.
	held map[int]bool
}

func openKernel() (*kernel, error) {
	conn, err := mdlayher.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("socket", err), conn.Close())
	}
	return &kernel{conn: conn, fd: fd}, nil
}

func (k *kernel) close() error {
	return errors.Join(k.conn.Close(), os.NewSyscallError("close", unix.Close(k.fd)))
}

// statuses reads how things stand with each address.
func (k *kernel) statuses(addrs []netip.Addr) ([]Status, error) {
	all, err := k.addresses()
	if err != nil {
		return nil, err
	}
	held := map[int]bool{}
	interfaces := map[int]netlink.Interface{}
	for _, a := range all {
		if !holdsOne(a, addrs) {
			continue
		}
		held[a.Index] = true
		i, err := netlink.InterfaceAt(k.conn, a.Index)
		if errors.Is(err, unix.ENODEV) {
			continue // it went between the two questions; a message says so
		}
		if err != nil {
			return nil, err
		}
		interfaces[a.Index] = i
	}
	k.held = held
	statuses := make([]Status, len(addrs))
	for n, addr := range addrs {
		statuses[n] = k.status(addr, all, interfaces)
	}
	return statuses, nil
}

// status is that of one address. Where several interfaces have it, the one that
// works best counts, and of those the first.
func (k *kernel) status(addr netip.Addr, all []netlink.Address, interfaces map[int]netlink.Interface) Status {
	best := Status{Addr: addr, Present: addr.IsUnspecified()}
	for _, a := range all {
		i, ok := interfaces[a.Index]
		if !ok || !a.Usable() || !holds(a, addr) || addr.Zone() != "" && addr.Zone() != i.Name {
			continue
		}
		s := Status{Addr: addr, Present: true, Name: i.Name, Index: i.Index, AdminUp: i.AdminUp(), Carrier: i.Carrier(), MTU: i.MTU}
		if !best.Present || s.working() && !best.working() {
			best = s
		}
	}
	if best.working() && best.Index != loopback {
		best.Speed = k.speed(best.Name)
	}
	return best
}

// addresses are all of this machine, sorted by interface.
func (k *kernel) addresses() ([]netlink.Address, error) {
	all, err := netlink.Addresses(k.conn)
	slices.SortStableFunc(all, func(a, b netlink.Address) int { return cmp.Compare(a.Index, b.Index) })
	return all, err
}

// holds tells whether an address that an interface has makes addr the machine's
// own: lo's network is so as a whole (127.0.0.0/8).
func holds(a netlink.Address, addr netip.Addr) bool {
	addr = addr.WithZone("")
	return a.Prefix.Addr() == addr || a.Index == loopback && addr.Is4() && a.Prefix.Contains(addr)
}

func holdsOne(a netlink.Address, addrs []netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(addr netip.Addr) bool { return holds(a, addr) })
}

// An ethtoolCmd is struct ethtool_cmd of linux/ethtool.h.
type ethtoolCmd struct {
	cmd       uint32
	_         [2]uint32
	speed     uint16 // low half
	_         [14]byte
	speedHigh uint16
	_         [14]byte
}

// An ethtoolRequest is struct ifreq of netdevice(7) with a pointer in it.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data *ethtoolCmd
	_    [16]byte // of the union's other members
}

// speed is that of an interface in Mbit/s; 0: its driver does not say. By
// ioctl(2), since /sys shows the interfaces of the namespace it was mounted in.
func (k *kernel) speed(name string) int {
	request := ethtoolRequest{data: &ethtoolCmd{cmd: unix.ETHTOOL_GSET}}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return 0
	}
	speed := uint32(request.data.speedHigh)<<16 | uint32(request.data.speed)
	if speed == 1<<32-1 { // SPEED_UNKNOWN
		return 0
	}
	return int(speed)
}

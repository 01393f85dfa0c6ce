package network

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A kernel is asked; it tells nothing by itself. Not safe for concurrent use.
type kernel struct {
	conn *netlink.Conn
	fd   int // any socket: ioctl(2) on it is about interfaces of its namespace

	// held are the indexes of the interfaces that had one of the addresses when
	// it was asked last.
	held map[int]bool
}

func openKernel() (*kernel, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
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
	interfaces := map[int]iface{}
	for _, a := range all {
		if !slices.ContainsFunc(addrs, a.holds) {
			continue
		}
		held[a.index] = true
		i, err := k.ask(a.index)
		if errors.Is(err, unix.ENODEV) {
			continue // it went between the two questions; a message says so
		}
		if err != nil {
			return nil, err
		}
		interfaces[a.index] = i
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
func (k *kernel) status(addr netip.Addr, all []address, interfaces map[int]iface) Status {
	best := Status{Addr: addr, Present: addr.IsUnspecified()}
	for _, a := range all {
		i, ok := interfaces[a.index]
		if !ok || !a.usable() || !a.holds(addr) || addr.Zone() != "" && addr.Zone() != i.name {
			continue
		}
		s := Status{Addr: addr, Present: true, Name: i.name, Index: i.index, AdminUp: i.adminUp(), Carrier: i.carrier(), MTU: i.mtu}
		if !best.Present || s.working() && !best.working() {
			best = s
		}
	}
	if best.working() && best.Index != loopback {
		best.Speed = k.speed(best.Name)
	}
	return best
}

// dumpTries bounds how often a dump is asked for again that was overtaken by a
// change.
const dumpTries = 5

// errInterrupted says that addresses changed while they were listed.
var errInterrupted = errors.New("the list of addresses changed each time while it was read")

// addresses are all of this machine, sorted by interface.
func (k *kernel) addresses() ([]address, error) {
	request := netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETADDR, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfAddrmsg),
	}
	for range dumpTries {
		messages, err := k.conn.Execute(request)
		if err != nil {
			return nil, fmt.Errorf("list of addresses: %w", err)
		}
		if slices.ContainsFunc(messages, func(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }) {
			continue
		}
		var all []address
		for _, m := range messages {
			a, err := parseAddress(m.Data)
			if err != nil {
				return nil, err
			}
			all = append(all, a)
		}
		slices.SortStableFunc(all, func(a, b address) int { return cmp.Compare(a.index, b.index) })
		return all, nil
	}
	return nil, errInterrupted
}

// rtextFilterSkipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: an
// answer without counters.
const rtextFilterSkipStats = 1 << 3

// ask reads one interface; the error wraps ENODEV if there is none.
func (k *kernel) ask(index int) (iface, error) {
	data := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(data[4:], uint32(index))
	attributes := netlink.NewAttributeEncoder()
	attributes.Uint32(unix.IFLA_EXT_MASK, rtextFilterSkipStats)
	encoded, err := attributes.Encode()
	if err != nil {
		return iface{}, err
	}
	answer, err := k.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request},
		Data:   append(data, encoded...),
	})
	if err != nil {
		return iface{}, fmt.Errorf("interface %d: %w", index, err)
	}
	if len(answer) != 1 {
		return iface{}, fmt.Errorf("interface %d: %d answers instead of one: %w", index, len(answer), unix.EPROTO)
	}
	return parseInterface(answer[0].Data)
}

// An ethtoolCmd is struct ethtool_cmd of linux/ethtool.h.
type ethtoolCmd struct {
	cmd         uint32
	supported   uint32
	advertising uint32
	speed       uint16 // low half
	_           [14]byte
	speedHigh   uint16
	_           [14]byte
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

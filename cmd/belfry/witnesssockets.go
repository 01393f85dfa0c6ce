package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// What sock_diag(7) and linux/inet_diag.h say.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	diagRequest      = 56 // bytes of struct inet_diag_req_v2
	diagID           = 48 // of struct inet_diag_sockid, after 4 bytes in the answer and 8 in the request
	diagAnswer       = 72 // of struct inet_diag_msg
	// liveStates are those in which a program may wait: ESTABLISHED, SYN_SENT,
	// FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT and LAST_ACK (net/tcp_states.h).
	liveStates = 1<<1 | 1<<2 | 1<<4 | 1<<5 | 1<<8 | 1<<9
)

// A tcpSocket is one as the kernel lists it.
type tcpSocket struct {
	family uint8
	id     [diagID]byte // names it, with its cookie
	inode  uint32
	remote netip.AddrPort
}

// tcpSockets is all TCP sockets of this network namespace in which somebody may wait.
func tcpSockets() (all []tcpSocket, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, diagRequest)
		request[0], request[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(request[4:], liveStates)
		err := askDiag(sockDiagByFamily, unix.NLM_F_DUMP, request, func(b []byte) {
			if len(b) >= diagAnswer {
				all = append(all, parseSocket(b))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func parseSocket(b []byte) (s tcpSocket) {
	s.family = b[0]
	copy(s.id[:], b[4:4+diagID])
	s.inode = binary.NativeEndian.Uint32(b[68:])
	addr, _ := netip.AddrFromSlice(s.id[20:36]) // 16 bytes are an address
	if s.family == unix.AF_INET {
		addr, _ = netip.AddrFromSlice(s.id[20:24])
	}
	s.remote = netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(s.id[2:]))
	return s
}

// destroy ends a socket as if its connection had been aborted. One that has gone
// meanwhile is no error.
func (s *tcpSocket) destroy() error {
	request := make([]byte, diagRequest)
	request[0], request[1] = s.family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(request[4:], liveStates)
	copy(request[8:], s.id[:])
	err := askDiag(sockDestroy, unix.NLM_F_ACK, request, nil)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// askDiag makes one request and hands on what is answered.
func askDiag(kind, flags uint16, request []byte, take func([]byte)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	message := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(request))
	binary.NativeEndian.PutUint32(message, uint32(unix.SizeofNlMsghdr+len(request)))
	binary.NativeEndian.PutUint16(message[4:], kind)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|flags)
	if err := unix.Sendto(fd, append(message, request...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return err
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return unix.EBADMSG
				}
				if errno := int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
					return unix.Errno(-errno)
				}
				return nil
			}
			if take != nil {
				take(m.Data)
			}
		}
	}
}

// checkAbort tries it out on a connection of its own, so that what is missing is said
// at the start and not when a server is dead.
func checkAbort() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	to, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return err
	}
	if _, err = abortSockets(map[int]bool{os.Getpid(): true}, []netip.AddrPort{to}); err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err = conn.Read(make([]byte, 1)); errors.Is(err, unix.ECONNABORTED) {
			return nil
		}
	}
	return failf(belfry.ErrUnsupported, "--mode abort: %v; it needs CAP_NET_ADMIN and a kernel with INET_DIAG_DESTROY, or use --mode proxy", err)
}

// abortSockets ends the connections of processes to addresses; port 0 is any.
func abortSockets(pids map[int]bool, to []netip.AddrPort) (ended int, err error) {
	sockets, err := tcpSockets()
	if err != nil {
		return 0, err
	}
	inodes := inodesOf(pids)
	for i := range sockets {
		s := &sockets[i]
		meant := slices.ContainsFunc(to, func(a netip.AddrPort) bool {
			return a.Addr() == s.remote.Addr() && (a.Port() == 0 || a.Port() == s.remote.Port())
		})
		if !meant || !inodes[s.inode] {
			continue
		}
		if err := s.destroy(); err != nil {
			return ended, err
		}
		ended++
	}
	return ended, nil
}

// inodesOf are the sockets that processes have open. One that ends meanwhile has none.
func inodesOf(pids map[int]bool) map[uint32]bool {
	inodes := map[uint32]bool{}
	for pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			name, _ := os.Readlink(filepath.Join(dir, e.Name()))
			if number, ok := strings.CutPrefix(name, "socket:["); ok {
				if n, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32); err == nil {
					inodes[uint32(n)] = true
				}
			}
		}
	}
	return inodes
}

// descendants are the processes below one, without itself.
func descendants(of int) map[int]bool {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		rest := string(text[strings.LastIndexByte(string(text), ')')+1:]) // the name may hold anything
		if f := strings.Fields(rest); len(f) > 1 {
			parents[pid], _ = strconv.Atoi(f[1])
		}
	}
	below := map[int]bool{}
	for pid := range parents {
		for p, steps := parents[pid], 0; p > 0 && steps < len(parents); p, steps = parents[p], steps+1 {
			if p == of {
				below[pid] = true
				break
			}
		}
	}
	return below
}

// An aborter ends the connections that the command's processes have to an address at
// which the resource is no more.
type aborter struct {
	usable  []string
	drain   time.Duration
	trouble func(error)
	said    func(string, ...any)
}

// use is for follower.
func (a *aborter) use(_ string, usable []string) {
	var gone []string
	for _, address := range a.usable {
		if !slices.Contains(usable, address) {
			gone = append(gone, address)
		}
	}
	a.usable = usable
	a.abort(gone)
}

// move is for follower: what is under way has time to end.
func (a *aborter) move(target string, done <-chan struct{}) {
	old := slices.DeleteFunc(slices.Clone(a.usable), func(s string) bool { return s == target })
	go func() {
		select {
		case <-time.After(a.drain):
			a.abort(old)
		case <-done:
		}
	}()
}

func (a *aborter) abort(addresses []string) {
	var to []netip.AddrPort
	for _, text := range addresses {
		if ap, err := netip.ParseAddrPort(text); err == nil {
			to = append(to, ap)
		} else if addr, err := netip.ParseAddr(text); err == nil {
			to = append(to, netip.AddrPortFrom(addr, 0))
		}
	}
	if len(to) == 0 {
		return
	}
	ended, err := abortSockets(descendants(os.Getpid()), to)
	a.said("%d connections to %s are aborted", ended, strings.Join(addresses, ", "))
	if err != nil {
		a.trouble(fmt.Errorf("aborting connections to %s: %w", strings.Join(addresses, ", "), err))
	}
}

package security

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"unsafe"
)

// Credentials are those of the process that opened a unix socket, as the
// kernel noted them then. A descriptor that is passed on keeps its opener's.
type Credentials struct {
	UID, GID uint32
	PID      int32    // for the audit only: it may be another process by now
	Groups   []uint32 // sorted, GID included
}

// soPeerGroups is SO_PEERGROUPS of unix(7), since Linux 4.13; the standard
// library does not name it.
const soPeerGroups = 0x3b

// PeerCredentials asks the kernel who is at the other end of a connection that
// was accepted. It never trusts anything in the request.
func PeerCredentials(conn *net.UnixConn) (c Credentials, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return c, fmt.Errorf("peer credentials: %w", err)
	}
	var callErr error
	if err := raw.Control(func(fd uintptr) { c, callErr = credentials(int(fd)) }); err != nil {
		return c, fmt.Errorf("peer credentials: %w", err)
	}
	if callErr != nil {
		return Credentials{}, fmt.Errorf("peer credentials: %w", callErr)
	}
	return c, nil
}

func credentials(fd int) (Credentials, error) {
	ucred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Credentials{}, err
	}
	groups = append(groups, ucred.Gid)
	slices.Sort(groups)
	return Credentials{UID: ucred.Uid, GID: ucred.Gid, PID: ucred.Pid, Groups: slices.Compact(groups)}, nil
}

// peerGroups asks until the list fits: the kernel answers ERANGE and the size.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, soPeerGroups,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errors.Is(errno, syscall.ERANGE) && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		case errors.Is(errno, syscall.ENOPROTOOPT): // an old kernel: the one group must do
			return nil, nil
		default:
			return nil, errno
		}
	}
}

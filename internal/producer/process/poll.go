package process

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A poller is one epoll instance for all pidfds. Its own descriptor sits in
// the runtime's poller, so waiting holds no thread. Each descriptor is
// reported once and then has to be armed again. Safe for one goroutine that
// waits and one that does the rest.
type poller struct {
	file *os.File
	conn syscall.RawConn
	fd   int
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // os.NewFile looks for it
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	p.conn, err = p.file.SyscallConn()
	return p, err
}

// add reports token when the process has ended, or when something is to be read.
func (p *poller) add(pidfd int, token uint64) error {
	return p.control(unix.EPOLL_CTL_ADD, pidfd, token, unix.EPOLLIN)
}

// again reports token of what add was given for once more.
func (p *poller) again(fd int, token uint64) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, token, unix.EPOLLIN)
}

// untilReaped reports token once more when its parent has taken the status
// (EPOLLHUP, which needs no asking; Linux 6.9).
func (p *poller) untilReaped(pidfd int, token uint64) error {
	return p.control(unix.EPOLL_CTL_MOD, pidfd, token, 0)
}

func (p *poller) control(op, pidfd int, token uint64, events uint32) error {
	e := unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: int32(token), Pad: int32(token >> 32)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, op, pidfd, &e))
}

// wait is the tokens of what is ready; an error after close.
func (p *poller) wait() (tokens []uint64, err error) {
	var events [64]unix.EpollEvent
	readErr := p.conn.Read(func(fd uintptr) bool {
		var n int
		n, err = unix.EpollWait(int(fd), events[:], 0)
		for _, e := range events[:max(n, 0)] {
			tokens = append(tokens, uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32)
		}
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	if readErr != nil {
		return nil, readErr
	}
	return tokens, os.NewSyscallError("epoll_wait", err)
}

// close ends wait. The pidfds stay open.
func (p *poller) close() error { return p.file.Close() }

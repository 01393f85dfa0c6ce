package pressure

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A poller waits for triggers, with a goroutine and a thread of its own: what a
// trigger says is gone when somebody has asked, so it can not sit in the
// runtime's poller, which asks for other things. Its methods are for one
// goroutine.
type poller struct {
	signals chan []signal
	failed  chan error // capacity 1

	epoll, wake int
	done        chan struct{}
	group       sync.WaitGroup
}

// A signal is what the kernel says of one file.
type signal struct {
	token uint64
	gone  bool // it was removed
}

// wakeToken is that of the descriptor that ends the goroutine.
const wakeToken = 0

func newPoller() (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	p := &poller{
		signals: make(chan []signal), failed: make(chan error, 1),
		epoll: epoll, wake: wake, done: make(chan struct{}),
	}
	if err := p.control(wake, wakeToken, unix.EPOLLIN); err != nil {
		p.close()
		return nil, err
	}
	p.group.Go(p.serve)
	return p, nil
}

// close ends the goroutine before it closes what that waits on.
func (p *poller) close() {
	close(p.done)
	_, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // it fails only when it is full of wakes
	p.group.Wait()
	unix.Close(p.wake)
	unix.Close(p.epoll)
}

// add has the triggers of a file signalled under a token other than 0, until
// the file is closed.
func (p *poller) add(fd int, token uint64) error { return p.control(fd, token, unix.EPOLLPRI) }

func (p *poller) control(fd int, token uint64, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(token), Pad: int32(token >> 32)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &e))
}

func (p *poller) serve() {
	for {
		all, err := p.wait()
		if err != nil {
			p.failed <- err
			return
		}
		select {
		case p.signals <- all:
		case <-p.done:
			return
		}
	}
}

var errClosed = errors.New("closed")

// wait is the next signals; errClosed after close.
func (p *poller) wait() (all []signal, err error) {
	var events [64]unix.EpollEvent
	n, err := unix.EpollWait(p.epoll, events[:], -1)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.EpollWait(p.epoll, events[:], -1)
	}
	if err != nil {
		return nil, os.NewSyscallError("epoll_wait", err)
	}
	for _, e := range events[:n] {
		token := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
		if token == wakeToken {
			return nil, errClosed
		}
		all = append(all, signal{token, e.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0})
	}
	return all, nil
}

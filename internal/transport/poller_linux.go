package transport

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readyMost is how many descriptors one look at a poller may bring: in most
// clusters all.
const readyMost = 1024

// A poller lets one goroutine wait for sockets, a time and a call from
// elsewhere at once, at the price of one wake-up of one thread: an epoll(7)
// instance that holds sockets, a timerfd and an eventfd, and is itself polled by
// Go's runtime. A socket that the runtime polls wakes a thread for each datagram
// that was sent, too, and a timer of the runtime wakes its monitor thread and
// rounds to milliseconds, so that it often wakes twice (DESIGN.md, Processor
// time).
type poller struct {
	file *os.File // the epoll instance
	raw  syscall.RawConn

	timer int       // timerfd_create(2)
	until time.Time // what the timer is set to, zero: it is not

	rung  atomic.Bool // the bell was rung and not heard
	ready [readyMost]unix.EpollEvent

	mu     sync.Mutex // so that nobody rings a bell that is closed
	bell   int        // eventfd(2)
	closed bool
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p := &poller{timer: -1, bell: -1}
	err = func() (err error) {
		if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
			return os.NewSyscallError("timerfd_create", err)
		}
		if p.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			return os.NewSyscallError("eventfd", err)
		}
		for _, own := range []int{p.timer, p.bell} {
			if err := watch(fd, own); err != nil {
				return err
			}
		}
		return os.NewSyscallError("fcntl", unix.SetNonblock(fd, true)) // what makes the runtime poll it
	}()
	p.file = os.NewFile(uintptr(fd), "epoll")
	if err == nil {
		p.raw, err = p.file.SyscallConn()
	}
	if err != nil {
		_ = p.stop()
		p.close()
		return nil, err
	}
	return p, nil
}

func watch(epoll, fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// add makes the poller wait for what can be read from a descriptor, until that
// is closed.
func (p *poller) add(fd int) error {
	return control(p.raw, func(epoll int) error { return watch(epoll, fd) })
}

// remove gives up a descriptor that is not closed.
func (p *poller) remove(fd int) {
	_ = control(p.raw, func(epoll int) error { return unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, fd, nil) })
}

// wait returns the descriptors that have something, valid until the next call;
// none after the time (zero: there is none) or a ring. The error is
// [net.ErrClosed]. Not safe for concurrent use.
func (p *poller) wait(until time.Time) ([]unix.EpollEvent, error) {
	p.arm(until)
	var n int
	err := p.raw.Read(func(epoll uintptr) bool {
		n = epollNow(epoll, p.ready[:])
		return n > 0
	})
	if err != nil {
		return nil, net.ErrClosed // nothing else can end it
	}
	sockets := p.ready[:0]
	for _, e := range p.ready[:n] {
		switch int(e.Fd) {
		case p.timer:
			p.until = time.Time{} // it stays ready until it is set again
		case p.bell:
			p.hear()
		default:
			sockets = append(sockets, e)
		}
	}
	return sockets, nil
}

// arm sets the timer. A time that has come makes it ready at once.
func (p *poller) arm(until time.Time) {
	if until.Equal(p.until) && !until.IsZero() {
		return
	}
	var spec unix.ItimerSpec // zero: never
	if !until.IsZero() {
		spec.Value = unix.NsecToTimespec(max(1, int64(time.Until(until))))
	}
	p.until = until
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(p.timer), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
}

// ring ends a wait, the present one or the next. Safe for concurrent use.
func (p *poller) ring() {
	if p.rung.Swap(true) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		one := uint64(1)
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(p.bell), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// hear silences the bell. Who rings from now on is heard by the next wait.
func (p *poller) hear() {
	var count uint64
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(p.bell), uintptr(unsafe.Pointer(&count)), 8)
	p.rung.Store(false)
}

// stop ends a wait, for good.
func (p *poller) stop() error { return p.file.Close() }

// close is for when nobody waits any more.
func (p *poller) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, fd := range []int{p.timer, p.bell} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// epollNow does not wait, and so need not tell the scheduler of the call.
func epollNow(epoll uintptr, events []unix.EpollEvent) int {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0
		}
		return int(n)
	}
}

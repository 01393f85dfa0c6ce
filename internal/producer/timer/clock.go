package timer

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A clock shows both times, and rings when one of them has come or the wall's
// clock was set. Its methods are for one goroutine.
type clock interface {
	now() instant

	// set replaces when to ring; a zero field is never.
	set(due) error

	// rung is ready after a ring; it may come for nothing.
	rung() <-chan struct{}

	// failed is ready when there will be no more.
	failed() <-chan error

	close()
}

// A kernelClock is two timers of the kernel (timerfd_create(2)). The timers of
// the runtime would stand still while the machine is suspended, and not hear of
// a clock that is set.
type kernelClock struct {
	wall, boot *os.File
	rings      chan struct{} // capacity 1
	broken     chan error    // capacity 2: one of each timer
	seen       instant       // what now has shown last
	group      sync.WaitGroup
}

func openKernelClock() (*kernelClock, error) {
	k := &kernelClock{rings: make(chan struct{}, 1), broken: make(chan error, 2), seen: readClocks()}
	var err error
	if k.wall, err = openTimer(unix.CLOCK_REALTIME, "wall clock"); err != nil {
		return nil, err
	}
	if k.boot, err = openTimer(unix.CLOCK_BOOTTIME, "boot clock"); err != nil {
		k.wall.Close()
		return nil, err
	}
	k.group.Go(func() { k.listen(k.wall) })
	k.group.Go(func() { k.listen(k.boot) })
	return k, nil
}

func openTimer(clock int, name string) (*os.File, error) {
	fd, err := unix.TimerfdCreate(clock, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// listen rings each time that a timer does, until it is closed. ECANCELED is a
// wall's clock that was set.
func (k *kernelClock) listen(timer *os.File) {
	for {
		var expirations [8]byte
		_, err := timer.Read(expirations[:])
		if err != nil && !errors.Is(err, unix.ECANCELED) {
			k.broken <- err
			return
		}
		k.ring()
	}
}

func (k *kernelClock) ring() {
	select {
	case k.rings <- struct{}{}:
	default: // it rings already
	}
}

func (k *kernelClock) rung() <-chan struct{} { return k.rings }
func (k *kernelClock) failed() <-chan error  { return k.broken }

func (k *kernelClock) now() instant {
	k.seen = readClocks()
	return k.seen
}

func readClocks() instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("timer: clock_gettime: " + err.Error()) // it is there since Linux 2.6.39
	}
	return instant{wall: time.Now().Round(0), boot: time.Duration(ts.Nano())} // without the runtime's monotonic clock
}

func (k *kernelClock) set(d due) error {
	var wall, boot unix.Timespec
	if !d.wall.IsZero() {
		var err error
		if wall, err = unix.TimeToTimespec(d.wall); err != nil {
			return err
		}
	}
	if d.boot > 0 {
		boot = unix.NsecToTimespec(d.boot.Nanoseconds())
	}
	if err := errors.Join(
		arm(k.wall, wall, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET),
		arm(k.boot, boot, unix.TFD_TIMER_ABSTIME),
	); err != nil {
		return err
	}
	if now := readClocks(); now.set(k.seen).Abs() > time.Second { // since somebody looked, and before the timer would tell
		k.ring()
	}
	return nil
}

// arm sets a timer; zero stops it.
func arm(timer *os.File, at unix.Timespec, flags int) error {
	conn, err := timer.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		failed = unix.TimerfdSettime(int(fd), flags, &unix.ItimerSpec{Value: at}, nil)
	})
	return errors.Join(err, os.NewSyscallError("timerfd_settime", failed))
}

func (k *kernelClock) close() {
	k.wall.Close() // which ends listen
	k.boot.Close()
	k.group.Wait()
}

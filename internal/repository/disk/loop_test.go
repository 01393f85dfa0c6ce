package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A loop is a block device whose medium is a file (loop(4)).
type loop struct {
	t      testing.TB
	path   string
	file   string
	number int
}

// newLoop has a medium of that size, and a number that nobody else uses.
func newLoop(t testing.TB, size int64) *loop {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs: root")
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs: loop (%v)", err)
	}
	t.Cleanup(func() { control.Close() })
	l := &loop{t: t, file: filepath.Join(t.TempDir(), "medium"), number: 2000}
	for ; ; l.number++ {
		err = unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_ADD, l.number)
		if !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil {
		t.Skipf("needs: loop (%v)", err)
	}
	l.path = fmt.Sprint("/dev/loop", l.number)
	t.Cleanup(func() {
		l.detach()
		whenFree(t, func() error { return unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_REMOVE, l.number) })
	})
	if _, err := os.Stat(l.path); err != nil {
		t.Skipf("needs: loop (%v)", err)
	}
	if err := os.WriteFile(l.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(l.file, size); err != nil {
		t.Fatal(err)
	}
	l.attach()
	return l
}

func (l *loop) attach() {
	l.t.Helper()
	medium, err := os.OpenFile(l.file, os.O_RDWR, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer medium.Close()
	l.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.LOOP_SET_FD, int(medium.Fd())) })
}

// detach takes the medium out, when the last one has closed the device.
func (l *loop) detach() {
	l.t.Helper()
	l.control(func(fd int) error {
		if err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); !errors.Is(err, unix.ENXIO) { // it is out
			return err
		}
		return nil
	})
}

func (l *loop) control(do func(fd int) error) {
	l.t.Helper()
	whenFree(l.t, func() error {
		device, err := os.OpenFile(l.path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		return errors.Join(do(int(device.Fd())), device.Close())
	})
}

// whenFree does something as soon as the kernel does not say busy: who looks for
// new disks has it open for a moment.
func whenFree(t testing.TB, do func() error) {
	t.Helper()
	limit, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := do()
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("busy for 10 s")
		}
	}
}

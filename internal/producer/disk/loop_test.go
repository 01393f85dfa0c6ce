package disk_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A loop is a disk of the kernel's whose medium is a file (loop(4)).
type loop struct {
	t      *testing.T
	name   string
	file   string
	number int
}

// newLoop makes one that nobody else uses, without a medium.
func newLoop(t *testing.T) *loop {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs: root")
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs: loop (%v)", err)
	}
	t.Cleanup(func() { control.Close() })
	l := &loop{t: t, file: filepath.Join(t.TempDir(), "medium"), number: 1000}
	for err = unix.EEXIST; errors.Is(err, unix.EEXIST); l.number++ {
		l.name = fmt.Sprint("loop", l.number)
		err = unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_ADD, l.number)
	}
	l.number--
	if err != nil {
		t.Skipf("needs: loop (%v)", err)
	}
	t.Cleanup(func() {
		l.free(func() error { return unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_REMOVE, l.number) })
	})
	if _, err := os.Stat(l.device()); err != nil {
		t.Skipf("needs: loop (%v)", err)
	}
	if err := os.WriteFile(l.file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *loop) device() string { return "/dev/" + l.name }

// attach inserts the medium.
func (l *loop) attach() {
	l.t.Helper()
	medium, err := os.OpenFile(l.file, os.O_RDWR, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer medium.Close()
	l.control(unix.LOOP_SET_FD, int(medium.Fd()))
}

// detach takes it out.
func (l *loop) detach() {
	l.t.Helper()
	l.control(unix.LOOP_CLR_FD, 0)
	l.free(func() error { // the kernel takes it out when nobody has it open
		if l.attached() {
			return unix.EBUSY
		}
		return nil
	})
}

// attached tells whether the medium is in.
func (l *loop) attached() bool {
	size, err := os.ReadFile("/sys/block/" + l.name + "/size")
	return err == nil && strings.TrimSpace(string(size)) != "0"
}

func (l *loop) control(request uint, value int) {
	l.t.Helper()
	l.free(func() error {
		device, err := os.OpenFile(l.device(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.IoctlSetInt(int(device.Fd()), request, value), device.Close())
	})
}

// free does something as soon as the disk is not busy: udev looks at each one
// that comes.
func (l *loop) free(do func() error) {
	l.t.Helper()
	limit, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := do()
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) {
			l.t.Fatalf("%s: %v", l.name, err)
		}
		select {
		case <-tick.C:
		case <-limit:
			l.t.Fatalf("%s is busy for 10 s", l.name)
		}
	}
}

// storm has the kernel tell of the disk more often than it keeps the news of.
func (l *loop) storm() {
	l.t.Helper()
	for range 4000 {
		if err := os.WriteFile("/sys/block/"+l.name+"/uevent", []byte("change"), 0o200); err != nil {
			l.t.Fatal(err)
		}
	}
}

package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
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

// The medium is taken out while it is in use: the kernel keeps it for who has
// it open, and nobody else gets it.
func TestDetachWhileInUse(t *testing.T) {
	t.Parallel()
	l := newLoop(t, small().Size())
	format(t, l.path, small())
	h, err := OpenHost(hostConfig(l.path, 0, 2))
	if err != nil {
		t.Fatal(err)
	}
	add(t, h, opID(1, 1))
	l.detach()
	add(t, h, opID(1, 2))
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	whenFree(t, func() error {
		again, err := OpenHost(hostConfig(l.path, 0, 3))
		if err == nil {
			again.close()
			return unix.EBUSY // udev has it open still
		}
		if !errors.Is(err, belfry.ErrNotFound) {
			t.Errorf("without a medium: %v, want %v", err, belfry.ErrNotFound)
		}
		return nil
	})
	l.attach()
	wantUpdates(t, l.path, 0, opID(1, 1), opID(1, 2))
}

// Another medium in the same device is another disk, of the same size or not.
func TestAnotherMediumInTheDeviceIsRefused(t *testing.T) {
	t.Parallel()
	l := newLoop(t, small().Size())
	d, err := Open(l.path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	was := d.Identity()
	if was.Sequence == 0 {
		t.Skip("needs: diskseq")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	l.detach()
	l.attach()
	d, err = Open(l.path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	now := d.Identity()
	if now.Device != was.Device || now.Size != was.Size || now.Sequence == was.Sequence {
		t.Errorf("identity %v after %v: want another sequence, and nothing else", now, was)
	}
	d.id = was
	if err := d.Reopen(); !errors.Is(err, errChanged) {
		t.Errorf("got %v, want %v", err, errChanged)
	}
}

// The file below a device is cut: what can not be read is an error, or is found
// to be no value.
func TestCutMediumWhileInUse(t *testing.T) {
	t.Parallel()
	l := newLoop(t, small().Size())
	format(t, l.path, small())
	h, err := OpenHost(impatient(l.path))
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	add(t, h, opID(1, 1))
	h.sealing.Wait()
	if err := os.Truncate(l.file, repository.BlockSize); err != nil {
		t.Fatal(err)
	}
	found, err := h.Load()
	if err == nil {
		t.Errorf("loaded generation %d of a medium without records", found.Generation)
	} else if !errors.Is(err, belfry.ErrRestricted) && !errors.Is(err, belfry.ErrStale) {
		t.Errorf("got %v", err)
	}
}

// A device that is mounted or part of a volume is not formatted, whatever one
// is ready to destroy.
func TestFormatWantsTheDeviceAlone(t *testing.T) {
	t.Parallel()
	l := newLoop(t, small().Size())
	fd, err := unix.Open(l.path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c := config(0, 1)
	founder := repository.Founder{Node: c.Node, Incarnation: 1, Boot: c.Boot, Sign: c.Sign}
	err = Format(l.path, true, header(small()), founder, repositorytest.First(), repository.OpID{9})
	if !errors.Is(err, belfry.ErrExist) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v, want %v", err, unix.EBUSY)
	}
	wantHelpful(t, err, l.path)
}

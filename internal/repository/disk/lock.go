package disk

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/repository"
)

// Lock locks a range of bytes against other agents of this machine, until Close.
// It is a lock of an open file description (fcntl(2), F_OFD_SETLK): it ends with
// the process, after the last of its calls. Cloned: another one has it.
//
// The lock has a descriptor of its own, because a device is opened anew before
// the old descriptor is closed, and the two would exclude each other.
func (d *Device) Lock(off, length int64) error {
	fd := -1
	c := &call{device: d, opens: true, work: func(file) (err error) { fd, err = lock(d, off, length); return err }}
	c.late = func() {
		if c.err == nil {
			_ = unix.Close(fd)
		}
	}
	if err := c.run(); err != nil {
		return fail("lock", d.path, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.locks = append(d.locks, fd)
	return nil
}

// lock returns the descriptor that holds the lock.
func lock(d *Device, off, length int64) (int, error) {
	f, err := openNode(d.path, Options{})
	if err != nil {
		return -1, err
	}
	if id := f.identity(); id != d.Identity() {
		return -1, errors.Join(fmt.Errorf("%w: it is %s, and was %s", errChanged, id, d.Identity()), f.close())
	}
	fd := f.(*node).fd
	err = setLock(fd, unix.F_WRLCK, off, length)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = fmt.Errorf("bytes %d to %d are locked by another process of this machine: %w", off, off+length-1, repository.Cloned)
	}
	if err != nil {
		return -1, errors.Join(err, f.close())
	}
	return fd, nil
}

func setLock(fd int, kind int16, off, length int64) error {
	return again(func() error {
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK,
			&unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: off, Len: length})
	})
}

// unlock gives the locks back. Closing alone would not do: a process that is
// just being started shares the descriptor until it executes its program. The
// mutex is held.
func (d *Device) unlock() (err error) {
	for _, fd := range d.locks {
		err = errors.Join(err, setLock(fd, unix.F_UNLCK, 0, 0), unix.Close(fd))
	}
	d.locks = nil
	return err
}

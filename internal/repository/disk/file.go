package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// An Identity tells one medium from another that is at the same path later.
type Identity struct {
	Device   uint64 // dev_t: of the block device itself; of a file: where it lies
	Inode    uint64 // of a file; zero for a block device
	Sequence uint64 // diskseq of a block device: another one for each medium (Linux 5.15); else zero
	Size     int64  // bytes
}

// String is for errors.
func (i Identity) String() string {
	return fmt.Sprintf("device %d:%d, inode %d, sequence %d, %d bytes",
		unix.Major(i.Device), unix.Minor(i.Device), i.Inode, i.Sequence, i.Size)
}

// A file is an open device as the kernel gives it. A transfer may be short.
// Tests put their faults here.
type file interface {
	readAt(p []byte, off int64) (int, error)
	writeAt(p []byte, off int64) (int, error)
	sync() error
	identity() Identity
	buffered() bool // reads and writes go through the page cache
	close() error
}

// An opener opens what is at a path.
type opener func(path string, o Options) (file, error)

// A node is a block device or a regular file, open.
type node struct {
	fd     int
	id     Identity
	cached bool
}

// openNode follows links first, and then no more: /dev/disk/by-id has links, and
// what is swapped for one in between is not opened. Nonblocking, so that neither
// a FIFO nor a drive without a medium keeps us waiting.
func openNode(path string, o Options) (file, error) { return openWith(path, o, open) }

// openWith is openNode with the call of the kernel given.
func openWith(path string, o Options, open func(path string, flags int) (int, error)) (file, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	var before unix.Stat_t
	if err := unix.Stat(resolved, &before); err != nil {
		return nil, err
	}
	block := before.Mode&unix.S_IFMT == unix.S_IFBLK
	if !block && before.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%w: neither a block device nor a file; name one of these", belfry.ErrUsage)
	}
	flags := unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	if o.ReadOnly {
		flags = flags&^unix.O_ACCMODE | unix.O_RDONLY
	}
	if o.Exclusive && block {
		flags |= unix.O_EXCL // open(2): busy if it is mounted or belongs to a volume
	}
	n := &node{}
	n.fd, err = open(resolved, flags|unix.O_DIRECT)
	if errors.Is(err, unix.EINVAL) && !block {
		n.cached = true
		n.fd, err = open(resolved, flags)
	}
	if err != nil {
		return nil, err
	}
	if n.id, err = identify(n.fd); err == nil && n.cached {
		// What a failed flush has left in the cache may be on no disk (fsync(2)).
		err = unix.Fadvise(n.fd, 0, 0, unix.FADV_DONTNEED)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(n.fd))
	}
	return n, nil
}

func open(path string, flags int) (fd int, err error) {
	err = again(func() error { fd, err = unix.Open(path, flags, 0); return err })
	return fd, err
}

// again calls until no signal comes in between; the runtime sends them.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// identify asks the open file, so that what it says is of this very medium.
func identify(fd int) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Identity{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Identity{Device: st.Dev, Inode: st.Ino, Size: st.Size}, nil
	}
	id := Identity{Device: st.Rdev}
	var size uint64
	if err := control(fd, unix.BLKGETSIZE64, &size); err != nil {
		return Identity{}, err
	}
	id.Size = int64(size)
	if err := control(fd, unix.BLKGETDISKSEQ, &id.Sequence); err != nil && !errors.Is(err, unix.ENOTTY) {
		return Identity{}, err
	}
	sector, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err == nil && sector > repository.BlockSize {
		err = fmt.Errorf("%w: sectors of %d bytes; name a device with %d or fewer", belfry.ErrUnsupported, sector, repository.BlockSize)
	}
	return id, err
}

func control(fd int, request uintptr, value *uint64) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(value))); errno != 0 {
		return errno
	}
	return nil
}

func (n *node) readAt(p []byte, off int64) (done int, err error) {
	err = again(func() error { done, err = unix.Pread(n.fd, p, off); return err })
	return done, err
}

// writeAt first looks whether a file has been cut: a write beyond its end would
// make it longer again, with zeros where records were.
func (n *node) writeAt(p []byte, off int64) (done int, err error) {
	if n.id.Inode != 0 {
		now, err := identify(n.fd)
		if err == nil && now != n.id {
			err = fmt.Errorf("%w: it is now %s, and was %s", errChanged, now, n.id)
		}
		if err != nil {
			return 0, err
		}
	}
	err = again(func() error { done, err = unix.Pwrite(n.fd, p, off); return err })
	return done, err
}

func (n *node) sync() error {
	return again(func() error { return unix.Fdatasync(n.fd) })
}

func (n *node) identity() Identity { return n.id }
func (n *node) buffered() bool     { return n.cached }
func (n *node) close() error       { return unix.Close(n.fd) }

// Package disk puts the repository on real disks: block devices that several
// machines reach, or a file that the agents of one machine share.
//
// A [Device] is one of them with a deadline on each call, a [Finder] finds them
// by their UUID, and a [Host] is the backend that a node works with.
package disk

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Deadline is how long one call of a device may take.
const Deadline = 2 * time.Second

// maxStuck is how many calls may be over their deadline at a time. Each of them
// keeps a thread of the kernel's.
const maxStuck = 2

// Options say how to open a device.
type Options struct {
	ReadOnly  bool          // nothing is written: a node without a host slot
	Exclusive bool          // to format: refuse a block device that is mounted or part of a volume
	Deadline  time.Duration // of each call; zero: [Deadline]
}

// A Device is a [repository.Device]: a block device or file. It is safe for
// concurrent use. Errors name the path, and wrap the kernel's error.
//
// After a call has failed, or a write or flush has ended after its deadline, all
// calls fail until [Device.Reopen]: what the kernel holds of it is not known.
type Device struct {
	path string
	opts Options
	open opener

	mu      sync.Mutex
	handle  *handle
	id      Identity // of what was opened first
	stuck   int      // calls that are over their deadline and have not ended
	hung    int      // of these, writes and flushes
	suspect error    // why it must be reopened; nil: it need not
	begun   []*call  // writes that nobody has waited for yet
	locks   []int    // file descriptors that hold a lock
	closed  bool
}

// A handle is closed when the last call on it has ended, so that a call that
// hangs never meets a file descriptor of something else.
type handle struct {
	file
	calls   int
	retired bool
}

// Open opens a block device or a regular file.
func Open(path string, o Options) (*Device, error) { return openDevice(path, o, openNode) }

func openDevice(path string, o Options, open opener) (*Device, error) {
	if o.Deadline <= 0 {
		o.Deadline = Deadline
	}
	d := &Device{path: path, opts: o, open: open}
	if err := d.attach(); err != nil {
		return nil, fail("open", path, err)
	}
	return d, nil
}

// attach opens the path in the place of what is open. It has a deadline as well:
// a path to a device that is gone may keep whoever opens it.
func (d *Device) attach() error {
	var opened file
	c := &call{device: d, opens: true, work: func(file) (err error) { opened, err = d.open(d.path, d.opts); return err }}
	c.late = func() {
		if opened != nil {
			_ = opened.close() // nobody has used it
		}
	}
	if err := c.run(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := opened.identity()
	if d.closed {
		return errors.Join(errClosed, opened.close())
	}
	if d.id == (Identity{}) {
		d.id = id
	}
	if id != d.id {
		return errors.Join(fmt.Errorf("%w: it is %s, and was %s", errChanged, id, d.id), opened.close())
	}
	old := d.handle
	d.handle, d.suspect = &handle{file: opened}, nil
	return d.retire(old)
}

// retire closes a handle as soon as nobody uses it. The mutex is held.
func (d *Device) retire(h *handle) error {
	if h == nil {
		return nil
	}
	h.retired = true
	if h.calls > 0 {
		return nil
	}
	return h.close()
}

// Reopen makes a device usable again after a failed write, if it is still the
// same. The store must be reopened afterwards. It fails as long as a write has
// not ended. No other call may be under way in another goroutine.
func (d *Device) Reopen() error {
	_ = d.settle() // what was on its way belongs to the time before
	if err := d.attach(); err != nil {
		return fail("reopen", d.path, err)
	}
	return nil
}

// Suspect is why the device must be reopened, or nil.
func (d *Device) Suspect() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.suspect
}

// Path is as it was opened.
func (d *Device) Path() string { return d.path }

// Size is that of the device when it was opened, in bytes.
func (d *Device) Size() int64 { return d.Identity().Size }

// Identity is that of the device when it was opened.
func (d *Device) Identity() Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id
}

// Buffered tells that the file system refuses direct I/O, so that reads come
// from this machine's cache: other machines' writes are not seen.
func (d *Device) Buffered() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.handle.buffered()
}

// ReadAt reads all of p.
func (d *Device) ReadAt(p []byte, off int64) error {
	return d.Gather([]repository.Span{{Off: off, Len: len(p)}}, func(_ int, read []byte) { copy(p, read) })
}

// Gather is as in [repository.Gatherer].
func (d *Device) Gather(spans []repository.Span, look func(i int, p []byte)) error {
	calls := make([]*call, len(spans))
	for i, s := range spans {
		b, err := d.borrow("read", s.Len, s.Off)
		if err != nil {
			return err
		}
		calls[i] = &call{device: d, buffer: b, work: func(f file) error { return whole(f.readAt, b.bytes, s.Off) }}
	}
	if err := d.settle(); err != nil {
		return fail("write", d.path, err)
	}
	for some := range slices.Chunk(calls, maxStuck) {
		if err := together(some); err != nil {
			return fail("read", d.path, err)
		}
	}
	for i, c := range calls {
		look(i, c.buffer.bytes)
		c.buffer.give()
	}
	return nil
}

// WriteAt begins to write all of p, which the caller may use again at once. It
// is written, or the error is returned, when the next read or flush returns: a
// document and its record are on their way at the same time.
func (d *Device) WriteAt(p []byte, off int64) error {
	b, err := d.borrow("write", len(p), off)
	if err != nil {
		return err
	}
	copy(b.bytes, p)
	c := &call{device: d, buffer: b, writes: true, work: func(f file) error { return whole(f.writeAt, b.bytes, off) }}
	d.mu.Lock()
	full := len(d.begun) >= maxStuck
	d.mu.Unlock()
	if full {
		err = d.settle()
	}
	if err == nil {
		err = c.begin()
	}
	if err != nil {
		return fail("write", d.path, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun = append(d.begun, c)
	return nil
}

// settle waits for the writes that have begun. After an error none of them
// counts.
func (d *Device) settle() error {
	d.mu.Lock()
	begun := d.begun
	d.begun = nil
	d.mu.Unlock()
	var problems []error
	for _, c := range begun {
		if err := c.wait(); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// Flush makes durable what was written (fdatasync(2)).
func (d *Device) Flush() error {
	if err := d.settle(); err != nil {
		return fail("write", d.path, err)
	}
	c := &call{device: d, writes: true, work: file.sync}
	if err := c.run(); err != nil {
		return fail("flush", d.path, err)
	}
	return nil
}

// borrow takes a buffer for a call, and checks what the interface wants.
func (d *Device) borrow(op string, size int, off int64) (*buffer, error) {
	if off < 0 || off%repository.BlockSize != 0 || size <= 0 || size%repository.BlockSize != 0 || off+int64(size) > d.Size() {
		return nil, fail(op, d.path, fmt.Errorf("%w: %d bytes at %d of %d; whole blocks of %d within the device",
			belfry.ErrUsage, size, off, d.Size(), repository.BlockSize))
	}
	return take(size), nil
}

// whole wants a transfer of all of p.
func whole(transfer func([]byte, int64) (int, error), p []byte, off int64) error {
	n, err := transfer(p, off)
	if err == nil && n < len(p) {
		err = fmt.Errorf("%w: %d of %d bytes at %d", errShort, n, len(p), off)
	}
	return err
}

// Close gives the locks back. A call that hangs keeps its file open, and with
// it the locks: its write may still land.
func (d *Device) Close() error {
	begun := d.settle()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	err := errors.Join(begun, d.retire(d.handle))
	if d.hung == 0 {
		err = errors.Join(err, d.unlock())
	}
	if err != nil {
		return fail("close", d.path, err)
	}
	return nil
}

// Strayed tells that the path leads to something else by now, or to nothing:
// what is open goes on to work, and is not what others will open. It says
// nothing while the path can not be asked.
func (d *Device) Strayed() error {
	var now unix.Stat_t
	c := &call{device: d, opens: true, work: func(file) error {
		return again(func() error { return unix.Stat(d.path, &now) })
	}}
	err := c.run()
	switch {
	case errors.Is(err, errHung), errors.Is(err, errWaiting), errors.Is(err, errLost):
		return nil
	case err != nil:
		return fail("find", d.path, err)
	}
	id := Identity{Device: now.Dev, Inode: now.Ino}
	if now.Mode&unix.S_IFMT == unix.S_IFBLK {
		id = Identity{Device: now.Rdev}
	}
	if was := d.Identity(); id.Device != was.Device || id.Inode != was.Inode {
		return fail("find", d.path, errChanged)
	}
	return nil
}

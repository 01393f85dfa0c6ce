package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/repository"
)

// read is the boot record of a candidate; of epoch zero if there is none. One
// that hangs is given up at the deadline, and not asked again before its call
// has ended.
func (f *Finder) read(c candidate) (repository.Header, error) {
	type answer struct {
		header repository.Header
		err    error
	}
	f.mu.Lock()
	if f.stuck[c.key] {
		f.mu.Unlock()
		return repository.Header{}, fail("find", c.path, errHung)
	}
	f.stuck[c.key] = true
	f.mu.Unlock()
	done := make(chan answer, 1)
	go func() {
		h, err := f.ask(c)
		f.mu.Lock()
		delete(f.stuck, c.key)
		f.mu.Unlock()
		done <- answer{h, err}
	}()
	deadline := time.NewTimer(f.cfg.Deadline)
	defer deadline.Stop()
	select {
	case a := <-done:
		if a.err != nil {
			return a.header, about("find", c.path, a.err)
		}
		return a.header, nil
	case <-deadline.C:
		return repository.Header{}, fail("find", c.path, errHung)
	}
}

// ask opens a candidate, if it still is what it was when it was listed.
func (f *Finder) ask(c candidate) (h repository.Header, err error) {
	opened, err := f.open(c.path, Options{ReadOnly: true})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOMEDIUM):
		return h, nil // gone meanwhile, or nothing is in it
	case err != nil:
		return h, err
	}
	if id := opened.identity(); id.Device != c.key.Device || id.Inode != c.key.Inode {
		err = fmt.Errorf("%w: it is %s", errChanged, id)
	} else {
		h, err = boot(medium{opened})
	}
	if end := opened.close(); err == nil {
		err = end
	}
	return h, err
}

// boot reads the boot record, the second copy only if the first one is damaged.
func boot(m medium) (repository.Header, error) {
	block := make([]byte, repository.BlockSize)
	if err := m.ReadAt(block, 0); err != nil {
		return repository.Header{}, err
	}
	h, err := repository.DecodeHeader(block, m.Size())
	switch {
	case err == nil:
		return h, nil
	case !bytes.HasPrefix(block, []byte("BELFRYR")):
		return repository.Header{}, nil // not ours
	}
	return repository.ReadHeader(m)
}

// A medium is a [repository.Device] that is only read, and whose caller has the
// deadline.
type medium struct{ file }

// ReadAt reads all of p.
func (m medium) ReadAt(p []byte, off int64) error {
	b := take(len(p))
	defer b.give()
	err := whole(m.readAt, b.bytes, off)
	copy(p, b.bytes)
	return err
}

// WriteAt refuses.
func (m medium) WriteAt([]byte, int64) error { return unix.EROFS }

// Flush has nothing to do.
func (m medium) Flush() error { return nil }

// Size is the device's, in bytes.
func (m medium) Size() int64 { return m.identity().Size }

// same tells whether two candidates are ways to the same medium.
func same(a, b candidate) bool {
	none := Identity{}
	return a.world != "" && a.world == b.world || // paths to one disk
		a.backing != none && (a.backing == b.key || a.backing == b.backing) || b.backing != none && b.backing == a.key
}

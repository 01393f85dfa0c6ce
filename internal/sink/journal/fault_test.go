package journal

import (
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
)

var errPower = errors.New("the machine is off")

// faultFS is a directory in memory that tears writes, fails syncs, fills up,
// and forgets what was not durable.
type faultFS struct {
	mu    sync.Mutex
	files map[string]*faultFile

	left     int   // bytes until the power goes; negative: it stays on
	room     int64 // bytes that fit; negative: all
	failSync error // of each call
	failDir  error
	off      bool
}

type faultFile struct {
	fs      *faultFS
	data    []byte
	durable int  // bytes
	named   bool // its name is durable
	failed  int  // syncs
}

func newFaultFS() *faultFS { return &faultFS{files: map[string]*faultFile{}, left: -1, room: -1} }

// crash is what another start finds. A killed process loses nothing that it
// wrote; a machine without power may lose all that was not synced.
func (fs *faultFS) crash(power bool) *faultFS {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	after := newFaultFS()
	for name, f := range fs.files {
		data := f.data
		if power {
			if !f.named {
				continue
			}
			data = data[:f.durable]
		}
		after.files[name] = &faultFile{fs: after, data: slices.Clone(data), durable: len(data), named: true}
	}
	return after
}

func (fs *faultFS) used() (n int64) {
	for _, f := range fs.files {
		n += int64(len(f.data))
	}
	return n
}

func (fs *faultFS) Names() ([]string, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return slices.Collect(maps.Keys(fs.files)), nil
}

func (fs *faultFS) Create(name string) (File, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.off {
		return nil, errPower
	}
	f := &faultFile{fs: fs}
	fs.files[name] = f
	return f, nil
}

func (fs *faultFS) Open(name string) (ReadFile, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.files[name]
	if f == nil {
		return nil, os.ErrNotExist
	}
	return f, nil
}

func (fs *faultFS) Remove(name string) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.off {
		return errPower
	}
	if fs.files[name] == nil {
		return os.ErrNotExist
	}
	delete(fs.files, name)
	return nil
}

func (fs *faultFS) Truncate(name string, size int64) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.files[name]
	switch {
	case fs.off:
		return errPower
	case f == nil:
		return os.ErrNotExist
	case fs.failSync != nil:
		return fs.failSync
	}
	f.data = f.data[:size:size]
	f.durable = int(size)
	return nil
}

func (fs *faultFS) Sync() error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.off {
		return errPower
	}
	if fs.failDir != nil {
		return fs.failDir
	}
	for _, f := range fs.files {
		f.named = true
	}
	return nil
}

func (f *faultFile) Write(b []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := len(b), error(nil)
	if f.fs.off {
		return 0, errPower
	}
	if room := f.fs.room - f.fs.used(); f.fs.room >= 0 && int64(n) > room {
		n, err = int(max(0, room)), syscall.ENOSPC
	}
	if f.fs.left >= 0 && n >= f.fs.left {
		n, err, f.fs.off = f.fs.left, errPower, true
	}
	f.data = append(f.data, b[:n]...)
	if f.fs.left >= 0 {
		f.fs.left -= n
	}
	return n, err
}

func (f *faultFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	switch {
	case f.fs.off:
		return errPower
	case f.fs.failSync != nil:
		f.failed++
		return f.fs.failSync
	}
	f.durable = len(f.data)
	return nil
}

func (f *faultFile) Close() error { return nil }

func (f *faultFile) ReadAt(b []byte, at int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if at >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.data[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *faultFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.data)), nil
}

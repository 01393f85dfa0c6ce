package journal

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// An FS is the little of a file system that a journal needs: one directory. It
// is an interface so that tests can tear writes, fail a sync or fill the disk.
// It is safe for concurrent use.
type FS interface {
	// Names are the files in the directory, in any order.
	Names() ([]string, error)
	// Create makes an empty file; one that is there becomes empty.
	Create(name string) (File, error)
	Open(name string) (ReadFile, error)
	Remove(name string) error
	// Truncate cuts a file off at size and makes what is left durable.
	Truncate(name string, size int64) error
	// Sync makes the names in the directory durable.
	Sync() error
}

// A File is written from its beginning to its end.
type File interface {
	io.WriteCloser
	// Sync makes what was written durable. After an error nobody knows how much
	// of it is, and another call would lie (Rebello et al., "Can Applications
	// Recover from fsync Failures?", USENIX ATC 2020).
	Sync() error
}

// A ReadFile goes on being readable when it has been removed.
type ReadFile interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
}

// Dir is a directory of the operating system, which is there.
func Dir(path string) FS { return dir(path) }

type dir string

func (d dir) Names() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (d dir) Create(name string) (File, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &dirFile{f}, nil
}

func (d dir) Open(name string) (ReadFile, error) {
	f, err := os.Open(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	return &dirFile{f}, nil
}

func (d dir) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

func (d dir) Truncate(name string, size int64) error {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

func (d dir) Sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type dirFile struct{ *os.File }

// Sync leaves out the time of the last change, which nobody reads: fdatasync(2).
func (f *dirFile) Sync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (f *dirFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

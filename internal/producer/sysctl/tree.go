package sysctl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// What mode bits say of a key. Root could read and write all of them.
const (
	readByAll     = 0o004
	writeByAny    = 0o222
	readByAnybody = 0o444
)

// maxValue bounds what is read of one key. The longest are lists of ports.
const maxValue = 64 << 10

// restless are settings that the kernel changes by itself all the time.
var restless = map[string]bool{"kernel/ns_last_pid": true}

// A tree is the keys below a root. Not safe for concurrent use.
type tree struct {
	root   string
	buffer []byte // of read
}

// read is the value of a key, without the line's end, until the next call.
func (t *tree) read(path string) ([]byte, error) {
	fd, err := unix.Open(filepath.Join(t.root, path), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if t.buffer == nil {
		t.buffer = make([]byte, maxValue)
	}
	length := 0
	for length < len(t.buffer) {
		n, err := unix.Read(fd, t.buffer[length:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 { // the end
			break
		}
		length += n
	}
	return bytes.TrimRight(t.buffer[:length], "\n"), nil
}

// check tells why a key can't be watched. What not every local user may read is
// refused whatever this process may: whoever may observe sysctl.change may do so
// because everybody can.
func (t *tree) check(path string) error {
	info, err := os.Lstat(filepath.Join(t.root, path))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%w: there is no key %s; load what it belongs to, or wait for it (--wait)", belfry.ErrNoEvent, dotted(path))
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w; let the agent read it", belfry.ErrPermission, dotted(path), err)
	}
	mode := info.Mode()
	switch {
	case mode.IsDir():
		return fmt.Errorf("%w: %s has keys below it; write one of them, or %s.*", belfry.ErrUsage, dotted(path), dotted(path))
	case !mode.IsRegular(), deviceOf(info) != t.device():
		return fmt.Errorf("%w: %s is no key, but lies on another file system; watch it by file.modify", belfry.ErrUnsupported, dotted(path))
	case mode&readByAnybody == 0:
		return fmt.Errorf("%w: %s can only be written; watch a key that has a value", belfry.ErrUnsupported, dotted(path))
	case mode&readByAll == 0:
		return fmt.Errorf("%w: %s is not for everybody to read; watch a key that is", belfry.ErrPermission, dotted(path))
	}
	return nil
}

// settings calls each for the keys below a directory that everybody may read and
// somebody may write: the others are counters and constants. Other file systems
// are not entered: one of them may be mounted only by being looked into.
func (t *tree) settings(dir string, each func(path string) error) error {
	device := t.device()
	return filepath.WalkDir(filepath.Join(t.root, dir), func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is gone, or not for us
		}
		info, err := d.Info()
		if err != nil || deviceOf(info) != device {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		mode := info.Mode()
		path, err := filepath.Rel(t.root, full)
		if err != nil || !mode.IsRegular() || mode&readByAll == 0 || mode&writeByAny == 0 || restless[path] || !utf8.ValidString(path) {
			return err
		}
		return each(path)
	})
}

// device is the one that all keys are on; 0: there are none.
func (t *tree) device() uint64 {
	info, err := os.Lstat(t.root)
	if err != nil {
		return 0
	}
	return deviceOf(info)
}

func deviceOf(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev)
	}
	return 0
}

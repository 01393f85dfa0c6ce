package security

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/belfry-ha/belfry"
)

// maxKeyFile bounds what is read of one file of keys, in bytes.
const maxKeyFile = 64 << 10

// makeDir makes the folder of keys, 0700, with its parents.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder of keys: %w", err)
	}
	return checkMode(dir, 0o022, "go-w")
}

// ReplaceFile makes name hold data, 0600, durable, whole or not at all.
func ReplaceFile(name string, data []byte) error { return writeFile(name, data, true) }

// writeFile puts a file in place whole or not at all, readable by its owner
// only. With replace unset an existing one is kept and ErrExist wrapped.
func writeFile(name string, data []byte, replace bool) (err error) {
	var suffix [8]byte
	rand.Read(suffix[:])
	temp := filepath.Join(filepath.Dir(name), ".new-"+hex.EncodeToString(suffix[:]))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp) // what is left of a failed write; the first error tells
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err = place(temp, name, replace); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// place renames. A link fails where a file is, so that two writers can not
// both think that theirs is there.
func place(temp, name string, replace bool) error {
	if replace {
		if err := os.Rename(temp, name); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
		return nil
	}
	if err := os.Link(temp, name); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s; keys are never overwritten, move the old ones away first", belfry.ErrExist, name)
	} else if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := os.Remove(temp); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}

// readFile reads a file of keys after checking, on the open file, that only
// its owner can and that this process is the owner. It wraps ErrPermission or
// fs.ErrNotExist.
func readFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a symbolic link; put the file itself there", belfry.ErrPermission, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file; put the file itself there", belfry.ErrPermission, name)
	}
	if err := checkOwned(name, info, 0o077, "600"); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%w: %s has more than %d bytes; it is no file of keys", belfry.ErrLimit, name, maxKeyFile)
	}
	return data, nil
}

func checkMode(name string, forbidden fs.FileMode, remedy string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	return checkOwned(name, info, forbidden, remedy)
}

func checkOwned(name string, info fs.FileInfo, forbidden fs.FileMode, remedy string) error {
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return fmt.Errorf("%w: %s has mode %04o, others could use it; run: chmod %s %s",
			belfry.ErrPermission, name, mode, remedy, name)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to uid %d and the agent runs as uid %d; run: chown %d %s",
			belfry.ErrPermission, name, stat.Uid, os.Geteuid(), os.Geteuid(), name)
	}
	return nil
}

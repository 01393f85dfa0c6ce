package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

// The newest generation is durable in one of two places: files with room to grow,
// written in turn, over what they hold (ADR 0038). No name and no length changes, so
// that a sync has nothing to do but the write itself. A place that is
// torn does not fit its SHA-256; the other one then holds the generation before.
var placeNames = [...]string{"place0", "place1"}

const (
	placeLeast = 64 << 10 // bytes, so that documents of a few nodes have room to grow
	placeBlock = 4 << 10  // is written whole: nothing need be read for a part of it
	maxPlace   = 3 * maxCopyBytes
)

// keepInPlace makes a copy durable, in the place that does not hold the newest.
func keepInPlace(dir string, data []byte) error {
	path := stalePlace(dir)
	whole := make([]byte, (len(data)/placeBlock+1)*placeBlock) // a zero ends the copy
	copy(whole, data)
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return security.ReplaceFile(path, append(whole, make([]byte, max(placeLeast, len(whole)))...))
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < int64(len(whole)) {
		return errors.Join(f.Close(), security.ReplaceFile(path, append(whole, make([]byte, len(whole))...)))
	}
	if err == nil {
		_, err = f.WriteAt(whole, 0)
	}
	if err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err != nil {
		// What the cache has may be on no disk (fsync(2)): it must not be taken for
		// the newest, or the next one is written over the only one that is.
		err = errors.Join(err, os.Remove(path))
	}
	return errors.Join(err, f.Close())
}

// stalePlace is the place whose copy may be lost.
func stalePlace(dir string) string {
	first, second := filepath.Join(dir, placeNames[0]), filepath.Join(dir, placeNames[1])
	a, _, err := checkCopy(first)
	if err != nil {
		return first
	}
	b, _, err := checkCopy(second)
	if err != nil || b.Before(a) {
		return second
	}
	return first
}

// newestCopy is the newest whole copy of a state directory, and the file that it
// is in, which is on the disk when this returns. If there is none the error is
// that of the one that people look at.
func newestCopy(state string) (path string, held repository.Held, err error) {
	path = copyOf(state)
	v, document, err := checkCopy(path)
	for _, name := range placeNames {
		other := filepath.Join(state, copyDir, name)
		w, text, bad := checkCopy(other)
		if bad == nil && (err != nil || v.Before(w)) {
			path, v, document, err = other, w, text, nil
		}
	}
	if err == nil {
		err = syncFile(path)
	}
	if err == nil {
		held, err = repository.HeldOf(v, document)
	}
	return path, held, err
}

// syncFile is for what a process may have written that ended before its sync.
func syncFile(path string) error {
	for _, name := range []string{path, filepath.Dir(path)} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// checkCopy reads a copy and wants that it is whole. ErrNotExist of the file stays
// visible.
func checkCopy(path string) (v repository.Version, document []byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return v, nil, err
	}
	if info.Size() > maxPlace {
		return v, nil, fmt.Errorf("%w: %d bytes; at most %d", belfry.ErrLimit, info.Size(), maxPlace)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return v, nil, err
	}
	data, _, _ = bytes.Cut(data, []byte{0}) // of a place; a document has none
	line, document, whole := bytes.Cut(data, []byte("\n"))
	v, err = parseVersion(string(line))
	if err != nil || !whole {
		return v, nil, fmt.Errorf("%w: its first line does not say which version it is (%w)", belfry.ErrUsage, err)
	}
	if sha256.Sum256(document) != v.Digest {
		return v, nil, fmt.Errorf("%w: generation %d does not have its SHA-256", belfry.ErrUsage, v.Generation)
	}
	return v, document, nil
}

package disk

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/belfry-ha/belfry/internal/repository"
)

// Create makes a new file of that size for the agents of one machine. It is
// sparse: most slots are never used. ErrExist: something is at the path.
func Create(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			err = taken(err)
		}
		return fail("create", path, err)
	}
	err = errors.Join(f.Truncate(size), f.Sync(), f.Close(), syncFolder(filepath.Dir(path)))
	if err != nil {
		return fail("create", path, errors.Join(err, os.Remove(path)))
	}
	return nil
}

// syncFolder makes the name durable, not only what is in the file.
func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Format makes a device or file a disk of the repository ([repository.Format]),
// which nothing else may be using meanwhile. ErrExist: it holds something, and
// destroy is false; or it is mounted, part of a volume, or in use by an agent.
func Format(path string, destroy bool, h repository.Header, founder repository.Founder, doc []byte, op repository.OpID) error {
	d, err := Open(path, Options{Exclusive: true})
	if err != nil {
		return err
	}
	err = d.Lock(0, d.Size()) // O_EXCL means nothing for a file
	if errors.Is(err, repository.Cloned) {
		err = errInUse
	}
	if err == nil && !destroy {
		err = repository.Inspect(d, h.Layout)
	}
	if err == nil {
		err = repository.Format(d, h, founder, doc, op)
	}
	if err != nil {
		return errors.Join(fail("format", path, err), d.Close())
	}
	return d.Close()
}

package disk

import (
	"errors"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// What commands do that ask no agent.

// Examine is [repository.Examine] of what is at a path. Nothing is written, and
// no lock taken: agents go on working.
func Examine(path string) (s repository.Survey, err error) {
	d, err := Open(path, Options{ReadOnly: true})
	if err != nil {
		return s, about("examine", path, err)
	}
	s, err = repository.Examine(d)
	return s, about("examine", path, finish(err, d))
}

// Repair is [repository.Survey.Repair] of what is at a path, with the disk as it
// is once no agent of this machine uses it: ErrExist, if one does.
func Repair(path string, document func(repository.Digest) []byte) (repaired []string, err error) {
	return repaired, alone("repair", path, known, func(d *Device) error {
		s, err := repository.Examine(d)
		if err == nil {
			repaired, err = s.Repair(d, document)
		}
		return err
	})
}

// Wipe is [repository.Wipe] of what is at a path. ErrExist: an agent of this
// machine uses it, or it is mounted or part of a volume.
func Wipe(path string) error {
	return alone("wipe", path, known, func(d *Device) error { return repository.Wipe(d) })
}

// Recover is [repository.Recover] of what is at a path. ErrExist also: as for
// [Wipe].
func Recover(path string, mirror repository.Header) error {
	return alone("recover", path, func(*Device) error { return nil }, func(d *Device) error {
		_, err := repository.Recover(d, mirror)
		return err
	})
}

// known wants a repository, before any lock is asked for: of what is none nothing
// is in use.
func known(d *Device) error {
	_, err := repository.ReadHeader(d)
	return err
}

// alone works on a disk that no agent of this machine has a slot on: each of
// them locks its own two records, whatever it does. First what it is may be looked at.
func alone(op, path string, first, work func(*Device) error) error {
	d, err := Open(path, Options{Exclusive: true})
	if err != nil {
		return about(op, path, err)
	}
	if err = first(d); err == nil {
		err = d.Lock(0, d.Size())
		if errors.Is(err, repository.Cloned) {
			err = errInUse
		}
	}
	if err == nil {
		err = work(d)
	}
	return about(op, path, finish(err, d))
}

// Document is one of that hash that is whole on the disk at a path; nil: it has
// none. For repairs of its mirrors.
func Document(path string, want repository.Digest) ([]byte, error) {
	d, err := Open(path, Options{ReadOnly: true})
	if err != nil {
		return nil, about("examine", path, err)
	}
	s, err := repository.Examine(d)
	var doc []byte
	if err == nil {
		doc = s.Held(d, want)
	}
	return doc, about("examine", path, finish(err, d))
}

// finish closes a device whose work has ended with err.
func finish(err error, d *Device) error {
	if end := d.Close(); err == nil {
		return end
	}
	return err // says more than that closing failed as well
}

// about names the path, and leaves out which step it was: whoever asks has named
// the operation.
func about(op, path string, err error) error {
	if err == nil {
		return nil
	}
	for {
		inner, ok := err.(*belfry.Error) //nolint:errorlint // just the outermost
		if !ok {
			return fail(op, path, err)
		}
		err = inner.Err
	}
}

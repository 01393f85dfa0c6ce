package repositorytest

import (
	"errors"
	"slices"
	"testing"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// A backend is a store with the loop that a driver has around it.
type backend struct{ *repository.Store }

func (b backend) Load() (found repository.Snapshot, err error) {
	err = retry(b.Store, 10, func() error { found, err = b.Store.Load(); return err })
	return found, err
}

func (b backend) CAS(base repository.Version, doc []byte, op repository.OpID) (v repository.Version, err error) {
	err = retry(b.Store, 10, func() error { v, err = b.Store.CAS(base, doc, op); return err })
	return v, err
}

func (b backend) Poll() (repository.Snapshot, error) { return b.Store.Poll() }
func (b backend) Hints() <-chan repository.Version   { return nil }
func (b backend) Close() error                       { return b.Seal() }

// Simulated is a repository on so many simulated disks.
func Simulated(disks int) New {
	return func(t *testing.T) func(int) repository.Backend {
		t.Helper()
		all, err := format(2, disks)
		if err != nil {
			t.Fatal(err)
		}
		return func(host int) repository.Backend {
			var devices []repository.Device
			for _, d := range all {
				devices = append(devices, d.Open())
			}
			store, err := repository.Open(config(host, 1, 0), devices...)
			if err != nil {
				t.Fatal(err)
			}
			return backend{store}
		}
	}
}

// FailingCall has one host update a repository of so many disks while call n of
// the first disk fails, counted from the open, and what it had not flushed is
// only in its cache from then on. It returns the error of the update, and
// whether there were as many calls. Afterwards the disk works again; the update,
// tried once more if it failed, must outlive a crash, and have happened once.
func FailingCall(t *testing.T, disks, n int) (failed error, reached bool) {
	t.Helper()
	all, err := format(2, disks)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	devices := []repository.Device{&Port{all[0], func(*late) error {
		if calls++; calls == n {
			all[0].forget()
			return errIO
		}
		return nil
	}}}
	for _, d := range all[1:] {
		devices = append(devices, d.Open())
	}
	op := opID(1, 1)
	var doc []byte
	var base repository.Snapshot
	attempt := func(store *repository.Store) error {
		if base.Generation == 0 {
			if base, err = store.Load(); err != nil {
				return err
			}
			doc = appendOp(base.Document, op)
		}
		_, err := store.CAS(base.Version, doc, op)
		return err
	}
	store, failed := repository.Open(config(0, 1, 0), devices...)
	if failed == nil {
		failed = attempt(store)
	}
	reached = calls >= n
	if failed != nil {
		if store, err = repository.Open(config(0, 1, 0), devices...); err != nil {
			t.Fatal(err)
		}
		if err := attempt(store); err != nil {
			t.Fatalf("call %d failed, then again: %v", n, err)
		}
	}
	for i, d := range all {
		devices[i] = NewDisk(d.durable).Open()
	}
	for _, host := range []int{1, 0} {
		s, err := repository.Open(config(host, 2, 0), devices...)
		if err != nil {
			t.Fatal(err)
		}
		found, err := backend{s}.Load()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(found.Document, doc) || found.Generation != 2 {
			t.Errorf("call %d failed: generation %d of %d bytes, want 2 of %d", n, found.Generation, len(found.Document), len(doc))
		}
	}
	return failed, reached
}

// TooFew tells whether an error is one of disks that do not answer, or of an
// outcome that is open because of it.
func TooFew(err error) bool {
	return errors.Is(err, repository.TooFew) || errors.Is(err, belfry.ErrUnknown) || errors.Is(err, errIO)
}

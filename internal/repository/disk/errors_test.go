package disk

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// kinds are what may go wrong once. Nil is a short transfer.
var kinds = map[string]error{"EIO": unix.EIO, "ENOSPC": unix.ENOSPC, "Short": nil}

// Whichever call fails, once: the host opens the device anew, and the update
// is acknowledged, has happened once, and outlives a crash.
func TestAnyCallMayFailOnce(t *testing.T) {
	t.Parallel()
	for name, errno := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := 0
			for n := 1; ; n++ {
				path := newFileIn(t, memory(t), small())
				f := newFaults(t, path)
				f.fail(n, errno, false)
				cfg := hostConfig(path, 0, 2)
				cfg.Patience = patient
				h, err := openHost(cfg, f.open)
				if err != nil {
					failed++
					wantHelpful(t, err, path)
					if h, err = openHost(cfg, f.open); err != nil {
						t.Fatalf("call %d failed, then again: %v", n, err)
					}
				}
				updates := []repository.OpID{opID(1, 1), opID(1, 2)}
				if !errors.Is(errno, unix.EIO) {
					updates = updates[:1] // the calls are the same, and time is short
				}
				for _, op := range updates {
					add(t, h, op)
				}
				h.sealing.Wait()
				reached := f.reached()
				// A crash instead of an orderly end.
				h.close()
				f.crash()
				wantUpdates(t, path, n, updates...)
				if !reached {
					break
				}
				if n > 100 {
					t.Fatal("no end of calls")
				}
			}
			if failed < 3 {
				t.Errorf("only %d opens failed", failed)
			}
		})
	}
}

// Whichever call fails, and all after it: nothing is acknowledged that a crash
// takes away, and nothing happens twice.
func TestAnyCallMayBeTheLast(t *testing.T) {
	t.Parallel()
	for name, errno := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				path := newFileIn(t, memory(t), small())
				f := newFaults(t, path)
				h, err := openHost(impatient(path), f.open)
				if err != nil {
					t.Fatal(err)
				}
				base, err := h.Load()
				if err != nil {
					t.Fatal(err)
				}
				f.fail(n, errno, true)
				op := opID(1, 1)
				_, err = h.CAS(base.Version, append(base.Document, op[:]...), op)
				reached := f.reached()
				if err != nil {
					wantHelpful(t, err, path)
					if !errors.Is(err, belfry.ErrUnknown) && !errors.Is(err, belfry.ErrRestricted) {
						t.Errorf("call %d failed: %v", n, err)
					}
				}
				h.close()
				f.crash()
				f.fail(0, nil, false)
				again, openErr := openHost(hostConfig(path, 0, 3), f.open)
				if openErr != nil {
					t.Fatal(openErr)
				}
				if err == nil {
					wantUpdates(t, path, n, op)
				}
				if !errors.Is(err, belfry.ErrUnknown) {
					// Then it has happened, or it has not and will not.
					found, loadErr := again.Load()
					if loadErr != nil || (err == nil) != repositorytest.Holds(found.Document, op) {
						t.Errorf("call %d failed: %v, but generation %d is there (%v)", n, err, found.Generation, loadErr)
					}
				}
				if _, err := again.CAS(base.Version, append(base.Document, op[:]...), op); err != nil {
					t.Fatalf("call %d failed, then again: %v", n, err)
				}
				again.close()
				wantUpdates(t, path, n, op)
				if err == nil && !reached {
					break
				}
			}
		})
	}
}

// wantHelpful: an error names the operation, the device and what to do.
func wantHelpful(t *testing.T, err error, path string) {
	t.Helper()
	text := err.Error()
	if !strings.Contains(text, path) || !strings.Contains(text, "repository.disk.") || !strings.Contains(text, "; ") {
		t.Errorf("%q does not say what is wrong with %s and what to do", text, path)
	}
	var e *belfry.Error
	if !errors.As(err, &e) {
		t.Errorf("%T is not the project's error", err)
	}
}

// wantUpdates has another host read, which must see these updates, once each
// and in this order.
func wantUpdates(t *testing.T, path string, n int, want ...repository.OpID) {
	t.Helper()
	h, err := OpenHost(hostConfig(path, 7, 9))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	found, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	doc := slices.Clone(repositorytest.First())
	for _, op := range want {
		doc = append(doc, op[:]...)
	}
	if !slices.Equal(found.Document, doc) || int(found.Generation) != len(doc)/opSize {
		t.Errorf("call %d failed: generation %d of %d bytes, want %d of %d",
			n, found.Generation, len(found.Document), len(doc)/opSize, len(doc))
	}
}

// The device of a failed flush must not be flushed again: the kernel would say
// that all is well.
func TestAFailedFlushIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	f := newFaults(t, path)
	d, err := openDevice(path, Options{}, f.open)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	block := slices.Repeat([]byte{7}, repository.BlockSize)
	f.fail(2, unix.EIO, false)
	if err := d.WriteAt(block, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(); !errors.Is(err, unix.EIO) || !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("flush: %v, want %v", err, unix.EIO)
	}
	got := make([]byte, repository.BlockSize)
	for name, again := range map[string]func() error{
		"flush": d.Flush, "write": func() error { return d.WriteAt(block, 0) }, "read": func() error { return d.ReadAt(got, 0) },
	} {
		if err := again(); !errors.Is(err, errSuspect) || !errors.Is(err, unix.EIO) {
			t.Errorf("%s after a failed flush: %v, want %v", name, err, errSuspect)
		}
	}
	if f.calls != 2 {
		t.Errorf("%d calls reached the device, want the write and the flush", f.calls)
	}
	if err := d.Reopen(); err != nil {
		t.Fatal(err)
	}
	if err := d.ReadAt(got, 0); err != nil || slices.Equal(got, block) {
		t.Errorf("reopened, the lost write is read back (%v)", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err      error
		sentinel error
		text     string
	}{
		{unix.ENOENT, belfry.ErrNotFound, "name a device that is there"},
		{unix.ENXIO, belfry.ErrNotFound, "attach it"},
		{unix.EACCES, belfry.ErrPermission, "run as root"},
		{unix.EROFS, belfry.ErrPermission, "make the device writable"},
		{unix.EBUSY, belfry.ErrExist, "mounted or part of a volume"},
		{unix.ENOSPC, belfry.ErrRestricted, "make room"},
		{unix.EIO, belfry.ErrRestricted, "kernel's log"},
		{errShort, belfry.ErrRestricted, "full size"},
		{repository.Cloned, repository.Cloned, "stop the copy"},
	} {
		err := fail("write", "/dev/x", fmt.Errorf("layer: %w", c.err))
		if !errors.Is(err, c.sentinel) || !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "repository.disk.write: /dev/x: ") {
			t.Errorf("%v: got %q, want %v and %q", c.err, err, c.sentinel, c.text)
		}
		if errors.Is(err, belfry.ErrLimit) {
			t.Errorf("%v is taken for a document that is too long", c.err)
		}
	}
}

func TestShortTransferIsAnError(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	f := newFaults(t, path)
	block := make([]byte, repository.BlockSize)
	for name, call := range map[string]func(*Device) error{
		"read":  func(d *Device) error { return d.ReadAt(block, 0) },
		"write": func(d *Device) error { return errors.Join(d.WriteAt(block, 0), d.Flush()) },
	} {
		d, err := openDevice(path, Options{}, f.open)
		if err != nil {
			t.Fatal(err)
		}
		f.fail(1, nil, false)
		if err := call(d); !errors.Is(err, errShort) || !strings.Contains(err.Error(), "2048 of 4096 bytes at 0") {
			t.Errorf("%s: %v, want %v with both sizes", name, err, errShort)
		}
		d.Close()
	}
}

// The error of a write that nobody has waited for ends with the reopening.
func TestReopenedIsWithoutItsPast(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	f := newFaults(t, path)
	d, err := openDevice(path, Options{}, f.open)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	block := make([]byte, repository.BlockSize)
	f.fail(1, unix.EIO, false)
	if err := d.WriteAt(block, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the write fails", func() bool { return d.Suspect() != nil })
	if err := d.WriteAt(block, 0); !errors.Is(err, errSuspect) {
		t.Errorf("got %v, want %v", err, errSuspect)
	}
	if err := errors.Join(d.Reopen(), d.WriteAt(block, 0), d.Flush()); err != nil {
		t.Error(err)
	}
}

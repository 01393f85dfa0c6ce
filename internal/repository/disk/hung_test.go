package disk

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// brief is a deadline that a call which works keeps in memory, even on a busy
// machine.
const brief = 500 * time.Millisecond

// hangFrom has call n and all after it hang until the function is called.
func (f *faults) hangFrom(n int) (release func()) {
	f.fail(n, nil, true)
	hang := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hang = hang
	return func() {
		f.fail(0, nil, false)
		close(hang)
	}
}

// eventually waits for what must happen.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	limit, tick := time.After(30*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func (f *faults) begun() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

func newFaulty(t *testing.T) (*Device, *faults) {
	t.Helper()
	path := newFileIn(t, memory(t), small())
	f := newFaults(t, path)
	d, err := openDevice(path, Options{Deadline: brief}, f.open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, f
}

// While a write hangs nothing more is written; reads go on; when it has ended
// the device must be opened anew.
func TestNothingIsWrittenWhileAWriteHangs(t *testing.T) {
	t.Parallel()
	d, f := newFaulty(t)
	block := slices.Repeat([]byte{7}, repository.BlockSize)
	release := f.hangFrom(1)
	if err := d.WriteAt(block, 0); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := d.Flush(); !errors.Is(err, errHung) || !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("flush: %v, want %v", err, errHung)
	}
	if took := time.Since(start); took < brief/2 || took > 10*brief {
		t.Errorf("the deadline of %v came after %v", brief, took)
	}
	block[0] = 9 // the caller's memory is its own again
	f.fail(0, nil, false)
	for name, again := range map[string]func() error{
		"flush": d.Flush, "write": func() error { return d.WriteAt(block, 0) }, "reopening": d.Reopen,
	} {
		if err := again(); !errors.Is(err, errWaiting) {
			t.Errorf("%s while a write hangs: %v, want %v", name, err, errWaiting)
		}
	}
	if n := f.begun(); n != 1 {
		t.Errorf("%d writes reached the device, want the one that hangs", n)
	}
	got := make([]byte, repository.BlockSize)
	if err := d.ReadAt(got, repository.BlockSize); err != nil {
		t.Errorf("read while a write hangs: %v", err)
	}
	release()
	eventually(t, "the write ends", func() bool { return d.Suspect() != nil })
	if err := d.Flush(); !errors.Is(err, errSuspect) {
		t.Errorf("flush after a late write: %v, want %v", err, errSuspect)
	}
	if err := d.Reopen(); err != nil {
		t.Fatal(err)
	}
	block[0] = 7
	if err := d.ReadAt(got, 0); err != nil || !slices.Equal(got, block) {
		t.Errorf("the late write has landed with other bytes (%v)", err)
	}
	if err := errors.Join(d.WriteAt(block, 0), d.Flush()); err != nil {
		t.Error(err)
	}
}

// Each call that hangs keeps a thread: there are two of them at most.
func TestTwoCallsThatHangAreTheLast(t *testing.T) {
	t.Parallel()
	d, f := newFaulty(t)
	got := make([]byte, repository.BlockSize)
	release := f.hangFrom(1)
	for i, want := range []error{errHung, errHung, errLost, errLost} {
		if err := d.ReadAt(got, 0); !errors.Is(err, want) {
			t.Errorf("read %d: %v, want %v", i, err, want)
		}
	}
	f.mu.Lock()
	if f.calls != 2 {
		t.Errorf("%d calls reached the device, want 2", f.calls)
	}
	f.mu.Unlock()
	if err := d.Reopen(); !errors.Is(err, errLost) {
		t.Errorf("reopening: %v, want %v", err, errLost)
	}
	release()
	eventually(t, "the device answers again", func() bool { return d.ReadAt(got, 0) == nil })
}

// A descriptor that is closed while a call is on its way to the kernel may be
// that of something else by then.
func TestHandleIsClosedAfterItsLastCall(t *testing.T) {
	t.Parallel()
	release, closed := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	first.Store(true)
	d, err := openDevice(newFileIn(t, memory(t), small()), Options{Deadline: brief}, func(path string, o Options) (file, error) {
		f, err := openNode(path, o)
		if err != nil || !first.Swap(false) {
			return f, err
		}
		return &slow{closing{f, closed}, release}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := make([]byte, repository.BlockSize)
	if err := d.ReadAt(got, 0); !errors.Is(err, errHung) {
		t.Errorf("got %v, want %v", err, errHung)
	}
	if err := d.Reopen(); err != nil {
		t.Fatal(err)
	}
	if err := d.ReadAt(got, 0); err != nil {
		t.Errorf("reopened while a read hangs: %v", err)
	}
	select {
	case <-closed:
		t.Error("closed while its read hangs")
	default:
		close(release)
		<-closed
	}
}

// slow is a file whose reads wait.
type slow struct {
	closing
	release chan struct{}
}

func (s *slow) readAt(p []byte, off int64) (int, error) {
	<-s.release
	return s.file.readAt(p, off)
}

// A write of ours that still hangs keeps the slot, even if we are gone.
func TestLockOutlivesCloseWhileAWriteHangs(t *testing.T) {
	t.Parallel()
	d, f := newFaulty(t)
	if err := d.Lock(repository.BlockSize, 2*repository.BlockSize); err != nil {
		t.Fatal(err)
	}
	release := f.hangFrom(1)
	if err := d.WriteAt(make([]byte, repository.BlockSize), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); !errors.Is(err, errHung) {
		t.Errorf("close: %v, want %v", err, errHung)
	}
	other, err := Open(d.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Lock(repository.BlockSize, repository.BlockSize); !errors.Is(err, repository.Cloned) {
		t.Errorf("lock while a write of the other one hangs: %v, want %v", err, repository.Cloned)
	}
	release()
	eventually(t, "the lock is free", func() bool { return other.Lock(repository.BlockSize, repository.BlockSize) == nil })
}

// An open may hang as well, on a path to a device that is gone.
func TestOpenHasADeadline(t *testing.T) {
	t.Parallel()
	path := newFileIn(t, memory(t), small())
	release := make(chan struct{})
	closed := make(chan struct{})
	_, err := openDevice(path, Options{Deadline: brief}, func(path string, o Options) (file, error) {
		<-release
		f, err := openNode(path, o)
		return &closing{f, closed}, err
	})
	if !errors.Is(err, errHung) {
		t.Errorf("got %v, want %v", err, errHung)
	}
	close(release)
	<-closed // nobody else would
}

type closing struct {
	file
	closed chan struct{}
}

func (c *closing) close() error {
	close(c.closed)
	return c.file.close()
}

// A host whose disk hangs says that the outcome is open, at once, and goes on
// when the write has ended.
func TestHostOutlivesAHungWrite(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		path := newFileIn(t, memory(t), small())
		f := newFaults(t, path)
		cfg := hostConfig(path, 0, 2)
		cfg.Deadline = brief
		h, err := openHost(cfg, f.open)
		if err != nil {
			t.Fatal(err)
		}
		base, err := h.Load()
		if err != nil {
			t.Fatal(err)
		}
		op := opID(1, 1)
		doc := append(base.Document, op[:]...)
		release := f.hangFrom(n)
		start := time.Now()
		_, err = h.CAS(base.Version, doc, op)
		if took := time.Since(start); took > cfg.Deadline+Patience+2*time.Second {
			t.Errorf("call %d hung: the update took %v", n, took)
		}
		acknowledged, reached := err == nil, f.reached()
		release()
		if err != nil && !errors.Is(err, belfry.ErrUnknown) && !errors.Is(err, belfry.ErrRestricted) {
			t.Errorf("call %d hung: %v", n, err)
		}
		eventually(t, "the update happens", func() bool {
			_, err := h.CAS(base.Version, doc, op)
			return err == nil
		})
		if err := h.Close(); err != nil {
			t.Errorf("call %d hung: %v", n, err)
		}
		wantUpdates(t, path, n, op)
		if acknowledged && !reached {
			break
		}
		if n > 30 {
			t.Fatal("no end of calls")
		}
	}
}

func TestClosedIsClosed(t *testing.T) {
	t.Parallel()
	d, _ := newFaulty(t)
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, repository.BlockSize)
	for name, call := range map[string]func() error{
		"read": func() error { return d.ReadAt(block, 0) }, "write": func() error { return d.WriteAt(block, 0) },
		"flush": d.Flush, "reopen": d.Reopen, "lock": func() error { return d.Lock(0, 1) },
	} {
		if err := call(); !errors.Is(err, errClosed) {
			t.Errorf("%s: %v, want %v", name, err, errClosed)
		}
	}
}

func TestOnlyWholeBlocksWithinTheDevice(t *testing.T) {
	t.Parallel()
	d, _ := newFaulty(t)
	for _, c := range []struct{ off, length int64 }{
		{512, repository.BlockSize}, {0, 512}, {0, 0}, {-repository.BlockSize, repository.BlockSize}, {d.Size(), repository.BlockSize},
	} {
		for name, call := range map[string]func([]byte, int64) error{"read": d.ReadAt, "write": d.WriteAt} {
			if err := call(make([]byte, c.length), c.off); !errors.Is(err, belfry.ErrUsage) {
				t.Errorf("%s of %d bytes at %d: %v, want %v", name, c.length, c.off, err, belfry.ErrUsage)
			}
		}
	}
	if d.Suspect() != nil {
		t.Error("wrong use makes the device suspect")
	}
	// Memory of any alignment will do.
	memory := make([]byte, repository.BlockSize+1)
	copy(memory[1:], "unaligned")
	if err := errors.Join(d.WriteAt(memory[1:], 0), d.Flush()); err != nil {
		t.Error(err)
	}
	got := make([]byte, repository.BlockSize+3)
	if err := d.ReadAt(got[3:], 0); err != nil || string(got[3:12]) != "unaligned" {
		t.Errorf("read back %q, %v", got[3:12], err)
	}
}

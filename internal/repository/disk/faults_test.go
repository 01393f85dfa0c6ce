package disk

import (
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// faults lie between a device and its file. What was written and not flushed
// when a flush fails is still read from the cache, but it is on no disk, and no
// later flush brings it there (fsync(2)): it is gone when the file is opened
// anew, or after a crash.
type faults struct {
	truth file // what a crash leaves is written here

	mu     sync.Mutex
	calls  int // reads, writes, flushes
	at     int // the call that fails, from 1; zero: none
	toEnd  bool
	errno  error // of the one that fails; nil: it is short
	hang   chan struct{}
	writes int // that were begun

	before []image // what was there before the writes since the last flush
	lost   []image
}

type image struct {
	data []byte
	off  int64
}

type faulty struct {
	file
	*faults
}

func (f *faults) open(path string, o Options) (file, error) {
	f.crash()
	opened, err := openNode(path, o)
	if err != nil {
		return nil, err
	}
	return &faulty{opened, f}, nil
}

// crash makes what was lost be seen as lost.
func (f *faults) crash() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range slices.Backward(f.lost) {
		b := take(len(i.data))
		copy(b.bytes, i.data)
		if _, err := f.truth.writeAt(b.bytes, i.off); err != nil {
			panic(err)
		}
	}
	f.lost = nil
}

// step counts a call and tells whether it fails.
func (f *faults) step(write bool) (fails bool) {
	f.mu.Lock()
	f.calls++
	if write {
		f.writes++
	}
	fails = f.at > 0 && (f.calls == f.at || f.toEnd && f.calls > f.at)
	hang := f.hang
	f.mu.Unlock()
	if fails && hang != nil {
		<-hang
		return false
	}
	return fails
}

func (f *faulty) readAt(p []byte, off int64) (int, error) {
	if f.step(false) {
		return f.transfer(f.file.readAt, p, off)
	}
	return f.file.readAt(p, off)
}

func (f *faulty) writeAt(p []byte, off int64) (int, error) {
	fails := f.step(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	b := take(len(p))
	if _, err := f.file.readAt(b.bytes, off); err != nil {
		return 0, err
	}
	f.before = append(f.before, image{slices.Clone(b.bytes), off})
	if fails {
		return f.transfer(f.file.writeAt, p, off)
	}
	return f.file.writeAt(p, off)
}

// transfer fails, after the first half of it if it is to be short.
func (f *faulty) transfer(call func([]byte, int64) (int, error), p []byte, off int64) (int, error) {
	if f.errno != nil {
		return 0, f.errno
	}
	half := len(p) / 2 / 512 * 512
	return call(p[:half], off)
}

func (f *faulty) sync() error {
	fails := f.step(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	if fails {
		f.lost, f.before = append(f.lost, f.before...), nil
		if f.errno == nil {
			return unix.EIO
		}
		return f.errno
	}
	f.before = nil
	return f.file.sync()
}

// newFaults are without a fault as yet.
func newFaults(t *testing.T, path string) *faults {
	t.Helper()
	truth, err := openNode(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { truth.close() })
	return &faults{truth: truth, errno: unix.EIO}
}

// fail has call n fail from now on.
func (f *faults) fail(n int, errno error, toEnd bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.at, f.errno, f.toEnd = 0, n, errno, toEnd
}

// reached tells whether there were as many calls.
func (f *faults) reached() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls >= f.at
}

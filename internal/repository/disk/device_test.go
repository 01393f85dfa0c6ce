package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// Two agents of one machine can not have one slot, in whatever process; each
// slot has a lock of its own, which ends with its holder.
func TestASlotHasOneHost(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	first, err := OpenHost(hostConfig(path, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenHost(hostConfig(path, 1, 3))
	if !errors.Is(err, repository.Cloned) || !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("second host in slot 1: %v, want %v", err, repository.Cloned)
	}
	wantHelpful(t, err, path)
	newHost(t, hostConfig(path, 0, 2))
	newHost(t, hostConfig(path, 2, 2))
	reader := newHost(t, hostConfig(path, -1, 2))
	if _, err := reader.Poll(); err != nil {
		t.Errorf("a node without a slot: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	newHost(t, hostConfig(path, 1, 4))
}

// A process that is being started has our descriptors until it executes its
// program; the lock does not wait for that.
func TestCloseGivesTheLockBackAtOnce(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	h, err := OpenHost(hostConfig(path, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	shared, err := unix.Dup(h.devices[0].locks[0]) // as fork(2) does
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(shared)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	newHost(t, hostConfig(path, 1, 3))
}

// The lock stays when the device is opened anew.
func TestLockOutlivesReopening(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	f := newFaults(t, path)
	h, err := openHost(hostConfig(path, 1, 2), f.open)
	if err != nil {
		t.Fatal(err)
	}
	f.fail(1, unix.EIO, false)
	add(t, h, opID(1, 1))
	if _, err := OpenHost(hostConfig(path, 1, 3)); !errors.Is(err, repository.Cloned) {
		t.Errorf("slot 1 after reopening: %v, want %v", err, repository.Cloned)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// What is at the path after a fault may be another medium.
func TestAnotherMediumIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), Create(path, small().Size()))
		},
		"cut":   func(path string) error { return os.Truncate(path, small().Size()/2) },
		"grown": func(path string) error { return os.Truncate(path, small().Size()*2) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := newFile(t, small())
			d, err := Open(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := d.Reopen(); err != nil {
				t.Fatal(err)
			}
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			err = d.Reopen()
			if !errors.Is(err, errChanged) || !errors.Is(err, belfry.ErrNotFound) {
				t.Errorf("got %v, want %v", err, errChanged)
			}
			wantHelpful(t, err, path)
		})
	}
}

// A write beyond the end would make a file longer again that was cut, with
// zeros in the place of records.
func TestACutFileIsNotWritten(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	h, err := OpenHost(impatient(path))
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	base, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	const left = 2 * repository.BlockSize
	if err := os.Truncate(path, left); err != nil {
		t.Fatal(err)
	}
	op := opID(1, 1)
	_, err = h.CAS(base.Version, append(base.Document, op[:]...), op)
	if !errors.Is(err, belfry.ErrUnknown) && !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("update of a file that was cut: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != left {
		t.Errorf("the file has %d bytes, want %d (%v)", st.Size(), left, err)
	}
	if _, err := h.Load(); err == nil {
		t.Error("a file that was cut can be loaded")
	}
}

func TestOpenFollowsALinkToADevice(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	link := filepath.Join(t.TempDir(), "by-id")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, hostConfig(link, 0, 2))
	add(t, h, opID(1, 1))
}

func TestOnlyDevicesAndFilesAreOpened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		dir: belfry.ErrUsage, fifo: belfry.ErrUsage, "/dev/null": belfry.ErrUsage, filepath.Join(dir, "none"): belfry.ErrNotFound,
	} {
		_, err := Open(path, Options{})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		wantHelpful(t, err, path)
	}
}

// A cache is not shared with other machines.
func TestBufferedFileIsForOneMachine(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	cfg := hostConfig(path, 0, 2)
	cfg.Repository.Local = false
	_, err := openHost(cfg, openBuffered)
	if !errors.Is(err, belfry.ErrUnsupported) {
		t.Errorf("got %v, want %v", err, belfry.ErrUnsupported)
	}
	wantHelpful(t, err, path)
	h, err := OpenHost(cfg)
	if err != nil {
		t.Fatalf("with direct I/O: %v", err)
	}
	h.close()
}

func TestFormatDestroysNothingByItself(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	h := newHost(t, hostConfig(path, 1, 2))
	add(t, h, opID(1, 1))
	c := config(0, 1)
	founder := repository.Founder{Node: c.Node, Incarnation: 1, Boot: c.Boot, Sign: c.Sign}
	for _, destroy := range []bool{true, false} { // an agent is at work
		err := Format(path, destroy, header(small()), founder, repositorytest.First(), repository.OpID{9})
		if !errors.Is(err, errInUse) || !errors.Is(err, belfry.ErrExist) {
			t.Errorf("destroy %v: %v, want %v", destroy, err, errInUse)
		}
	}
	idle := newFile(t, small())
	err := Format(idle, false, header(small()), founder, repositorytest.First(), repository.OpID{9})
	if !errors.Is(err, belfry.ErrExist) || errors.Is(err, errInUse) {
		t.Errorf("got %v, want %v", err, belfry.ErrExist)
	}
	wantHelpful(t, err, idle)
	if err := Format(idle, true, header(small()), founder, repositorytest.First(), repository.OpID{9}); err != nil {
		t.Errorf("to be destroyed: %v", err)
	}
	if found, err := h.Load(); err != nil || found.Generation != 2 {
		t.Errorf("generation %d, want 2 (%v)", found.Generation, err)
	}
	if err := Create(path, small().Size()); !errors.Is(err, belfry.ErrExist) {
		t.Errorf("create: %v, want %v", err, belfry.ErrExist)
	}
}

// threeDisks are those of one repository.
func threeDisks(t *testing.T) (paths []string) {
	t.Helper()
	l, c := small(), config(0, 1)
	founder := repository.Founder{Node: c.Node, Incarnation: 1, Boot: c.Boot, Sign: c.Sign}
	for i := range 3 {
		h := header(l)
		h.Disks, h.Index = []repository.UUID{{3}, {4}, {5}}, uint8(i)
		path := filepath.Join(t.TempDir(), "disk"+Suffix)
		if err := Create(path, l.Size()); err != nil {
			t.Fatal(err)
		}
		if err := Format(path, false, h, founder, repositorytest.First(), repository.OpID{9}); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// With one of three disks away nothing is lost; with two nothing is done.
func TestOneOfThreeDisksMayFail(t *testing.T) {
	t.Parallel()
	paths := threeDisks(t)
	cfg := impatient("")
	cfg.Paths = paths
	h, err := OpenHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	add(t, h, opID(1, 1))
	for i, path := range paths[:2] {
		h.sealing.Wait()
		if err := os.Truncate(path, repository.BlockSize); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			add(t, h, opID(1, 2))
		}
	}
	if _, err := h.Load(); !errors.Is(err, repository.TooFew) {
		t.Errorf("one disk of three: %v, want %v", err, repository.TooFew)
	}
	cfg.Paths = paths[1:]
	if _, err := OpenHost(cfg); err == nil {
		t.Error("opened with one disk of three")
	}
}

// What another machine has written is on the disk, not in our cache.
func TestReadsAndWritesAreDirect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		open opener
		want int
	}{"direct": {openNode, unix.O_DIRECT}, "refused": {openBuffered, 0}} {
		f, err := c.open(newFile(t, small()), Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer f.close()
		flags, err := unix.FcntlInt(uintptr(f.(*node).fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_DIRECT != c.want || f.buffered() != (c.want == 0) {
			t.Errorf("%s: flags %#x, buffered %v (%v)", name, flags, f.buffered(), err)
		}
	}
}

// A disk that has failed once has the next update, although the others have
// gone on without it and the claim is theirs.
func TestDiskThatHasFailedIsBroughtUp(t *testing.T) {
	t.Parallel()
	cfg := hostConfig("", 0, 2)
	cfg.Paths, cfg.Patience = threeDisks(t), patient
	f := newFaults(t, cfg.Paths[0])
	h, err := openHost(cfg, func(path string, o Options) (file, error) {
		if path == cfg.Paths[0] {
			return f.open(path, o)
		}
		return openNode(path, o)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	base, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	v, doc := base.Version, base.Document
	update := func(n int) (written int) {
		op := opID(1, n)
		doc = append(doc, op[:]...)
		before := f.begun()
		if v, err = h.CAS(v, doc, op); err != nil {
			t.Fatal(err)
		}
		h.sealing.Wait()
		return f.begun() - before
	}
	usual := update(1)
	f.fail(1, unix.EIO, false)
	update(2)
	if got := update(3); got < usual {
		t.Errorf("%d writes to the disk that had failed, want %d or more", got, usual)
	}
}

// A machine that has started anew writes nothing for 30 s, and then does so by
// itself.
func TestHostOfANewBootSettles(t *testing.T) {
	t.Parallel()
	cfg := hostConfig(newFile(t, small()), 0, 2)
	cfg.Repository.Local, cfg.Repository.Boot = false, repository.UUID{99}
	h := newHost(t, cfg)
	if _, err := h.Load(); !errors.Is(err, repository.Settling) || !h.Settling() {
		t.Errorf("load: %v, want %v", err, repository.Settling)
	}
	if found, err := h.Poll(); err != nil || found.Generation != 1 {
		t.Errorf("a poll while settling: generation %d, %v", found.Generation, err)
	}
	h.opened = h.opened.Add(-repository.SettleTime)
	add(t, h, opID(1, 1))
	if h.Settling() {
		t.Error("settles still")
	}
}

// Who has a file open goes on to use it whatever becomes of its name. A name that
// leads elsewhere is told, so that nobody commits where no other will look.
func TestAFileThatIsNotAtItsPathHasStrayed(t *testing.T) {
	t.Parallel()
	path := newFile(t, small())
	h := newHost(t, hostConfig(path, 0, 2))
	if err := h.Strayed(); err != nil {
		t.Errorf("where it was: %v", err)
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	err := h.Strayed()
	if !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("moved away: %v, want ErrNotFound", err)
	}
	wantHelpful(t, err, path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Strayed(); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("another file in its place: %v, want ErrNotFound", err)
	}
	if err := os.Rename(path+".moved", path); err != nil {
		t.Fatal(err)
	}
	if err := h.Strayed(); err != nil {
		t.Errorf("back: %v", err)
	}
}

package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/repository"
)

// A machine is a tree like that of sysfs, and files in the place of devices.
type machine struct {
	t     *testing.T
	root  string
	reads atomic.Int64
	hang  map[string]chan struct{} // by name: opening it hangs
	now   atomic.Int64             // opened at this moment
	most  atomic.Int64
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: memory(t), hang: map[string]chan struct{}{}}
	for _, dir := range []string{"sys/class/block", "dev", "files"} {
		if err := os.MkdirAll(filepath.Join(m.root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *machine) path(parts ...string) string {
	return filepath.Join(append([]string{m.root}, parts...)...)
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		m.t.Fatal(err)
	}
}

// device adds one with that first block. Attributes are files of sysfs; parent
// is the disk of a partition.
func (m *machine) device(parent, name string, number int, block []byte, attributes map[string]string) {
	m.t.Helper()
	dir := m.path("sys/devices", parent, name)
	m.write(filepath.Join(dir, "dev"), fmt.Sprintf("8:%d\n", number))
	m.write(filepath.Join(dir, "size"), fmt.Sprintln(small().Size()/sectorSize))
	if err := os.MkdirAll(filepath.Join(dir, "holders"), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if parent == "" {
		m.write(filepath.Join(dir, "diskseq"), fmt.Sprintln(100+number))
	}
	for file, text := range attributes {
		m.write(filepath.Join(dir, file), text+"\n")
	}
	if err := os.Symlink(dir, m.path("sys/class/block", name)); err != nil {
		m.t.Fatal(err)
	}
	m.medium(m.path("dev", strings.ReplaceAll(name, "!", "/")), block)
}

// medium is what can be read at a path.
func (m *machine) medium(path string, block []byte) {
	m.t.Helper()
	m.write(path, string(block))
	if err := os.Truncate(path, small().Size()); err != nil {
		m.t.Fatal(err)
	}
}

// finder opens files in the place of devices, with the numbers of these.
func (m *machine) finder() *Finder {
	cfg := FinderConfig{Sysfs: m.path("sys"), Dev: m.path("dev"), Folders: []string{m.path("files")}, Deadline: 2 * brief}
	return newFinder(cfg, func(path string, o Options) (file, error) {
		m.reads.Add(1)
		if now := m.now.Add(1); now > m.most.Load() {
			m.most.Store(now)
		}
		defer m.now.Add(-1)
		if hang := m.hang[filepath.Base(path)]; hang != nil {
			<-hang
		}
		f, err := openNode(path, o)
		if err != nil || filepath.Dir(path) == m.path("files") {
			return f, err
		}
		id := Identity{Size: f.identity().Size}
		name, _ := filepath.Rel(m.path("dev"), path)
		var number uint32
		text := attribute(m.path("sys/class/block", strings.ReplaceAll(name, "/", "!")), "dev")
		if _, err := fmt.Sscanf(text, "8:%d", &number); err != nil {
			return nil, err
		}
		id.Device = unix.Mkdev(8, number)
		return &numbered{f, id}, nil
	})
}

type numbered struct {
	file
	id Identity
}

func (n *numbered) identity() Identity { return n.id }

// boots is the boot record of disk number i of a repository of so many.
func boots(t *testing.T, repo, i byte, disks int) []byte {
	t.Helper()
	h := header(small())
	h.Repository, h.Index, h.Disks = repository.UUID{repo}, i, nil
	for j := range disks {
		h.Disks = append(h.Disks, repository.UUID{repo, byte(j + 1)})
	}
	block, err := repository.EncodeHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

func paths(m *machine, found []Found) (names []string) {
	for _, f := range found {
		name, _ := filepath.Rel(m.root, f.Path)
		names = append(names, name)
	}
	return names
}

func (m *machine) want(r Result, repo byte, want ...string) {
	m.t.Helper()
	if diff := cmp.Diff(want, paths(m, r.Repository(repository.UUID{repo}))); diff != "" {
		m.t.Errorf("repository %d (-want +got):\n%s", repo, diff)
	}
}

func TestFindAmongHundredDevicesOfWhichOneHangs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	foreign := bytes.Repeat([]byte{0xee}, repository.BlockSize)
	for i := range 100 {
		block := foreign
		if i == 41 || i == 42 {
			block = boots(t, 1, byte(i-41), 2)
		}
		m.device("", fmt.Sprintf("sd%02d", i), i, block, nil)
	}
	release := make(chan struct{})
	m.hang["sd17"] = release
	f := m.finder()
	start := time.Now()
	r := f.Find(repository.UUID{1})
	cold := time.Since(start)
	m.want(r, 1, "dev/sd41", "dev/sd42")
	if cold < 2*brief || cold > 2*brief+5*time.Second {
		t.Errorf("took %v with a deadline of %v", cold, 2*brief)
	}
	if n := m.reads.Load(); n != 100 {
		t.Errorf("%d devices were opened, want 100", n)
	}
	if most := m.most.Load(); most > atOnce || most < 2 {
		t.Errorf("%d were opened at once, want 2 to %d", most, atOnce)
	}
	if len(r.Problems) != 1 || !errors.Is(r.Problems[0], errHung) || !strings.Contains(r.Problems[0].Error(), "sd17") {
		t.Errorf("problems %v, want that sd17 hangs", r.Problems)
	}
	// Who hangs is not asked again: each time would cost a thread.
	r = f.Find(repository.UUID{1})
	m.want(r, 1, "dev/sd41", "dev/sd42")
	if n := m.reads.Load() - 100; n > 99 {
		t.Errorf("%d devices were opened again, the one that hangs among them", n)
	}
	close(release)
	eventually(t, "sd17 answers", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.stuck) == 0
	})
	m.want(f.All(), 1, "dev/sd41", "dev/sd42")
	m.reads.Store(0)
	start = time.Now()
	m.want(f.Find(repository.UUID{1}), 1, "dev/sd41", "dev/sd42")
	if n := m.reads.Load(); n != 2 {
		t.Errorf("%d devices were opened when all are known, want the 2 that count", n)
	}
	t.Logf("cold %v with a hung device, warm %v", cold, time.Since(start))
}

// What was read before is no answer to where something is that was not found.
func TestDeviceFormattedLaterIsFound(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.device("", "sda", 1, nil, nil)
	m.device("", "sdb", 2, boots(t, 2, 0, 1), nil)
	f := m.finder()
	m.want(f.Find(repository.UUID{1}), 1)
	m.medium(m.path("dev/sda"), boots(t, 1, 0, 1)) // by another machine: no uevent here
	m.want(f.Find(repository.UUID{1}), 1, "dev/sda")
	if len(f.known) != 2 {
		t.Errorf("%d devices are known, want 2", len(f.known))
	}
	// And what is known is read again all the same.
	m.medium(m.path("dev/sda"), nil)
	m.want(f.Find(repository.UUID{1}), 1)
	if err := os.Remove(m.path("sys/class/block/sda")); err != nil {
		t.Fatal(err)
	}
	m.want(f.Find(repository.UUID{2}), 2, "dev/sdb")
	if len(f.known) != 1 {
		t.Errorf("%d devices are known, want the one that is there", len(f.known))
	}
}

func TestWhatIsLookedAt(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	ours := func() []byte { return boots(t, 1, 0, 1) }
	m.device("", "sda", 1, nil, nil)
	m.device("sda", "sda1", 2, ours(), map[string]string{"partition": "1"})
	m.device("", "small", 3, boots(t, 2, 0, 1), map[string]string{"size": "8"})
	m.device("", "sdb", 4, boots(t, 3, 0, 1), map[string]string{"holders/dm-0/dev": "253:0"})
	m.device("", "dm-0", 5, boots(t, 3, 0, 1), nil)
	m.device("", "cciss!c0d0", 6, boots(t, 4, 0, 1), nil)
	m.medium(m.path("files/one"+Suffix), boots(t, 5, 0, 1))
	m.medium(m.path("files/other"), boots(t, 6, 0, 1))
	damaged := boots(t, 7, 0, 1)
	damaged[100] ^= 1
	m.device("", "sdc", 7, damaged, nil)
	whole, err := os.OpenFile(m.path("dev/sdc"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if _, err := whole.WriteAt(boots(t, 7, 0, 1), small().Size()-repository.BlockSize); err != nil {
		t.Fatal(err)
	}
	m.device("", "sdd", 8, damaged, nil) // both copies
	r := m.finder().All()
	m.want(r, 1, "dev/sda1")
	m.want(r, 2)
	m.want(r, 3, "dev/dm-0")
	m.want(r, 4, "dev/cciss/c0d0")
	m.want(r, 5, "files/one"+Suffix)
	m.want(r, 6)
	m.want(r, 7, "dev/sdc")
	if len(r.Clones) > 0 {
		t.Errorf("clones %v", r.Clones)
	}
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Error(), "sdd") {
		t.Errorf("problems %v, want that sdd has no valid boot record", r.Problems)
	}
}

// One disk on two devices would become two repositories. Two ways to one disk
// are no clone.
func TestClonesAreRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.device("", "sda", 1, boots(t, 1, 0, 2), nil)
	m.device("", "sdb", 2, boots(t, 1, 0, 2), nil)
	m.device("", "sdc", 3, boots(t, 1, 1, 2), nil)
	m.device("", "sdd", 4, boots(t, 2, 0, 1), map[string]string{"device/wwid": "naa.5"})
	m.device("", "sde", 5, boots(t, 2, 0, 1), map[string]string{"device/wwid": "naa.5"})
	shown := m.path("files/a" + Suffix)
	m.medium(shown, boots(t, 3, 0, 1))
	m.device("", "loop0", 6, boots(t, 3, 0, 1), map[string]string{"loop/backing_file": shown})
	if err := os.Link(shown, m.path("files/b"+Suffix)); err != nil {
		t.Fatal(err)
	}
	m.device("", "sdf", 7, boots(t, 4, 0, 1), map[string]string{"device/wwid": "naa.7"})
	m.device("", "sdg", 8, boots(t, 4, 0, 1), map[string]string{"device/wwid": "naa.8"})
	f := m.finder()
	for range 2 { // also when they are known
		r := f.Find(repository.UUID{1})
		m.want(r, 1, "dev/sdc")
		want := []Clone{
			{repository.UUID{1, 1}, []string{m.path("dev/sda"), m.path("dev/sdb")}, nil},
			{repository.UUID{4, 1}, []string{m.path("dev/sdf"), m.path("dev/sdg")}, nil},
		}
		for i, c := range r.Clones {
			if len(c.Headers) != len(c.Paths) || c.Headers[0].Disk() != c.Disk || c.Headers[1].Disk() != c.Disk {
				t.Errorf("clone %s has the headers %v", c.Disk, c.Headers)
			}
			r.Clones[i].Headers = nil
		}
		if diff := cmp.Diff(want, r.Clones); diff != "" {
			t.Errorf("clones (-want +got):\n%s", diff)
		}
		m.want(r, 2, "dev/sdd")
		m.want(r, 3, "files/a"+Suffix)
	}
	// A copy that appears is seen, even if all that was wanted is known.
	m.want(f.Find(repository.UUID{2}), 2, "dev/sdd")
	m.device("", "sdh", 9, boots(t, 2, 0, 1), nil)
	m.want(f.Find(repository.UUID{2}), 2)
}

// A device that another search is reading is no device that hangs.
func TestSearchesWaitForEachOther(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.device("", "sda", 1, boots(t, 1, 0, 1), nil)
	release := make(chan struct{})
	m.hang["sda"] = release
	f := m.finder()
	results := make(chan Result, 2)
	find := func() { results <- f.Find(repository.UUID{1}) }
	go find()
	eventually(t, "the first one reads", func() bool { return m.now.Load() > 0 })
	go find()
	var got []Result
	select {
	case r := <-results: // it must not be there before the other one
		got = append(got, r)
	case <-time.After(brief / 5):
	}
	close(release)
	for len(got) < 2 {
		got = append(got, <-results)
	}
	for _, r := range got {
		m.want(r, 1, "dev/sda")
		if len(r.Problems) > 0 {
			t.Errorf("problems %v", r.Problems)
		}
	}
}

func TestDeviceThatChangedMeanwhileIsLeftOut(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.device("", "sda", 1, boots(t, 1, 0, 1), nil)
	f := m.finder()
	all, _ := f.candidates()
	m.write(m.path("sys/devices/sda/dev"), "8:9\n") // another device has the name now
	r := f.look(all)
	m.want(r, 1)
	if len(r.Problems) != 1 || !errors.Is(r.Problems[0], errChanged) {
		t.Errorf("problems %v, want %v", r.Problems, errChanged)
	}
}

// The same with the kernel's own tree and devices.
func TestFindOnThisMachine(t *testing.T) {
	t.Parallel()
	l := newLoop(t, small().Size())
	format(t, l.path, small())
	shown := filepath.Join(t.TempDir(), "file"+Suffix)
	if err := os.Rename(newFile(t, small()), shown); err != nil {
		t.Fatal(err)
	}
	f := NewFinder(FinderConfig{Folders: []string{filepath.Dir(shown)}})
	// Both have the same UUIDs: a clone. Other tests may add to it.
	r := f.All()
	i := slices.IndexFunc(r.Clones, func(c Clone) bool { return c.Disk == repository.UUID{3} })
	if i < 0 {
		t.Fatalf("found %v, clones %v, problems %v", r.Disks, r.Clones, r.Problems)
	}
	for _, path := range []string{l.path, shown} {
		if !slices.Contains(r.Clones[i].Paths, path) {
			t.Errorf("clones at %v, want %s among them", r.Clones[i].Paths, path)
		}
	}
}

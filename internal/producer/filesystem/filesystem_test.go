package filesystem_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/filesystem"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// mount puts a file system of one MiB and 64 inodes at a new path.
func mount(t *testing.T) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	remount(t, path)
	return path
}

func remount(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mount("belfry", path, "tmpfs", 0, "size=1m,nr_inodes=64"); errors.Is(err, unix.EPERM) {
		t.Skip("needs: root (to mount a file system)")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
}

func fill(t *testing.T, dir, name string, kib int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), make([]byte, kib<<10), 0o644); err != nil {
		t.Fatal(err)
	}
}

func usage(t *testing.T, s event.Sample) *belfryv1.FilesystemUsage {
	t.Helper()
	var u belfryv1.FilesystemUsage
	if err := proto.Unmarshal(s.Data, &u); err != nil {
		t.Fatal(err)
	}
	return &u
}

func over(percent float64) belfry.Threshold { return belfry.Threshold{Hi: percent, HasHi: true} }

func TestASampleFollowsAtOnceAndWhenTheFileSystemFills(t *testing.T) {
	t.Parallel()
	path := mount(t)
	fill(t, path, "half", 512)
	d := producertest.Start(t, filesystem.New())
	w := d.Watch(event.Watch{Class: filesystem.Class, Subject: path, Threshold: over(90)})
	if a := producertest.NextOf[event.Associate](d); a.Entry != w.Entry || a.Instance == "" {
		t.Errorf("%+v", a)
	}
	s := producertest.NextOf[event.Sample](d)
	u := usage(t, s)
	if s.Value != 50 || u.MountPoint != path || u.Device != "belfry" || u.Type != "tmpfs" ||
		u.TotalBytes != 1<<20 || u.UsedBytes != 1<<19 || u.FreeBytes != 1<<19 || u.TotalInodes != 64 || u.UsedInodes != 2 {
		t.Errorf("value %v, data %v, want 50 %% of 1 MiB", s.Value, u)
	}
	fill(t, path, "rest", 448)
	for s.Value < 93.75 { // the write may be seen half done
		s = producertest.NextOf[event.Sample](d)
	}
	if s.Value != 93.75 {
		t.Errorf("value %v, want 93.75", s.Value)
	}
	w.Threshold = over(80) // somebody else asks for less
	d.Watch(w)
	if s := producertest.NextOf[event.Sample](d); s.Value != 93.75 {
		t.Errorf("value %v after a change of the threshold, want 93.75 again", s.Value)
	}
}

func TestInodesAreCountedForThemselves(t *testing.T) {
	t.Parallel()
	path := mount(t)
	d := producertest.Start(t, filesystem.New())
	d.Watch(event.Watch{Class: filesystem.Class, Subject: "inodes:" + path, Threshold: over(50)})
	producertest.NextOf[event.Associate](d)
	if s := producertest.NextOf[event.Sample](d); s.Value != 100.0/64 {
		t.Errorf("value %v, want %v: the root directory", s.Value, 100.0/64)
	}
	fill(t, path, "f", 0)
	if s := producertest.NextOf[event.Sample](d); s.Value != 200.0/64 {
		t.Errorf("value %v, want %v", s.Value, 200.0/64)
	}
}

func TestARegistrationOutlivesTheMount(t *testing.T) {
	t.Parallel()
	path := mount(t)
	d := producertest.Start(t, filesystem.New())
	d.Watch(event.Watch{Class: filesystem.Class, Subject: path, Threshold: over(90)})
	a := producertest.NextOf[event.Associate](d)
	producertest.NextOf[event.Sample](d)
	if err := unix.Unmount(path, 0); err != nil {
		t.Fatal(err)
	}
	if i := producertest.NextOf[event.Invalidate](d); i.Instance != a.Instance {
		t.Errorf("invalidate %+v, want %s", i, a.Instance)
	}
	remount(t, path)
	producertest.NextOf[event.Associate](d)
	producertest.NextOf[event.Sample](d)
	remount(t, path) // over the other
	producertest.NextOf[event.Invalidate](d)
	producertest.NextOf[event.Associate](d)
}

func TestAPatternFindsMountPointsThatComeAndGo(t *testing.T) {
	t.Parallel()
	path := mount(t)
	d := producertest.Start(t, filesystem.New())
	p := d.Watch(event.Watch{Class: filesystem.Class, Subject: filepath.Dir(path) + "/*", Entry: producertest.NoEntry, Wait: true, Threshold: over(90)})
	if f := producertest.NextOf[event.Found](d); f.Watch != p.ID || f.Subject != path {
		t.Errorf("%+v, want %s", f, path)
	}
	w := d.Watch(event.Watch{Class: filesystem.Class, Subject: path})
	a := producertest.NextOf[event.Associate](d)
	producertest.NextOf[event.Sample](d)
	if err := unix.Unmount(path, 0); err != nil {
		t.Fatal(err)
	}
	if i := producertest.NextOf[event.Invalidate](d); i.Instance != a.Instance {
		t.Errorf("%+v", i)
	}
	if e := producertest.NextOf[event.End](d); e.Entry != w.Entry || !errors.Is(e.Err, belfry.ErrNoEvent) {
		t.Errorf("%+v", e)
	}
	remount(t, path)
	if f := producertest.NextOf[event.Found](d); f.Subject != path {
		t.Errorf("%+v, want %s", f, path)
	}
}

func TestWhatIsNoMountPointIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tests := []struct {
		subject string
		want    error
		text    string
	}{
		{dir, belfry.ErrNoEvent, "is no mount point; it lies on /"},
		{"inodes:" + dir, belfry.ErrNoEvent, "so write filesystem.usage:inodes:/"},
		{filepath.Join(dir, "none"), belfry.ErrNoEvent, "does not exist; mount something there"},
		{"mnt", belfry.ErrUsage, "is not absolute"},
		{"inodes:mnt", belfry.ErrUsage, "is not absolute"},
		{"/proc", belfry.ErrUnsupported, "/proc (proc) holds no data"},
	}
	d := producertest.Start(t, filesystem.New())
	for _, test := range tests {
		w := d.Watch(event.Watch{Class: filesystem.Class, Subject: test.subject, Threshold: over(90)})
		end := producertest.NextOf[event.End](d)
		if end.Entry != w.Entry || !errors.Is(end.Err, test.want) || !strings.Contains(end.Err.Error(), test.text) {
			t.Errorf("%s: %v, want %v with %q", test.subject, end.Err, test.want, test.text)
		}
	}
}

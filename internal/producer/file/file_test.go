package file_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/file"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// A tree is a temporary directory with what a test does in it.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) tree {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return tree{t, dir}
}

func (tr tree) path(name string) string { return filepath.Join(tr.dir, name) }

func (tr tree) must(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

func (tr tree) write(name, text string) {
	tr.t.Helper()
	tr.must(os.WriteFile(tr.path(name), []byte(text), 0o644))
}

func (tr tree) append(name, text string) {
	tr.t.Helper()
	f, err := os.OpenFile(tr.path(name), os.O_APPEND|os.O_WRONLY, 0)
	tr.must(err)
	_, err = f.WriteString(text)
	tr.must(errors.Join(err, f.Close()))
}

func (tr tree) mkdir(name string) {
	tr.t.Helper()
	tr.must(os.MkdirAll(tr.path(name), 0o755))
}

func (tr tree) rename(from, to string) {
	tr.t.Helper()
	tr.must(os.Rename(tr.path(from), tr.path(to)))
}

func (tr tree) remove(name string) {
	tr.t.Helper()
	tr.must(os.RemoveAll(tr.path(name)))
}

// brief writes a message on one line; instances are numbered as they come.
func (tr tree) brief(seen map[string]int, m event.Message) string {
	tr.t.Helper()
	number := func(instance string) int {
		if _, ok := seen[instance]; !ok {
			seen[instance] = len(seen) + 1
		}
		return seen[instance]
	}
	switch m := m.(type) {
	case event.Found:
		return "found " + strings.TrimPrefix(m.Subject, tr.dir+"/")
	case event.Associate:
		return fmt.Sprintf("associate %d with %d", m.Entry, number(m.Instance))
	case event.Invalidate:
		return fmt.Sprintf("invalidate %d from %d", m.Entry, number(m.Instance))
	case event.End:
		return fmt.Sprintf("end %d", m.Entry)
	case event.Post:
		var f belfryv1.FileModify
		var d belfryv1.DirModify
		bound := map[bool]string{true: "at least "}[m.Occurrence.LowerBound]
		if m.Occurrence.Code != 1000 && proto.Unmarshal(m.Occurrence.Data, &f) == nil && f.SizeBytes > 0 {
			return fmt.Sprintf("post %d of %d: %s%s %d bytes", m.Entry, number(m.Occurrence.Event.Instance), bound, f.What, f.SizeBytes)
		}
		tr.must(proto.Unmarshal(m.Occurrence.Data, &d))
		return strings.TrimSpace(fmt.Sprintf("post %d of %d: %s%s %s", m.Entry, number(m.Occurrence.Event.Instance), bound, d.What, d.Name))
	}
	return fmt.Sprintf("%#v", m)
}

func (tr tree) expect(d *producertest.Driver, seen map[string]int, want ...string) {
	tr.t.Helper()
	var got []string
	for range want {
		got = append(got, tr.brief(seen, d.Next()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		tr.t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestAWriteIsPostedAsALowerBound(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	tr.write("f", "one")
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("f")})
	tr.expect(d, seen, "associate 1 with 1")
	tr.append("f", " two")
	post := producertest.NextOf[event.Post](d)
	var data belfryv1.FileModify
	tr.must(proto.Unmarshal(post.Occurrence.Data, &data))
	want := &belfryv1.FileModify{What: "write", Path: tr.path("f"), SizeBytes: 7}
	if !proto.Equal(want, &data) || post.Occurrence.Code != 1000 || !post.Occurrence.LowerBound {
		t.Errorf("%+v with %v, want at least one write (1000) with %v", post, &data, want)
	}
	tr.must(os.Truncate(tr.path("f"), 2))
	tr.expect(d, seen, "post 1 of 1: at least truncate 2 bytes")
	d.Quiet(50 * time.Millisecond)
}

// What editors and services do to a file, and what a registration makes of it.
func TestARegistrationSurvivesTheReplacementOfItsFile(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		do   func(tr tree, step func(want ...string))
	}{
		{"a new file is renamed over it", func(tr tree, step func(...string)) {
			tr.write("f.new", "new")
			tr.rename("f.new", "f")
			step("post 1 of 1: at least replace 3 bytes", "invalidate 1 from 1", "associate 1 with 2")
		}},
		{"a new file is renamed over it, and the old one has another name", func(tr tree, step func(...string)) {
			tr.must(os.Link(tr.path("f"), tr.path("link")))
			tr.write("f.new", "new")
			tr.rename("f.new", "f")
			step("post 1 of 1: at least replace 3 bytes", "invalidate 1 from 1", "associate 1 with 2")
			tr.append("link", "nobody cares")
		}},
		{"it is renamed away and written anew", func(tr tree, step func(...string)) {
			tr.rename("f", "f~")
			step("post 1 of 1: at least rename 3 bytes", "invalidate 1 from 1")
			tr.write("g", "new")
			tr.rename("g", "f")
			step("associate 1 with 2", "post 1 of 2: at least create 3 bytes")
			tr.append("f~", "nobody cares")
			tr.append("f", "more")
			step("post 1 of 2: at least write")
		}},
		{"it is deleted and created", func(tr tree, step func(...string)) {
			tr.remove("f")
			step("post 1 of 1: at least remove 3 bytes", "invalidate 1 from 1")
			tr.rename("other", "f")
			step("associate 1 with 2", "post 1 of 2: at least create 5 bytes")
		}},
		{"its directory is renamed, and back", func(tr tree, step func(...string)) {
			tr.rename("", "../moved"+filepath.Base(tr.dir))
			step("post 1 of 1: at least remove 3 bytes", "invalidate 1 from 1")
			tr.rename("../moved"+filepath.Base(tr.dir), "")
			step("associate 1 with 1", "post 1 of 1: at least create 3 bytes")
		}},
		{"a directory takes its place", func(tr tree, step func(...string)) {
			tr.remove("f")
			step("post 1 of 1: at least remove 3 bytes", "invalidate 1 from 1")
			tr.mkdir("f")
			tr.remove("f")
			tr.rename("other", "f")
			step("associate 1 with 2", "post 1 of 2: at least create 5 bytes")
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tr, seen := newTree(t), map[string]int{}
			tr.write("f", "old")
			tr.write("other", "other")
			d := producertest.Start(t, file.New())
			d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("f")})
			tr.expect(d, seen, "associate 1 with 1")
			test.do(tr, func(want ...string) { t.Helper(); tr.expect(d, seen, want...) })
			d.Quiet(50 * time.Millisecond)
		})
	}
}

func TestAWatchThatWaitsBeginsWhenTheFileComes(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("a/b/f"), Wait: true})
	d.Quiet(50 * time.Millisecond)
	tr.mkdir("a/b")
	tr.write("a/b/g", "12345")
	tr.rename("a/b/g", "a/b/f")
	tr.expect(d, seen, "associate 1 with 1", "post 1 of 1: at least create 5 bytes")
}

func TestEachEntryOfADirectoryIsOneExactOccurrence(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	tr.mkdir("d")
	tr.write("x", "")
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.DirClass, Subject: tr.path("d")})
	tr.expect(d, seen, "associate 1 with 1")
	tr.write("d/f", "")
	tr.write("d/f", "a write is none of it")
	tr.mkdir("d/sub")
	tr.rename("d/f", "d/g")
	tr.rename("x", "d/x")
	tr.rename("d/g", "g")
	tr.remove("d/x")
	tr.expect(d, seen,
		"post 1 of 1: create f", "post 1 of 1: create sub", "post 1 of 1: rename-from f", "post 1 of 1: rename-to g",
		"post 1 of 1: rename-to x", "post 1 of 1: rename-from g", "post 1 of 1: remove x")
	tr.remove("d")
	tr.expect(d, seen, "post 1 of 1: remove sub", "post 1 of 1: at least remove-self", "invalidate 1 from 1")
	tr.mkdir("new/sub")
	tr.rename("new", "d")
	tr.expect(d, seen, "associate 1 with 2", "post 1 of 2: at least create sub")
	tr.write("d/h", "")
	tr.expect(d, seen, "post 1 of 2: create h")
}

func TestAPatternFindsWhatThereIsAndWhatComes(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	tr.mkdir("etc/conf.d/deep")
	tr.mkdir("var")
	tr.write("etc/a.conf", "1")
	tr.write("etc/conf.d/b.conf", "1")
	tr.write("etc/conf.d/readme", "1")
	d := producertest.Start(t, file.New())

	one := d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("etc/*.conf"), Entry: producertest.NoEntry, Wait: true})
	tr.expect(d, seen, "found etc/a.conf")
	d.Unwatch(one.ID)
	all := d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("etc/**.conf"), Entry: producertest.NoEntry, Wait: true})
	tr.expect(d, seen, "found etc/a.conf", "found etc/conf.d/b.conf")
	d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("etc/conf.d/b.conf"), Entry: 7})
	tr.expect(d, seen, "associate 7 with 1")
	tr.append("etc/conf.d/b.conf", "2")
	tr.expect(d, seen, "post 7 of 1: at least write")

	tr.write("etc/conf.d/deep/c", "123")
	tr.rename("etc/conf.d/deep/c", "etc/conf.d/deep/c.conf")
	tr.expect(d, seen, "found etc/conf.d/deep/c.conf")
	d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("etc/conf.d/deep/c.conf"), Entry: 8})
	tr.expect(d, seen, "associate 8 with 2", "post 8 of 2: at least create 3 bytes")

	tr.mkdir("var/new/deeper") // a tree that is moved in is walked
	tr.write("var/new/deeper/d.conf", "1234")
	tr.rename("var/new", "etc/new")
	tr.expect(d, seen, "found etc/new/deeper/d.conf")

	tr.rename("etc/new", "var/new") // and forgotten when it is moved out
	tr.append("var/new/deeper/d.conf", "5")
	tr.write("var/new/deeper/e.conf", "")
	d.Quiet(50 * time.Millisecond)
	tr.rename("var/new", "etc/new")
	both := []string{tr.brief(seen, d.Next()), tr.brief(seen, d.Next())}
	if diff := cmp.Diff([]string{"found etc/new/deeper/d.conf", "found etc/new/deeper/e.conf"}, both); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	d.Unwatch(all.ID)
}

func TestAPatternOfDirectoriesFindsDirectories(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	tr.mkdir("srv/a/b")
	tr.write("srv/f", "")
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.DirClass, Subject: tr.path("srv/**"), Entry: producertest.NoEntry, Wait: true})
	tr.expect(d, seen, "found srv/a", "found srv/a/b")
	tr.mkdir("srv/new/sub")
	tr.expect(d, seen, "found srv/new", "found srv/new/sub")
	d.Watch(event.Watch{Class: file.DirClass, Subject: tr.path("srv/new"), Entry: 9})
	tr.expect(d, seen, "associate 9 with 1", "post 9 of 1: at least create sub")
}

func TestASubjectThatOnlyAPatternFoundEndsWhenItIsGone(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	tr.write("f", "1")
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("*"), Entry: producertest.NoEntry, Wait: true})
	tr.expect(d, seen, "found f")
	d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("f"), Entry: 7})
	tr.expect(d, seen, "associate 7 with 1")
	tr.remove("f")
	tr.expect(d, seen, "post 7 of 1: at least remove 1 bytes", "invalidate 7 from 1", "end 7")
}

func TestWhatCanNotBeWatchedIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	tr.write("f", "")
	tr.must(os.Symlink("f", tr.path("link")))
	tests := []struct {
		class   belfry.Class
		subject string
		want    error
		text    string
	}{
		{file.FileClass, tr.path("none"), belfry.ErrNoEvent, tr.path("none") + " does not exist; create it"},
		{file.FileClass, tr.path("f/none"), belfry.ErrNoEvent, "does not exist"},
		{file.FileClass, "etc/passwd", belfry.ErrUsage, "write file.modify:/full/path/etc/passwd"},
		{file.FileClass, tr.dir, belfry.ErrUsage, "is a directory; write dir.modify:" + tr.dir},
		{file.DirClass, tr.path("f"), belfry.ErrUsage, "is no directory; write file.modify:"},
		{file.FileClass, tr.path("link"), belfry.ErrUnsupported, "is a symbolic link to f"},
		{file.FileClass, "/dev/null", belfry.ErrUnsupported, "is a device"},
		{file.FileClass, "/proc/version", belfry.ErrUnsupported, "is on procfs"},
		{file.DirClass, "/sys/class", belfry.ErrUnsupported, "is on sysfs"},
		{file.FileClass, tr.path(strings.Repeat("n", 300)), belfry.ErrUsage, "name too long"},
	}
	d := producertest.Start(t, file.New())
	for _, test := range tests {
		w := d.Watch(event.Watch{Class: test.class, Subject: test.subject})
		end := producertest.NextOf[event.End](d)
		if end.Entry != w.Entry || end.Watch != 0 || !errors.Is(end.Err, test.want) || !strings.Contains(end.Err.Error(), test.text) {
			t.Errorf("%s: %+v, want %v with %q", test.subject, end, test.want, test.text)
		}
	}
	for subject, want := range map[string]error{"/proc/*/stat": belfry.ErrUnsupported, "*.conf": belfry.ErrUsage} {
		w := d.Watch(event.Watch{Class: file.FileClass, Subject: subject, Entry: producertest.NoEntry, Wait: true})
		if end := producertest.NextOf[event.End](d); end.Watch != w.ID || end.Entry != 0 || !errors.Is(end.Err, want) {
			t.Errorf("%s: %+v, want %v for the watch", subject, end, want)
		}
	}
}

// queueLength is how many records the kernel keeps (inotify(7)).
func queueLength(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The kernel drops records when its queue is full and does not say how many.
func TestAnOverflowIsReportedAndTheCountIsALowerBound(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	tr.mkdir("d")
	tr.write("f", "1")
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.DirClass, Subject: tr.path("d")})
	d.Watch(event.Watch{Class: file.FileClass, Subject: tr.path("f")})
	tr.expect(d, seen, "associate 1 with 1", "associate 2 with 2")
	resume := d.Pause() // nobody takes messages: the kernel's queue fills
	tr.write("d/0", "")
	from, to := tr.path("d/0"), tr.path("d/1")
	for range queueLength(t) { // two records each, and the buffers of the producer
		tr.must(os.Rename(from, to))
		from, to = to, from
	}
	tr.append("f", "2")
	resume()
	overflow := 0
	for _, m := range d.Until(func(m event.Message) bool { return m.(event.Post).Entry == 2 }) {
		if post := m.(event.Post); post.Occurrence.Code == 1109 {
			overflow++
			if !post.Occurrence.LowerBound {
				t.Errorf("%+v is not marked", post)
			}
		}
	}
	if overflow == 0 {
		t.Error("no occurrence tells of the overflow")
	}
	tr.write("d/after", "")
	tr.expect(d, seen, "post 1 of 1: create after")
}

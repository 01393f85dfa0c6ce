package file_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/file"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// attribute is one occurrence of file.attribute as a line.
func (tr tree) attribute(seen map[string]int, m event.Message) string {
	tr.t.Helper()
	post, ok := m.(event.Post)
	if !ok {
		return tr.brief(seen, m)
	}
	var data belfryv1.FileAttribute
	tr.must(proto.Unmarshal(post.Occurrence.Data, &data))
	if !post.Occurrence.LowerBound {
		tr.t.Errorf("%+v is not marked as a lower bound", post)
	}
	acl := map[bool]string{true: " acl"}[data.Acl]
	return fmt.Sprintf("%d %s of %d: %s %d:%d%s, before %s %d:%d", post.Occurrence.Code, data.What, seen[post.Occurrence.Event.Instance],
		data.Mode, data.Uid, data.Gid, acl, data.OldMode, data.OldUid, data.OldGid)
}

func (tr tree) expectAttributes(d *producertest.Driver, seen map[string]int, want ...string) {
	tr.t.Helper()
	var got []string
	for range want {
		got = append(got, tr.attribute(seen, d.Next()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		tr.t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// accessList is one that gives a user by name rights beyond the mode
// (linux/posix_acl_xattr.h).
func accessList(user uint32, rights uint16) []byte {
	const none = ^uint32(0)
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, rights uint16
		id          uint32
	}{{0x01, 6, none}, {0x02, rights, user}, {0x04, 4, none}, {0x10, 4 | rights, none}, {0x20, 4, none}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.rights)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// acl sets an access list, or skips the test where the file system has none.
func (tr tree) acl(name string, list []byte) {
	tr.t.Helper()
	err := unix.Setxattr(tr.path(name), "system.posix_acl_access", list, 0)
	if errors.Is(err, unix.ENOTSUP) {
		tr.t.Skip("needs: access lists in the file system of " + tr.dir)
	}
	tr.must(err)
}

func (tr tree) chmod(name string, mode os.FileMode) {
	tr.t.Helper()
	tr.must(os.Chmod(tr.path(name), mode))
}

func TestAttributesAreTold(t *testing.T) {
	t.Parallel()
	own := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	tests := []struct {
		name      string
		root      bool // only root may do it
		first, do func(tr tree)
		want      []string
	}{
		{
			name: "mode", do: func(tr tree) { tr.chmod("f", 0o600) },
			want: []string{"1010 mode of 1: 0600 " + own + ", before 0644 " + own},
		},
		{
			name: "sticky and set-id bits are the mode's", do: func(tr tree) { tr.chmod("f", 0o644|os.ModeSetgid) },
			want: []string{"1010 mode of 1: 2644 " + own + ", before 0644 " + own},
		},
		{
			name: "owner", root: true, do: func(tr tree) { tr.must(os.Chown(tr.path("f"), 7, 8)) },
			want: []string{"1009 owner of 1: 0644 7:8, before 0644 0:0"},
		},
		{
			name: "an owner that takes the set-id bit away", root: true,
			first: func(tr tree) { tr.chmod("f", 0o755|os.ModeSetuid) },
			do:    func(tr tree) { tr.must(os.Chown(tr.path("f"), 7, -1)) },
			want:  []string{"1009 owner of 1: 0755 7:0, before 4755 0:0", "1010 mode of 1: 0755 7:0, before 4755 0:0"},
		},
		{
			name: "an access list comes", do: func(tr tree) { tr.acl("f", accessList(7, 4)) },
			want: []string{"1008 acl of 1: 0644 " + own + " acl, before 0644 " + own},
		},
		{
			name: "an access list changes", first: func(tr tree) { tr.acl("f", accessList(7, 4)) },
			do:   func(tr tree) { tr.acl("f", accessList(8, 4)) },
			want: []string{"1008 acl of 1: 0644 " + own + " acl, before 0644 " + own},
		},
		{name: "not the times", do: func(tr tree) { tr.must(os.Chtimes(tr.path("f"), time.Unix(1, 0), time.Unix(1, 0))) }},
		{name: "not the number of links", do: func(tr tree) {
			tr.must(os.Link(tr.path("f"), tr.path("link")))
			tr.remove("link")
		}},
		{name: "not what is written", do: func(tr tree) { tr.append("f", "more") }},
		{name: "not the mode that it had", do: func(tr tree) { tr.chmod("f", 0o644) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.root && os.Getuid() != 0 {
				t.Skip("needs: root")
			}
			tr, seen := newTree(t), map[string]int{}
			tr.write("f", "one")
			if test.first != nil {
				test.first(tr)
			}
			d := producertest.Start(t, file.New())
			d.Watch(event.Watch{Class: file.AttributeClass, Subject: tr.path("f")})
			tr.expectAttributes(d, seen, "associate 1 with 1")
			test.do(tr)
			tr.expectAttributes(d, seen, test.want...)
			d.Quiet(50 * time.Millisecond)
		})
	}
}

func TestTheAttributesOfADirectoryAreNotThoseOfItsEntries(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	tr.mkdir("d")
	tr.write("d/f", "")
	own := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.AttributeClass, Subject: tr.path("d")})
	d.Watch(event.Watch{Class: file.DirClass, Subject: tr.path("d")}) // of the same inode
	tr.expectAttributes(d, seen, "associate 1 with 1", "associate 2 with 1")
	tr.chmod("d/f", 0o600)
	d.Quiet(50 * time.Millisecond)
	tr.chmod("d", 0o700)
	tr.expectAttributes(d, seen, "1010 mode of 1: 0700 "+own+", before 0755 "+own)
	d.Quiet(50 * time.Millisecond)
}

// Each occurrence tells from what to what, so that those which were merged are
// missing and none is told twice.
func TestAttributesThatChangeFasterThanTheyAreReadLeaveNoWrongState(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	tr.write("f", "")
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.AttributeClass, Subject: tr.path("f")})
	producertest.NextOf[event.Associate](d)
	resume := d.Pause()
	for mode := range os.FileMode(0o200) {
		tr.chmod("f", 0o600|mode)
	}
	tr.chmod("f", 0o777)
	resume()
	known, posts := "0644", 0
	for known != "0777" {
		post := producertest.NextOf[event.Post](d)
		var data belfryv1.FileAttribute
		tr.must(proto.Unmarshal(post.Occurrence.Data, &data))
		if posts++; data.OldMode != known || !post.Occurrence.LowerBound || posts > 129 {
			t.Fatalf("occurrence %d: %+v with %v, want at least one change from %s", posts, post, &data, known)
		}
		known = data.Mode
	}
	d.Quiet(50 * time.Millisecond)
}

// N3: what differs in the successor has changed at the path.
func TestAttributesAreFollowedThroughAReplacement(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	own := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	tr.write("f", "old")
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.AttributeClass, Subject: tr.path("f")})
	tr.expectAttributes(d, seen, "associate 1 with 1")
	tr.write("new", "same mode")
	tr.rename("new", "f")
	tr.expectAttributes(d, seen, "1100 replace of 1: 0644 "+own+", before 0644 "+own, "invalidate 1 from 1", "associate 1 with 2")
	tr.write("new", "another mode")
	tr.chmod("new", 0o640)
	tr.rename("new", "f")
	tr.expectAttributes(d, seen, "1100 replace of 2: 0644 "+own+", before 0644 "+own, "invalidate 1 from 2", "associate 1 with 3",
		"1010 mode of 3: 0640 "+own+", before 0644 "+own)
	tr.remove("f")
	tr.expectAttributes(d, seen, "1003 remove of 3: 0640 "+own+", before 0640 "+own, "invalidate 1 from 3")
	tr.write("new", "")
	tr.rename("new", "f")
	tr.expectAttributes(d, seen, "associate 1 with 4", "1101 create of 4: 0644 "+own+", before 0644 "+own)
	d.Quiet(50 * time.Millisecond)
}

func TestAPatternOfAttributesFindsFilesAndDirectories(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	tr.mkdir("d")
	tr.write("f", "")
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.AttributeClass, Subject: tr.path("*"), Entry: producertest.NoEntry, Wait: true})
	tr.expect(d, seen, "found d", "found f")
	w := d.Watch(event.Watch{Class: file.AttributeClass, Subject: "/dev/null"})
	if end := producertest.NextOf[event.End](d); end.Entry != w.Entry || !errors.Is(end.Err, belfry.ErrUnsupported) {
		t.Errorf("%+v, want ErrUnsupported: a device", end)
	}
}

// A lost record may be any: what differs by then is told.
func TestAnOverflowLosesNoAttribute(t *testing.T) {
	t.Parallel()
	tr, seen := newTree(t), map[string]int{}
	tr.mkdir("d")
	tr.write("f", "1")
	d := producertest.Start(t, file.New())
	d.Watch(event.Watch{Class: file.DirClass, Subject: tr.path("d")})
	d.Watch(event.Watch{Class: file.AttributeClass, Subject: tr.path("f")})
	tr.expect(d, seen, "associate 1 with 1", "associate 2 with 2")
	resume := d.Pause() // nobody takes messages: the kernel's queue fills
	tr.write("d/0", "")
	from, to := tr.path("d/0"), tr.path("d/1")
	for range queueLength(t) {
		tr.must(os.Rename(from, to))
		from, to = to, from
	}
	tr.chmod("f", 0o600)
	resume()
	all := d.Until(func(m event.Message) bool { return m.(event.Post).Entry == 2 })
	if post := all[len(all)-1].(event.Post); post.Occurrence.Code != 1010 || !post.Occurrence.LowerBound {
		t.Errorf("%+v, want a change of mode (1010) as a lower bound", post)
	}
}

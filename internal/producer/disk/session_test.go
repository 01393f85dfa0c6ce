package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// A played session looks at a tree that the test writes in place of sysfs.
type played struct {
	*session
	t    *testing.T
	now  time.Time
	sent []event.Message
}

func play(t *testing.T) *played {
	p := &played{t: t, now: time.Unix(1000, 0)}
	p.session = newSession(t.TempDir(), func(messages ...event.Message) error {
		p.sent = append(p.sent, messages...)
		return nil
	})
	return p
}

func (p *played) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// put writes attributes of a disk: FILE=TEXT; FILE= takes one away.
func (p *played) put(name string, attributes ...string) {
	p.t.Helper()
	for _, a := range attributes {
		file, text, _ := strings.Cut(a, "=")
		path := filepath.Join(p.sys, "block", name, file)
		p.must(os.MkdirAll(filepath.Dir(path), 0o755))
		if text == "" {
			p.must(os.Remove(path))
		} else {
			p.must(os.WriteFile(path, []byte(text+"\n"), 0o600))
		}
	}
}

func (p *played) remove(name string) {
	p.t.Helper()
	p.must(os.RemoveAll(filepath.Join(p.sys, "block", name)))
}

func (p *played) ask(id, entry int, subject string) {
	p.t.Helper()
	p.must(p.scan(p.now))
	p.must(p.Watch(event.Watch{ID: event.WatchID(id), Entry: event.EntryID(entry), Class: Class, Subject: subject}))
	p.plan(p.now)
}

func (p *played) hear(name string, seq int) {
	p.t.Helper()
	p.must(p.uevent(p.now, fmt.Appendf(nil, "change@/devices/x/block/%s\x00ACTION=change\x00DEVPATH=/devices/x/block/%s\x00"+
		"SUBSYSTEM=block\x00DEVTYPE=disk\x00DISKSEQ=%d\x00", name, name, seq)))
}

func (p *played) expect(want ...string) {
	p.t.Helper()
	data := func(o belfry.Occurrence) string {
		var d belfryv1.DiskState
		p.must(proto.Unmarshal(o.Data, &d))
		bound := map[bool]string{true: "at least "}[o.LowerBound]
		return fmt.Sprintf("%s%s>%s %s", bound, d.GetFrom(), d.GetTo(), d.GetReason())
	}
	var got []string
	for _, m := range p.sent {
		switch m := m.(type) {
		case event.Found:
			got = append(got, "found "+m.Subject)
		case event.Associate:
			got = append(got, fmt.Sprintf("associate %d with %s: %s", m.Entry, m.Instance, data(*m.State)))
		case event.Invalidate:
			got = append(got, fmt.Sprintf("invalidate %d from %s", m.Entry, m.Instance))
		case event.Post:
			got = append(got, fmt.Sprintf("post %d of %s: %s", m.Entry, m.Occurrence.Event.Instance, data(m.Occurrence)))
		case event.End:
			got = append(got, fmt.Sprintf("end %d: %v", m.Entry, m.Err))
		}
	}
	p.sent = nil
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// The driver's word is found by looking, each 5 s while the disk is watched.
func TestStatesAreProbed(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.put("sda", "dev=8:0", "size=100", "diskseq=3", "device/state=running", "device/wwid=naa.5000")
	p.put("vda", "dev=253:0", "size=100", "diskseq=4")
	if !p.nextTimeout().IsZero() {
		t.Error("it looks though nothing is watched")
	}
	p.ask(1, 1, "sda")
	p.ask(2, 2, "vda")
	p.expect("associate 1 with 8:0@3: >up running", "associate 2 with 253:0@4: >up ")
	for _, word := range []string{"blocked", "quiesce", "transport-offline", "running", "strange"} {
		p.put("sda", "device/state="+word)
		if want := p.now.Add(probeEvery); p.nextTimeout() != want {
			t.Fatalf("next look at %v, want %v", p.nextTimeout(), want)
		}
		p.must(p.advance(p.now.Add(probeEvery - 1)))
		p.now = p.now.Add(probeEvery)
		p.must(p.advance(p.now))
	}
	p.expect("post 1 of 8:0@3: at least up>blocked blocked", "post 1 of 8:0@3: at least blocked>offline transport-offline",
		"post 1 of 8:0@3: at least offline>up running", "post 1 of 8:0@3: at least up>unknown strange")
	p.Unwatch(1)
	p.must(p.advance(p.now.Add(probeEvery)))
	if !p.nextTimeout().IsZero() {
		t.Error("it looks though no driver that keeps a state is watched")
	}
}

// Another medium, or disk, is another object, however quickly it came.
func TestAReplacementIsSeen(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.put("sda", "dev=8:0", "size=100", "diskseq=3")
	p.ask(1, 1, "sda")
	p.put("sda", "diskseq=5", "size=200")
	p.hear("sda", 5)
	p.put("sda", "size=0")
	p.hear("sda", 5)
	p.remove("sda")
	p.hear("sda", 5)
	p.put("sda", "dev=8:0", "size=100", "diskseq=6")
	p.hear("sda", 6)
	p.remove("sda")
	p.hear("sda", 6)
	p.expect("associate 1 with 8:0@3: >up ",
		"post 1 of 8:0@3: up>absent removed", "invalidate 1 from 8:0@3",
		"associate 1 with 8:0@5: >up ", "post 1 of 8:0@5: absent>up added",
		"post 1 of 8:0@5: up>absent removed", "invalidate 1 from 8:0@5",
		"associate 1 with 8:0@6: >up ", "post 1 of 8:0@6: absent>up added",
		"post 1 of 8:0@6: up>absent removed", "invalidate 1 from 8:0@6")
}

// What the kernel told of, and what was there neither before nor when it was
// looked at, was not seen.
func TestWhatWasNotSeenMakesALowerBound(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.put("sda", "dev=8:0", "size=100", "diskseq=3")
	p.ask(1, 1, "sda")
	p.put("sda", "diskseq=9")
	p.hear("sda", 3)
	p.hear("sda", 5) // too late to count: it was looked at since
	p.put("sda", "size=0")
	p.hear("sda", 9)
	p.expect("associate 1 with 8:0@3: >up ", "post 1 of 8:0@3: up>absent removed", "invalidate 1 from 8:0@3",
		"associate 1 with 8:0@9: >up ", "post 1 of 8:0@9: absent>up added", "post 1 of 8:0@9: up>absent removed", "invalidate 1 from 8:0@9")
	p.put("sda", "size=100", "diskseq=20")
	p.hear("sda", 15)
	p.put("sda", "size=0")
	p.hear("sda", 20)
	p.expect("associate 1 with 8:0@20: >up ", "post 1 of 8:0@20: absent>up added",
		"post 1 of 8:0@20: at least up>absent removed", "invalidate 1 from 8:0@20")
}

func TestWhatIsNotThereIsExplained(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.ask(1, 1, "sda")
	p.put("sr0", "dev=11:0", "size=0", "diskseq=1")
	p.put("sda", "dev=8:0", "size=100")
	p.put("hidden", "size=100")
	p.put("sda", "sda1/partition=1")
	p.must(os.MkdirAll(filepath.Join(p.sys, "class/block"), 0o755))
	p.must(os.Symlink("../../block/sda/sda1", filepath.Join(p.sys, "class/block/sda1")))
	for i, name := range []string{"sr0", "sda1", "sdb", "hidden"} {
		p.ask(i+2, i+2, name)
	}
	p.expect("end 1: no such event: no disk sda; attach it, or wait for it (--wait)",
		"end 2: no such event: sr0 has no medium; insert or attach one, or wait for it (--wait)",
		"end 3: no such event: sda1 is a partition; write disk.state:sda",
		"end 4: no such event: no disk sdb; there are sda: name one, or wait for it (--wait)",
		"end 5: no such event: no disk hidden; there are sda: name one, or wait for it (--wait)")
	p.ask(7, 7, "sda") // before Linux 5.15
	p.expect("associate 7 with 8:0@0: >up ")
}

func TestWhatIsNoSubject(t *testing.T) {
	t.Parallel()
	p := New()
	for _, subject := range []string{"sda", "nvme0n1", "cciss!c0d0", "dm-0"} {
		if err := p.CheckSubject(Class, subject); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	for subject, remedy := range map[string]string{
		"":                        "/sys/block",
		"..":                      "/sys/block",
		"a/b":                     "/sys/block",
		strings.Repeat("x", 32):   "/sys/block",
		"\xff":                    "/sys/block",
		"/dev/sda":                "write disk.state:sda",
		"/dev/disk/by-id/wwn-0x5": "readlink -f /dev/disk/by-id/wwn-0x5",
	} {
		if err := p.CheckSubject(Class, subject); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: %v, want ErrUsage with %q", subject, err, remedy)
		}
	}
	if err := checkPattern("/dev/sd*"); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("a pattern with a slash: %v", err)
	}
}

const attached = "change@/devices/virtual/block/loop0\x00ACTION=change\x00DEVPATH=/devices/virtual/block/loop0\x00SUBSYSTEM=block\x00" +
	"MAJOR=7\x00MINOR=0\x00DEVNAME=loop0\x00DEVTYPE=disk\x00DISKSEQ=11\x00SEQNUM=14741\x00"

func TestOnlyUeventsOfDisksCount(t *testing.T) {
	t.Parallel()
	if u, ok := parseUevent([]byte(attached)); !ok || u != (uevent{"loop0", 11}) {
		t.Errorf("%+v, %v", u, ok)
	}
	for _, text := range []string{
		"", "\x00", "libudev\x00", "add@/devices/virtual/bdi/7:0\x00DEVPATH=/devices/virtual/bdi/7:0\x00SUBSYSTEM=bdi\x00",
		strings.Replace(attached, "DEVTYPE=disk", "DEVTYPE=partition", 1), strings.Replace(attached, "SUBSYSTEM=block", "SUBSYSTEM=net", 1),
		strings.Replace(attached, "DEVPATH=/devices/virtual/block/loop0", "DEVPATH=", 1),
	} {
		if u, ok := parseUevent([]byte(text)); ok {
			t.Errorf("%q: %+v", text, u)
		}
	}
}

func FuzzUevents(f *testing.F) {
	f.Add([]byte(attached))
	f.Add([]byte("remove@/a\x00DEVPATH=/a\x00SUBSYSTEM=block\x00DEVTYPE=disk"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		if u, ok := parseUevent(datagram); ok && !validName(u.disk) {
			t.Errorf("%q", u.disk)
		}
	})
}

package sysctl_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
	"github.com/belfry-ha/belfry/internal/producer/sysctl"
)

// keys stands in the place of /proc/sys.
type keys struct {
	t    *testing.T
	root string
}

func newKeys(t *testing.T, paths ...string) keys {
	t.Helper()
	k := keys{t, t.TempDir()}
	for _, path := range paths {
		k.set(path, "1")
	}
	return k
}

// set gives a key a value, at once: a reader sees the old one or the new one.
func (k keys) set(path, value string) { k.t.Helper(); k.make(path, value, 0o644) }

func (k keys) make(path, value string, mode os.FileMode) {
	k.t.Helper()
	full := filepath.Join(k.root, path)
	fresh := filepath.Join(k.t.TempDir(), "fresh")
	if err := errors.Join(
		os.MkdirAll(filepath.Dir(full), 0o755),
		os.WriteFile(fresh, []byte(value+"\n"), 0o644),
		os.Chmod(fresh, mode),
		os.Rename(fresh, full),
	); err != nil {
		k.t.Fatal(err)
	}
}

func (k keys) remove(path string) {
	k.t.Helper()
	if err := os.RemoveAll(filepath.Join(k.root, path)); err != nil {
		k.t.Fatal(err)
	}
}

// change is a post as "key: old -> new".
func change(t *testing.T, p event.Post) string {
	t.Helper()
	var c belfryv1.SysctlChange
	if err := proto.Unmarshal(p.Occurrence.Data, &c); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s: %s -> %s", c.GetKey(), c.GetOld(), c.GetNew())
}

func wantChange(t *testing.T, d *producertest.Driver, want string) event.Post {
	t.Helper()
	p := producertest.NextOf[event.Post](d)
	if got := change(t, p); got != want {
		t.Errorf("change %q, want %q", got, want)
	}
	if !p.Occurrence.LowerBound {
		t.Errorf("%s: the count is given as exact; what was between two readings is not known", want)
	}
	return p
}

func TestAChangeIsToldWithinASecond(t *testing.T) {
	t.Parallel()
	k := newKeys(t, "vm/swappiness", "net/ipv4/conf/eth0.100/forwarding")
	synctest.Test(t, func(t *testing.T) {
		d := producertest.Start(t, sysctl.NewAt(k.root))
		first := d.Watch(event.Watch{Class: sysctl.Class, Subject: "vm.swappiness"})
		if a := producertest.NextOf[event.Associate](d); a != (event.Associate{Entry: first.Entry}) {
			t.Errorf("%+v", a)
		}
		second := d.Watch(event.Watch{Class: sysctl.Class, Subject: "net.ipv4.conf.eth0/100.forwarding"})
		producertest.NextOf[event.Associate](d)
		d.Quiet(3500 * time.Millisecond)
		k.set("vm/swappiness", "10\t20")
		begin := time.Now()
		p := wantChange(t, d, "vm.swappiness: 1 -> 10\t20")
		if p.Entry != first.Entry || p.Repeat > 1 || !p.Occurrence.Time.Equal(time.Now()) || time.Since(begin) > time.Second {
			t.Errorf("%+v after %s", p, time.Since(begin))
		}
		k.set("vm/swappiness", "60")
		k.set("vm/swappiness", "10\t20") // there and back
		k.set("net/ipv4/conf/eth0.100/forwarding", "0")
		if p := wantChange(t, d, "net.ipv4.conf.eth0/100.forwarding: 1 -> 0"); p.Entry != second.Entry {
			t.Errorf("entry %d, want %d", p.Entry, second.Entry)
		}
		d.Unwatch(second.ID)
		k.set("net/ipv4/conf/eth0.100/forwarding", "1")
		d.Quiet(3 * time.Second)
	})
}

func TestLongValuesAreComparedWholeAndToldInPart(t *testing.T) {
	t.Parallel()
	k := newKeys(t)
	long := strings.Repeat("é", 20_000)
	k.set("net/ports", long+"1")
	synctest.Test(t, func(t *testing.T) {
		d := producertest.Start(t, sysctl.NewAt(k.root))
		d.Watch(event.Watch{Class: sysctl.Class, Subject: "net.ports"})
		producertest.NextOf[event.Associate](d)
		k.set("net/ports", long+"2")
		part := strings.Repeat("é", 512)
		if p := wantChange(t, d, "net.ports: "+part+" -> "+part); len(p.Occurrence.Data) > 4096 {
			t.Errorf("%d bytes of data", len(p.Occurrence.Data))
		}
	})
}

func TestARegistrationOutlivesTheKey(t *testing.T) {
	t.Parallel()
	k := newKeys(t, "net/conf/eth0/mtu")
	synctest.Test(t, func(t *testing.T) {
		d := producertest.Start(t, sysctl.NewAt(k.root))
		w := d.Watch(event.Watch{Class: sysctl.Class, Subject: "net.conf.eth0.mtu"})
		producertest.NextOf[event.Associate](d)
		k.remove("net/conf")
		if i := producertest.NextOf[event.Invalidate](d); i.Entry != w.Entry {
			t.Errorf("%+v", i)
		}
		d.Quiet(3 * time.Second)
		k.set("net/conf/eth0/mtu", "2") // another interface of that name: it has not changed
		if a := producertest.NextOf[event.Associate](d); a.Entry != w.Entry {
			t.Errorf("%+v", a)
		}
		d.Quiet(3 * time.Second)
		k.set("net/conf/eth0/mtu", "3")
		wantChange(t, d, "net.conf.eth0.mtu: 2 -> 3")
	})
}

func TestAPatternFindsKeysThatComeAndGo(t *testing.T) {
	t.Parallel()
	k := newKeys(t, "net/conf/all/mtu", "net/conf/eth0/mtu", "net/conf/eth0/ttl", "net/mtu", "kernel/ns_last_pid", "kernel/hostname")
	k.make("net/conf/lo/mtu", "1", 0o444)  // a constant or a counter
	k.make("net/conf/tun/mtu", "1", 0o600) // a secret
	synctest.Test(t, func(t *testing.T) {
		d := producertest.Start(t, sysctl.NewAt(k.root))
		finds := func(pattern string, want ...string) event.Watch {
			t.Helper()
			p := d.Watch(event.Watch{Class: sysctl.Class, Subject: pattern, Entry: producertest.NoEntry, Wait: true})
			for _, subject := range want {
				if f := producertest.NextOf[event.Found](d); f != (event.Found{Watch: p.ID, Subject: subject}) {
					t.Errorf("%s: %+v, want %s", pattern, f, subject)
				}
			}
			return p
		}
		p := finds("net.conf.*.mtu", "net.conf.all.mtu", "net.conf.eth0.mtu")
		finds("kernel/*", "kernel/hostname")
		finds("/etc/*")
		w := d.Watch(event.Watch{Class: sysctl.Class, Subject: "net.conf.eth0.mtu"})
		producertest.NextOf[event.Associate](d)
		k.set("net/conf/wlan0/mtu", "1")
		if f := producertest.NextOf[event.Found](d); f != (event.Found{Watch: p.ID, Subject: "net.conf.wlan0.mtu"}) {
			t.Errorf("%+v", f)
		}
		k.set("net/conf/eth0/mtu", "2")
		wantChange(t, d, "net.conf.eth0.mtu: 1 -> 2")
		k.remove("net/conf/eth0")
		producertest.NextOf[event.Invalidate](d)
		if e := producertest.NextOf[event.End](d); e.Entry != w.Entry || !errors.Is(e.Err, belfry.ErrNoEvent) {
			t.Errorf("%+v", e)
		}
		d.Quiet(30 * time.Second)
		k.set("net/conf/eth0/mtu", "9")
		if f := producertest.NextOf[event.Found](d); f.Subject != "net.conf.eth0.mtu" {
			t.Errorf("%+v", f)
		}
	})
}

func TestAPatternThatFitsTooManyKeysIsRefused(t *testing.T) {
	t.Parallel()
	k := newKeys(t)
	for i := range 4097 {
		if err := os.WriteFile(filepath.Join(k.root, fmt.Sprint("k", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := producertest.Start(t, sysctl.NewAt(k.root))
	p := d.Watch(event.Watch{Class: sysctl.Class, Subject: "k*", Entry: producertest.NoEntry, Wait: true})
	e := producertest.NextOf[event.End](d)
	if e.Watch != p.ID || e.Entry != 0 || !errors.Is(e.Err, belfry.ErrLimit) || !strings.Contains(e.Err.Error(), "k* fits more than 4096 keys; narrow it") {
		t.Errorf("%+v", e)
	}
}

func TestWhatCanNotBeWatchedIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	k := newKeys(t, "vm/swappiness")
	k.make("vm/drop_caches", "1", 0o200)
	k.make("net/secret", "1", 0o600)
	if err := errors.Join(os.Symlink("/etc/passwd", filepath.Join(k.root, "passwd")), unix.Mkfifo(filepath.Join(k.root, "fifo"), 0o644)); err != nil {
		t.Fatal(err)
	}
	d := producertest.Start(t, sysctl.NewAt(k.root))
	for _, test := range []struct {
		subject string
		want    error
		text    string
	}{
		{"vm.swapiness", belfry.ErrNoEvent, "there is no key vm.swapiness; load what it belongs to, or wait for it (--wait)"},
		{"vm.swappiness.more", belfry.ErrNoEvent, "there is no key"},
		{"vm", belfry.ErrUsage, "vm has keys below it; write one of them, or vm.*"},
		{"vm.drop_caches", belfry.ErrUnsupported, "can only be written"},
		{"net/secret", belfry.ErrPermission, "net.secret is not for everybody to read; watch a key that is"},
		{"passwd", belfry.ErrUnsupported, "passwd is no key"},
		{"fifo", belfry.ErrUnsupported, "fifo is no key"},
		{"/proc/sys/vm/swappiness", belfry.ErrUsage, "is a file; write vm/swappiness"},
		{"vm/../../etc/passwd", belfry.ErrUsage, "is no key; write it as sysctl(8) does"},
	} {
		w := d.Watch(event.Watch{Class: sysctl.Class, Subject: test.subject})
		e := producertest.NextOf[event.End](d)
		if e.Entry != w.Entry || !errors.Is(e.Err, test.want) || !strings.Contains(e.Err.Error(), test.text) {
			t.Errorf("%s: %+v, want %v with %q", test.subject, e, test.want, test.text)
		}
	}
}

package adapter_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/adapter"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// A watcher is a producer on the real kernel, with the classes of its entries.
type watcher struct {
	machine
	*producertest.Driver
	classes map[event.EntryID]belfry.Class
}

func (m machine) start() watcher {
	return watcher{m, producertest.Start(m.t, adapter.New()), map[event.EntryID]belfry.Class{}}
}

// watch begins watches of one subject or pattern for several classes.
func (w watcher) watch(subject string, classes ...belfry.Class) {
	w.t.Helper()
	for _, c := range classes {
		asked := event.Watch{Class: c, Subject: subject, Wait: true}
		if strings.Contains(subject, "*") || subject == "" {
			asked.Entry = producertest.NoEntry
		}
		w.classes[w.Watch(asked).Entry] = c
	}
}

// expect reads as many messages as it wants, and then that no more come.
func (w watcher) expect(want ...string) {
	w.t.Helper()
	var got []string
	for range want {
		got = append(got, adapter.Brief(w.t, w.classes, w.Next()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("messages (-want +got):\n%s", diff)
	}
	w.Quiet(20 * time.Millisecond)
}

func TestStatesFollowTheInterface(t *testing.T) {
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	m.ip(pair("t1", "p1")) // p1 is 2, t1 is 3
	w := m.start()
	w.watch("t1", adapter.StateClass)
	w.expect("associate 1 with 3: t1 >admin-down failing 3")
	m.ip("link set t1 up")
	w.expect("post 1 of 3: t1 admin-down>no-carrier failing 2")
	m.ip("link set p1 up")
	w.expect("post 1 of 3: t1 no-carrier>up recovered 1")
	m.ip("link set t1 mtu 1400", "address add 10.1.0.1/24 dev t1", "link set p1 address 52:54:00:12:34:56")
	w.Quiet(50 * time.Millisecond)
	m.ip("link set p1 down", "link set t1 down", "link set t1 up")
	w.expect("post 1 of 3: t1 up>no-carrier failing 2", "post 1 of 3: t1 no-carrier>admin-down failing 3", "post 1 of 3: t1 admin-down>no-carrier failing 2")
	w.watch("lo", adapter.StateClass)
	w.expect("associate 2 with 1: lo >admin-down failing 3")
	m.ip("link set lo up") // its operational state is not known to the kernel
	w.expect("post 2 of 1: lo admin-down>up recovered 1")
}

// N1 to N4: the interface goes and comes back with another index.
func TestAnInterfaceComesBackWithAnotherIndex(t *testing.T) {
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	m.ip("link add t1 index 10 address 52:54:00:12:34:56 type veth peer name p1", "address add 10.1.0.1/24 dev t1")
	w := m.start()
	w.watch("t1", adapter.StateClass, adapter.AddedClass, adapter.RemovedClass, adapter.AddressRemovedClass)
	w.watch("mac=52:54:00:12:34:56", adapter.RemovedClass)
	w.expect("associate 1 with 10: t1 >admin-down failing 3", "associate 2 with 10", "associate 3 with 10", "associate 4 with 10", "associate 5 with 10")
	m.ip("link del t1")
	w.expect("post 4 of 10: t1 inet 10.1.0.1/24",
		"post 1 of 10: t1 admin-down>absent removed failing 6", "invalidate 1 from 10", "invalidate 2 from 10",
		"post 3 of 10: removed t1 veth", "invalidate 3 from 10", "invalidate 4 from 10",
		"post 5 of 10: removed t1 veth", "invalidate 5 from 10")
	m.ip("link add t1 index 20 address 52:54:00:12:34:56 type veth peer name p1")
	w.expect("associate 1 with 20: t1 >admin-down failing 3", "post 1 of 20: t1 absent>admin-down added failing 3",
		"associate 2 with 20", "post 2 of 20: added t1 veth", "associate 3 with 20", "associate 4 with 20", "associate 5 with 20")
}

// A new name takes the name's subject away; the card keeps that of its address.
func TestANameAndACardAreFollowed(t *testing.T) {
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	m.ip("link add t1 index 10 address 52:54:00:12:34:56 type veth peer name p1", "link set t1 up")
	w := m.start()
	w.watch("t1", adapter.StateClass, adapter.RemovedClass)
	w.watch("t2", adapter.StateClass, adapter.AddedClass)
	w.watch("mac=52:54:00:12:34:56", adapter.StateClass, adapter.RemovedClass)
	w.watch("mac=52:54:00:65:43:21", adapter.AddedClass)
	w.expect("associate 1 with 10: t1 >no-carrier failing 2", "associate 2 with 10", "associate 5 with 10: t1 >no-carrier failing 2", "associate 6 with 10")
	m.ip("link set t1 down")
	w.expect("post 1 of 10: t1 no-carrier>admin-down failing 3", "post 5 of 10: t1 no-carrier>admin-down failing 3")
	m.ip("link set t1 name t2")
	w.expect("post 1 of 10: t2 admin-down>absent renamed failing 6", "invalidate 1 from 10", "post 2 of 10: renamed t2 veth", "invalidate 2 from 10",
		"associate 3 with 10: t2 >admin-down failing 3", "post 3 of 10: t2 absent>admin-down renamed failing 3",
		"associate 4 with 10", "post 4 of 10: renamed t2 veth")
	m.ip("link set t2 address 52:54:00:65:43:21")
	w.expect("post 5 of 10: t2 admin-down>absent mac-changed failing 6", "invalidate 5 from 10",
		"post 6 of 10: mac-changed t2 veth", "invalidate 6 from 10", "associate 7 with 10", "post 7 of 10: mac-changed t2 veth")
}

// A port that leaves its bridge is deleted, in the bridge's words; and a bridge
// takes the hardware address of a port.
func TestABridgeIsNotItsPorts(t *testing.T) {
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	m.ip("link add br0 index 5 type bridge", "link add t1 index 10 address 02:00:00:00:00:01 type veth peer name p1", "link set t1 up")
	w := m.start()
	w.watch("t1", adapter.RemovedClass, adapter.StateClass)
	w.watch("mac=02:00:00:00:00:01", adapter.RemovedClass)
	w.expect("associate 1 with 10", "associate 2 with 10: t1 >no-carrier failing 2", "associate 3 with 10")
	m.ip("link set t1 master br0")
	m.until("br0", "02:00:00:00:00:01")
	m.ip("link set t1 nomaster")
	w.Quiet(100 * time.Millisecond)
	m.ip("link set t1 master br0", "link del t1")
	w.expect("post 2 of 10: t1 no-carrier>admin-down failing 3",
		"post 1 of 10: removed t1 veth", "invalidate 1 from 10", "post 2 of 10: t1 admin-down>absent removed failing 6", "invalidate 2 from 10",
		"post 3 of 10: removed t1 veth", "invalidate 3 from 10")
}

func TestAddressesAreCountedWhenTheyCanBeUsed(t *testing.T) {
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	m.ip(pair("t1", "p1"), "link set t1 addrgenmode none", "link set t1 up", "link set p1 up", "address add 10.1.0.9/24 dev t1")
	w := m.start()
	w.watch("t1", adapter.AddressAddedClass, adapter.AddressRemovedClass)
	w.expect("associate 1 with 3", "associate 2 with 3")
	m.ip("address add 10.1.0.1/24 dev t1", "address add 10.1.0.1 peer 10.9.0.1 dev t1", "address change 10.1.0.1/24 dev t1 valid_lft 100 preferred_lft 100")
	w.expect("post 1 of 3: t1 inet 10.1.0.1/24", "post 1 of 3: t1 inet 10.1.0.1/32 10.9.0.1")
	m.ip("address add fd00::1/64 dev t1")
	w.Quiet(200 * time.Millisecond) // the check for duplicates takes 1 s and more
	w.expect("post 1 of 3: t1 inet6 fd00::1/64")
	m.ip("address add fd00::2/64 dev t1", "address del fd00::2/64 dev t1", "address del fd00::1/64 dev t1", "address del 10.1.0.1/24 dev t1")
	w.expect("post 2 of 3: t1 inet6 fd00::1/64", "post 2 of 3: t1 inet 10.1.0.1/24")
}

// An interface that is moved out of the namespace and back has its old index.
func TestAnInterfaceLeavesTheNamespace(t *testing.T) {
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	elsewhere := exec.CommandContext(t.Context(), "sleep", "60") // until the test ends
	elsewhere.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := elsewhere.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = elsewhere.Process.Kill()
		_ = elsewhere.Wait() // tells of the signal
	}()
	m.ip("link add t1 index 10 type veth peer name p1")
	w := m.start()
	w.watch("t1", adapter.RemovedClass, adapter.AddedClass)
	w.expect("associate 1 with 10", "associate 2 with 10")
	m.ip(fmt.Sprint("link set t1 netns ", elsewhere.Process.Pid))
	w.expect("post 1 of 10: removed t1 veth", "invalidate 1 from 10", "invalidate 2 from 10")
}

func TestPatternsFindWhatThereIsAndWhatComes(t *testing.T) {
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	m.ip("link add t1 index 10 address 02:00:00:00:00:01 type veth peer name p1 address 02:00:00:00:00:02")
	w := m.start()
	w.watch("t*", adapter.AddedClass)
	w.watch("mac=02:00:00:00:00:*", adapter.RemovedClass)
	w.watch("", adapter.AddressAddedClass)
	w.expect("found t1 for 1", "found mac=02:00:00:00:00:01 for 2", "found mac=02:00:00:00:00:02 for 2",
		"found lo for 3", "found p1 for 3", "found t1 for 3")
	m.ip("link add t2 index 20 address 02:00:00:00:00:03 type veth peer name x")
	w.expect("found x for 3", "found t2 for 1", "found t2 for 3", "found mac=02:00:00:00:00:03 for 2")
	w.classes[7] = adapter.AddedClass
	w.Watch(event.Watch{ID: 7, Class: adapter.AddedClass, Subject: "t2", Entry: 7})
	w.expect("associate 7 with 20", "post 7 of 20: added t2 veth")
	w.classes[8] = adapter.AddedClass
	w.Watch(event.Watch{ID: 8, Class: adapter.AddedClass, Subject: "t1", Entry: 8})
	w.expect("associate 8 with 10")
}

// An interface may have gone before the machine has asked for what a pattern
// found: it counts all the same.
func TestAShortLifeIsCounted(t *testing.T) {
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	w := m.start()
	w.watch("t*", adapter.AddedClass, adapter.RemovedClass)
	m.ip("link add t1 index 10 type veth peer name p1", "link del t1", "link add t1 index 20 type veth peer name p1", "link del t1")
	w.expect("found t1 for 1", "found t1 for 2")
	w.classes[7], w.classes[8] = adapter.AddedClass, adapter.RemovedClass
	w.Watch(event.Watch{ID: 7, Class: adapter.AddedClass, Subject: "t1", Entry: 7})
	w.expect("associate 7 with 10", "post 7 of 10: added t1 veth", "invalidate 7 from 10",
		"associate 7 with 20", "post 7 of 20: added t1 veth", "invalidate 7 from 20")
	w.Watch(event.Watch{ID: 8, Class: adapter.RemovedClass, Subject: "t1", Entry: 8})
	w.expect("associate 8 with 10", "post 8 of 10: removed t1 veth", "invalidate 8 from 10",
		"associate 8 with 20", "post 8 of 20: removed t1 veth", "invalidate 8 from 20")
}

// After messages were lost the states are right, and say that there may have
// been more.
func TestAnOverrunIsMadeUp(t *testing.T) {
	if !producertest.Alone(t) {
		return
	}
	m := machine{t}
	m.ip("link add t1 index 10 type veth peer name p1", "link add t2 index 20 type veth peer name p2", "address add 10.1.0.1/24 dev t2")
	w := m.start()
	w.watch("t1", adapter.StateClass)
	w.watch("t2", adapter.RemovedClass, adapter.AddressAddedClass, adapter.AddressRemovedClass)
	w.watch("t3", adapter.AddedClass)
	w.expect("associate 1 with 10: t1 >admin-down failing 3", "associate 2 with 20", "associate 3 with 20", "associate 4 with 20")
	resume := w.Pause()
	m.storm("link set t1 up", "link set t1 down")
	m.ip("address add 10.1.0.2/24 dev t2", "address del 10.1.0.1/24 dev t2", "link del t2", "link add t3 index 30 type veth peer name p3")
	resume()
	got := map[string]bool{}
	for range 1 << 16 {
		text := adapter.Brief(t, w.classes, w.Next())
		got[text] = true
		if strings.HasPrefix(text, "post 5 ") { // of t3, which came last
			break
		}
	}
	for _, want := range []string{
		"post 4 of 20: at least t2 inet 10.1.0.1/24", "post 2 of 20: at least removed t2 veth", "post 5 of 30: at least added t3 veth",
	} {
		if !got[want] {
			t.Errorf("no message %q", want)
		}
	}
	m.ip("link set t1 up")
	for text := ""; text != "post 1 of 10: t1 admin-down>no-carrier failing 2"; {
		text = adapter.Brief(t, w.classes, w.Next())
	}
	w.Quiet(20 * time.Millisecond)
}

func TestWhatIsNoSubject(t *testing.T) {
	t.Parallel()
	p := adapter.New()
	for _, subject := range []string{"eth0", "a.10", "wlp2s0", "mac=02:fc:00:00:00:01", "path=/sys/devices/pci0000:00/0000:00:03.0"} {
		if err := p.CheckSubject(adapter.StateClass, subject); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	for subject, remedy := range map[string]string{
		"":                         "write NAME",
		"..":                       "write NAME",
		"a-name-too-long0":         "write NAME",
		"eth0:1":                   "write NAME",
		"eth 0":                    "write NAME",
		"/sys/class/net/eth0":      "path=/sys/devices/PATH",
		"mac=eth0":                 "write adapter.state:mac=52:54:00:12:34:56",
		"mac=02-FC-00-00-00-0A":    "write adapter.state:mac=02:fc:00:00:00:0a",
		"path=pci0000:00":          "readlink -f",
		"path=/sys/class/net/eth0": "readlink -f",
		"path=/sys/devices/a/../b": "readlink -f",
	} {
		if err := p.CheckSubject(adapter.StateClass, subject); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: %v, want ErrUsage with %q", subject, err, remedy)
		}
	}
}

func TestNobodyNeedsRights(t *testing.T) {
	if !producertest.WithoutRights(t) {
		return
	}
	d := producertest.Start(t, adapter.New())
	d.Watch(event.Watch{Class: adapter.StateClass, Subject: "lo"})
	if a := producertest.NextOf[event.Associate](d); a.State == nil || os.Geteuid() == 0 {
		t.Errorf("%+v as user %d", a, os.Geteuid())
	}
}

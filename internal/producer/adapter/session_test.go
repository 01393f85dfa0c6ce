package adapter

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/netlink"
)

// A played session is told what the kernel would say, in an order and at times
// that are hard to come by.
type played struct {
	*session
	t       *testing.T
	now     time.Time
	sent    []event.Message
	classes map[event.EntryID]belfry.Class
}

func play(t *testing.T) *played {
	p := &played{t: t, now: time.Unix(1000, 0), classes: map[event.EntryID]belfry.Class{}}
	p.session = newSession(func(messages ...event.Message) error {
		p.sent = append(p.sent, messages...)
		return nil
	}, 1, t.TempDir())
	return p
}

func (p *played) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// ask watches a subject, or a pattern with entry 0.
func (p *played) ask(id, entry int, class belfry.Class, subject string) {
	p.t.Helper()
	p.classes[event.EntryID(entry)] = class
	p.must(p.watch(event.Watch{ID: event.WatchID(id), Entry: event.EntryID(entry), Class: class, Subject: subject}))
}

func (p *played) expect(want ...string) {
	p.t.Helper()
	var got []string
	for _, m := range p.sent {
		got = append(got, Brief(p.t, p.classes, m))
	}
	p.sent = nil
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// working is an interface that is up.
func working(index int, name string) netlink.Interface {
	return netlink.Interface{
		Index: index, Name: name, State: netlink.OperUp, Kind: "veth", MAC: fmt.Sprintf("02:00:00:00:00:%02x", index),
		Flags: unix.IFF_UP | unix.IFF_LOWER_UP | unix.IFF_RUNNING,
	}
}

func address(index int, prefix string) netlink.Address {
	return netlink.Address{Index: index, Prefix: netip.MustParsePrefix(prefix), Flags: unix.IFA_F_PERMANENT}
}

func nothingSeen() *touched {
	return &touched{links: map[int]bool{}, addresses: map[netlink.Address]bool{}}
}

func TestEachStateHasItsWord(t *testing.T) {
	t.Parallel()
	const carrier = unix.IFF_UP | unix.IFF_LOWER_UP
	for _, test := range []struct {
		flags uint32
		oper  byte
		want  state
	}{
		{0, netlink.OperDown, adminDown},
		{unix.IFF_LOWER_UP, netlink.OperUp, adminDown},
		{unix.IFF_UP, netlink.OperDown, noCarrier},
		{unix.IFF_UP, netlink.OperLowerLayerDown, noCarrier},
		{unix.IFF_UP | unix.IFF_RUNNING, netlink.OperUp, noCarrier}, // the carrier is gone; the rest follows
		{carrier, netlink.OperDown, noCarrier},                      // it has come; the rest follows
		{carrier, netlink.OperNotPresent, noCarrier},
		{carrier | unix.IFF_DORMANT, netlink.OperDormant, dormant},
		{carrier, netlink.OperTesting, selfTest},
		{carrier | unix.IFF_RUNNING, netlink.OperUp, up},
		{carrier | unix.IFF_RUNNING, netlink.OperUnknown, up},
	} {
		if got := stateOf(netlink.Interface{Flags: test.flags, State: test.oper}); got != test.want {
			t.Errorf("flags %#x, operational state %d: %v, want %v", test.flags, test.oper, got, test.want)
		}
	}
}

// Two interfaces change names, of which only the result is known: no identifier
// is given before it was taken away, for the machine would refuse that.
func TestNamesAreSwapped(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.must(p.link(p.now, working(2, "eth0")))
	p.must(p.link(p.now, working(3, "eth1")))
	p.ask(1, 1, RemovedClass, "eth0")
	p.ask(2, 2, RemovedClass, "eth1")
	p.expect("associate 1 with 2", "associate 2 with 3")
	p.must(p.merge(p.now, []netlink.Interface{working(2, "eth1"), working(3, "eth0")}, nil, nothingSeen()))
	p.expect("post 1 of 2: renamed eth1 veth", "invalidate 1 from 2",
		"post 2 of 3: renamed eth0 veth", "invalidate 2 from 3", "associate 2 with 2", "associate 1 with 3")
}

// What messages were about while all was read is taken from them; the answer may
// be older.
func TestMessagesBeatAnAnswerOfTheirTime(t *testing.T) {
	t.Parallel()
	p := play(t)
	down := working(2, "eth0")
	down.Flags = 0
	p.must(p.link(p.now, working(2, "eth0")))
	p.must(p.link(p.now, working(3, "eth1")))
	p.must(p.address(p.now, address(2, "10.1.0.1/24"), true))
	p.ask(1, 1, StateClass, "eth0")
	p.ask(2, 2, StateClass, "eth1")
	p.ask(3, 3, AddressAddedClass, "eth0")
	p.ask(4, 4, AddressRemovedClass, "eth0")
	p.sent = nil
	seen := &touched{
		links:     map[int]bool{2: true, 4: true},
		addresses: map[netlink.Address]bool{identity(address(2, "10.1.0.1/24")): true, identity(address(2, "10.1.0.2/24")): true},
	}
	p.must(p.merge(p.now, []netlink.Interface{down, working(4, "eth2")}, []netlink.Address{address(2, "10.1.0.2/24"), address(2, "10.1.0.3/24")}, seen))
	p.expect("post 2 of 3: eth1 up>absent removed failing 6", "invalidate 2 from 3", "post 3 of 2: eth0 inet 10.1.0.3/24")
}

func TestAnIndexThatIsUsedAgain(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.must(p.link(p.now, working(2, "eth0")))
	p.ask(1, 1, RemovedClass, "eth0")
	p.must(p.gone(p.now, 2))
	p.must(p.link(p.now, working(2, "eth0")))
	p.must(p.gone(p.now, 7)) // which nobody knew
	p.expect("associate 1 with 2", "post 1 of 2: removed eth0 veth", "invalidate 1 from 2", "associate 1 with 2")
}

// Of two with the same address the one that was there stays until it goes; then
// the other one is meant, which nobody added.
func TestOneOfTwoWithTheSameAddress(t *testing.T) {
	t.Parallel()
	p := play(t)
	one, two, port := working(5, "a"), working(3, "b"), working(4, "c")
	two.MAC, port.MAC, port.Permanent = one.MAC, one.MAC, "02:00:00:00:00:77"
	bond := working(2, "bond0")
	bond.MAC, bond.Kind = one.MAC, "bond"
	p.must(p.link(p.now, one))
	p.ask(1, 1, AddedClass, "mac="+one.MAC)
	p.ask(2, 2, RemovedClass, "mac="+one.MAC)
	p.ask(3, 3, StateClass, "mac="+one.MAC)
	p.must(p.link(p.now, bond))
	p.must(p.link(p.now, port))
	p.must(p.link(p.now, two))
	p.expect("associate 1 with 5", "associate 2 with 5", "associate 3 with 5: a >up recovered 1")
	p.must(p.gone(p.now, 5))
	p.expect("invalidate 1 from 5", "post 2 of 5: removed a veth", "invalidate 2 from 5", "post 3 of 5: a up>absent removed failing 6", "invalidate 3 from 5",
		"associate 1 with 3", "associate 2 with 3", "associate 3 with 3: b >up recovered 1", "post 3 of 3: b absent>up recovered 1")
	p.must(p.gone(p.now, 3))
	if len(p.byKey["mac="+one.MAC]) > 0 {
		t.Errorf("%v have the address of a card that is gone", p.byKey["mac="+one.MAC])
	}
}

func TestWhatAPatternFoundEndsAfterItIsGone(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.must(p.link(p.now, working(2, "eth0")))
	p.must(p.link(p.now, working(3, "eth1")))
	p.ask(1, 0, RemovedClass, "eth*")
	p.ask(2, 2, RemovedClass, "eth0")
	p.ask(3, 3, AddedClass, "eth0")
	p.expect("found eth0 for 1", "found eth1 for 1", "associate 2 with 2", "associate 3 with 2")
	p.must(p.gone(p.now, 2))
	p.must(p.gone(p.now, 3))
	p.expect("post 2 of 2: removed eth0 veth", "invalidate 2 from 2", "invalidate 3 from 2")
	if want := p.now.Add(endAfter); p.nextTimeout() != want {
		t.Errorf("next at %v, want %v", p.nextTimeout(), want)
	}
	p.must(p.link(p.now, working(4, "eth0")))
	p.must(p.Advance(p.now.Add(endAfter)))
	p.expect("associate 2 with 4", "associate 3 with 4", "post 3 of 4: added eth0 veth")
	p.must(p.gone(p.now, 4))
	p.sent = nil
	p.must(p.Advance(p.now.Add(endAfter)))
	p.expect("end 20: no such event: eth0 is gone") // of entry 2; nobody found entry 3
	p.must(p.link(p.now, working(5, "eth0")))
	p.expect("found eth0 for 1", "associate 3 with 5", "post 3 of 5: added eth0 veth")
	if len(p.At("eth1")) > 0 || !p.nextTimeout().IsZero() {
		t.Error("what nobody asked for is kept")
	}
}

func TestTheDeviceIsFoundInSysfs(t *testing.T) {
	t.Parallel()
	p := play(t)
	tree := func(dir string, links map[string]string) {
		p.must(os.MkdirAll(filepath.Join(p.sys, dir), 0o755))
		for at, to := range links {
			p.must(os.MkdirAll(filepath.Dir(filepath.Join(p.sys, at)), 0o755))
			p.must(os.Symlink(to, filepath.Join(p.sys, at)))
		}
	}
	tree("devices/pci0000:00/0000:00:03.0/virtio2", map[string]string{
		"bus/virtio/devices/virtio2": "../../../devices/pci0000:00/0000:00:03.0/virtio2",
		"class/net/old/device":       "../../../devices/pci0000:00/0000:00:03.0/virtio2",
	})
	p.must(os.WriteFile(filepath.Join(p.sys, "class/net/old/ifindex"), []byte("9\n"), 0o600))
	const path = "/sys/devices/pci0000:00/0000:00:03.0/virtio2"
	card := working(2, "eth0")
	card.Bus, card.Device = "virtio", "virtio2"
	for _, test := range []struct {
		of   netlink.Interface
		want string
	}{
		{card, path},
		{working(9, "old"), path}, // Linux 5.13
		{working(8, "old"), ""},   // of another namespace
		{working(7, "virtual"), ""},
	} {
		if got := devicePath(p.sys, test.of); got != test.want {
			t.Errorf("%s: %q, want %q", test.of.Name, got, test.want)
		}
	}
	p.ask(1, 0, AddedClass, "path=/sys/devices/pci0000:00/**")
	p.must(p.link(p.now, card))
	p.ask(2, 2, AddedClass, "path="+path)
	p.expect("found path="+path+" for 1", "associate 2 with 2", "post 2 of 2: added eth0 veth")
}

func TestWhatIsNotThereIsRefusedWithWhatIs(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.ask(1, 1, StateClass, "eth0")
	p.expect("end 10: no such event: no interface eth0; wait for it (--wait)")
	for i := range 9 {
		p.must(p.link(p.now, working(i+2, fmt.Sprint("eth", i))))
	}
	p.ask(2, 2, StateClass, "wlan0")
	p.ask(3, 0, StateClass, "/sys/*")
	p.expect("end 20: no such event: no interface wlan0; there are eth0, eth1, eth2, eth3, eth4, eth5, eth6, eth7, …: name one, or wait for it (--wait)",
		`end 03: wrong use: no name of an interface fits "/sys/*"; write NAME, mac= or path=, each with stars`)
}

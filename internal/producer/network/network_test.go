package network

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A namespace is a network namespace of the thread that serves it.
type namespace chan func()

func newNamespace(t *testing.T) namespace {
	t.Helper()
	ns, made := make(namespace), make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the namespace
		made <- unix.Unshare(unix.CLONE_NEWNET)
		for call := range ns {
			call()
		}
	}()
	if err := <-made; err != nil {
		close(ns)
		t.Skipf("needs: netns (%v)", err)
	}
	t.Cleanup(func() { close(ns) })
	ns.ip(t, "link set lo up")
	return ns
}

func (ns namespace) do(f func()) {
	done := make(chan struct{})
	ns <- func() { f(); close(done) }
	<-done
}

// ip runs commands of ip(8), without the first word.
func (ns namespace) ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		var output []byte
		var err error
		ns.do(func() { output, err = exec.Command("sh", "-c", "ip "+c).CombinedOutput() })
		if err != nil {
			t.Fatalf("ip %s: %v\n%s", c, err, output)
		}
	}
}

// A watched set of addresses, and what was reported last of each.
type watched struct {
	*Watcher
	reports chan []Status
	last    map[netip.Addr]Status
}

func (ns namespace) watch(t *testing.T, addrs ...string) *watched {
	t.Helper()
	var parsed []netip.Addr
	for _, a := range addrs {
		parsed = append(parsed, netip.MustParseAddr(a))
	}
	w := &watched{reports: make(chan []Status, 64), last: map[netip.Addr]Status{}}
	var err error
	ns.do(func() { w.Watcher, err = Open(parsed) })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- w.Run(ctx, func(changed []Status) { w.reports <- changed })
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
}

func describe(s Status) string {
	switch {
	case !s.Present:
		return "absent"
	case s.Name == "":
		return "on all"
	case !s.AdminUp:
		return fmt.Sprintf("%s down mtu %d", s.Name, s.MTU)
	case !s.Carrier:
		return fmt.Sprintf("%s no carrier mtu %d", s.Name, s.MTU)
	}
	return fmt.Sprintf("%s up %d Mbit/s mtu %d", s.Name, s.Speed, s.MTU)
}

// want waits until an address is reported so.
func (w *watched) want(t *testing.T, addr, want string) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		s, told := w.last[netip.MustParseAddr(addr)]
		if told && describe(s) == want {
			return
		}
		select {
		case changed := <-w.reports:
			for _, s := range changed {
				w.last[s.Addr] = s
			}
		case <-limit:
			t.Fatalf("%s: %q after 10 s, want %q", addr, describe(s), want)
		}
	}
}

// pair are two interfaces, each the other end of the other.
const pair = "link add %s type veth peer name %s"

func TestAddressIsFollowed(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	w := ns.watch(t, "10.1.0.1", "fd00::1", "127.0.11.3", "0.0.0.0")
	w.run(t)
	w.want(t, "10.1.0.1", "absent")
	w.want(t, "fd00::1", "absent")
	w.want(t, "127.0.11.3", "lo up 0 Mbit/s mtu 65536")
	w.want(t, "0.0.0.0", "on all")

	steps := []struct{ why, ip, addr, want string }{
		{"appears, on what is not set up", fmt.Sprintf(pair, "net1", "peer1") + " && ip address add 10.1.0.1/24 dev net1", "10.1.0.1", "net1 down mtu 1500"},
		{"set up, and the other end is not", "link set net1 up", "10.1.0.1", "net1 no carrier mtu 1500"},
		{"carrier comes", "link set peer1 up", "10.1.0.1", "net1 up 10000 Mbit/s mtu 1500"},
		{"carrier goes", "link set peer1 down", "10.1.0.1", "net1 no carrier mtu 1500"},
		{"carrier returns", "link set peer1 up", "10.1.0.1", "net1 up 10000 Mbit/s mtu 1500"},
		{"MTU", "link set net1 mtu 1280", "10.1.0.1", "net1 up 10000 Mbit/s mtu 1280"},
		{"set down", "link set net1 down", "10.1.0.1", "net1 down mtu 1280"},
		{"a new name, as udev gives", "link set net1 name lan1", "10.1.0.1", "lan1 down mtu 1280"},
		{"vanishes", "address del 10.1.0.1/24 dev lan1", "10.1.0.1", "absent"},
		{"returns on another interface", fmt.Sprintf(pair, "net2", "peer2") + " && ip link set net2 up && ip link set peer2 up && ip address add 10.1.0.1/24 dev net2", "10.1.0.1", "net2 up 10000 Mbit/s mtu 1500"},
		{"two have it: the one that works", "address add 10.1.0.1/24 dev lan1 && ip link set net2 mtu 1450", "10.1.0.1", "net2 up 10000 Mbit/s mtu 1450"},
		{"moved while it was there", "link set lan1 up && ip address del 10.1.0.1/24 dev net2", "10.1.0.1", "lan1 up 10000 Mbit/s mtu 1280"},
		{"the interface is taken away", "link del lan1", "10.1.0.1", "absent"},
		{"IPv6 is there when it was found to be unique", "address add fd00::1/64 dev net2", "fd00::1", "net2 up 10000 Mbit/s mtu 1450"},
		{"an address without a network", "address add 10.1.0.1/32 dev lo", "10.1.0.1", "lo up 0 Mbit/s mtu 65536"},
		{"of a pair of hosts", "address del 10.1.0.1/32 dev lo && ip address add 10.1.0.1 peer 10.9.9.9 dev net2", "10.1.0.1", "net2 up 10000 Mbit/s mtu 1450"},
	}
	for _, s := range steps {
		ns.ip(t, s.ip)
		t.Log(s.why)
		w.want(t, s.addr, s.want)
	}
}

func TestTentativeAddressIsAbsent(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	ns.ip(t, fmt.Sprintf(pair, "net1", "peer1"), "link set peer1 up", "link set net1 up")
	w := ns.watch(t, "fd00::1")
	ns.ip(t, "address add fd00::1/64 dev net1")
	var first []Status
	ns.do(func() {
		var err error
		if first, err = w.look(); err != nil {
			t.Error(err)
		}
	})
	if want := "absent"; describe(first[0]) != want { // the check takes 1 s and more
		t.Errorf("%s while it is checked for duplicates, want %s", describe(first[0]), want)
	}
	w.run(t)
	w.want(t, "fd00::1", "net1 up 10000 Mbit/s mtu 1500")
}

func TestZoneNamesTheInterface(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	ns.ip(t, fmt.Sprintf(pair, "net1", "peer1"), "link set peer1 up", "link set net1 up",
		"address add fe80::77/64 dev peer1 nodad", "address add fe80::77/64 dev net1 nodad")
	w := ns.watch(t, "fe80::77%net1")
	w.run(t)
	w.want(t, "fe80::77%net1", "net1 up 10000 Mbit/s mtu 1500")
	ns.ip(t, "address del fe80::77/64 dev net1")
	w.want(t, "fe80::77%net1", "absent")
}

// What the kernel could not keep is read anew: nothing stays wrong.
func TestOverrunIsMadeUp(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	ns.ip(t, fmt.Sprintf(pair, "net1", "peer1"), "link set net1 up", "link set peer1 up", "address add 10.1.0.1/24 dev net1")
	w := ns.watch(t, "10.1.0.1")
	if err := w.events.SetReadBuffer(1); err != nil { // the kernel makes it its least
		t.Fatal(err)
	}
	w.reports = make(chan []Status) // so that a report waits until it is wanted
	w.run(t)
	w.want(t, "10.1.0.1", "net1 up 10000 Mbit/s mtu 1500")
	ns.ip(t, "link set net1 mtu 1400") // the report of this waits, while:
	ns.ip(t, slices.Repeat([]string{"link set net1 mtu 1401", "link set net1 mtu 1402"}, 20)...)
	ns.ip(t, "address del 10.1.0.1/24 dev net1")
	w.want(t, "10.1.0.1", "absent")
	stats := w.Stats()
	t.Logf("%d looks, %d overruns", stats.Looks, stats.Overruns)
	if stats.Overruns == 0 {
		t.Error("the buffer held everything: this test shows nothing")
	}
}

// A storm of changes costs a look each 5 ms and no more.
func TestStormIsBounded(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	ns.ip(t, fmt.Sprintf(pair, "net1", "peer1"), "address add 10.1.0.1/24 dev net1")
	w := ns.watch(t, "10.1.0.1")
	w.run(t)
	w.want(t, "10.1.0.1", "net1 down mtu 1500")
	begin, before := time.Now(), w.Stats().Looks
	batch := ""
	for i := range 400 {
		batch += fmt.Sprintf("link set net1 mtu %d\n", 1000+i)
	}
	ns.ip(t, "-batch - <<'END'\n"+batch+"END")
	w.want(t, "10.1.0.1", "net1 down mtu 1399")
	looks, took := w.Stats().Looks-before, time.Since(begin)
	t.Logf("400 changes in %s: %d looks", took, looks)
	if most := uint64(took/lookGap) + 2; looks > most {
		t.Errorf("%d looks in %s, want %d at most", looks, took, most)
	}
}

// Other interfaces are none of its business.
func TestOthersAreNotLookedAt(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	ns.ip(t, fmt.Sprintf(pair, "net1", "peer1"), "address add 10.1.0.1/24 dev net1")
	w := ns.watch(t, "10.1.0.1")
	w.run(t)
	w.want(t, "10.1.0.1", "net1 down mtu 1500")
	ns.ip(t, fmt.Sprintf(pair, "other", "others"), "link set other up", "address add 10.2.0.1/24 dev other", "link del other",
		"link set net1 mtu 1400")
	w.want(t, "10.1.0.1", "net1 down mtu 1400")
	// The veth's ends share no address; the MTU may be told in two messages.
	if looks := w.Stats().Looks; looks > 3 {
		t.Errorf("%d looks, want 3 at most: the first and those for the MTU", looks)
	}
}

// cluster.md 10: carrier loss is posted within 50 ms.
func TestCarrierLossIsToldAtOnce(t *testing.T) {
	ns := newNamespace(t) // not parallel: it measures
	ns.ip(t, fmt.Sprintf(pair, "net1", "peer1"), "link set net1 up", "link set peer1 up", "address add 10.1.0.1/24 dev net1")
	w := ns.watch(t, "10.1.0.1")
	w.run(t)
	var took []time.Duration
	for range 10 {
		ns.ip(t, "link set peer1 up")
		w.want(t, "10.1.0.1", "net1 up 10000 Mbit/s mtu 1500")
		begin := time.Now()
		ns.ip(t, "link set peer1 down")
		w.want(t, "10.1.0.1", "net1 no carrier mtu 1500")
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	t.Logf("from before `ip link set` to the report: median %s, longest %s", took[5], took[9])
	if took[5] > 50*time.Millisecond {
		t.Errorf("median %s, want 50ms at most", took[5])
	}
}

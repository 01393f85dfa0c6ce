package transport

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/wire"
)

// cluster.md 12: buffer, timestamps, overflow counter and class of both kinds
// of socket.
func TestBothKindsOfSocketAreSetUp(t *testing.T) {
	t.Parallel()
	wildcard, err := listenWildcard(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = wildcard.close() }()
	connected, err := connectLink(wildcard.local, netip.MustParseAddrPort("127.0.0.2:7431"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connected.close() }()
	// socket(7): the kernel doubles the value. Who may not force it gets what
	// the machine allows.
	buffer := 8 << 20
	if unix.SetsockoptInt(wildcard.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		buffer = min(buffer, readNumber(t, "/proc/sys/net/core/rmem_max"))
	}
	for name, s := range map[string]*socket{"wildcard": wildcard, "connected": connected} {
		for option, c := range map[string]struct{ level, option, want int }{
			"SO_RCVBUF":       {unix.SOL_SOCKET, unix.SO_RCVBUF, 2 * buffer},
			"SO_TIMESTAMPNS":  {unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1},
			"SO_RXQ_OVFL":     {unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1},
			"SO_REUSEPORT":    {unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
			"IP_TOS":          {unix.IPPROTO_IP, unix.IP_TOS, 0xc0}, // CS6
			"IP_MTU_DISCOVER": {unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		} {
			got, err := unix.GetsockoptInt(s.fd, c.level, c.option)
			if err != nil || got != c.want {
				t.Errorf("%s socket: %s is %d, %v; want %d", name, option, got, err, c.want)
			}
		}
	}
}

func readNumber(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhatTheKernelSaysIsToldApart(t *testing.T) {
	t.Parallel()
	var told []string
	u := &UDP{notes: make(chan note, 64), done: make(chan struct{})}
	u.table.Store(&peerTable{})
	u.cfg.Refused = func(belfry.NodeID, uint8) { told = append(told, "refused") }
	u.cfg.Unreachable = func(belfry.NodeID, uint8) { told = append(told, "unreachable") }
	u.cfg.Congested = func(uint32) { told = append(told, "congested") }
	for _, err := range []error{
		syscall.ECONNREFUSED, syscall.ENOBUFS, syscall.EAGAIN, syscall.ENOMEM, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
		syscall.ENETDOWN, syscall.ENODEV, syscall.EADDRNOTAVAIL, syscall.EINVAL, syscall.EPERM, errors.New("other"),
	} {
		u.note(linkID{}, err)
	}
	u.group.Go(u.tell)
	for end := time.Now().Add(10 * time.Second); len(u.notes) > 0 && time.Now().Before(end); {
		runtime.Gosched()
	}
	close(u.done)
	u.group.Wait()
	want := strings.Fields("refused congested congested congested" + strings.Repeat(" unreachable", 6))
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	stats := u.Stats()
	if got := [3]uint64{stats.Refused, stats.Congested, stats.Unreachable}; got != [3]uint64{1, 3, 6} {
		t.Errorf("counted %v refused, congested, unreachable; want 1, 3, 6", got)
	}
}

// A queue that is full is no reason to wait: the cluster's own loop sends.
func TestWhatTheKernelSaysNeverMakesASenderWait(t *testing.T) {
	t.Parallel()
	u := &UDP{notes: make(chan note, 1), done: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			u.note(linkID{}, syscall.ENOBUFS)
		}
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("note waits for a reader of its queue")
	}
	if got := u.Stats().Congested; got != 100 {
		t.Errorf("%d counted; want 100", got)
	}
}

func TestALinkIsPinnedToTheInterfaceOfItsOwnNetwork(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	var own []ownAddress
	for i, prefix := range []string{"127.0.0.1/8", "10.1.0.1/24", "10.1.0.2/24", "192.0.2.7/32", "2001:db8::1/64", "fe80::1/64"} {
		own = append(own, ownAddress{netip.MustParsePrefix(prefix), i + 1})
	}
	for _, c := range []struct {
		local, remote netip.Addr
		want          int
		why           string
	}{
		{addr("10.1.0.1"), addr("10.1.0.9"), 2, "a neighbour"},
		{addr("10.1.0.2"), addr("10.1.0.9"), 3, "a neighbour on the second interface in that network"},
		{addr("10.1.0.1"), addr("10.2.0.9"), 0, "behind a router"},
		{addr("192.0.2.7"), addr("192.0.2.8"), 0, "the local address is on no network"},
		{addr("10.1.0.1"), addr("10.1.0.2"), 0, "nothing leaves the machine"},
		{addr("127.0.0.1"), addr("127.0.0.2"), 1, "loopback is a network too"},
		{addr("10.9.0.1"), addr("10.9.0.2"), 0, "not an address of this machine"},
		{addr("2001:db8::1"), addr("2001:db8::2"), 5, "a neighbour, IPv6"},
		{addr("fe80::1%eth0"), addr("fe80::2%eth0"), 0, "the zone says it"},
	} {
		if got := interfaceTo(own, c.local, c.remote); got != c.want {
			t.Errorf("%s to %s: interface %d; want %d: %s", c.local, c.remote, got, c.want, c.why)
		}
	}
}

// Two interfaces in one network: the routing table knows one way, and IP_PKTINFO
// makes it two. An interface that goes down is told, and one that comes back
// under another index is found.
func TestEachLinkLeavesByItsOwnInterface(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs: root (for a network namespace)")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs: iproute2")
	}
	// The namespace belongs to this thread. It is not unlocked, so that the
	// thread ends with the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("needs: network namespaces")
	}
	ip := func(line string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", line, err, out)
		}
	}
	plug := func(name, v4, v6 string) {
		t.Helper()
		ip("link add " + name + " type veth peer name " + name + "-peer")
		ip("address add " + v4 + "/24 dev " + name)
		ip("address add " + v6 + "/64 dev " + name + " nodad")
		ip("link set " + name + "-peer up")
		ip("link set " + name + " up")
		for _, neighbour := range []string{"10.77.0.9", "fd77::9"} {
			ip("neighbour replace " + neighbour + " lladdr 02:00:00:00:00:01 dev " + name + " nud permanent")
		}
	}
	ip("link set lo up")
	plug("v0", "10.77.0.1", "fd77::1")
	plug("v1", "10.77.0.2", "fd77::2")

	endpoint, err := wire.New(wire.Config{
		Cluster: belfry.ClusterID{1}, Self: belfry.NodeID{1}, Number: 1, Incarnation: 1, Boot: 1, Epoch: 1,
		Secrets: map[uint32]wire.Secret{1: {1}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	unreachable := make(chan uint8, 1024)
	cfg := UDPConfig{Endpoint: endpoint, Deliver: func(Received) {}, Unreachable: func(_ belfry.NodeID, link uint8) { unreachable <- link }}
	remotes := map[string]string{"10.77.0.1": "10.77.0.9", "10.77.0.2": "10.77.0.9", "fd77::1": "fd77::9", "fd77::2": "fd77::9"}
	peer := Peer{ID: belfry.NodeID{2}, Number: 2}
	for i, local := range []string{"10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"} {
		cfg.Local = append(cfg.Local, netip.AddrPortFrom(netip.MustParseAddr(local), 7431))
		peer.Links = append(peer.Links, PeerLink{
			Index: uint8(i), Local: cfg.Local[i], Remote: netip.AddrPortFrom(netip.MustParseAddr(remotes[local]), 7431),
		})
	}
	u, err := ListenUDP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	for _, peer.Distant = range []bool{true, false} {
		if err := u.SetPeers([]Peer{peer}); err != nil {
			t.Fatal(err)
		}
		for link, name := range []string{"v0", "v1", "v0", "v1"} {
			before := transmitted(t, name)
			for range 10 {
				if err := u.Send(peer.ID, uint8(link), &wire.Heartbeat{}); err != nil {
					t.Fatal(err)
				}
			}
			if got := transmitted(t, name) - before; got < 10 {
				t.Errorf("distant %v, from %s: %d of 10 datagrams left by %s", peer.Distant, peer.Links[link].Local, got, name)
			}
		}
	}

	ip("link set v1 down")
	if err := u.Send(peer.ID, 1, &wire.Heartbeat{}); err == nil {
		t.Error("sent by an interface that is down")
	}
	select {
	case link := <-unreachable:
		if link != 1 {
			t.Errorf("link %d is unreachable; want 1", link)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody was told that the interface is down")
	}
	if err := u.Send(peer.ID, 0, &wire.Heartbeat{}); err != nil {
		t.Errorf("the other link: %v", err)
	}

	ip("link delete v1")
	plug("v1", "10.77.0.2", "fd77::2")
	// u looks by itself on a goroutine of another thread, outside of this namespace.
	u.AddressesChanged()
	before := transmitted(t, "v1")
	if err := u.Send(peer.ID, 1, &wire.Heartbeat{}); err != nil {
		t.Errorf("the interface is back: %v", err)
	}
	if transmitted(t, "v1") == before {
		t.Error("the interface is back, and the link does not use it")
	}
}

// transmitted counts what an interface of this thread's namespace has sent.
func transmitted(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if device, counters, _ := strings.Cut(strings.TrimSpace(line), ":"); device == name {
			n, err := strconv.Atoi(strings.Fields(counters)[9])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no interface %s", name)
	return 0
}

// On a socket for all addresses the kernel says which one a datagram was sent
// to, so that two links from one address of a peer are told apart.
func TestOnAllAddressesLinksAreToldApartByWhereTheyCome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		all string
		to  []string
	}{{"0.0.0.0", []string{"127.0.0.1", "127.0.0.5"}}, {"::", []string{"::1"}}} {
		s, err := listenWildcard(netip.AddrPortFrom(netip.MustParseAddr(c.all), 0))
		if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Skip("needs: ipv6")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.close() }()
		for _, to := range c.to {
			addr := netip.AddrPortFrom(netip.MustParseAddr(to), s.local.Port())
			conn, err := net.Dial("udp", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			b := newBatch()
			var n int
			for end := time.Now().Add(10 * time.Second); n == 0 && time.Now().Before(end); {
				n, _ = b.receive(uintptr(s.fd))
			}
			if got := b.at(0); got.to != addr.Addr() || got.stamp.IsZero() {
				t.Errorf("sent to %s: read as %s, stamp %v", to, got.to, got.stamp)
			}
			_ = conn.Close()
		}
	}
}

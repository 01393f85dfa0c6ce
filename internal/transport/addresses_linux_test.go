package transport_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/transport"
)

// inNamespace tells whether this process has a network of its own. If not, it
// runs the test once more in one that has.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "BELFRY_TEST_NAMESPACE"
	if os.Getenv(mark) != "" {
		ip(t, "link set lo up")
		return true
	}
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs: " + program)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Skipf("needs: netns (%v)", err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(output.String(), "--- PASS: "+t.Name()) {
		t.Errorf("in a network namespace: %v", err)
	}
	t.Logf("in a network namespace:\n%s", &output)
	return false
}

func ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		run(t, "ip "+c)
	}
}

func run(t *testing.T, command string) {
	t.Helper()
	if output, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, output)
	}
}

// A twoWayNode has two addresses, and so two links to its peer.
type twoWayNode struct {
	id          belfry.NodeID
	local       []netip.AddrPort
	udp         *transport.UDP
	received    chan transport.Received
	unreachable chan uint8
	log         bytes.Buffer // to be read after Close
}

func listenTwoWays(t *testing.T, number belfry.NodeNumber) *twoWayNode {
	t.Helper()
	n := &twoWayNode{id: belfry.NodeID{byte(number)}, received: make(chan transport.Received, 4096), unreachable: make(chan uint8, 4096)}
	for network := range byte(2) {
		n.local = append(n.local, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, network + 1, 0, byte(number)}), 7431))
	}
	var err error
	n.udp, err = transport.ListenUDP(transport.UDPConfig{
		Local: n.local, Endpoint: newEndpoint(t, n.id, number),
		Deliver:     func(r transport.Received) { n.received <- r },
		Unreachable: func(_ belfry.NodeID, link uint8) { n.unreachable <- link },
		Logger:      slog.New(slog.NewTextHandler(&n.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, n.udp)
	t.Cleanup(func() { _ = n.udp.Close() })
	return n
}

func (n *twoWayNode) meet(t *testing.T, number belfry.NodeNumber, peer *twoWayNode) {
	t.Helper()
	p := transport.Peer{ID: peer.id, Number: number}
	for i := range n.local {
		p.Links = append(p.Links, transport.PeerLink{Index: uint8(i), Local: n.local[i], Remote: peer.local[i]})
	}
	if err := n.udp.SetPeers([]transport.Peer{p}); err != nil {
		t.Fatal(err)
	}
}

// passes sends on a link until something arrives there, so that it may be asked
// for before all is set up.
func passes(t *testing.T, from, to *twoWayNode, link uint8) {
	t.Helper()
	for len(to.received) > 0 {
		<-to.received
	}
	waitFor(t, func() bool {
		_ = from.udp.Send(to.id, link, heartbeat(1))
		for len(to.received) > 0 {
			if r := <-to.received; r.Link == link {
				return true
			}
		}
		return false
	})
}

// fails wants a send to be refused by this machine, and the link named.
func fails(t *testing.T, from, to *twoWayNode, link uint8) {
	t.Helper()
	if err := from.udp.Send(to.id, link, heartbeat(1)); err == nil {
		t.Errorf("link %d: sent without a local address", link)
	}
	waitFor(t, func() bool { return len(from.unreachable) > 0 })
	for len(from.unreachable) > 0 {
		if got := <-from.unreachable; got != link {
			t.Errorf("link %d is unreachable; want %d", got, link)
		}
	}
}

func TestAnAddressMayComeLateVanishAndReturn(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	ip(t, "link add net1 type veth peer name net2", "link set net1 up", "link set net2 up", "address add 10.1.0.1/24 dev net1",
		"address add 10.1.0.2/24 dev net1", "address add 10.2.0.2/24 dev net2")
	a, b := listenTwoWays(t, 1), listenTwoWays(t, 2) // 10.2.0.1 is missing
	a.meet(t, 2, b)
	b.meet(t, 1, a)
	passes(t, a, b, 0)
	passes(t, b, a, 0)
	fails(t, a, b, 1)

	ip(t, "address add 10.2.0.1/24 dev net2")
	a.udp.AddressesChanged()
	passes(t, a, b, 1)
	passes(t, b, a, 1)

	changed := func() { // both live on this machine
		a.udp.AddressesChanged()
		b.udp.AddressesChanged()
	}
	for range 2 { // and counted each time
		ip(t, "address del 10.2.0.1/24 dev net2")
		changed()
		changed()
		fails(t, a, b, 1)
		passes(t, a, b, 0)
		ip(t, "address add 10.2.0.1/24 dev net1") // elsewhere
		changed()
		passes(t, a, b, 1)
		passes(t, b, a, 1)
		ip(t, "address del 10.2.0.1/24 dev net1", "address add 10.2.0.1/24 dev net2") // moved, and nobody looked
		changed()
		passes(t, a, b, 1)
	}
	if got := a.udp.Stats().AddressLosses; got != 2 {
		t.Errorf("%d losses counted; want 2", got)
	}
	if err := a.udp.Close(); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]int{
		"this machine has not got a heartbeat address of this node": 1, "is gone; its links wait": 2, "of this node is back": 3,
		"shared socket": 0,
	} {
		if got := strings.Count(a.log.String(), line); got != want {
			t.Errorf("%q was logged %d times; want %d:\n%s", line, got, want, &a.log)
		}
	}
}

// A filter on the way that refuses is heard of, and is no reason to give up a
// socket, however long it stands.
func TestARefusalOnTheWayIsEvidenceOnTheLink(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	ip(t, "address add 10.1.0.1/24 dev lo", "address add 10.1.0.2/24 dev lo", "address add 10.2.0.1/24 dev lo", "address add 10.2.0.2/24 dev lo")
	a, b := listenTwoWays(t, 1), listenTwoWays(t, 2)
	a.meet(t, 2, b)
	b.meet(t, 1, a)
	passes(t, a, b, 1)
	run(t, "nft add table ip t && nft add chain ip t in '{ type filter hook input priority 0; }' && "+
		"nft add rule ip t in ip saddr 10.2.0.1 udp dport 7431 reject with icmp type admin-prohibited")
	for refused := 0; refused < 1500; {
		_ = a.udp.Send(b.id, 1, heartbeat(1))
		for waitFor(t, func() bool { return len(a.unreachable) > 0 }); len(a.unreachable) > 0; refused++ {
			if link := <-a.unreachable; link != 1 {
				t.Fatalf("link %d is unreachable; want 1", link)
			}
		}
	}
	run(t, "nft delete table ip t")
	passes(t, a, b, 1)
	passes(t, b, a, 1)
}

// A heartbeat waits for nobody: however long it takes to read who has which
// address, and to open sockets for thousands of links, what is to be sent is
// sent, and what arrives is read.
func TestInterfacesThatChangeDelayNoHeartbeat(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "address add 10.1.0.1/24 dev lo", "address add 10.1.0.2/24 dev lo", "address add 10.2.0.1/24 dev lo", "address add 10.2.0.2/24 dev lo")
	a, b := listenTwoWays(t, 1), listenTwoWays(t, 2)
	b.meet(t, 1, a)
	peers := []transport.Peer{{ID: b.id, Number: 2, Links: []transport.PeerLink{{Local: a.local[0], Remote: b.local[0]}}}}
	for i := range 400 { // whose sockets are opened anew each time
		remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), 7432)
		peers = append(peers, transport.Peer{
			ID: belfry.NodeID{9, byte(i), byte(i >> 8)}, Number: belfry.NodeNumber(i + 10),
			Links: []transport.PeerLink{{Local: a.local[1], Remote: remote}},
		})
	}
	if err := a.udp.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	var turns atomic.Int32
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, set := range [][]transport.Peer{peers[:1], peers} {
				if err := a.udp.SetPeers(set); err != nil {
					t.Error(err)
				}
				a.udp.AddressesChanged()
			}
			turns.Add(1)
		}
	}()
	var took []time.Duration
	for turns.Load() < 5 {
		for len(b.received) > 0 {
			<-b.received
		}
		begin := time.Now()
		if err := a.udp.Send(b.id, 0, heartbeat(1)); err != nil {
			t.Fatalf("send: %v", err)
		}
		select {
		case <-b.received:
		case <-time.After(patience):
			t.Fatalf("lost; rejected: %v", b.udp.Stats().Rejected)
		}
		took = append(took, time.Since(begin))
	}
	close(stop)
	<-ended
	slices.Sort(took)
	t.Logf("a heartbeat is there while %d tables were set: %d times, median %s, p99 %s",
		2*turns.Load(), len(took), took[len(took)/2], took[len(took)*99/100])
	if p99 := took[len(took)*99/100]; p99 > 20*time.Millisecond {
		t.Errorf("p99 %s, want 20ms at most", p99)
	}
}

package transport_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

// patience is how long a test waits for what must come. It is a bound for a
// loaded machine, not an expectation.
const patience = 10 * time.Second

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// A datagramNode is one end of a pair on loopback.
type datagramNode struct {
	id       belfry.NodeID
	number   belfry.NodeNumber
	udp      *transport.UDP
	received chan transport.Received
	refused  chan uint8
}

var testCluster = belfry.ClusterID{1, 2, 3}

func newEndpoint(t *testing.T, id belfry.NodeID, number belfry.NodeNumber) *wire.Endpoint {
	t.Helper()
	e, err := wire.New(wire.Config{
		Cluster: testCluster, Self: id, Number: number, Incarnation: 1, Boot: belfry.Boot(number) + 100,
		Epoch: 1, Secrets: map[uint32]wire.Secret{1: {7}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func listenNode(t *testing.T, number belfry.NodeNumber) *datagramNode {
	t.Helper()
	n, err := listenOn(t, number, loopback)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func listenOn(t *testing.T, number belfry.NodeNumber, local netip.AddrPort) (*datagramNode, error) {
	t.Helper()
	n := &datagramNode{
		id: belfry.NodeID{byte(number)}, number: number,
		received: make(chan transport.Received, 1024), refused: make(chan uint8, 64),
	}
	var err error
	n.udp, err = transport.ListenUDP(transport.UDPConfig{
		Local:    []netip.AddrPort{local},
		Endpoint: newEndpoint(t, n.id, number),
		Deliver: func(r transport.Received) {
			select {
			case n.received <- r:
			case <-t.Context().Done(): // so that Close, which waits for this, ends
			}
		},
		Refused: func(_ belfry.NodeID, link uint8) { n.refused <- link },
	})
	if err != nil {
		return nil, err
	}
	serve(t, n.udp)
	t.Cleanup(func() {
		if err := n.udp.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, nil
}

// serve reads what arrives until the test ends or u is closed.
func serve(t *testing.T, u *transport.UDP) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for err := error(nil); err == nil; err = u.Wait(time.Time{}) {
		}
	}()
	t.Cleanup(func() {
		_ = u.Close()
		<-ended
	})
}

func (n *datagramNode) addr() netip.AddrPort { return n.udp.Addrs()[0] }

// sees makes peers known to n, each on one link.
func (n *datagramNode) sees(t *testing.T, distant bool, peers ...*datagramNode) {
	t.Helper()
	var table []transport.Peer
	for _, p := range peers {
		table = append(table, transport.Peer{
			ID: p.id, Number: p.number, Distant: distant,
			Links: []transport.PeerLink{{Index: 0, Local: n.addr(), Remote: p.addr()}},
		})
	}
	if err := n.udp.SetPeers(table); err != nil {
		t.Fatal(err)
	}
}

func (n *datagramNode) next(t *testing.T) transport.Received {
	t.Helper()
	select {
	case r := <-n.received:
		return r
	case <-time.After(patience):
		t.Fatalf("node %d received nothing; rejected: %v", n.number, n.udp.Stats().Rejected)
		panic("unreachable")
	}
}

func heartbeat(seq uint16) *wire.Heartbeat { return &wire.Heartbeat{Seq: seq, Announced: time.Second} }

func TestDatagramsArriveSealedBetweenTwoNodes(t *testing.T) {
	t.Parallel()
	for name, distant := range map[string]bool{"own sockets": false, "shared sockets": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := listenNode(t, 1), listenNode(t, 2)
			a.sees(t, distant, b)
			b.sees(t, distant, a)
			before := time.Now()
			if err := a.udp.Send(b.id, 0, heartbeat(5)); err != nil {
				t.Fatal(err)
			}
			got := b.next(t)
			if got.At.Before(before) || got.At.After(time.Now()) {
				t.Errorf("arrival %v, sent after %v", got.At, before)
			}
			got.At = time.Time{}
			want := transport.Received{From: a.id, Incarnation: 1, Boot: 101, Body: heartbeat(5)}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("received (-want +got):\n%s", diff)
			}
			// The answer shows a's boot, so it proves that it is no recording.
			if err := b.udp.Send(a.id, 0, heartbeat(6)); err != nil {
				t.Fatal(err)
			}
			if got := a.next(t); !got.Proven || got.From != b.id {
				t.Errorf("answer %+v: want it proven, from %s", got, b.id)
			}
		})
	}
}

func TestASecondAgentOnTheSameAddressIsRefused(t *testing.T) {
	t.Parallel()
	a, b := listenNode(t, 1), listenNode(t, 2)
	a.sees(t, false, b) // connected sockets must not open the door either
	_, err := transport.ListenUDP(transport.UDPConfig{
		Local: []netip.AddrPort{a.addr()}, Endpoint: newEndpoint(t, belfry.NodeID{9}, 9),
		Deliver: func(transport.Received) {},
	})
	if !errors.Is(err, belfry.ErrExist) || !strings.Contains(err.Error(), a.addr().String()) || !strings.Contains(err.Error(), "ports.heartbeat") {
		t.Errorf("error %v; want ErrExist with %s and the setting", err, a.addr())
	}
}

func TestAnAddressOfAnotherMachineIsRefused(t *testing.T) {
	t.Parallel()
	_, err := transport.ListenUDP(transport.UDPConfig{
		Local: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7431")}, Endpoint: newEndpoint(t, belfry.NodeID{9}, 9),
		Deliver: func(transport.Received) {},
	})
	if !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("error %v; want ErrNotFound", err)
	}
}

func TestAClosedPeerIsRefusedByItsKernel(t *testing.T) {
	t.Parallel()
	a, b := listenNode(t, 1), listenNode(t, 2)
	a.sees(t, false, b)
	if err := b.udp.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := a.udp.Send(b.id, 0, heartbeat(1)); err != nil {
		t.Fatal(err)
	}
	select {
	case link := <-a.refused:
		t.Logf("refused after %v", time.Since(began))
		if link != 0 {
			t.Errorf("link %d; want 0", link)
		}
	case <-time.After(patience):
		t.Fatal("no Refused")
	}
}

func TestWhatIsNotAuthenticIsCountedAndNeverDelivered(t *testing.T) {
	t.Parallel()
	a, b := listenNode(t, 1), listenNode(t, 2)
	stranger := listenNode(t, 3)
	a.sees(t, false, b)
	b.sees(t, false, a, stranger)

	// A member's datagram from an address that is not bound to it.
	var sealed []byte
	impostor := newEndpoint(t, b.id, b.number)
	if err := impostor.SetMembers([]wire.Member{{ID: a.id, Number: a.number}}); err != nil {
		t.Fatal(err)
	}
	sealed, err := impostor.Seal(time.Now(), nil, a.id, heartbeat(1))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp4", a.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, data := range [][]byte{sealed, []byte("x"), make([]byte, 1500), append([]byte{0xff}, sealed[1:]...)} {
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	// A node that a does not know.
	stranger.sees(t, false, a)
	if err := stranger.udp.Send(a.id, 0, heartbeat(1)); err != nil {
		t.Fatal(err)
	}
	if err := b.udp.Send(a.id, 0, heartbeat(2)); err != nil {
		t.Fatal(err)
	}
	if got := a.next(t); got.From != b.id {
		t.Errorf("received %+v; want only what %s sent", got, b.id)
	}
	want := map[wire.Reason]uint64{wire.RejectSource: 1, wire.RejectLength: 2, wire.RejectForm: 1, wire.RejectSender: 1}
	var got map[wire.Reason]uint64
	waitFor(t, func() bool {
		got = a.udp.Stats().Rejected
		var sum uint64
		for r, n := range got {
			if sum += n; n == 0 {
				delete(got, r)
			}
		}
		return sum == 5
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
	if len(a.received) != 0 {
		t.Errorf("delivered %+v", <-a.received)
	}
}

// waitFor polls what no channel tells, for the duration of patience.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for tick := time.NewTicker(time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not happen in time")
		}
	}
}

func TestAPeerThatIsDroppedIsNotHeard(t *testing.T) {
	t.Parallel()
	a, b, c := listenNode(t, 1), listenNode(t, 2), listenNode(t, 3)
	a.sees(t, false, b, c)
	b.sees(t, false, a)
	c.sees(t, false, a)
	a.sees(t, false, c)
	if err := b.udp.Send(a.id, 0, heartbeat(1)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return a.udp.Stats().Rejected[wire.RejectSender] == 1 })
	if err := c.udp.Send(a.id, 0, heartbeat(1)); err != nil {
		t.Fatal(err)
	}
	if got := a.next(t); got.From != c.id {
		t.Errorf("received from %s; want %s", got.From, c.id)
	}
	if err := a.udp.Send(b.id, 0, heartbeat(1)); !errors.Is(err, belfry.ErrNotFound) {
		t.Errorf("send to the dropped peer: %v; want ErrNotFound", err)
	}
}

func TestAFloodOnTheSharedSocketIsCutAndTakesNothingFromAWatchedLink(t *testing.T) {
	t.Parallel()
	a, watched, distant := listenNode(t, 1), listenNode(t, 2), listenNode(t, 3)
	watched.sees(t, false, a)
	distant.sees(t, true, a)
	err := a.udp.SetPeers([]transport.Peer{
		{ID: watched.id, Number: 2, Links: []transport.PeerLink{{Local: a.addr(), Remote: watched.addr()}}},
		{ID: distant.id, Number: 3, Links: []transport.PeerLink{{Local: a.addr(), Remote: distant.addr()}}, Distant: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	const flood, beats = 10_000, 100
	all, stop := make(chan struct{}), make(chan struct{})
	defer close(stop)
	go func() {
		counts := map[belfry.NodeID]int{}
		for {
			select {
			case r := <-a.received:
				if counts[r.From]++; r.From == watched.id && counts[r.From] == beats {
					close(all)
				}
			case <-stop:
				return
			}
		}
	}()
	for i := range uint16(flood) {
		if err := distant.udp.Send(a.id, 0, heartbeat(i)); err != nil {
			t.Fatal(err)
		}
		if i%(flood/beats) == 0 {
			if err := watched.udp.Send(a.id, 0, heartbeat(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case <-all:
	case <-time.After(patience):
		t.Fatalf("of %d heartbeats of the watched link not all arrived; rejected %v", beats, a.udp.Stats().Rejected)
	}
	waitFor(t, func() bool { return a.udp.Stats().Received+a.udp.Stats().KernelDropped >= flood+beats })
	if n := a.udp.Stats().Rejected[wire.RejectRate]; n == 0 {
		t.Errorf("nothing of %d datagrams was over the rate of %d/s", flood, 2000)
	}
}

func TestTwoNodesSpeakOverIPv6(t *testing.T) {
	t.Parallel()
	local := netip.MustParseAddrPort("[::1]:0")
	a, err := listenOn(t, 1, local)
	if errors.Is(err, belfry.ErrNotFound) || errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Skip("needs: ipv6")
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := listenOn(t, 2, local)
	if err != nil {
		t.Fatal(err)
	}
	a.sees(t, false, b)
	b.sees(t, true, a)
	if err := a.udp.Send(b.id, 0, heartbeat(1)); err != nil {
		t.Fatal(err)
	}
	if got := b.next(t); got.From != a.id {
		t.Errorf("received from %s; want %s", got.From, a.id)
	}
}

func TestOnAllAddressesThePeersAreToldApart(t *testing.T) {
	t.Parallel()
	a, err := listenOn(t, 1, netip.MustParseAddrPort("0.0.0.0:0"))
	if err != nil {
		t.Fatal(err)
	}
	b, c := listenNode(t, 2), listenNode(t, 3)
	local := netip.AddrPortFrom(loopback.Addr(), a.addr().Port())
	for _, n := range []*datagramNode{b, c} {
		err := n.udp.SetPeers([]transport.Peer{{ID: a.id, Number: 1, Links: []transport.PeerLink{{Local: n.addr(), Remote: local}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	err = a.udp.SetPeers([]transport.Peer{
		{ID: b.id, Number: 2, Links: []transport.PeerLink{{Index: 1, Local: local, Remote: b.addr()}}},
		{ID: c.id, Number: 3, Links: []transport.PeerLink{{Index: 2, Local: local, Remote: c.addr()}}, Distant: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*datagramNode{b, c} {
		if err := n.udp.Send(a.id, 0, heartbeat(1)); err != nil {
			t.Fatal(err)
		}
		if got := a.next(t); got.From != n.id || got.Link != uint8(n.number)-1 {
			t.Errorf("received from %s on link %d; want %s on %d", got.From, got.Link, n.id, n.number-1)
		}
	}
}

// Peers and interfaces come and go while others send and one waits: nothing is sent to a
// descriptor that is somebody else's by now, and Close ends all.
func TestPeersChangeWhileDatagramsPass(t *testing.T) {
	t.Parallel()
	a, b, c := listenNode(t, 1), listenNode(t, 2), listenNode(t, 3)
	b.sees(t, false, a)
	c.sees(t, false, a)
	a.sees(t, false, b, c)
	stop := make(chan struct{})
	var group sync.WaitGroup
	for _, n := range []*datagramNode{b, c} {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-n.received: // so that its own goroutine does not wait
				default:
				}
				_ = n.udp.Send(a.id, 0, heartbeat(1))
				if err := a.udp.Send(n.id, 0, heartbeat(1)); err != nil && !errors.Is(err, belfry.ErrNotFound) && !errors.Is(err, belfry.ErrNotMember) {
					t.Errorf("send: %v", err)
					return
				}
				a.udp.Wake()
			}
		})
	}
	group.Go(func() { // and interfaces change
		for {
			select {
			case <-stop:
				return
			default:
				a.udp.AddressesChanged()
			}
		}
	})
	closed := make(chan struct{})
	defer close(closed)
	go func() { // until after Close, which waits for who delivers
		for {
			select {
			case <-closed:
				return
			case <-a.received:
			}
		}
	}()
	for i := range 200 {
		a.sees(t, i%3 == 0, []*datagramNode{b, c}[i%2])
		a.sees(t, false, b, c)
	}
	close(stop)
	group.Wait()
	if err := a.udp.Close(); err != nil {
		t.Error(err)
	}
	if err := a.udp.Send(b.id, 0, heartbeat(1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("send after Close: %v; want net.ErrClosed", err)
	}
	if err := a.udp.Wait(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("wait after Close: %v; want net.ErrClosed", err)
	}
}

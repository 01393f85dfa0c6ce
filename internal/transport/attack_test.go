package transport_test

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

// An attacker has the address of a member, and what it likes of that member's
// datagrams.
type attacker struct {
	t        *testing.T
	conn     *net.UDPConn
	endpoint *wire.Endpoint
}

func newAttacker(t *testing.T, id belfry.NodeID, number belfry.NodeNumber) *attacker {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &attacker{t: t, conn: conn, endpoint: newEndpoint(t, id, number)}
}

func (k *attacker) addr() netip.AddrPort { return k.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (k *attacker) send(to netip.AddrPort, datagram []byte) {
	k.t.Helper()
	if _, err := k.conn.WriteToUDPAddrPort(datagram, to); err != nil {
		k.t.Fatal(err)
	}
}

// seal makes a genuine datagram of the member.
func (k *attacker) seal(to *datagramNode) []byte {
	k.t.Helper()
	if err := k.endpoint.SetMembers([]wire.Member{{ID: to.id, Number: to.number}}); err != nil {
		k.t.Fatal(err)
	}
	d, err := k.endpoint.Seal(time.Now(), nil, to.id, heartbeat(1))
	if err != nil {
		k.t.Fatal(err)
	}
	return d
}

// Invariant 1 of cluster.md and security.md, on real sockets of both kinds:
// what does not authenticate is counted by reason, is given to nobody, and is
// answered by nothing; the log has one line for each reason.
func TestI1NothingThatDoesNotAuthenticateIsAnswered(t *testing.T) {
	t.Parallel()
	for name, distant := range map[string]bool{"own socket": false, "shared socket": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			var given atomic.Int64
			a := &datagramNode{id: belfry.NodeID{1}, number: 1}
			var err error
			a.udp, err = transport.ListenUDP(transport.UDPConfig{
				Local: []netip.AddrPort{loopback}, Endpoint: newEndpoint(t, a.id, a.number),
				Deliver: func(transport.Received) { given.Add(1) }, Refused: func(belfry.NodeID, uint8) { given.Add(1) },
				Dropped: func(uint32) { given.Add(1) }, Duplicate: func(belfry.NodeID) { given.Add(1) },
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			serve(t, a.udp)
			defer func() { _ = a.udp.Close() }()
			member, stranger := newAttacker(t, belfry.NodeID{2}, 2), newAttacker(t, belfry.NodeID{2}, 2)
			if err := a.udp.SetPeers([]transport.Peer{{
				ID: belfry.NodeID{2}, Number: 2, Distant: distant, Links: []transport.PeerLink{{Local: a.addr(), Remote: member.addr()}},
			}}); err != nil {
				t.Fatal(err)
			}
			genuine := member.seal(a)
			member.send(a.addr(), genuine)
			waitFor(t, func() bool { return given.Load() == 1 })

			change := func(at int, to byte) []byte {
				d := bytes.Clone(genuine)
				d[at] = to
				return d
			}
			const each = 5
			want := map[wire.Reason]uint64{}
			for _, c := range []struct {
				from   *attacker
				d      []byte
				reason wire.Reason
			}{
				{member, genuine[:19], wire.RejectLength},
				{member, genuine[:35], wire.RejectLength},
				{member, append(bytes.Clone(genuine), make([]byte, wire.MaxReceive)...), wire.RejectLength},
				{member, change(0, 0x51), wire.RejectForm},
				{member, change(1, genuine[1]+1), wire.RejectCluster},
				{member, change(0, 0x30), wire.RejectNotEnrolled},
				{member, change(2, 7), wire.RejectSender},
				{member, change(0, 0x25), wire.RejectEpoch},
				{stranger, genuine, wire.RejectSource},
				{member, change(len(genuine)-1, genuine[len(genuine)-1]+1), wire.RejectOpen},
				{member, genuine[:len(genuine)-1], wire.RejectOpen},
				{member, genuine, wire.RejectReplay},
			} {
				for range each {
					c.from.send(a.addr(), c.d)
					want[c.reason]++
				}
			}
			var all uint64
			for _, n := range want {
				all += n
			}
			waitFor(t, func() bool {
				var sum uint64
				for _, n := range a.udp.Stats().Rejected {
					sum += n
				}
				return sum >= all
			})
			stats := a.udp.Stats()
			if diff := cmp.Diff(want, nonZero(stats.Rejected)); diff != "" {
				t.Errorf("rejected (-want +got):\n%s", diff)
			}
			if stats.Sent != 0 || given.Load() != 1 {
				t.Errorf("%d datagrams sent and %d inputs given; want none, and only the genuine one", stats.Sent, given.Load())
			}
			if err := a.udp.Close(); err != nil { // its goroutines have ended: the log is whole
				t.Fatal(err)
			}
			for reason := range want {
				if n := bytes.Count(log.Bytes(), []byte("reason="+reason.String()+" ")); n < 1 || n > 3 {
					t.Errorf("%d lines for %v; want one a second\n%s", n, reason, log.Bytes())
				}
			}
			for _, k := range []*attacker{member, stranger} {
				_ = k.conn.SetReadDeadline(time.Now())
				if n, _, err := k.conn.ReadFrom(make([]byte, 2000)); err == nil {
					t.Errorf("an answer of %d bytes", n)
				}
			}
		})
	}
}

// What dies in the own kernel is told, to the datagram, and of whose socket.
func TestAnOverflowOfAWatchedSocketIsTold(t *testing.T) {
	t.Parallel()
	for name, distant := range map[string]bool{"watched": false, "distant": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var dropped atomic.Int64
			a := &datagramNode{id: belfry.NodeID{1}, number: 1}
			var err error
			a.udp, err = transport.ListenUDP(transport.UDPConfig{
				Local: []netip.AddrPort{loopback}, Endpoint: newEndpoint(t, a.id, a.number),
				Deliver: func(transport.Received) {},
				Dropped: func(n uint32) { dropped.Add(int64(n)) },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = a.udp.Close() }()
			b := listenNode(t, 2)
			b.sees(t, distant, a)
			a.sees(t, distant, b)
			const sent = 60_000 // 16 MiB of buffer hold about 20,000
			for i := range sent {
				if err := b.udp.Send(a.id, 0, heartbeat(uint16(i))); err != nil {
					t.Fatal(err)
				}
			}
			serve(t, a.udp)
			// The count rides on datagrams that are read.
			waitFor(t, func() bool {
				if err := b.udp.Send(a.id, 0, heartbeat(0)); err != nil {
					t.Fatal(err)
				}
				stats := a.udp.Stats()
				return stats.Received+stats.KernelDropped >= sent
			})
			stats := a.udp.Stats()
			t.Logf("%d received, %d dropped", stats.Received, stats.KernelDropped)
			if stats.KernelDropped == 0 {
				t.Errorf("nothing of %d datagrams was dropped; the test needs more", sent)
			}
			if distant {
				if got := dropped.Load(); got != 0 {
					t.Errorf("told of %d dropped on a socket that no watched link shares", got)
				}
				return
			}
			waitFor(t, func() bool { return dropped.Load() == int64(a.udp.Stats().KernelDropped) })
		})
	}
}

// A peer with a socket of its own is heard while another one's is full, and
// before that is empty.
func TestOneFullSocketTakesNothingFromAnother(t *testing.T) {
	t.Parallel()
	heard := map[belfry.NodeID]int{}
	a := &datagramNode{id: belfry.NodeID{1}, number: 1}
	var err error
	a.udp, err = transport.ListenUDP(transport.UDPConfig{
		Local: []netip.AddrPort{loopback}, Endpoint: newEndpoint(t, a.id, a.number),
		Deliver: func(r transport.Received) { heard[r.From]++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.udp.Close() }()
	b, c := listenNode(t, 2), listenNode(t, 3)
	a.sees(t, false, b, c)
	b.sees(t, false, a)
	c.sees(t, false, a)
	for i := range 60_000 {
		if err := b.udp.Send(a.id, 0, heartbeat(uint16(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.udp.Send(a.id, 0, heartbeat(1)); err != nil {
		t.Fatal(err)
	}
	if err := a.udp.Wait(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if heard[c.id] != 1 || heard[b.id] == 0 || heard[b.id] > 1024 {
		t.Errorf("heard %d from the one with the full socket and %d from the other in one turn; want a bounded part, and 1: %+v", heard[b.id], heard[c.id], a.udp.Stats())
	}
}

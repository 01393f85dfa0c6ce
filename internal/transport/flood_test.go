package transport_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

const (
	// floodVariable makes this test binary an attacker: "TARGET LOCAL RATE
	// DURATION HEAD", where LOCAL is an address that is bound to a member.
	floodVariable = "BELFRY_TEST_TRANSPORT_FLOOD"
	// soakVariable asks for the long variants: `make soak`.
	soakVariable = "BELFRY_SOAK"
)

// runFlood sends forged datagrams of 200 bytes at a rate, half of them from an
// address that is bound to a member, and prints how many it sent.
func runFlood(args []string) error {
	target, local := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(args[0])), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(args[1]))
	rate, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	duration, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	forged := make([]byte, 200)
	if _, err := fmt.Sscanf(args[4], "%x", &forged); err != nil {
		return err
	}
	forged = append(forged, make([]byte, 200-len(forged))...)
	var conns []*net.UDPConn
	for _, from := range []*net.UDPAddr{local, nil} {
		c, err := net.DialUDP("udp4", from, target)
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	sent := 0
	began, tick := time.Now(), time.NewTicker(time.Millisecond)
	for elapsed := time.Duration(0); elapsed < duration; elapsed = time.Since(began) {
		for due := int(elapsed.Seconds() * float64(rate)); sent < due && time.Since(began) < duration; sent++ {
			forged[5]++ // the counter, which stands there twice
			forged[20] = forged[5]
			_, _ = conns[sent%2].Write(forged)
		}
		<-tick.C
	}
	fmt.Println(sent)
	return nil
}

// Goal of cluster.md 14 and security.md: a flood at the port takes no heartbeat
// of a watched link, and nothing of it reaches those who judge.
//
// Not parallel: it would disturb the others more than they it.
func TestAFloodFromOutsideTakesNoHeartbeat(t *testing.T) {
	duration, rates := 3*time.Second, []int{50_000}
	if os.Getenv(soakVariable) != "" {
		duration, rates = time.Minute, []int{50_000, 150_000}
	}
	for _, rate := range rates {
		t.Run(fmt.Sprintf("%d per second", rate), func(t *testing.T) { flood(t, rate, duration) })
	}
}

func flood(t *testing.T, rate int, duration time.Duration) {
	const watchers, every = 4, 10 * time.Millisecond
	f := newFlooded(t, watchers, int(duration/every))
	attacker := f.attack(t, rate, duration)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for beat := range f.beats {
		<-tick.C
		for i, p := range f.peers {
			f.sent[i][beat].Store(int64(time.Since(f.began)))
			if err := p.udp.Send(f.a.id, 0, heartbeat(uint16(beat))); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := attacker()
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return f.heartbeats.Load() >= int64(watchers*f.beats) })

	stats := f.a.udp.Stats()
	delays := f.delays()
	t.Logf("forged: %s sent in %v, %d reached this program, %d died in the kernel; rejected %v",
		out, duration, stats.Received-uint64(f.heartbeats.Load()), stats.KernelDropped, nonZero(stats.Rejected))
	t.Logf("heartbeats: %d received of %d sent; delay p50 %v, p99 %v, most %v", f.heartbeats.Load(), watchers*f.beats,
		delays[len(delays)/2], delays[len(delays)*99/100], delays[len(delays)-1])
	if got := f.heartbeats.Load(); got != int64(watchers*f.beats) {
		t.Errorf("%d heartbeats received of %d sent", got, watchers*f.beats)
	}
	if n := f.others.Load(); n != 0 {
		t.Errorf("%d inputs beside the heartbeats; want none", n)
	}
	if stats.Sent != 0 {
		t.Errorf("%d datagrams were sent while only receiving", stats.Sent)
	}
	if stats.Rejected[wire.RejectSource] == 0 || stats.Rejected[wire.RejectRate] == 0 || stats.Rejected[wire.RejectOpen] == 0 {
		t.Errorf("rejected %v; want some for source, rate and open each", stats.Rejected)
	}
	if limit := uint64(duration.Seconds()+2) * 2000; stats.Rejected[wire.RejectOpen] > limit {
		t.Errorf("%d forgeries of one source were tried in %v; at most %d", stats.Rejected[wire.RejectOpen], duration, limit)
	}
}

// flooded is a node a, its watched peers, and what a hears of them.
type flooded struct {
	a       *datagramNode
	peers   []*datagramNode
	distant netip.AddrPort // of a member that is not watched
	beats   int
	began   time.Time

	sent, delay        [][]atomic.Int64 // by peer and heartbeat, ns
	heartbeats, others atomic.Int64     // that a was given
}

func newFlooded(t *testing.T, watchers, beats int) *flooded {
	t.Helper()
	f := &flooded{beats: beats, began: time.Now()}
	for range watchers {
		f.sent, f.delay = append(f.sent, make([]atomic.Int64, beats)), append(f.delay, make([]atomic.Int64, beats))
	}
	id := belfry.NodeID{1}
	other := func() { f.others.Add(1) }
	udp, err := transport.ListenUDP(transport.UDPConfig{
		Local: []netip.AddrPort{loopback}, Endpoint: newEndpoint(t, id, 1),
		Deliver: func(r transport.Received) {
			h, ok := r.Body.(*wire.Heartbeat)
			if i := int(r.From[0]) - 2; ok && i >= 0 && i < watchers && int(h.Seq) < beats && f.delay[i][h.Seq].CompareAndSwap(0, max(1, int64(time.Since(f.began))-f.sent[i][h.Seq].Load())) {
				f.heartbeats.Add(1)
				return
			}
			other()
		},
		Refused:     func(belfry.NodeID, uint8) { other() },
		Unreachable: func(belfry.NodeID, uint8) { other() },
		Dropped:     func(uint32) { other() },
		Congested:   func(uint32) { other() },
		Duplicate:   func(belfry.NodeID) { other() },
	})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, udp)
	f.a = &datagramNode{id: id, number: 1, udp: udp}
	var table []transport.Peer
	for i := range watchers {
		p := listenNode(t, belfry.NodeNumber(i+2))
		p.sees(t, false, f.a)
		f.peers = append(f.peers, p)
		table = append(table, transport.Peer{ID: p.id, Number: p.number, Links: []transport.PeerLink{{Local: f.a.addr(), Remote: p.addr()}}})
	}
	free, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	f.distant = free.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = free.Close()
	table = append(table, transport.Peer{
		ID: belfry.NodeID{99}, Number: 99, Distant: true, Links: []transport.PeerLink{{Local: f.a.addr(), Remote: f.distant}},
	})
	if err := udp.SetPeers(table); err != nil {
		t.Fatal(err)
	}
	return f
}

// attack starts the attacker as a process; the function waits for its end and
// tells how much it sent.
func (f *flooded) attack(t *testing.T, rate int, duration time.Duration) (wait func() (string, error)) {
	t.Helper()
	// The head is that of the distant member's next datagram; the rest is not.
	endpoint := newEndpoint(t, belfry.NodeID{99}, 99)
	if err := endpoint.SetMembers([]wire.Member{{ID: f.a.id, Number: f.a.number}}); err != nil {
		t.Fatal(err)
	}
	genuine, err := endpoint.Seal(time.Now(), nil, f.a.id, heartbeat(1))
	if err != nil {
		t.Fatal(err)
	}
	head := slices.Clone(genuine[:24])
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %s %x", floodVariable, f.a.addr(), f.distant, rate, duration, head))
	cmd.Stderr = os.Stderr
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (string, error) {
		err := cmd.Wait()
		return strings.TrimSpace(out.String()), err
	}
}

// delays of all heartbeats that were received, sorted.
func (f *flooded) delays() (all []time.Duration) {
	for i := range f.delay {
		for j := range f.delay[i] {
			if d := f.delay[i][j].Load(); d != 0 {
				all = append(all, time.Duration(d))
			}
		}
	}
	slices.Sort(all)
	return append(all, 0)[:max(1, len(all))]
}

func nonZero(rejected map[wire.Reason]uint64) map[wire.Reason]uint64 {
	for r, n := range rejected {
		if n == 0 {
			delete(rejected, r)
		}
	}
	return rejected
}

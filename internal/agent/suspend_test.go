package agent

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/transport"
	"github.com/belfry-ha/belfry/internal/wire"
)

func TestClocksTellASuspendFromASnapshot(t *testing.T) {
	t.Parallel()
	const ms, s, h = time.Millisecond, time.Second, time.Hour
	for name, c := range map[string]struct {
		mono, boot, wall time.Duration // by how much each went on
		slept            time.Duration
		resumed          bool
	}{
		"nothing":                       {mono: 100 * ms, boot: 100 * ms, wall: 100 * ms},
		"a late loop":                   {mono: 20 * s, boot: 20 * s, wall: 20 * s},
		"a reading that took a while":   {mono: 100 * ms, boot: 100*ms + 900*time.Microsecond, wall: 101 * ms},
		"a slewed wall clock":           {mono: 10 * s, boot: 10 * s, wall: 10*s + 833*ms},
		"suspended":                     {mono: 100 * ms, boot: 8 * h, wall: 8 * h, slept: 8*h - 100*ms},
		"suspended for a moment":        {mono: 100 * ms, boot: 150 * ms, wall: 150 * ms, slept: 50 * ms},
		"wall clock set ahead":          {mono: 100 * ms, boot: 100 * ms, wall: 3 * h, resumed: true},
		"wall clock set back":           {mono: 100 * ms, boot: 100 * ms, wall: -3 * h, resumed: true},
		"set by just a second":          {mono: 100 * ms, boot: 100 * ms, wall: 1100 * ms},
		"set by just more":              {mono: 100 * ms, boot: 100 * ms, wall: 1101 * ms, resumed: true},
		"suspended, and set on the way": {mono: 100 * ms, boot: 10 * s, wall: 5 * s, slept: 10*s - 100*ms, resumed: true},
	} {
		var w clockWatch
		first := clockReading{mono: 5 * s, boot: 7 * s, wall: 1000 * h}
		if slept, resumed := w.compare(first); slept != 0 || resumed {
			t.Errorf("%s: the first reading says %v, %v", name, slept, resumed)
		}
		now := clockReading{first.mono + c.mono, first.boot + c.boot, first.wall + c.wall}
		if slept, resumed := w.compare(now); slept != c.slept || resumed != c.resumed {
			t.Errorf("%s: slept %v, resumed %v; want %v, %v", name, slept, resumed, c.slept, c.resumed)
		}
		if slept, resumed := w.compare(now); slept != 0 || resumed {
			t.Errorf("%s: said twice", name)
		}
	}
}

// The clocks of this machine, which is neither suspended nor set meanwhile.
func TestClocksAreReadTogether(t *testing.T) {
	t.Parallel()
	var w clockWatch
	read := 0
	for range 1000 {
		now, ok := readClocks()
		if !ok {
			continue
		}
		read++
		if slept, _ := w.compare(now); slept != 0 {
			t.Errorf("a suspend of %v that was none", slept)
		}
		if now.mono <= 0 || now.boot+readingMost < now.mono || time.Since(time.Unix(0, int64(now.wall))).Abs() > time.Minute {
			t.Fatalf("monotonic %v, boot %v, wall %v", now.mono, now.boot, now.wall)
		}
	}
	if read == 0 {
		t.Error("the clocks could not be read once in 1,000 times")
	}
}

// What is suspended is told to the peers with the next heartbeat, before the
// mail that came after it is judged.
func TestASuspendIsToldToTheClusterMachine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cfg := cluster.Default()
		cfg.Self, cfg.Number, cfg.Name, cfg.Incarnation = belfry.NodeID{1}, 1, "a", 1
		l := newClusterLoop(cfg)
		l.network = newMute()
		told := make(chan time.Duration, 100)
		l.send = func(s cluster.Send) {
			if h, ok := s.Body.(*cluster.Heartbeat); ok && h.ExactPause > 0 {
				told <- h.ExactPause
			}
		}
		l.dial, l.changed, l.alive = func(cluster.Dial) {}, func([]cluster.Change) {}, func() {}
		turns := 0
		l.slept = func() time.Duration {
			if turns++; turns == 3 {
				return time.Minute
			}
			return 0
		}
		go func() { _ = l.run(ctx) }()
		var rows []cluster.Member
		for i := range 2 {
			rows = append(rows, cluster.Member{
				ID: belfry.NodeID{byte(i + 1)}, Number: belfry.NodeNumber(i + 1), Name: string(rune('a' + i)),
				Addresses: []cluster.Address{{Network: "net1", Addr: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i+1))}},
			})
		}
		l.receive(cluster.Members{Table: cluster.NewTable(belfry.ClusterID{1}, 1, rows)})
		select {
		case d := <-told:
			if d != time.Minute {
				t.Errorf("the peer is told of a pause of %v; want 1m", d)
			}
		case <-time.After(time.Minute):
			t.Error("the peer was not told")
		}
		cancel()
		synctest.Wait()
	})
}

// A wall clock that was set may be that of a snapshot, whose counters were used
// by others: the next datagram is of another boot.
func TestASnapshotMakesANewBoot(t *testing.T) {
	t.Parallel()
	endpoint, err := wire.New(wire.Config{
		Cluster: belfry.ClusterID{1}, Self: belfry.NodeID{1}, Number: 1, Incarnation: 1, Boot: 0xa1, Epoch: 1,
		Secrets: map[uint32]wire.Secret{1: {1}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := endpoint.SetMembers([]wire.Member{{ID: belfry.NodeID{2}, Number: 2}}); err != nil {
		t.Fatal(err)
	}
	a := &Agent{log: slog.New(slog.DiscardHandler)}
	a.udp, err = transport.ListenUDP(transport.UDPConfig{
		Local: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Endpoint: endpoint, Deliver: func(transport.Received) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.udp.Close() }()
	boot := func() (boot uint32) {
		t.Helper()
		err := a.udp.Keys(func(e *wire.Endpoint) error {
			d, err := e.Seal(time.Now(), nil, belfry.NodeID{2}, &wire.Heartbeat{})
			if err == nil {
				boot = binary.LittleEndian.Uint32(d[12:]) // of the long form
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return boot
	}
	look := func() {
		t.Helper()
		for before := a.clocks.last; a.clocks.last == before; {
			if slept := a.lookAtClocks(); slept != 0 {
				t.Errorf("slept %v", slept)
			}
		}
	}
	look()
	look()
	if got := boot(); got != 0xa1 {
		t.Errorf("boot %x without a reason; want a1", got)
	}
	a.clocks.last.wall -= time.Hour // as if it had been so
	look()
	first := boot()
	if first == 0xa1 || first == 0 {
		t.Errorf("boot %x after the resume; want a new one", first)
	}
	look()
	if got := boot(); got != first {
		t.Errorf("boot %x, then %x; want one new boot", first, got)
	}
}

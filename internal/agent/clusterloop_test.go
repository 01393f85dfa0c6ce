package agent

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// A mute network brings nothing by itself.
type mute struct{ bell chan struct{} }

func newMute() mute { return mute{make(chan struct{}, 1)} }

func (m mute) Wait(until time.Time) error {
	select {
	case <-m.bell:
	case <-time.After(time.Until(until)):
	}
	return nil
}

func (m mute) Wake() {
	select {
	case m.bell <- struct{}{}:
	default:
	}
}

// Z6: a loop that was held up reads all its mail before it judges anybody; else
// it would call links unknown whose heartbeats lie in its input.
func TestALoopThatWasHeldUpReadsItsMailFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var rows []cluster.Member
		loops := map[belfry.NodeID]*clusterLoop{}
		for i := range 3 {
			row := cluster.Member{
				ID: belfry.NodeID{byte(i + 1)}, Number: belfry.NodeNumber(i + 1), Name: string(rune('a' + i)),
				Addresses: []cluster.Address{{Network: "net1", Addr: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i+1))}},
			}
			cfg := cluster.Default()
			cfg.Self, cfg.Number, cfg.Name, cfg.Incarnation = row.ID, row.Number, row.Name, 1
			rows, loops[row.ID] = append(rows, row), newClusterLoop(cfg)
			loops[row.ID].network = newMute()
		}
		var unknown atomic.Int32
		var held atomic.Bool
		gate := make(chan struct{})
		for id, l := range loops {
			l.send = func(s cluster.Send) {
				to := loops[s.To]
				select { // the network: what does not fit is lost
				case to.in <- cluster.Datagram{From: id, Incarnation: 1, Boot: 1, Link: s.Link, At: time.Now(), Proven: true, Body: s.Body}:
					to.network.Wake()
				default:
				}
			}
			l.dial = func(cluster.Dial) {}
			l.changed = func(changes []cluster.Change) {
				for _, c := range changes {
					if c, ok := c.(cluster.LinkChange); ok && c.To == belfry.LinkUnknown {
						unknown.Add(1)
					}
				}
			}
			l.alive = func() {
				if id == rows[0].ID && held.Load() {
					<-gate
				}
			}
			go func() { _ = l.run(ctx) }()
			l.receive(cluster.Members{Table: cluster.NewTable(belfry.ClusterID{1}, 1, rows)})
		}
		<-time.After(10 * time.Second)
		held.Store(true)
		<-time.After(3 * time.Second) // longer than any heartbeat is apart
		held.Store(false)
		close(gate)
		<-time.After(5 * time.Second)
		if n := unknown.Load(); n != 0 {
			t.Errorf("%d links became unknown although their heartbeats had arrived, want none", n)
		}
		cancel()
		synctest.Wait()
	})
}

// Who watches links is woken by each version of the link database, also by those
// that are no change of a state: a row that is new, and another reason.
func TestALoopTellsOfEachVersionOfTheLinks(t *testing.T) {
	t.Parallel()
	cfg := cluster.Default()
	cfg.Self, cfg.Number, cfg.Name, cfg.Incarnation = belfry.NodeID{1}, 1, "a", 1
	l := newClusterLoop(cfg)
	told, changes := 0, 0
	l.moved = func() { told++ }
	l.send, l.dial = func(cluster.Send) {}, func(cluster.Dial) {}
	l.changed = func(all []cluster.Change) {
		for _, c := range all {
			if _, ok := c.(cluster.LinkChange); ok {
				changes++
			}
		}
	}
	var rows []cluster.Member
	for i := range 2 {
		rows = append(rows, cluster.Member{
			ID: belfry.NodeID{byte(i + 1)}, Number: belfry.NodeNumber(i + 1), Name: string(rune('a' + i)),
			Addresses: []cluster.Address{{Network: "net1", Addr: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i+1))}},
		})
	}
	m := cluster.New(cfg, time.Now(), rand.New(rand.NewPCG(1, 1)))
	for _, step := range []struct {
		what          string
		arrived       []cluster.Message
		told, changes int
	}{
		{"nothing", nil, 0, 0},
		{"a row is new", []cluster.Message{cluster.Members{Table: cluster.NewTable(belfry.ClusterID{1}, 1, rows)}}, 1, 0},
		{"nothing", nil, 1, 0},
		{"set down", []cluster.Message{cluster.Interface{Network: "net1", State: cluster.InterfaceAdminDown}}, 2, 1},
		{"another reason", []cluster.Message{cluster.Interface{Network: "net1", State: cluster.InterfaceAbsent}}, 3, 1},
		{"nothing", nil, 3, 1},
	} {
		l.arrived = step.arrived
		l.turn(m)
		if told != step.told || changes != step.changes {
			t.Errorf("%s: told %d times with %d changes of state so far, want %d and %d", step.what, told, changes, step.told, step.changes)
		}
	}
}

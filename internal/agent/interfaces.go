package agent

import (
	"context"
	"net/netip"
	"time"

	"github.com/belfry-ha/belfry/internal/cluster"
	netwatch "github.com/belfry-ha/belfry/internal/producer/network"
)

// Bounds of the wait before interfaces are watched again, if that failed.
const (
	firstWatchPause    = time.Second
	greatestWatchPause = time.Minute
)

// watchInterfaces follows the interfaces that hold this node's heartbeat
// addresses until ctx ends. Heartbeats tell the same, only later; so a kernel
// that refuses is no reason to end the agent.
func (a *Agent) watchInterfaces(ctx context.Context) error {
	for pause := firstWatchPause; ; pause = min(2*pause, greatestWatchPause) {
		began := time.Now()
		err := a.followInterfaces(ctx)
		if err == nil { // ctx has ended
			return nil
		}
		if time.Since(began) > greatestWatchPause {
			pause = firstWatchPause
		}
		a.log.Error("interfaces are not watched for now", "again_in", pause, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (a *Agent) followInterfaces(ctx context.Context) error {
	var addrs []netip.Addr
	for _, n := range a.id.node.Networks {
		addrs = append(addrs, n.Heartbeat.Addr())
	}
	watcher, err := netwatch.Open(addrs)
	if err != nil {
		return err
	}
	known := map[netip.Addr]netwatch.Status{}
	return watcher.Run(ctx, func(changed []netwatch.Status) {
		a.tellInterfaces(changed)
		for _, s := range changed {
			a.logInterface(known[s.Addr], s)
			known[s.Addr] = s
		}
	})
}

// tellInterfaces may wait: it is the watcher that does.
func (a *Agent) tellInterfaces(changed []netwatch.Status) {
	a.udp.AddressesChanged()
	for _, s := range changed {
		for _, n := range a.id.node.Networks {
			if n.Heartbeat.Addr() == s.Addr && stateOf(s) != "unspecified" {
				a.cluster.receive(cluster.Interface{
					Network: n.Name, State: interfaceState(s), Name: s.Name, Speed: uint64(max(s.Speed, 0)), MTU: s.MTU,
				})
			}
		}
	}
}

func interfaceState(s netwatch.Status) cluster.InterfaceState {
	switch stateOf(s) {
	case "absent":
		return cluster.InterfaceAbsent
	case "admin-down":
		return cluster.InterfaceAdminDown
	case "no-carrier":
		return cluster.InterfaceNoCarrier
	}
	return cluster.InterfaceUp
}

// logInterface says where an address is now, and how well.
func (a *Agent) logInterface(before, now netwatch.Status) {
	if was := stateOf(before); was != stateOf(now) || before.Name != now.Name {
		a.log.Info("interface", "address", now.Addr, "interface", now.Name, "state", stateOf(now), "from", before.Name, "was", was)
	}
}

// stateOf is one word for a status.
func stateOf(s netwatch.Status) string {
	switch {
	case !s.Addr.IsValid():
		return "unknown"
	case !s.Present:
		return "absent"
	case s.Name == "":
		return "unspecified"
	case !s.AdminUp:
		return "admin-down"
	case !s.Carrier:
		return "no-carrier"
	}
	return "up"
}

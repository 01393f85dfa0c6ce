package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cluster"
)

const (
	// filterMost is how many names a list of a filter holds.
	filterMost = 256
	// filterLongest is the longest time that a threshold can have: no echo is
	// older (cluster.md 3).
	filterLongest = time.Minute
	// interfaceLongest is the longest name of an interface: IFNAMSIZ less its
	// zero (netdevice(7)).
	interfaceLongest = 15
)

// A linkFilter says which rows are meant; the zero one means all.
type linkFilter struct {
	peers                []belfry.NodeID
	networks, interfaces []string
	states               []belfry.LinkState
	thresholds           []linkThreshold
}

// A linkThreshold is one figure of a row and the value that it may have.
type linkThreshold struct {
	figure func(*cluster.LinkStatus) float64
	over   float64
}

// crossed is the thresholds that a row is beyond, a bit for each.
type crossed uint8

// linkFilterOf reads a filter. Its errors wrap ErrUsage, or ErrNotFound for a
// peer that is no member.
func linkFilterOf(view ClusterView, f *belfryv1.LinkFilter) (*linkFilter, error) {
	all := &linkFilter{networks: f.GetNetworks(), interfaces: f.GetInterfaces()}
	for _, list := range [][]string{f.GetPeers(), f.GetNetworks(), f.GetInterfaces(), f.GetStates()} {
		if len(list) > filterMost {
			return nil, fmt.Errorf("%w: %d names in one list of the filter; at most %d", belfry.ErrLimit, len(list), filterMost)
		}
	}
	for _, name := range f.GetPeers() {
		id, err := findNode(view, name)
		if err != nil {
			return nil, err
		}
		if id == view.Self {
			return nil, fmt.Errorf("%w: %s is the node whose links these are, and has none to itself; name another node", belfry.ErrUsage, name)
		}
		all.peers = append(all.peers, id)
	}
	for _, name := range f.GetNetworks() {
		if name == "" {
			return nil, fmt.Errorf("%w: network %q is no name; leave it out, or name one like net1", belfry.ErrUsage, name)
		}
	}
	for _, name := range f.GetInterfaces() {
		if !interfaceName(name) {
			return nil, fmt.Errorf("%w: interface %q is no name of one; up to %d characters without blank, / or :, like eth0", belfry.ErrUsage, name, interfaceLongest)
		}
	}
	for _, word := range f.GetStates() {
		state, err := belfry.ParseLinkState(word)
		if err != nil {
			return nil, err
		}
		all.states = append(all.states, state)
	}
	return all, all.addThresholds(f)
}

// interfaceName tells whether an interface can have the name (dev_valid_name of
// the kernel).
func interfaceName(name string) bool {
	return name != "" && len(name) <= interfaceLongest && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r")
}

func (f *linkFilter) addThresholds(msg *belfryv1.LinkFilter) error {
	if msg != nil && msg.LossOverRatio != nil {
		over := msg.GetLossOverRatio()
		if !(over >= 0 && over < 1) { // nor is it a number
			return fmt.Errorf("%w: loss over %v; a share from 0 to less than 1, like 0.05", belfry.ErrUsage, over)
		}
		f.thresholds = append(f.thresholds, linkThreshold{over: over, figure: func(r *cluster.LinkStatus) float64 {
			return float64(r.RecentLoss) / 255
		}})
	}
	for _, t := range []struct {
		name   string
		over   *durationpb.Duration
		figure func(*cluster.LinkStatus) time.Duration
	}{
		{"rtt", msg.GetRttOver(), func(r *cluster.LinkStatus) time.Duration {
			if !r.Known {
				return 0
			}
			return r.MRT
		}},
		{"jitter", msg.GetJitterOver(), func(r *cluster.LinkStatus) time.Duration { return r.Jitter }},
	} {
		if t.over == nil {
			continue
		}
		over := t.over.AsDuration()
		if !t.over.IsValid() || over <= 0 || over > filterLongest {
			return fmt.Errorf("%w: %s over %v; more than 0, up to %v, like 20ms", belfry.ErrUsage, t.name, over, filterLongest)
		}
		f.thresholds = append(f.thresholds, linkThreshold{over: over.Seconds(), figure: func(r *cluster.LinkStatus) float64 {
			return t.figure(r).Seconds()
		}})
	}
	return nil
}

// all tells whether every row is meant.
func (f *linkFilter) all() bool {
	return len(f.peers)+len(f.networks)+len(f.interfaces)+len(f.states)+len(f.thresholds) == 0
}

// beyond tells which thresholds a row is beyond, that was beyond some before.
func (f *linkFilter) beyond(r *cluster.LinkStatus, before crossed) (now crossed) {
	for i, t := range f.thresholds {
		over := t.over
		if before>>i&1 == 1 {
			over = over * 9 / 10
		}
		if t.figure(r) > over {
			now |= 1 << i
		}
	}
	return now
}

// means tells whether a row is meant that is beyond these thresholds.
func (f *linkFilter) means(r *cluster.LinkStatus, beyond crossed) bool {
	return oneOf(f.peers, r.Peer) && oneOf(f.networks, r.Network) && oneOf(f.interfaces, r.Interface) && oneOf(f.states, r.State) &&
		(len(f.thresholds) == 0 || beyond != 0)
}

// oneOf tells whether a list that narrows down has the value.
func oneOf[T comparable](list []T, value T) bool {
	return len(list) == 0 || slices.Contains(list, value)
}

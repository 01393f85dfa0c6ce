package cluster

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// The bounds on a link that is lost while another of the pair works
// (cluster.md 14), from the cut to the change that is posted.
const (
	linkDownP50 = 1600 * time.Millisecond
	linkDownP99 = 2800 * time.Millisecond
)

// settled is a cluster of n nodes that began a minute ago.
func settled(seed uint64, n, networks int) *network {
	net := newNetwork(seed, names24()[:n]...)
	net.networks = networks
	for _, h := range net.hosts {
		net.boot(h)
	}
	net.run(time.Minute)
	return net
}

// watchedPairs are the pairs that watch each other, each once.
func (n *network) watchedPairs() (pairs [][2]*host) {
	for i, a := range n.hosts {
		for _, b := range n.hosts[i+1:] {
			if a.m.Watches(nodeID(b.number)) && b.m.Watches(nodeID(a.number)) {
				pairs = append(pairs, [2]*host{a, b})
			}
		}
	}
	return pairs
}

// A linkEnd is one link as one of its ends sees it.
type linkEnd struct {
	at, of  *host
	network uint8
}

// downTimes notes when each end posts that its link is down, and wants silence
// about nodes and contacts.
func (n *network) downTimes(t *testing.T, seed uint64) map[linkEnd]time.Time {
	down := map[linkEnd]time.Time{}
	n.trace = func(h *host, c Change) {
		l, ok := c.(LinkChange)
		if !ok {
			t.Errorf("seed %d: %s; want nothing but links", seed, n.describe(h, c))
			return
		}
		end := linkEnd{h, n.byID(l.Peer), l.Index}
		if _, again := down[end]; l.To == belfry.LinkDown && !again {
			down[end] = n.now
		}
	}
	return down
}

// quantile is that of sorted times, in per cent.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)*percent+99)/100-1]
}

// One link of a pair, or one network of a node, is cut at any moment.
func TestALostLinkIsPostedInTime(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		whole bool // all links of the node on that network
	}{{"one link", false}, {"one network of a node", true}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var first, each []time.Duration
			for seed := range uint64(150 / seedsPart) {
				rng := rand.New(rand.NewPCG(seed, 2))
				net := settled(seed, 3+int(seed%6), 2)
				pairs := net.watchedPairs()
				net.run(time.Duration(rng.Int64N(int64(4 * time.Second))))
				down, cut := net.downTimes(t, seed), net.now
				chosen, index := pairs[rng.IntN(len(pairs))], uint8(rng.IntN(2))
				for _, p := range pairs {
					if p == chosen || row.whole && (p[0] == chosen[0] || p[1] == chosen[0]) {
						net.wire(p[0], p[1], index).cut, net.wire(p[1], p[0], index).cut = true, true
					}
				}
				net.run(10 * time.Second)
				for _, p := range pairs {
					if !net.wire(p[0], p[1], index).cut {
						continue
					}
					there, here := down[linkEnd{p[0], p[1], index}], down[linkEnd{p[1], p[0], index}]
					if there.IsZero() || here.IsZero() {
						t.Fatalf("seed %d: %s|%s on network %d is down since %v and %v; want a time at both ends", seed, p[0].name, p[1].name, index, there, here)
					}
					first = append(first, minTime(there, here).Sub(cut))
					each = append(each, there.Sub(cut), here.Sub(cut))
				}
			}
			checkDownTimes(t, "first end", first)
			checkDownTimes(t, "each end", each)
		})
	}
}

func checkDownTimes(t *testing.T, what string, times []time.Duration) {
	t.Helper()
	slices.Sort(times)
	p50, p99 := quantile(times, 50), quantile(times, 99)
	t.Logf("%s: %d times, p50 %v, p99 %v, most %v", what, len(times), p50, p99, times[len(times)-1])
	if seedsPart > 1 { // too few for a median that says anything
		p50 = 0
	}
	if p50 > linkDownP50 || p99 > linkDownP99 {
		t.Errorf("%s: p50 %v and p99 %v; want %v and %v at most", what, p50, p99, linkDownP50, linkDownP99)
	}
}

// A carrier that is lost is posted in the step that tells it.
func TestALostCarrierIsPostedAtOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30 / seedsPart) {
		net := settled(seed, 3+int(seed%6), 2)
		a := net.hosts[int(seed)%len(net.hosts)]
		told := map[belfry.NodeID]time.Time{}
		net.trace = func(h *host, c Change) {
			switch c := c.(type) {
			case LinkChange:
				if h == a && c.To == belfry.LinkNoCarrier {
					told[c.Peer] = net.now
				}
			default:
				t.Errorf("seed %d: %s; want nothing but links", seed, net.describe(h, c))
			}
		}
		lost := net.now
		net.deliver(a, Interface{Network: "net2", State: InterfaceNoCarrier, Name: "eth1"})
		for _, id := range a.m.Watched() {
			if at, ok := told[id]; !ok || !at.Equal(lost) {
				t.Errorf("seed %d: %s told of %s at %v (%v), want it in the same step", seed, a.name, net.name(id), at, ok)
			}
		}
		net.run(10 * time.Second)
	}
}

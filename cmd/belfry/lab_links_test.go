package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// pollEvery is how often a link is looked at: more often than a burst probes.
const pollEvery = 5 * time.Millisecond

// pollLink hands on what a node reports of its link to a peer until done says
// so.
func (l *lab) pollLink(ts *testscript.TestScript, node, peer string, limit time.Duration, done func(*belfryv1.Link) bool) {
	conn := l.dial(ts, node)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !done(l.link(ctx, ts, conn, peer)) {
		<-tick.C
	}
}

// link is what a node reports of its link to a peer: b, or where there are
// several b/net2.
func (l *lab) link(ctx context.Context, ts *testscript.TestScript, conn *client.Client, to string) *belfryv1.Link {
	peer, network, one := strings.Cut(to, "/")
	all, err := conn.Links(ctx, peer)
	ts.Check(err)
	links := slices.DeleteFunc(all.GetLinks(), func(link *belfryv1.Link) bool { return one && link.GetNetwork() != network })
	if len(links) != 1 {
		ts.Fatalf("%d links to %s, want 1", len(links), to)
	}
	return links[0]
}

// settle waits until each interval is within a step (a quarter) of the longest
// that a quiet network of three has, and no maximum wait allows much lateness.
func (l *lab) settle(ts *testscript.TestScript, _ bool, _ []string) {
	calm := func(link *belfryv1.Link) bool {
		margin := link.GetMaxWait().AsDuration() - link.GetAnnounced().AsDuration()
		m := measurementOf(link)
		return link.GetInterval().AsDuration() >= 800*time.Millisecond && margin < 100*time.Millisecond &&
			max(m.mrt, m.d, link.GetJitter().AsDuration()) < 8*time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, n := range l.nodes {
		conn := l.dial(ts, n.Name)
		for {
			links, err := conn.Links(ctx, "")
			ts.Check(err)
			if !slices.ContainsFunc(links.GetLinks(), func(link *belfryv1.Link) bool { return !calm(link) }) {
				break
			}
			<-time.After(100 * time.Millisecond)
		}
		ts.Check(conn.Close())
	}
}

// A measurement is what a link reports of its round trips.
type measurement struct{ mrt, d, newest time.Duration }

func measurementOf(link *belfryv1.Link) measurement {
	return measurement{link.GetRtt().AsDuration(), link.GetRttDeviation().AsDuration(), link.GetRttLast().AsDuration()}
}

// after is the measurement that follows m by the formulas of US9219621 claim 1
// (cluster.md 4), computed here once more.
func (m measurement) after(newest time.Duration) measurement {
	deviation := m.mrt - newest
	if deviation < 0 {
		deviation = -deviation
	}
	return measurement{mrt: (7*m.mrt + newest) / 8, d: (m.d + 7*deviation) / 8, newest: newest}
}

// roundTrips recomputes MRT and D from each round trip that the node reports,
// and holds that against what the wire did to the two datagrams.
func (l *lab) roundTrips(ts *testscript.TestScript, _ bool, args []string) {
	node, peer := args[0], args[1]
	wanted, err := strconv.Atoi(args[2])
	ts.Check(err)
	var before measurement
	var received uint64
	seen, near := 0, 0
	l.pollLink(ts, node, peer, time.Minute, func(link *belfryv1.Link) bool {
		got, count := measurementOf(link), link.GetReceived()
		defer func() { before, received = got, count }()
		if !link.GetRttKnown() || got == before || before == (measurement{}) {
			return false
		}
		want := before.after(got.newest)
		if want != got {
			if count > received+1 {
				return false // two at once: the one between them is not known
			}
			ts.Fatalf("after %v and a round trip of %s: %v, want %v", before, got.newest, got, want)
		}
		wire := l.wire.roundTrips(node, peer)
		more, ok := nearest(wire, got.newest)
		if !ok {
			ts.Fatalf("a round trip of %s, while those on the wire lasted %v", got.newest, wire)
		}
		ts.Logf("round trip %s, of which %s off the wire: MRT %s, D %s", got.newest, more, got.mrt, got.d)
		if seen++; more < 20*time.Millisecond {
			near++
		}
		return seen >= wanted
	})
	if 2*near < seen { // a busy machine adds to some
		ts.Fatalf("of %d round trips %d were what the wire made them", seen, near)
	}
}

// nearest is by how much a round trip is longer than one on the wire, the one
// that explains most of it; false if it is shorter than all. The clocks of the
// heartbeats count 4 µs, and the wire looks at its own a little earlier.
func nearest(wire []time.Duration, measured time.Duration) (more time.Duration, ok bool) {
	const tolerance = 100 * time.Microsecond
	for _, w := range wire {
		if m := measured - w; m >= -tolerance && (!ok || m < more) {
			more, ok = m, true
		}
	}
	return more, ok
}

// maxDeviation waits until the maximum deviation of a link has moved so far.
func (l *lab) maxDeviation(ts *testscript.TestScript, _ bool, args []string) {
	low, err := strconv.Atoi(args[2])
	ts.Check(err)
	high, err := strconv.Atoi(args[3])
	ts.Check(err)
	first := -1
	l.pollLink(ts, args[0], args[1], time.Minute, func(link *belfryv1.Link) bool {
		got := int(link.GetMaxDeviation())
		if first < 0 {
			first = got
		}
		if got < low || got > high {
			return false
		}
		ts.Logf("maximum deviation %d, was %d", got, first)
		return true
	})
}

// linkDown looks at a link until it is down. It must not be down before its
// deviation passes the maximum, and not be anything else afterwards.
func (l *lab) linkDown(ts *testscript.TestScript, _ bool, args []string) {
	node, peer := args[0], args[1]
	var path []string
	l.pollLink(ts, node, peer, 30*time.Second, func(link *belfryv1.Link) bool {
		state := fmt.Sprintf("%s %d of at most %d", link.GetState(), link.GetDeviation(), link.GetMaxDeviation())
		if len(path) == 0 || path[len(path)-1] != state {
			path = append(path, state)
		}
		down := link.GetState() == "down"
		if down != (link.GetDeviation() > link.GetMaxDeviation()) {
			ts.Fatalf("%s holds the link to %s %s; it is down above its maximum and only there: %v", node, peer, state, path)
		}
		return down
	})
	ts.Logf("%s: link to %s: %v", node, peer, path)
}

// fixedTimers are what heartbeats with a period and a limit that never change
// would have made of the same wire: in each direction a datagram is sent each
// period, and whoever has not got one within the limit declares the sender
// down, wrongly.
type fixedTimers struct {
	period, limit time.Duration
	ended         chan struct{}
	group         sync.WaitGroup

	mu       sync.Mutex
	arrivals map[direction][]time.Time
}

func (l *lab) fixedTimers(ts *testscript.TestScript, _ bool, args []string) {
	switch args[0] {
	case "start":
		l.timers = &fixedTimers{ended: make(chan struct{}), arrivals: map[direction][]time.Time{}}
		l.timers.period, l.timers.limit = l.detection(ts)
		ts.Logf("fixed timers: period %s, limit %s", l.timers.period, l.timers.limit)
		l.timers.group.Go(func() { l.timers.beat(l.wire, l.directions(ts, []string{"*", "*"})) })
	case "count":
		l.timers.stop()
		fmt.Fprintf(ts.Stdout(), "%d\n", l.timers.wrong())
		l.timers = nil
	default:
		ts.Fatalf("lab timers start, or count")
	}
}

// detection is the slowest interval of the lab, and the time from a last
// heartbeat to the end of verification that goes with it: the maximum wait and
// rounds of probes until the maximum deviation (cluster.md 5, I_target).
func (l *lab) detection(ts *testscript.TestScript) (period, limit time.Duration) {
	for _, n := range l.nodes {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		conn := l.dial(ts, n.Name)
		links, err := conn.Links(ctx, "")
		cancel()
		ts.Check(err)
		ts.Check(conn.Close())
		for _, link := range links.GetLinks() {
			m := measurementOf(link)
			round := min(max(m.mrt+4*m.d+5*time.Millisecond, 40*time.Millisecond), time.Second)
			rounds := 2 + (time.Duration(link.GetMaxDeviation())+2)/3 // three of four probes come through
			period = max(period, link.GetInterval().AsDuration())
			limit = max(limit, link.GetMaxWait().AsDuration()+rounds*round)
		}
	}
	return period, limit
}

func (f *fixedTimers) beat(w *wire, all []direction) {
	tick := time.NewTicker(f.period)
	defer tick.Stop()
	for {
		select {
		case <-f.ended:
			return
		case now := <-tick.C:
			for _, d := range all {
				delay := w.sample(d)
				f.mu.Lock()
				f.arrivals[d] = append(f.arrivals[d], now.Add(delay))
				f.mu.Unlock()
			}
		}
	}
}

func (f *fixedTimers) stop() {
	close(f.ended)
	f.group.Wait()
}

// wrong counts the times that no datagram came within the limit.
func (f *fixedTimers) wrong() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, arrivals := range f.arrivals {
		slices.SortFunc(arrivals, time.Time.Compare)
		for i := range len(arrivals) - 1 {
			if arrivals[i+1].Sub(arrivals[i]) > f.limit {
				n++
			}
		}
	}
	return n
}

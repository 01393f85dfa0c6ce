package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// rowOf is the first row that h has of p.
func rowOf(h, p *host) *row { return h.m.byID[nodeID(p.number)].rows[0] }

// Whoever sets an interface down and up means it.
func TestALinkThatIsSetDownDoesNotFlap(t *testing.T) {
	t.Parallel()
	net := settled(1, 3, 2)
	a, b := net.host("a"), net.host("b")
	for range 5 {
		net.deliver(a, Interface{Network: "net1", State: InterfaceAdminDown})
		net.run(2 * time.Second)
		net.deliver(a, Interface{Network: "net1", State: InterfaceUp})
		net.run(2 * time.Second)
	}
	for _, l := range a.m.Links(net.now) {
		if l.Peer == nodeID(b.number) && (l.State != belfry.LinkUp || l.FlapPenalty != 0) {
			t.Errorf("%s is %v with penalty %d after it was set down five times, want up without one", l.Network, l.State, l.FlapPenalty)
		}
	}
}

// What is asked for costs no more than extraMost rows.
func TestAtMostSixteenPeersAreWatchedOnRequest(t *testing.T) {
	t.Parallel()
	net := warm(1, len(names24()))
	a := net.host("a")
	var all []belfry.NodeID
	for _, h := range net.hosts[1:] {
		all = append(all, nodeID(h.number))
	}
	a.m.Receive(net.now, Interests{Peers: all})
	if got, want := len(a.m.extras()), extraMost; got != want {
		t.Errorf("%d peers are watched on request, want %d", got, want)
	}
}

// The peer's word is as old as the last heartbeat: one that came before the
// link went down says nothing of how it is now.
func TestThePeersWordOfBeforeIsNoOneWayOut(t *testing.T) {
	t.Parallel()
	net := settled(1, 2, 1)
	a, b := net.host("a"), net.host("b")
	r := rowOf(a, b)
	r.peerState = belfry.LinkOneWayIn
	a.m.setLink(net.now, r, belfry.LinkDown, "test")
	if state, _ := a.m.meaning(net.now, r); state != belfry.LinkDown {
		t.Errorf("by a word of %v ago the link is %v, want down", net.now.Sub(r.peerAt), state)
	}
	r.peerAt = net.now.Add(time.Millisecond)
	if state, _ := a.m.meaning(r.peerAt, r); state != belfry.LinkOneWayOut {
		t.Errorf("by a newer word the link is %v, want one-way-out", state)
	}
}

// A link that works badly works: the general state stays up.
func TestADegradedLinkIsAContact(t *testing.T) {
	t.Parallel()
	net := settled(1, 2, 1)
	a, b := net.host("a"), net.host("b")
	degraded := false
	net.trace = func(h *host, c Change) {
		switch c := c.(type) {
		case LinkChange:
			degraded = degraded || h == a && c.To == belfry.LinkDegraded
		case ContactChange:
			t.Errorf("%s, want nothing in general", net.describe(h, c))
		}
	}
	net.path(b, a).loss = 20
	net.run(2 * time.Minute)
	if !degraded {
		t.Error("a fifth of loss for two minutes was not degraded")
	}
}

// A few round trips that are long are none of the three windows in a row.
func TestOneSlowSpellIsNoDegradation(t *testing.T) {
	t.Parallel()
	var q quality
	since := time.Duration(0)
	window := func(trip time.Duration) {
		for range windowSize {
			since += 2 * time.Second
			q.trip(trip, 0)
			q.received(since, 0)
		}
	}
	for range 2 * usualLeast {
		window(time.Millisecond)
	}
	for n := 1; n <= badWindows; n++ {
		window(200 * time.Millisecond)
		if want := n == 3; q.degraded != want {
			t.Errorf("after %d slow windows in a row degraded is %v, want %v", n, q.degraded, want)
		}
	}
}

// Nor is what comes late in one go: a node that goes on after a pause sends all
// that had waited.
func TestABurstIsNoDegradation(t *testing.T) {
	t.Parallel()
	var q quality
	since := time.Duration(0)
	receive := func(n int, every, trip time.Duration) {
		for range n {
			since += every
			q.trip(trip, 0)
			q.received(since, 0)
		}
	}
	receive(2*usualLeast*windowSize, 2*time.Second, time.Millisecond)
	receive(badWindows*windowSize, time.Millisecond, 50*time.Millisecond)
	receive(goodWindows*windowSize, 100*time.Millisecond, time.Millisecond)
	if q.degraded {
		t.Error("a burst of 12 ms was three windows in a row")
	}
	receive((badWindows+1)*windowSize, 20*time.Millisecond, 50*time.Millisecond) // the first may have begun before
	if !q.degraded {
		t.Error("three windows at the shortest interval do not degrade")
	}
}

// What was lost while a link was cut says nothing of the link after it.
func TestAfterAHealALinkIsNotDegraded(t *testing.T) {
	t.Parallel()
	net := settled(1, 2, 2)
	a, b := net.host("a"), net.host("b")
	net.wire(b, a, 1).loss = 40
	net.run(time.Minute)
	net.wire(b, a, 1).cut = true
	net.run(20 * time.Second)
	var states []string
	net.trace = func(h *host, c Change) {
		if l, ok := c.(LinkChange); ok && h == a {
			states = append(states, l.To.String())
		}
	}
	net.wire(b, a, 1).loss, net.wire(b, a, 1).cut = 0, false
	net.run(20 * time.Second)
	if got, want := strings.Join(states, " "), "init up"; got != want {
		t.Errorf("after the heal the link was %s, want %s", got, want)
	}
}

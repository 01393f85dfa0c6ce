package cluster

import (
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// lossesOf is the last link that a has to b.
func lossesOf(net *network) LinkStatus {
	links := net.host("a").m.Links(net.now)
	return links[len(links)-1]
}

// lost is a ratio in per cent.
func (r Ratio) lost() int { return int(r.Lost * 100 / max(r.Expected, 1)) }

// Nothing comes in on a dead link, whatever it is called: no figure of before
// stays as if it were of now.
func TestADeadLinkThatFlapsLosesAll(t *testing.T) {
	t.Parallel()
	net := settled(1, 2, 2)
	a, b := net.host("a"), net.host("b")
	to, from := net.wire(a, b, 1), net.wire(b, a, 1)
	cut := func(cut bool) {
		to.cut, from.cut = cut, cut
		net.run(8 * time.Second)
	}
	for range 2 {
		cut(true)
		cut(false)
	}
	if l := lossesOf(net); l.State != belfry.LinkFlapping || !l.TwoWay || l.RecentLoss == 255 || l.Loss10.lost() == 100 {
		t.Fatalf("%v that works loses %d/255, %d %% of 10 s", l.State, l.RecentLoss, l.Loss10.lost())
	}
	cut(true)
	net.run(5 * time.Second)
	l := lossesOf(net)
	if l.State != belfry.LinkFlapping || l.TwoWay || l.RecentLoss != 255 || l.Loss10.lost() != 100 {
		t.Errorf("%v that is dead loses %d/255, %d %% of 10 s, want all", l.State, l.RecentLoss, l.Loss10.lost())
	}
	if l.Loss60.lost() == 100 {
		t.Error("all of 60 s is lost, in which the link worked for a while")
	}
	net.run(50 * time.Second)
	if later := lossesOf(net); later.Loss60.lost() != 100 || later.Loss600.lost() <= l.Loss600.lost() {
		t.Errorf("after a minute %d %% of 60 s and %d %% of 600 s, want 100 and more than %d",
			later.Loss60.lost(), later.Loss600.lost(), l.Loss600.lost())
	}
	cut(false)
	net.run(time.Minute)
	if l := lossesOf(net); l.RecentLoss == 255 || l.Loss10.lost() != 0 {
		t.Errorf("%v that works again loses %d/255, %d %% of 10 s", l.State, l.RecentLoss, l.Loss10.lost())
	}
}

// A flapping link that dies once more is no new state, and is told of: a stream
// may run over it.
func TestALinkThatFlapsTellsWhenItFails(t *testing.T) {
	t.Parallel()
	net := settled(1, 2, 2)
	a, b := net.host("a"), net.host("b")
	to, from := net.wire(a, b, 1), net.wire(b, a, 1)
	cut := func(cut bool) {
		to.cut, from.cut = cut, cut
		net.run(8 * time.Second)
	}
	for range 2 {
		cut(true)
		cut(false)
	}
	var news []LinkFailed
	net.trace = func(h *host, c Change) {
		if c, ok := c.(LinkFailed); ok && h == a {
			news = append(news, c)
		}
	}
	since, at := lossesOf(net).Since, net.now
	cut(true)
	cut(false)
	l := lossesOf(net)
	if l.State != belfry.LinkFlapping || !l.Since.Equal(since) || !l.Works {
		t.Fatalf("%v since %v, works %v; want flapping since %v that works", l.State, l.Since, l.Works, since)
	}
	if len(news) != 1 || news[0].Peer != nodeID(b.number) || news[0].Index != 1 || news[0].Network != "net2" {
		t.Fatalf("told %+v, want one failure of net2 to b", news)
	}
	if late := news[0].At.Sub(at); late <= 0 || late > 5*time.Second || !l.Failed.Equal(news[0].At) {
		t.Errorf("told %v after the cut, and failed at %v; want 5 s at most and the same", late, l.Failed)
	}
}

// A carrier that is there again is no reception.
func TestALinkThatIsNotHeardAgainLosesAll(t *testing.T) {
	t.Parallel()
	net := settled(1, 2, 1)
	a := net.host("a")
	net.path(net.host("b"), a).cut = true
	net.deliver(a, Interface{Network: "net1", State: InterfaceNoCarrier})
	net.run(10 * time.Second)
	net.deliver(a, Interface{Network: "net1", State: InterfaceUp})
	net.run(carrierHold + 100*time.Millisecond)
	l := lossesOf(net)
	if l.State != belfry.LinkInit || l.RecentLoss != 255 || l.Loss10.lost() != 100 {
		t.Errorf("%v loses %d/255, %d %% of 10 s, want init and all", l.State, l.RecentLoss, l.Loss10.lost())
	}
}

// A link on which nothing ever came loses all once something is missing, and
// nothing is said of it before.
func TestALinkThatWasNeverHeardLosesAll(t *testing.T) {
	t.Parallel()
	net := newNetwork(1, "a", "b")
	net.boot(net.host("a"))
	net.run(100 * time.Millisecond)
	if l := lossesOf(net); l.State != belfry.LinkInit || l.RecentLoss != 0 || l.Loss10.Expected != 0 {
		t.Errorf("%v loses %d/255, %v of 10 s, want init and nothing yet", l.State, l.RecentLoss, l.Loss10)
	}
	net.run(10 * time.Second)
	if l := lossesOf(net); l.RecentLoss != 255 || l.Loss10.lost() != 100 || l.Loss600.lost() != 100 {
		t.Errorf("%v loses %d/255, %d %% of 10 s, %d %% of 600 s, want all", l.State, l.RecentLoss, l.Loss10.lost(), l.Loss600.lost())
	}
}

// What a queue on the way held back during an outage comes out of it first. Its
// age is no round trip: it would stretch the interval, and with it the time to
// the next verdict, for half a minute.
func TestWhatAnOutageHeldBackIsNoRoundTrip(t *testing.T) {
	t.Parallel()
	net := settled(1, 2, 1)
	a, b := net.host("a"), net.host("b")
	net.path(a, b).delay, net.path(b, a).delay = 6*time.Second, 6*time.Second
	net.run(6100 * time.Millisecond)
	if l := lossesOf(net); l.State == belfry.LinkUp {
		t.Fatalf("the link is %v after 6 s without a word", l.State)
	}
	net.path(a, b).delay, net.path(b, a).delay = 0, 0
	net.run(3 * time.Second)
	for _, h := range []*host{a, b} {
		for _, l := range h.m.Links(net.now) {
			if l.State != belfry.LinkUp || l.MRT > 100*time.Millisecond || l.Interval > time.Second {
				t.Errorf("%s: %v, round trip %v, interval %v; want up, a few ms, 1 s at most", h.name, l.State, l.MRT, l.Interval)
			}
		}
	}
}

// An interface was down for a moment, and its address not resolved for 600 ms.
// All probes of that time get through together: the first makes the link up, so
// that the others are of before.
func TestWhatAnInterfaceHeldBackIsNoRoundTrip(t *testing.T) {
	t.Parallel()
	start := second(0)
	resolved := start.Add(10*time.Second + 600*time.Millisecond)
	r := row{announced: time.Second}
	r.since = start.Add(10 * time.Second)
	for i := range 3 {
		sent := start.Add(10*time.Second + time.Duration(i)*initProbeEvery)
		r.echo(resolved, start, path{}, &Heartbeat{Echo: true, EchoOf: clockAt(start, sent)}, start)
		if i == 0 && r.rtt.MRT() != 600*time.Millisecond {
			t.Errorf("the first takes %v, want 600ms: nobody knows better yet", r.rtt.MRT())
		}
		r.since = resolved
	}
	if r.rtt.known {
		t.Errorf("round trip %v, want none", r.rtt.MRT())
	}
}

package cluster

import (
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// lieOneWay has a member say something of links that work in one direction, once
// a second, with its other heartbeats in between.
func (n *network) lieOneWay(to, from *host, words ...belfry.OneWay) {
	r := from.m.byID[nodeID(to.number)].rows[0]
	n.deliver(to, Datagram{
		From: nodeID(from.number), Incarnation: 1, Boot: from.boot, At: n.now, Proven: true,
		Body: &Heartbeat{Seq: nextSeq(r.txSeq), Announced: time.Second, View: from.m.View(), OneWays: words},
	})
	r.txSeq = nextSeq(r.txSeq)
	n.at(time.Second, func() { n.lieOneWay(to, from, words...) })
}

// The word of one node shows a link as one-way-out at most: it takes nobody for
// alive that is gone, and changes nothing of a link that works.
func TestNobodyLivesByTheWordOfOne(t *testing.T) {
	t.Parallel()
	for _, lies := range []bool{false, true} {
		net := settled(1, 4, 1)
		a, b, c := net.host("a"), net.host("b"), net.host("c")
		var links []string
		gone := time.Time{}
		net.trace = func(h *host, change Change) {
			switch change := change.(type) {
			case LinkChange:
				if h == a && change.Peer == nodeID(b.number) {
					links = append(links, change.To.String())
				}
			case NodeChange:
				if h == a && change.Name == "b" && change.To == belfry.VerdictDown {
					gone = net.now
				}
			}
		}
		if lies {
			net.lieOneWay(a, c, belfry.OneWay{Hearer: b.number, Heard: a.number, Links: 0xffff})
		}
		net.run(20 * time.Second)
		if len(links) != 0 {
			t.Errorf("lies %v: a link that works became %v, want nothing", lies, links)
		}
		dead := net.now
		b.dead, b.running = true, false
		net.run(20 * time.Second)
		if took := gone.Sub(dead); gone.IsZero() || took > 6*time.Second {
			t.Errorf("lies %v: b is down at a after %v, want 6s at most", lies, took)
		}
		if row := rowOf(a, b); row.shown.state != belfry.LinkDown || row.shown.works || a.m.byID[nodeID(b.number)].contact.up {
			t.Errorf("lies %v: the link to a dead node is %v, works %v; want down", lies, row.shown.state, row.shown.works)
		}
	}
}

// One who says so now and then does not make the state change as often: what was
// said once holds for its time.
func TestAWordIsNotTakenBack(t *testing.T) {
	t.Parallel()
	net := settled(1, 3, 1)
	a, b, c := net.host("a"), net.host("b"), net.host("c")
	net.path(a, b).cut, net.path(b, a).cut = true, true
	net.run(10 * time.Second)
	changes := 0
	net.trace = func(h *host, change Change) {
		if l, ok := change.(LinkChange); ok && h == a && l.Peer == nodeID(b.number) {
			changes++
		}
	}
	net.lieOneWay(a, c, belfry.OneWay{Hearer: b.number, Heard: a.number, Links: 1})
	net.lieOneWay(a, c)
	net.lieOneWay(a, c, belfry.OneWay{Hearer: b.number, Heard: a.number, Links: 1, Age: time.Minute})
	net.run(2 * time.Minute)
	if most := 2 * int(2*time.Minute/viewMore); changes < 1 || changes > most {
		t.Errorf("the link changed %d times in two minutes, want 1 to %d", changes, most)
	}
}

// A word goes from who hears to its peers, and from those to who is heard; what
// somebody says of others does not go on.
func TestAWordIsPassedOnOnce(t *testing.T) {
	t.Parallel()
	net := settled(1, 5, 1)
	a, b, c := net.host("a"), net.host("b"), net.host("c")
	own, passed := 0, 0
	net.watch = func(from *host, s Send) {
		hb, ok := s.Body.(*Heartbeat)
		if !ok {
			return
		}
		if (hb.Probe || hb.Answer) && len(hb.OneWays) > 0 {
			t.Errorf("%s sends words of links in a probe or an answer: %+v", from.name, hb.OneWays)
		}
		for _, w := range hb.OneWays {
			switch {
			case w.Hearer == from.number && w.Heard != net.byID(s.To).number:
				own++
			case w.Heard == net.byID(s.To).number && w.Hearer == b.number:
				passed++
			default:
				t.Errorf("%s says to %s that %d hears %d", from.name, net.name(s.To), w.Hearer, w.Heard)
			}
		}
	}
	net.run(20 * time.Second)
	if own+passed > 0 {
		t.Errorf("%d words of links while all of them work, want none", own+passed)
	}
	net.path(b, a).cut = true
	net.lieOneWay(net.host("d"), c, belfry.OneWay{Hearer: 1, Heard: 5, Links: 1}, belfry.OneWay{Hearer: 4, Heard: 1, Links: 1}, belfry.OneWay{Hearer: 99, Heard: 4, Links: 1})
	net.run(20 * time.Second)
	if own == 0 || passed == 0 {
		t.Errorf("%d words of its own and %d passed on, want some of each", own, passed)
	}
}

package link_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/link"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

func state(peer, network string, s belfry.LinkState) link.State {
	return link.State{Peer: peer, Network: network, State: s, Since: time.Unix(100, 0)}
}

// view has links that are up to one peer.
func view(peer string, networks ...string) link.View {
	v := link.View{Contacts: []link.ContactState{{Peer: peer, State: belfry.LinkUp, LinksUp: len(networks), LinksTotal: len(networks), Since: time.Unix(99, 0)}}}
	for _, n := range networks {
		v.Links = append(v.Links, state(peer, n, belfry.LinkUp))
	}
	return v
}

// brief writes a message on one line.
func brief(t *testing.T, m event.Message) string {
	t.Helper()
	data := func(o belfry.Occurrence) string {
		var d belfryv1.ContactStateChange // its first fields have the numbers of both
		var l belfryv1.LinkStateChange
		if err := proto.Unmarshal(o.Data, &l); err == nil && l.GetNetwork() != "" && l.GetTo() != "" {
			return fmt.Sprintf("%s/%s %q->%q code %d %v", l.GetPeer(), l.GetNetwork(), l.GetFrom(), l.GetTo(), o.Code, o.Edge)
		}
		if err := proto.Unmarshal(o.Data, &d); err != nil {
			t.Fatalf("data of %+v: %v", o, err)
		}
		return fmt.Sprintf("%s %q->%q code %d %v", d.GetPeer(), d.GetFrom(), d.GetTo(), o.Code, o.Edge)
	}
	switch m := m.(type) {
	case event.Found:
		return "found " + m.Subject
	case event.Associate:
		return fmt.Sprintf("associate %d %s", m.Entry, data(*m.State))
	case event.Post:
		return fmt.Sprintf("post %d %s", m.Entry, data(m.Occurrence))
	case event.Invalidate:
		return fmt.Sprintf("invalidate %d", m.Entry)
	case event.End:
		return fmt.Sprintf("end %d %v", m.Entry, m.Err)
	}
	return fmt.Sprintf("%#v", m)
}

func expect(t *testing.T, d *producertest.Driver, want ...string) {
	t.Helper()
	var got []string
	for range want {
		got = append(got, brief(t, d.Next()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	d.Quiet(time.Second)
}

func TestOnlyTheNamedLinkTells(t *testing.T) { // L2
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := link.New(nil)
		p.Update(view("b", "net1", "net2"))
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: link.Class, Subject: "b/net2"})
		expect(t, d, `associate 1 b/net2 ""->"up" code 1 recovered`)
		p.LinkChanged(state("b", "net1", belfry.LinkDown), belfry.LinkUp)
		d.Quiet(time.Second)
		p.LinkChanged(state("b", "net2", belfry.LinkOneWayIn), belfry.LinkUp)
		p.LinkChanged(state("b", "net2", belfry.LinkInit), belfry.LinkOneWayIn)
		expect(t, d,
			`post 1 b/net2 "up"->"one-way-in" code 3 failing`,
			`post 1 b/net2 "one-way-in"->"init" code 0 -`)
	})
}

func TestAPeerInGeneralTellsOnceForAllItsLinks(t *testing.T) { // L3
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := link.New(nil)
		p.Update(view("b", "net1", "net2"))
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: link.Contact, Subject: "b"})
		expect(t, d, `associate 1 b ""->"up" code 1 recovered`)
		p.LinkChanged(state("b", "net1", belfry.LinkDown), belfry.LinkUp)
		p.LinkChanged(state("b", "net2", belfry.LinkDown), belfry.LinkUp)
		p.ContactChanged(link.ContactState{Peer: "b", State: belfry.LinkDown, LinksTotal: 2}, belfry.LinkUp)
		expect(t, d, `post 1 b "up"->"down" code 2 failing`)
		p.ContactChanged(link.ContactState{Peer: "b", State: belfry.LinkUp, LinksUp: 1, LinksTotal: 2}, belfry.LinkDown)
		expect(t, d, `post 1 b "down"->"up" code 1 recovered`)
	})
}

func TestARegistrationForAPeerThatIsNotWatchedIsAnInterestUntilItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked [][]string
		var p *link.Producer
		p = link.New(func(peers []string) {
			asked = append(asked, peers)
			if slices.Contains(peers, "far") { // a member; nobody else is
				p.Update(view("far", "net1"))
			} else {
				p.Update(link.View{})
			}
		})
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: link.Class, Subject: "far/net1"})
		expect(t, d, `associate 1 far/net1 ""->"up" code 1 recovered`)
		d.Watch(event.Watch{Class: link.Contact, Subject: "far"}) // nothing new to ask for
		expect(t, d, `associate 2 far ""->"up" code 1 recovered`)
		d.Watch(event.Watch{Class: link.Class, Subject: "nobody/net1"})
		expect(t, d, `end 3 no such event: no link "nobody/net1"; watched now are far/net1, and any other member can be`)
		d.Stop()
		want := [][]string{{"far"}, {"far", "nobody"}, {"far"}, nil}
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Errorf("peers asked for (-want +got):\n%s", diff)
		}
	})
}

func TestAPatternFindsLinksAndRowsThatEndLoseTheirIdentifier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := link.New(nil)
		p.Update(view("b", "net1", "net2"))
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: link.Class, Subject: "*/net2", Entry: producertest.NoEntry})
		expect(t, d, "found b/net2")
		d.Watch(event.Watch{Class: link.Class, Subject: "b/net2"})
		expect(t, d, `associate 2 b/net2 ""->"up" code 1 recovered`)
		p.Update(view("c", "net2"))
		expect(t, d, "found c/net2", `post 2 b/net2 "up"->"unknown" code 6 -`, "invalidate 2")
		p.Update(view("b", "net2"))
		expect(t, d, "found b/net2", `associate 2 b/net2 ""->"up" code 1 recovered`)
	})
}

func TestDataHasTheFigures(t *testing.T) { // L4
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := link.New(nil)
		p.Update(view("b", "net1"))
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: link.Class, Subject: "b/net1"})
		producertest.NextOf[event.Associate](d)
		s := state("b", "net1", belfry.LinkDegraded)
		s.Rx, s.Loss, s.Known, s.MRT, s.D, s.Jitter = true, 0.25, true, 2*time.Millisecond, time.Millisecond, 3*time.Millisecond
		s.Reason, s.PeerState, s.Version = "loss 25%", belfry.LinkUp, 7
		p.LinkChanged(s, belfry.LinkUp)
		var got belfryv1.LinkStateChange
		if err := proto.Unmarshal(producertest.NextOf[event.Post](d).Occurrence.Data, &got); err != nil {
			t.Fatal(err)
		}
		want := &belfryv1.LinkStateChange{
			Peer: "b", Network: "net1", From: "up", To: "degraded", Reason: "loss 25%", Rx: true, LossRatio: 0.25,
			RttSeconds: proto.Float64(0.002), RttDeviationSeconds: proto.Float64(0.001), JitterSeconds: 0.003, PeerState: "up", Version: 7,
		}
		if !proto.Equal(want, &got) {
			t.Errorf("data %v, want %v", &got, want)
		}
	})
}

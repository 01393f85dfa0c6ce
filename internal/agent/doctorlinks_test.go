package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func TestDoctorNamesLinksThatDoNotWork(t *testing.T) {
	t.Parallel()
	now := time.Now()
	status := &belfryv1.GetStatusResponse{Nodes: []*belfryv1.Node{
		{Id: "a", Name: "a", Self: true, Verdict: "up"}, {Id: "b", Name: "b", Verdict: "up"}, {Id: "c", Name: "c", Verdict: "up"}, {Id: "d", Name: "d", Verdict: "down"},
	}}
	link := func(peer, network, state string, age time.Duration) *belfryv1.Link {
		return &belfryv1.Link{
			Peer: peer, PeerId: peer, Network: network, State: state, Reason: "why", Since: timestamppb.New(now.Add(-age)),
			Local: "10.0.2.1:7431", Remote: "10.0.2.2:7431", Interface: "eth1",
		}
	}
	const show = "belfry link show b/net2 has its figures"
	for name, tt := range map[string]struct {
		links []*belfryv1.Link
		want  findings
	}{
		"all work": {
			[]*belfryv1.Link{link("b", "net1", "up", time.Hour), link("c", "net1", "up", time.Hour), link("b", "net2", "init", time.Second)},
			findings{{Level: LevelOK, Text: "3 to 2 other nodes that are up"}},
		},
		"those of a node that is down say nothing": {
			[]*belfryv1.Link{link("b", "net1", "up", time.Hour), link("d", "net1", "down", time.Hour)},
			findings{{Level: LevelOK, Text: "1 to 2 other nodes that are up"}},
		},
		"a network is away": {
			[]*belfryv1.Link{link("b", "net1", "up", time.Hour), link("b", "net2", "down", time.Minute), link("c", "net2", "down", time.Minute)},
			findings{{Level: LevelWarning, Text: "net2 to b, c: down (why); see that the network works (ping -I 10.0.2.1 10.0.2.2), and that no packet filter drops UDP between the two; " + show}},
		},
		"one direction": {
			[]*belfryv1.Link{link("b", "net2", "one-way-in", time.Minute), link("c", "net1", "one-way-out", time.Minute)},
			findings{
				{Level: LevelWarning, Text: "net1 to c: one-way-out (why); what the other node sends does not arrive: compare the packet filters and routes on the way here; belfry link show c/net1 has its figures"},
				{Level: LevelWarning, Text: "net2 to b: one-way-in (why); what this node sends does not arrive: compare the packet filters and routes on the way there; " + show},
			},
		},
		"it never worked": {
			[]*belfryv1.Link{link("b", "net2", "init", time.Minute)},
			findings{{Level: LevelWarning, Text: "net2 to b: init (why); see that the network works (ping -I 10.0.2.1 10.0.2.2), and that no packet filter drops UDP between the two; " + show}},
		},
		"the interface": {
			[]*belfryv1.Link{link("b", "net1", "admin-down", time.Minute), link("b", "net2", "no-carrier", time.Minute)},
			findings{
				{Level: LevelWarning, Text: "net1 to b: admin-down (why); set the interface up: ip link set dev eth1 up"},
				{Level: LevelWarning, Text: "net2 to b: no-carrier (why); see to the cable of eth1 and the port at its other end"},
			},
		},
		"it works badly": {
			[]*belfryv1.Link{link("b", "net2", "flapping", time.Minute), link("c", "net2", "degraded", time.Minute)},
			findings{
				{Level: LevelWarning, Text: "net2 to c: degraded (why); belfry link show c/net2 has its figures"},
				{Level: LevelWarning, Text: "net2 to b: flapping (why); it comes and goes: look for a bad cable, port or driver; " + show},
			},
		},
	} {
		d := doctor{now: now, ask: Ask{
			Status: func() (*belfryv1.GetStatusResponse, error) { return status, nil },
			Links:  func() ([]*belfryv1.Link, error) { return tt.links, nil },
		}}
		if diff := cmp.Diff(tt.want, d.links()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	var many []*belfryv1.Link
	for range 7 {
		many = append(many, link("b", "net2", "down", time.Minute))
	}
	if text := linksText(many); text[:len("net2 to b, b, b, b, b and 2 more: down")] != "net2 to b, b, b, b, b and 2 more: down" {
		t.Errorf("many: %s", text)
	}
	d := doctor{now: now, ask: Ask{
		Status: func() (*belfryv1.GetStatusResponse, error) { return status, nil },
		Links:  func() ([]*belfryv1.Link, error) { return nil, errors.New("it does not answer") },
	}}
	sole(t, "no answer", d.links(), LevelUnknown, "it does not answer; run belfry doctor links again")
}

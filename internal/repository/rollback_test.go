package repository

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// The operator's sections are of then; what nobody may bring back is of now.
func TestRollbackTakesTheOperatorsSectionsOnly(t *testing.T) {
	t.Parallel()
	past, now := settled(), copyOf(t, settled())
	now.Confirm = &Confirmation{Base: 7, Deadline: at(9)}
	now.Cluster.Name, now.Cluster.LastNumber = "renamed", 9
	now.Networks, now.Links, now.Tunables = now.Networks[:1], nil, map[string]string{"watchers": "2"}
	for i := range now.Nodes {
		now.Nodes[i].Addresses = now.Nodes[i].Addresses[:1]
	}
	now.Nodes[1].Intent, now.Nodes[2].Intent = IntentStopped, ""
	now.Resources, now.Witness, now.Linked, now.Handlers = nil, Witness{}, nil, nil
	now.Roles, now.Licenses, now.Ops = nil, Licenses{Mark: at(20)}, nil
	now.Repository.Spares, now.Repository.Epoch = nil, 3
	now.Security = Security{Datagram: Datagram{Epoch: 12}, Revoked: []string{"ff"}}

	want := copyOf(t, now)
	want.Confirm = nil
	want.Cluster.Name = "köln"
	want.Networks, want.Links, want.Tunables = past.Networks, past.Links, past.Tunables
	want.Resources, want.Witness, want.Linked, want.Handlers = past.Resources, past.Witness, past.Linked, past.Handlers
	got := Rollback(now, past)
	if diff := sameDocument(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := got.Validate(nil); err != nil {
		t.Error(err)
	}
	next := following(t, now, func(d *Document) { *d = got })
	if err := Next(now, next); err != nil {
		t.Error(err)
	}
}

// Rolling back to what is there changes nothing.
func TestRollbackToNowIsNow(t *testing.T) {
	t.Parallel()
	if diff := sameDocument(settled(), Rollback(settled(), settled())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The past speaks of nodes by their names. One that is gone is left out, one
// that is called otherwise now is meant all the same, and a network that
// somebody uses stays.
func TestRollbackFitsTheNodesOfNow(t *testing.T) {
	t.Parallel()
	past := settled()
	past.Networks = past.Networks[:1]
	past.Links = []Link{
		{A: "a", B: "b", Network: "net1", AtA: netip.MustParseAddrPort("10.9.0.1:1"), AtB: netip.MustParseAddrPort("10.9.0.2:1")},
		{A: "b", B: "d", Network: "net1", Disabled: true},
	}
	past.Resources = append(past.Resources, Resource{Name: "service/web", Holders: []string{"d"}}, Resource{Name: "service/mail", Holders: []string{"d", "b"}})
	past.Witness.Drained = []string{"d", "a"}
	past.Handlers = append(past.Handlers, Handler{Name: "d-only", On: []string{"node.state"}, Scope: "cluster", Nodes: []string{"d"}}, Handler{Name: "all", On: []string{"node.state"}})
	now := copyOf(t, settled())
	remove(&now, 2, 8, at(8))
	now.Nodes[0].Name = "z" // was a
	now.Nodes = append(now.Nodes, newcomer(new(4)))
	now.Nodes[2].Name = "d" // another node under a name of before
	now.Nodes[2].Joined.Generation, now.Cluster.LastNumber = 8, 5
	now.Links, now.Resources, now.Handlers, now.Witness.Drained = nil, nil, nil, nil

	got := Rollback(now, past)
	if diff := cmp.Diff([]string{"net1", "net2"}, []string{got.Networks[0].Name, got.Networks[1].Name}); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
	wantLinks := []Link{{A: "b", B: "z", Network: "net1", AtA: netip.MustParseAddrPort("10.9.0.2:1"), AtB: netip.MustParseAddrPort("10.9.0.1:1")}}
	if diff := sameDocument(Document{Links: wantLinks}, Document{Links: got.Links}); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	var holders, handlers []string
	for _, r := range got.Resources {
		holders = append(holders, r.Name+" "+commas(r.Holders))
	}
	for _, h := range got.Handlers {
		handlers = append(handlers, h.Name+" "+commas(h.Nodes))
	}
	if diff := cmp.Diff([]string{"service/db z,b,", "service/mail b,"}, holders); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"page z,", "all "}, handlers); diff != "" {
		t.Errorf("handlers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"z"}, got.Witness.Drained); diff != "" {
		t.Errorf("drained (-want +got):\n%s", diff)
	}
	if past.Resources[0].Holders[0] != "a" || past.Handlers[0].Nodes[0] != "a" {
		t.Error("the past is changed")
	}
	if err := got.Validate(nil); err != nil {
		t.Error(err)
	}
	if got.Key(belfry.NodeID{0xa0, 4}) != nil {
		t.Error("a node that is gone is back")
	}
}

func commas(names []string) (s string) {
	for _, n := range names {
		s += n + ","
	}
	return s
}

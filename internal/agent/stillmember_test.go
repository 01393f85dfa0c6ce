package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// waitEnded returns when the agent has ended by itself.
func (m *machine) waitEnded(t *testing.T) {
	t.Helper()
	select {
	case <-m.agent.ended.Done():
	case <-time.After(testTimeout):
		t.Fatalf("the agent of %s goes on", m.Name)
	}
}

// created makes a cluster of machines whose agents do not run, as of generation 5.
func created(t *testing.T, machines []*machine) {
	t.Helper()
	var nodes []LocalNode
	for _, m := range machines {
		if err := os.MkdirAll(m.State, 0o700); err != nil {
			t.Fatal(err)
		}
		n := LocalNode{Name: m.Name, State: m.State, Streams: netip.AddrPortFrom(m.Addresses[0].Addr(), m.StreamsPort)}
		for i, a := range m.Addresses {
			n.Networks = append(n.Networks, Network{Name: fmt.Sprintf("net%d", i+1), Heartbeat: netip.AddrPortFrom(a.Addr(), m.HeartbeatPort)})
		}
		nodes = append(nodes, n)
	}
	if _, err := CreateLocal("test", nodes, filepath.Join(t.TempDir(), "client"), ""); err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		m.edit(t, func(table *Table) { table.Generation = 5 })
	}
}

// edit changes the table of a machine whose agent does not run.
func (m *machine) edit(t *testing.T, edit func(*Table)) {
	t.Helper()
	members, err := OpenMembers(m.State)
	if err != nil {
		t.Fatal(err)
	}
	table := members.Table().clone()
	edit(table)
	if err := WriteMembers(m.State, table); err != nil {
		t.Fatal(err)
	}
}

// TestANodeThatWasRemovedWhileItWasOffIsTold starts it when the authority that
// it knows has been replaced, since it held its key.
func TestANodeThatWasRemovedWhileItWasOffIsTold(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	gone, old := m[2].agent.id.node, m[2].agent.members.Table().CA[0].Digest()
	m[2].stop(t)
	m[0].waitVerdict(t, "n3", "left", "down", "stalled")
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n3", false); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(testTimeout); ; {
		m[0].agent.doDuties(t.Context())
		if table := m[1].agent.members.Table(); len(table.CA) == 1 && table.CA[0].Digest() != old {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the authority is not replaced")
		}
	}
	m[2].start(t)
	m[2].waitEnded(t)
	agent := m[2].agent
	m[2].agent = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testTimeout)
	defer cancel()
	err := agent.Stop(ctx)
	if !errors.Is(err, belfry.ErrNotMember) || !strings.Contains(err.Error(), "n3: not a member: removed from cluster test with generation ") ||
		!strings.Contains(err.Error(), " or before, say n1 n2; belfry join TOKEN makes it one again") {
		t.Errorf("it ended with %v; want that n1 and n2 say so", err)
	}
	// It is left like one that was removed while it ran.
	again, err := New(Options{Config: m[2].settings()})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(t.Context()); !errors.Is(err, belfry.ErrNotMember) {
		t.Errorf("it starts again: %v; want ErrNotMember", err)
	}
	m[2].mustJoin(t, m[0])
	m[0].waitHolds(t, "n1", "n2", "n3")
	if m[2].agent.id.node.ID == gone.ID {
		t.Error("it has its old id again")
	}
}

// TestOneOfTwoIsToldByTheOther which is all that there is.
func TestOneOfTwoIsToldByTheOther(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	formed(t, m)
	m[1].stop(t)
	m[0].waitVerdict(t, "n2", "left", "down", "stalled")
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n2", true); err != nil {
		t.Fatal(err)
	}
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n2", false); err != nil {
		t.Fatal(err)
	}
	m[1].start(t)
	m[1].waitEnded(t)
}

// TestWhoIsToldByTooFewLeavesByForce where one of two others is away.
func TestWhoIsToldByTooFewLeavesByForce(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	m[2].stop(t)
	m[0].waitVerdict(t, "n3", "left", "down", "stalled")
	if _, err := m[0].dial(t).RemoveNode(t.Context(), "n3", false); err != nil {
		t.Fatal(err)
	}
	m[1].stop(t)
	m[2].start(t)
	a := m[2].agent
	if news := a.askMembership(t.Context(), a.members.Table()); news.majority || a.ended.Err() != nil {
		t.Fatalf("%v of 2 are believed", news.by)
	}
	if _, err := m[2].dial(t).RemoveNodeByForce(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	m[2].waitEnded(t)
	m[2].stop(t)
	m[2].mustJoin(t, m[0])
	m[2].waitVerdict(t, "n1", "up")
}

// TestAMajorityIsBelieved and nobody else: of five nodes some say that n3 was
// removed, or others do in their place.
func TestAMajorityIsBelieved(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		run        string       // those that run
		generation uint64       // with which they say so; n3 has 5
		held       func(*Table) // what n3 holds of them; nil: what is so
		say        string       // who say so, as n3 understands it
		believed   bool
	}{
		{name: "all", run: "n1 n2 n4 n5", generation: 8, say: "n1 n2 n4 n5", believed: true},
		{name: "three", run: "n1 n4 n5", generation: 6, say: "n1 n4 n5", believed: true},
		{name: "half", run: "n1 n5", generation: 8, say: "n1 n5"},
		{name: "its own generation", run: "n1 n2 n4 n5", generation: 5},
		{name: "an older one", run: "n1 n2 n4 n5", generation: 4},
		{name: "two with other keys", run: "n1 n2 n4 n5", generation: 8, held: func(t *Table) { t.Nodes[0].Key, t.Nodes[1].Key = t.Nodes[1].Key, t.Nodes[0].Key }, say: "n4 n5"},
		{name: "two in each other's place", run: "n1 n2 n4 n5", generation: 8, held: func(t *Table) {
			a, b := &t.Nodes[0], &t.Nodes[1]
			a.Streams, b.Streams = b.Streams, a.Streams
			a.Networks, b.Networks = b.Networks, a.Networks
		}, say: "n4 n5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := machines(t, 5)
			created(t, m)
			self := m[2]
			if tt.held != nil {
				self.edit(t, tt.held)
			}
			self.start(t)
			asked := self.agent.members.Table()
			for _, k := range m {
				if strings.Contains(tt.run, k.Name) {
					k.edit(t, func(table *Table) {
						table.remove(self.agent.id.node.ID)
						table.Generation = tt.generation
						// Else the leader replaces the authority, or gives its key to another one,
						// in a generation of its own.
						table.Exposed = false
						for i := range table.Nodes {
							table.Nodes[i].Sealing = nil
						}
					})
					k.start(t)
				}
			}
			var news membershipNews
			var by string
			for end := time.Now().Add(testTimeout); ; { // a member that is busy answers the next time
				news = self.agent.askMembership(t.Context(), asked)
				by = strings.Join(slices.Sorted(slices.Values(news.by)), " ")
				if news.majority || !tt.believed && by == tt.say || time.Now().After(end) {
					break
				}
			}
			if !tt.believed && by != tt.say || news.majority != tt.believed || tt.believed && news.generation < tt.generation { // the leader may have made one more
				t.Errorf("told by %q with generation %d, believed %t; want %q, %d, %t", by, news.generation, news.majority, tt.say, tt.generation, tt.believed)
			}
			if !tt.believed {
				return
			}
			self.waitEnded(t)
			if _, listed := self.agent.members.Table().Node(self.agent.id.node.ID); listed {
				t.Error("its own table lists it still")
			}
		})
	}
}

// TestANewerTableThanTheAskedOneStays although members said that this node was
// removed: what they said was judged by the older one.
func TestANewerTableThanTheAskedOneStays(t *testing.T) {
	t.Parallel()
	m := machines(t, 2)
	created(t, m)
	m[1].start(t)
	a := m[1].agent
	asked := a.members.Table()
	if _, err := a.members.Change(a.id.node.ID, false, stopFirst); err != nil {
		t.Fatal(err)
	}
	if err := a.takeRemoval(asked, membershipNews{by: []string{"n1"}, generation: 9, majority: true}); err != nil {
		t.Fatal(err)
	}
	if got := a.members.Table(); got.Generation != 6 || a.ended.Err() != nil {
		t.Errorf("generation %d is held, the agent has ended: %v; want 6, and that it runs", got.Generation, a.ended.Err())
	}
}

// TestMembersThatAreNotHeardAreAskedInSpiteOfTheirStreams: they may heed the
// datagrams of another agent with this identity.
func TestMembersThatAreNotHeardAreAskedInSpiteOfTheirStreams(t *testing.T) {
	t.Parallel()
	m := machines(t, 3)
	formed(t, m)
	self := m[1].agent
	table := self.members.Table()
	names := func(nodes []Node) (all []string) {
		for _, n := range nodes {
			all = append(all, n.Name)
		}
		return all
	}
	if silent, deaf := self.doubtful(table); len(silent)+len(deaf) != 0 {
		t.Fatalf("without streams %v, not heard %v; want nobody", names(silent), names(deaf))
	}
	for _, n := range self.id.node.Networks {
		self.cluster.receive(cluster.Interface{Network: n.Name, State: cluster.InterfaceAbsent})
	}
	for end := time.Now().Add(testTimeout); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // the links tell nobody here
		silent, deaf := self.doubtful(table)
		if len(silent) == 0 && slices.Equal(names(deaf), []string{"n1", "n3"}) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("without streams %v, not heard %v; want nobody, and n1 and n3", names(silent), names(deaf))
		}
	}
	if news := self.askMembership(t.Context(), table); news.majority || news.refused || len(news.by)+len(news.other.by) != 0 {
		t.Errorf("told %+v; want nothing", news)
	}
}

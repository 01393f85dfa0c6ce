package event

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

func postX(m *Machine, e EntryID, times uint64) {
	m.Receive(scriptStart, Post{Entry: e, Occurrence: belfry.Occurrence{Event: belfry.EventID{Instance: "1:1"}}, Repeat: times})
}

func bUp(m *Machine) {
	m.Receive(scriptStart, PeerUp{Node: scriptNode("b"), Name: "b", Incarnation: 1})
}

func bReady(m *Machine) { m.Receive(scriptStart, PeerReady{Node: scriptNode("b")}) }

// TestWhatWasTakenBackIsNotSentAgain: a batch was on its way when the stream
// broke, and the peer asks for the same event under a new number.
func TestWhatWasTakenBackIsNotSentAgain(t *testing.T) {
	t.Parallel()
	m := alone(t)
	fromB(m, Interests{Version: 1, Full: true, Add: []Interest{{Number: 1, Class: "file.modify", Subject: "/x"}}})
	m.Receive(scriptStart, Associate{Entry: 1, Instance: "1:1"})
	postX(m, 1, 1)
	m.Take()
	m.Receive(scriptStart, PeerLost{Node: scriptNode("b")})
	bUp(m)
	fromB(m, Interests{Version: 2, Full: true, Add: []Interest{{Number: 2, Class: "file.modify", Subject: "/x"}}})
	m.Take()
	bReady(m)
	if diff := cmp.Diff([]string{"batch 1"}, frames(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWhatWasOnItsWayIsNotForANewWant is the same at the other end: nothing
// counts for an interest before its acknowledgement.
func TestWhatWasOnItsWayIsNotForANewWant(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 1})
	x := belfry.Registration{Class: "file.modify", Subject: "/x", Scope: belfry.ScopeCluster, Nodes: []belfry.NodeID{scriptNode("b")}}
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: x})
	m.Take()
	fromB(m, InterestsAck{Version: 1})
	m.Receive(scriptStart, Unregister{Consumer: 1, Number: 1})
	m.Take()
	m.Receive(scriptStart, Register{Consumer: 1, Number: 2, Registration: x})
	m.Take()
	n := belfry.Notification{Node: scriptNode("b"), Incarnation: 1, Entry: 1, Event: belfry.EventID{Class: "file.modify", Subject: "/x"}, First: 1, Last: 1, Count: 1}
	fromB(m, PeerBatch{Batch: Batch{Number: 1, Notifications: []belfry.Notification{n}}})
	if got := m.QueueLength(1); got != 0 {
		t.Errorf("before the acknowledgement: want nothing queued, got %d", got)
	}
	fromB(m, InterestsAck{Version: 3})
	n.First, n.Last = 3, 3 // number 2 was taken back with the old interest
	fromB(m, PeerBatch{Batch: Batch{Number: 2, Notifications: []belfry.Notification{n}}})
	if got := m.QueueLength(1); got != 1 {
		t.Errorf("after the acknowledgement: want 1 queued, got %d", got)
	}
	if got := m.Counters().Unexplained; got != 0 {
		t.Errorf("unexplained: want 0, got %d", got)
	}
}

// TestAPeerThatWasTakenForDownGetsWhatItMissed: only the network was cut, and
// a local consumer kept the entry.
func TestAPeerThatWasTakenForDownGetsWhatItMissed(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true}})
	m.Receive(scriptStart, Associate{Entry: 1, Instance: "1:1"})
	interests := Interests{Version: 1, Full: true, Add: []Interest{{Number: 1, Class: "file.modify", Subject: "/x"}}}
	fromB(m, interests)
	postX(m, 1, 3)
	m.Take()
	m.Receive(scriptStart, PeerGone{Node: scriptNode("b")})
	postX(m, 1, 2)
	bUp(m)
	bReady(m)
	fromB(m, Positions{Incarnation: 1, Positions: []Position{{Entry: 1, Last: 3}}})
	fromB(m, interests)
	want := []string{"interests-ack v1", "batch 2\n    occurrence a file.modify:/x (1:1) seq 4-5 x2 at 0s"}
	if diff := cmp.Diff(want, frames(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

package event

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// alone is a machine whose peer is the test itself.
func alone(t *testing.T) *Machine {
	t.Helper()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, PeerUp{Node: scriptNode("b"), Name: "b", Incarnation: 1})
	m.Receive(scriptStart, PeerReady{Node: scriptNode("b")})
	return m
}

func frames(m *Machine) (list []string) {
	for _, f := range m.Take().Peers {
		list = append(list, frameText(f.Frame))
	}
	return list
}

func fromB(m *Machine, f Frame) {
	m.Receive(scriptStart, PeerReceived{Node: scriptNode("b"), Frame: f})
}

func TestADifferenceToAnotherVersionAsksForTheFullSet(t *testing.T) {
	t.Parallel()
	m := alone(t)
	fromB(m, Interests{Version: 6, Base: 5, Add: []Interest{{Number: 9, Class: "file.modify", Subject: "/x"}}})
	if diff := cmp.Diff([]string{"interests-ack v0 full"}, frames(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	fromB(m, Interests{Version: 7, Full: true, Add: []Interest{{Number: 9, Class: "file.modify", Subject: "/x"}, {Number: 10, Class: "no.such"}}})
	fromB(m, Interests{Version: 8, Base: 7, Remove: []uint32{9}, Add: []Interest{{Number: 11, Class: "file.modify", Subject: "/y"}}})
	want := []string{
		`interests-ack v7 refused 10 USAGE: unknown class "no.such" (belfry event types lists all)`,
		"interests-ack v8",
	}
	if diff := cmp.Diff(want, frames(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s := m.Status(); len(s.Entries) != 1 || s.Entries[0].Subject != "/y" || s.Interests[0].Version != 8 {
		t.Errorf("want the entry of /y and version 8, got %+v", s)
	}
}

func TestAPeerThatForgotIsSentTheFullSet(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 1})
	for i, subject := range []string{"/x", "/y"} {
		m.Receive(scriptStart, Register{Consumer: 1, Number: uint32(i), Registration: belfry.Registration{Class: "file.modify", Subject: subject, Scope: belfry.ScopeCluster}})
		m.Take()
	}
	fromB(m, InterestsAck{Version: 0, Full: true})
	want := []string{"interests v3 base 0 full +1 file.modify:/x +2 file.modify:/y"}
	if diff := cmp.Diff(want, frames(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestAPeerCanNotLie holds that a peer reports events of its own only, and
// that nothing it says breaks the machine.
func TestAPeerCanNotLie(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "file.modify", Subject: "/x", Scope: belfry.ScopeCluster}})
	m.Take()
	fromB(m, InterestsAck{Version: 1})
	honest := belfry.Notification{Node: scriptNode("b"), Incarnation: 1, Entry: 1, Event: belfry.EventID{Class: "file.modify", Subject: "/x"}, First: 1, Last: 1, Count: 1}
	for name, lie := range map[string]func(*belfry.Notification){
		"event of a third node":     func(n *belfry.Notification) { n.Node = scriptNode("c") },
		"event of this node":        func(n *belfry.Notification) { n.Node = scriptNode("a") },
		"event of another life":     func(n *belfry.Notification) { n.Incarnation = 2 },
		"gap without a gap":         func(n *belfry.Notification) { n.Kind = belfry.KindGap },
		"occurrence with a gap":     func(n *belfry.Notification) { n.Gap = &belfry.Gap{} },
		"number zero":               func(n *belfry.Notification) { n.First = 0 },
		"range that runs backwards": func(n *belfry.Notification) { n.First = 2 },
	} {
		n := honest
		lie(&n)
		fromB(m, PeerBatch{Batch: Batch{Number: m.peers[0].lastBatch + 1, Notifications: []belfry.Notification{n}}})
		o := m.Take()
		if len(o.Refused) != 1 || !errors.Is(o.Refused[0].Err, belfry.ErrUsage) || m.QueueLength(1) != 0 {
			t.Errorf("%s: want it refused, got %v and %d queued", name, o.Refused, m.QueueLength(1))
		}
	}
	fromB(m, PeerBatch{Batch: Batch{Number: m.peers[0].lastBatch + 1, Notifications: []belfry.Notification{honest}}})
	if got := m.QueueLength(1); got != 1 {
		t.Errorf("the honest one: want 1 queued, got %d", got)
	}
}

// TestAHoleThatNothingExplainsIsCounted: it must never happen, and if it does
// it must not be silent.
func TestAHoleThatNothingExplainsIsCounted(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Request: 1, Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "file.modify", Subject: "/x", Scope: belfry.ScopeCluster, Nodes: []belfry.NodeID{scriptNode("b")}}})
	m.Take()
	fromB(m, InterestsAck{Version: 1})
	var batch []belfry.Notification
	for _, first := range []uint64{1, 4, 3, 9} {
		batch = append(batch, belfry.Notification{
			Node: scriptNode("b"), NodeName: "b", Incarnation: 1, Entry: 1, Event: belfry.EventID{Class: "file.modify", Subject: "/x"},
			First: first, Last: first + 2, Count: 3, FirstTime: scriptStart, Time: scriptStart, Code: int32(first),
		})
	}
	fromB(m, PeerBatch{Batch: Batch{Number: 1, Notifications: batch}})
	m.Receive(scriptStart, Ready{Consumer: 1})
	var got []string
	for _, n := range m.Take().Batches[0].Notifications {
		got = append(got, noteText(&n))
	}
	want := []string{
		"occurrence b file.modify:/x seq 1-3 x3 code 1 at 0s",
		"occurrence b file.modify:/x seq 4-6 x3 code 4 at 0s",
		"gap b file.modify:/x seq 7-8 x2 link known=true resync=true at 0s",
		"occurrence b file.modify:/x seq 9-11 x3 code 9 at 0s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := m.Counters().Unexplained; n != 2 {
		t.Errorf("unexplained: want 2, got %d", n)
	}
}

// TestSendsAloneDoNotFillTheMachine sends more subjects than may be kept.
func TestSendsAloneDoNotFillTheMachine(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, Open{Consumer: 1, Limits: Limits{BatchNotifications: 1 << 20, BatchBytes: 1 << 30}})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "user.job", Limit: maxLimit}})
	send := func(from, n int) (refused int) {
		for i := range n {
			m.Receive(scriptStart, Send{Request: 1, Events: []Named{{Class: "user.job", Subject: itoa(from + i)}}})
		}
		for _, a := range m.Take().Answers {
			if a.Sent[0].Err != nil {
				refused++
			}
		}
		return refused
	}
	send(0, maxFound)
	if got := send(maxFound, 5); got != 5 {
		t.Errorf("while all are queued: want 5 refused, got %d", got)
	}
	m.Receive(scriptStart, Ready{Consumer: 1})
	m.Receive(scriptStart, Ack{Consumer: 1, Batch: m.Take().Batches[0].Number})
	if got := send(maxFound, 1000); got != 0 {
		t.Errorf("after all have been taken: want none refused, got %d", got)
	}
	if got := m.entries.Len(); got != maxFound {
		t.Errorf("entries: want %d, got %d", maxFound, got)
	}
}

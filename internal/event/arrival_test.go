package event

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// reported is a notification of b about one event.
func reported(class belfry.Class, subject string, kind belfry.Kind, first, last uint64) belfry.Notification {
	n := belfry.Notification{
		Kind: kind, Node: scriptNode("b"), NodeName: "b", Incarnation: 1, Entry: 1, Event: belfry.EventID{Class: class, Subject: subject},
		First: first, Last: last, FirstTime: scriptStart, Time: scriptStart,
	}
	switch kind {
	case belfry.KindOccurrence:
		n.Count = last - first + 1
	case belfry.KindGap:
		n.Gap = &belfry.Gap{Total: last - first + 1, Known: true, Reason: belfry.GapSlow}
	}
	return n
}

func arrive(m *Machine, number uint64, all ...belfry.Notification) {
	fromB(m, PeerBatch{Batch: Batch{Number: number, Notifications: all}})
}

// told is what a consumer gets now.
func told(m *Machine, c ConsumerID) (list []string) {
	for _, b := range batches(m, c) {
		for i := range b {
			list = append(list, noteText(&b[i]))
		}
	}
	return list
}

// wants lets a consumer at a want an event of b; it is in force.
func wants(m *Machine, spec belfry.Registration, placed ...Placed) {
	spec.Scope, spec.Nodes = belfry.ScopeCluster, []belfry.NodeID{scriptNode("b")}
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Request: 1, Consumer: 1, Number: 1, Registration: spec})
	m.Take()
	fromB(m, InterestsAck{Version: 1, Placed: placed})
}

// TestAGapThatBeganBeforeTheRegistrationIsCut: of a peer that goes on where a
// former life of this node stopped, a new registration hears what is new.
func TestAGapThatBeganBeforeTheRegistrationIsCut(t *testing.T) {
	t.Parallel()
	m := alone(t)
	wants(m, belfry.Registration{Class: "file.modify", Subject: "/x"}, Placed{Entry: 1, From: 0, Until: 10})
	arrive(m, 1, reported("file.modify", "/x", belfry.KindGap, 1, 4), reported("file.modify", "/x", belfry.KindGap, 5, 15))
	want := []string{"gap b file.modify:/x seq 11-15 x5 slow known=true resync=false at 0s"}
	if diff := cmp.Diff(want, told(m, 1)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestABatchThatArrivesTwiceIsTakenOnce: it is sent again when a stream breaks
// before its acknowledgement. The states in it are of then.
func TestABatchThatArrivesTwiceIsTakenOnce(t *testing.T) {
	t.Parallel()
	m := alone(t)
	wants(m, belfry.Registration{Class: "node.state", Subject: "x", Snapshot: true})
	state := reported("node.state", "x", belfry.KindState, 0, 0)
	state.Code = 1
	changed := reported("node.state", "x", belfry.KindOccurrence, 1, 1)
	changed.Code = 4
	arrive(m, 1, state, changed)
	want := []string{"state b node.state:x seq 0 code 1 at 0s", "occurrence b node.state:x seq 1 x1 code 4 at 0s"}
	if diff := cmp.Diff(want, told(m, 1)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	m.Receive(scriptStart, PeerLost{Node: scriptNode("b")})
	bUp(m)
	m.Receive(scriptStart, Ack{Consumer: 1, Batch: 1})
	m.Take()
	arrive(m, 1, state, changed)
	for _, line := range told(m, 1) {
		if line[:len("coverage")] != "coverage" {
			t.Errorf("told again: %s", line)
		}
	}
	if diff := cmp.Diff([]string{"ack 1"}, framesOf(m, func() { arrive(m, 1, state, changed) })); diff != "" {
		t.Errorf("the peer must learn that it has arrived (-want +got):\n%s", diff)
	}
}

func framesOf(m *Machine, do func()) []string {
	m.Take()
	do()
	return frames(m)
}

// TestAForgottenEventTellsWhatWasRefused: an event that users name may come again, so
// its end is told only where something has been skipped since the last word.
func TestAForgottenEventTellsWhatWasRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		filter  string
		skipped uint64 // by the peer
		want    []string
	}{
		{"code==0", 0, []string{"occurrence b user.job:x seq 1-3 x3 at 0s"}},
		{"code==1", 0, []string{"ended b user.job:x seq 3 skipped 3 at 0s"}},
		{"code==0", 2, []string{"occurrence b user.job:x seq 1-3 x3 at 0s", "ended b user.job:x seq 5 skipped 2 at 0s"}},
		{"code==0", 9, []string{"occurrence b user.job:x seq 1-3 x3 at 0s", "ended b user.job:x seq 5 skipped 2 at 0s"}},
	} {
		m := alone(t)
		wants(m, belfry.Registration{Class: "user.job", Subject: "x", Filter: test.filter})
		last := 3 + min(test.skipped, 2)
		end := reported("user.job", "x", belfry.KindEnded, last, last)
		end.Skipped = test.skipped
		arrive(m, 1, reported("user.job", "x", belfry.KindOccurrence, 1, 3), end)
		if diff := cmp.Diff(test.want, told(m, 1)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.filter, diff)
		}
	}
}

// TestAGapOfTheJournalHasWhatAPeerLeftOut: what a full queue drops of an event takes
// along what had been skipped before it.
func TestAGapOfTheJournalHasWhatAPeerLeftOut(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 9, Kind: ConsumerJournal})
	m.Receive(scriptStart, Register{Consumer: 9, Number: 1, Registration: belfry.Registration{Class: "*", Limit: 1}, LookOn: true})
	wants(m, belfry.Registration{Class: "process.exit", Subject: "exe=/p"})
	var all []belfry.Notification
	for _, at := range []uint64{1, 4, 5} {
		n := reported("process.exit", "exe=/p", belfry.KindOccurrence, at, at)
		if n.Code = int32(at); at == 4 {
			n.Skipped = 2
		}
		all = append(all, n)
	}
	arrive(m, 1, all...)
	want := []string{
		"gap b process.exit:exe=/p seq 1-4 skipped 2 x2 overflow known=true resync=false at 0s",
		"occurrence b process.exit:exe=/p seq 5 x1 code 5 at 0s",
	}
	if diff := cmp.Diff(want, told(m, 9)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestABatchThatIsSentAgainIsNotTheLast: more has happened since it was made.
func TestABatchThatIsSentAgainIsNotTheLast(t *testing.T) {
	t.Parallel()
	m := stalled(1, belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true})
	next := func() Batch {
		m.Receive(scriptStart, Ready{Consumer: 1})
		all := m.Take().Batches
		if len(all) != 1 {
			t.Fatalf("%d batches, want one", len(all))
		}
		return all[0]
	}
	happen(m, 1)
	if b := next(); !b.Drained {
		t.Error("batch 1 has all there is, and does not say so")
	}
	m.Receive(scriptStart, Lost{Consumer: 1})
	happen(m, 2)
	m.Receive(scriptStart, Resume{Consumer: 1, Batch: 0})
	if b := next(); b.Number != 1 || b.Drained {
		t.Errorf("batch %d, drained %v; want batch 1 again, and more to come", b.Number, b.Drained)
	}
	if b := next(); b.Number != 2 || !b.Drained {
		t.Errorf("batch %d, drained %v; want batch 2, the last one", b.Number, b.Drained)
	}
}

// TestTheWindowBoundsWhatIsNotAcknowledged, however often the sender is free.
func TestTheWindowBoundsWhatIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, Open{Consumer: 1, Limits: Limits{Window: 1}})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "file.modify", Subject: "/x", Wait: true}})
	m.Receive(scriptStart, Associate{Entry: 1, Instance: "1:1"})
	m.Take()
	happen(m, 1)
	if n := len(batches(m, 1)); n != 1 {
		t.Fatalf("%d batches, want one", n)
	}
	happen(m, 2)
	if n := len(batches(m, 1)); n != 0 {
		t.Errorf("%d batches beyond the window", n)
	}
	m.Receive(scriptStart, Ack{Consumer: 1, Batch: 1})
	if n := len(m.Take().Batches); n != 1 {
		t.Errorf("%d batches when the window opened, want one", n)
	}
}

// TestThePastIsOnlyWhereItWasMonitored: the journal keeps apart what happened at a peer
// while nobody there was on the event, and who reads it wants the rest or all.
func TestThePastIsOnlyWhereItWasMonitored(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 9, Kind: ConsumerJournal})
	m.Receive(scriptStart, Register{Consumer: 9, Number: 1, Registration: belfry.Registration{Class: "*"}, LookOn: true})
	wants(m, belfry.Registration{Class: "process.exit", Subject: "exe=/p"})
	nobody := reported("process.exit", "exe=/p", belfry.KindOccurrence, 1, 2)
	nobody.Unmonitored = true
	arrive(m, 1, nobody, reported("process.exit", "exe=/p", belfry.KindOccurrence, 3, 5))
	spec := belfry.Registration{Class: "process.exit", Subject: "exe=/p", Scope: belfry.ScopeCluster}
	all, err := NewJudge(m.cfg, spec)
	if err != nil {
		t.Fatal(err)
	}
	spec.OnlyWhereMonitored = true
	some, err := NewJudge(m.cfg, spec)
	if err != nil {
		t.Fatal(err)
	}
	var wanted [2][]string
	for _, b := range batches(m, 9) {
		for i := range b {
			for k, j := range []*Judge{all, some} {
				if j.Wants(&b[i]) {
					wanted[k] = append(wanted[k], noteText(&b[i]))
				}
			}
		}
	}
	first, second := "occurrence b process.exit:exe=/p seq 1-2 x2 at 0s", "occurrence b process.exit:exe=/p seq 3-5 x3 at 0s"
	if diff := cmp.Diff([2][]string{{first, second}, {second}}, wanted); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if own := (&belfry.Notification{Node: m.cfg.Node, Unmonitored: true}); !some.Wants(own) {
		t.Error("who is registered at a node monitors what happens there")
	}
}

package event

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

func TestAllInterestsFitIntoOneFrame(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 1})
	spec := belfry.Registration{Class: "file.modify", Scope: belfry.ScopeCluster}
	asked := 0
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		spec.Subject = "/" + strings.Repeat("x", 4000) + itoa(i)
		m.Receive(scriptStart, Register{Request: 1, Consumer: 1, Number: uint32(i), Registration: spec})
		m.Advance(scriptStart.Add(coverWait))
		for _, a := range m.Take().Answers {
			err = a.Err
		}
		asked++
	}
	if !errors.Is(err, belfry.ErrLimit) || asked < 250 || asked > 262 {
		t.Errorf("want ErrLimit at about 1 MiB, got %v after %d", err, asked)
	}
	spec.Subject = "/" + strings.Repeat("x", 4000) + "0"
	m.Receive(scriptStart, Register{Request: 1, Consumer: 1, Number: 5000, Registration: spec})
	m.Advance(scriptStart.Add(coverWait))
	for _, a := range m.Take().Answers {
		if a.Err != nil {
			t.Errorf("what is asked for already: want no error, got %v", a.Err)
		}
	}
	m.Receive(scriptStart, Close{Consumer: 1})
	if m.wanted.bytes != 0 {
		t.Errorf("after all have left: want 0 bytes, got %d", m.wanted.bytes)
	}
}

func TestManyRefusalsComeBeforeTheVersion(t *testing.T) {
	t.Parallel()
	m := alone(t)
	f := Interests{Version: 3, Full: true}
	for i := range refusedChunk + 1 {
		f.Add = append(f.Add, Interest{Number: uint32(i), Class: "no.such"})
	}
	fromB(m, f)
	type ack struct {
		Version uint64
		Refused int
	}
	var got []ack
	for _, f := range m.Take().Peers {
		a := f.Frame.(InterestsAck)
		got = append(got, ack{a.Version, len(a.Refused)})
	}
	if diff := cmp.Diff([]ack{{0, refusedChunk}, {3, 1}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPositionsMayTakeSeveralFrames(t *testing.T) {
	t.Parallel()
	m := alone(t)
	p := m.peers[0]
	for i := range positionChunk + 1 {
		p.mirrors.Set(uint64(i+1), &mirror{feed: feed{sequence: 7}})
	}
	list := p.positions()
	if len(list) != 2 || len(list[0].Positions) != positionChunk {
		t.Fatalf("want 2 frames, got %d", len(list))
	}
	for _, f := range list {
		f.Incarnation = m.cfg.Incarnation
		fromB(m, f)
	}
	if got := len(p.places); got != positionChunk+1 {
		t.Errorf("places: want %d, got %d", positionChunk+1, got)
	}
}

// overlap gives a consumer of a what b reports as the given ranges:
// [first, last, skipped].
func overlap(t *testing.T, ranges ...[3]uint64) (got []string) {
	t.Helper()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Request: 1, Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "file.modify", Subject: "/x", Scope: belfry.ScopeCluster, Nodes: []belfry.NodeID{scriptNode("b")}}})
	m.Take()
	fromB(m, InterestsAck{Version: 1})
	for i, r := range ranges {
		fromB(m, PeerBatch{Batch: Batch{Number: uint64(i + 1), Notifications: []belfry.Notification{{
			Node: scriptNode("b"), NodeName: "b", Incarnation: 1, Entry: 1, Event: belfry.EventID{Class: "file.modify", Subject: "/x"},
			First: r[0], Last: r[1], Count: r[1] - r[0] + 1, Skipped: r[2], Code: int32(i), FirstTime: scriptStart, Time: scriptStart,
		}}}})
	}
	m.Receive(scriptStart, Ready{Consumer: 1})
	for _, n := range m.Take().Batches[0].Notifications {
		got = append(got, noteText(&n))
	}
	return got
}

func TestWhatHadArrivedIsTakenOffTheCount(t *testing.T) {
	t.Parallel()
	want := []string{
		"occurrence b file.modify:/x seq 1-3 x3 at 0s",
		"occurrence b file.modify:/x seq 4-5 x2 code 2 at 0s",
	}
	if diff := cmp.Diff(want, overlap(t, [3]uint64{1, 3}, [3]uint64{2, 3}, [3]uint64{2, 5, 1})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want = []string{
		"occurrence b file.modify:/x seq 1-3 x3 at 0s",
		"occurrence b file.modify:/x seq 6 x1 skipped 2 code 1 at 0s",
	}
	if diff := cmp.Diff(want, overlap(t, [3]uint64{1, 3}, [3]uint64{6, 6, 4})); diff != "" {
		t.Errorf("skipped: (-want +got):\n%s", diff)
	}
}

func TestAnOlderIncarnationIsRefused(t *testing.T) {
	t.Parallel()
	m := alone(t)
	up := PeerUp{Node: scriptNode("b"), Name: "b", Incarnation: 5}
	m.Receive(scriptStart, up)
	up.Incarnation = 4
	m.Receive(scriptStart, up)
	if r := m.Take().Refused; len(r) != 1 || !errors.Is(r[0].Err, belfry.ErrStale) || m.peers[0].incarnation != 5 {
		t.Errorf("want ErrStale and incarnation 5, got %v and %d", r, m.peers[0].incarnation)
	}
}

// TestAHoleThatNothingFollowsIsReported: what fell off while blocked is known
// by its numbers only, and no run may come after it.
func TestAHoleThatNothingFollowsIsReported(t *testing.T) {
	t.Parallel()
	m := scriptMachine("a", 1, scriptStart)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "process.exit", Subject: "exe=/x", Wait: true}})
	m.Receive(scriptStart, Associate{Entry: 1, Instance: "i"})
	m.entry(1).skipNumbers(lostPosts{count: 3}, scriptStart.UnixNano())
	m.Receive(scriptStart, Ready{Consumer: 1})
	o := m.Take()
	if len(o.Batches) != 1 {
		t.Fatalf("want one batch, got %v", o.Batches)
	}
	if diff := cmp.Diff("gap a process.exit:exe=/x seq 1-3 x3 slow known=true resync=true at 0s", noteText(&o.Batches[0].Notifications[0])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

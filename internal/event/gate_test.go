package event

import (
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// A gap alone does not end a state that is held: it is told when it has
// lasted, as a state, because numbers behind the gap's were given already.
func TestStateLastsOverAGap(t *testing.T) {
	t.Parallel()
	now := scriptStart
	m := scriptMachine("a", 1, now)
	m.Receive(now, Open{Consumer: 1})
	m.Receive(now, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "node.state", Subject: "x", Wait: true, Hold: 5 * time.Second}})
	m.Receive(now, Associate{Entry: 1, Instance: "n1", State: &belfry.Occurrence{Code: 1, Edge: belfry.EdgeRecovered}})
	m.Receive(now, Post{Entry: 1, Occurrence: belfry.Occurrence{Event: belfry.EventID{Instance: "n1"}, Code: 7, Edge: belfry.EdgeFailing}})
	m.entry(1).skipNumbers(lostPosts{count: 4}, now.UnixNano())

	var got []string
	take := func() {
		m.Receive(now, Ready{Consumer: 1})
		for _, b := range m.Take().Batches {
			for i := range b.Notifications {
				got = append(got, noteText(&b.Notifications[i]))
			}
			m.Receive(now, Ack{Consumer: 1, Batch: b.Number})
		}
	}
	take()
	now = m.NextTimeout()
	if want := scriptStart.Add(5 * time.Second); !now.Equal(want) {
		t.Fatalf("next timeout %s, want %s", now, want)
	}
	m.Advance(now)
	take()
	want := []string{
		"gap a node.state:x (n1) seq 2-5 skipped 1 x4 slow known=true resync=true at 0s",
		"state a node.state:x (n1) seq 1 code 7 failing at 0s",
	}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %q, want %q", got, want)
	}
	if next := m.NextTimeout(); !next.IsZero() {
		t.Errorf("something is due at %s", next)
	}
}

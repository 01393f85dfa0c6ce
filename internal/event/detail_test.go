package event

import (
	"strings"
	"testing"
)

// A peer's queue of a value overflows while the stream is cut, with crossings in
// between that were not for the peer: what the gap stands for and what it skips add up.
func TestAGapBetweenNodesExplainsWhatItSkips(t *testing.T) {
	t.Parallel()
	w := newWorld()
	for line := range strings.Lines(`quiet
		node a
		node b
		join a b
		a open 1
		a register 1 1 filesystem.usage:/ cluster nodes=b over=50
		b associate 1 8:1
		b open 1
		b register 1 1 filesystem.usage:/ over=10
		cut a b`) {
		w.do(t, strings.TrimSpace(line))
	}
	for range 200 {
		w.do(t, "b sample 1 20") // for the consumer at b only
		w.do(t, "b sample 1 60")
		w.do(t, "b sample 1 5")
	}
	w.do(t, "join a b")
	w.do(t, "a ready 1")
	a := w.machines["a"]
	if n := a.Counters().Unexplained; n != 0 {
		t.Errorf("%d occurrences unexplained", n)
	}
	stands := uint64(0) // begins with the state, which stands for none
	for _, sent := range a.consumers[1].sent {
		for _, n := range sent.Notifications {
			if n.Gap != nil {
				n.Count = n.Gap.Total
			}
			if stands += n.Count + n.Skipped; stands != n.Last {
				t.Fatalf("%d occurrences accounted for up to %s", stands, noteText(&n))
			}
		}
	}
	e, _ := w.machines["b"].entries.Get(1)
	if stands != e.sequence || e.sequence < 500 {
		t.Errorf("%d occurrences accounted for, %d happened", stands, e.sequence)
	}
}

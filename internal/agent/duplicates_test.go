package agent

import (
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// A second agent counts as running for as long as it can take to be noticed
// again, and no longer.
func TestASecondAgentThatIsGoneIsForgotten(t *testing.T) {
	t.Parallel()
	var d duplicates
	id, start := belfry.NodeID{1}, time.Unix(1000, 0)
	counts := func(after time.Duration, want bool) {
		t.Helper()
		at, got := d.seen(start.Add(after))[id]
		if got != want {
			t.Errorf("after %v it counts as running: %v, want %v", after, got, want)
		}
		if got && at.After(start.Add(after)) {
			t.Errorf("after %v it was noticed last at %v", after, at)
		}
	}
	counts(0, false)
	d.note(id, start)
	counts(duplicateLife-time.Second, true)
	counts(duplicateLife, false)

	// What asks every 11 s counts all the time, and not much longer.
	for after := time.Duration(0); after <= time.Minute; after += 11 * time.Second {
		d.note(id, start.Add(after))
		counts(after+11*time.Second, true)
	}
	counts(55*time.Second+duplicateLife, false)

	// Where members do not answer it is noticed every half minute.
	d.note(id, start.Add(80*time.Second))
	d.note(id, start.Add(110*time.Second))
	counts(140*time.Second, true)
	counts(155*time.Second, false)

	d.note(id, start.Add(160*time.Second))
	d.forget(id)
	counts(160*time.Second, false)
}

package transport

import (
	"log/slog"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// A second agent of an identity is told of when it asks again and again, and
// not once for each time.
func TestASecondAgentThatAsksAgainAndAgainIsToldOf(t *testing.T) {
	t.Parallel()
	told := 0
	s := &Streams{log: slog.New(slog.DiscardHandler), cfg: StreamsConfig{Duplicate: func(belfry.NodeID) { told++ }}}
	r := newRemote(s, belfry.NodeID{1})
	now := time.Now()
	ask := func(after time.Duration) int {
		now = now.Add(after)
		r.another(now)
		return told
	}
	for i, want := range []int{0, 0, 1, 1, 1} {
		if got := ask(100 * time.Millisecond); got != want {
			t.Errorf("asked %d times: told %d times, want %d", i+1, got, want)
		}
	}
	if got := ask(anotherEvery); got != 2 {
		t.Errorf("later: told %d times, want 2", got)
	}
	for range 3 { // the late words of processes that are gone
		if got := ask(anotherFor + time.Second); got != 2 {
			t.Errorf("now and then: told %d times, want 2", got)
		}
	}
}

package cluster

import (
	"testing"
	"time"
)

// The reason is part of the version of the link database: it must not move
// with each window, nor turn from loss to delay by one slow window.
func TestReasonOfDegradedStaysWhileItLasts(t *testing.T) {
	var q quality
	since := time.Duration(0)
	window := func(trip time.Duration) {
		for range windowSize {
			since += 2 * time.Second
			q.trip(trip, 0)
			q.received(since, 0)
		}
	}
	for range 2 * usualLeast {
		window(time.Millisecond)
	}
	for range badWindows {
		window(200 * time.Millisecond)
	}
	if want := "round trip 200ms, usually 1ms"; !q.degraded || q.why != want {
		t.Fatalf("degraded %v, reason %q, want %q", q.degraded, q.why, want)
	}
	first := q.why
	window(300 * time.Millisecond)
	if q.why != first {
		t.Errorf("a later slow window made the reason %q, want %q", q.why, first)
	}
	q.degrade("loss")
	window(300 * time.Millisecond)
	if q.why != "loss" {
		t.Errorf("one slow window made the reason %q, want loss", q.why)
	}
}

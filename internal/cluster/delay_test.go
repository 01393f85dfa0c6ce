package cluster

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestClockSurvivesItsWrap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		sent := time.Duration(rapid.Int64Range(0, int64(time.Hour/clockUnit)).Draw(t, "sent")) * clockUnit
		passed := time.Duration(rapid.Int64Range(0, int64(holdMax/clockUnit)).Draw(t, "passed")) * clockUnit
		got := clockSince(clockAt(start, start.Add(sent+passed)), clockAt(start, start.Add(sent)))
		if got != passed {
			t.Fatalf("clockSince = %v, want %v", got, passed)
		}
	})
}

func TestAClockAheadCountsAsNoTime(t *testing.T) {
	t.Parallel()
	if got := clockSince(5, 7); got != 0 {
		t.Errorf("clockSince(5, 7) = %v, want 0", got)
	}
}

func TestSteadyArrivalsHaveNoJitter(t *testing.T) {
	t.Parallel()
	var a arrival
	sent, received := uint32(100), uint32(16_000_000) // the receiver's clock wraps on the way
	for range 200 {
		if early := a.take(received&clockMask, sent&clockMask); early != 0 {
			t.Fatalf("early = %v, want 0", early)
		}
		sent, received = sent+250_000, received+250_000
	}
	if a.jitter != 0 {
		t.Errorf("J = %v, want 0", a.jitter)
	}
}

func TestJitterAndEarliness(t *testing.T) {
	t.Parallel()
	var a arrival
	a.take(1000, 0)
	if early := a.take(1000+16*25, 0); early != 0 { // 1.6 ms later than the mean
		t.Errorf("a late datagram is early by %v, want 0", early)
	}
	if want := 100 * time.Microsecond; a.jitter != want {
		t.Errorf("J = %v, want |x-m|/16 = %v", a.jitter, want)
	}
	// The mean moved by 100 µs, so one that comes as the first did is early.
	if got, want := a.take(1000, 0), 93750*time.Nanosecond; got != want {
		t.Errorf("early = %v, want %v", got, want)
	}
}

// Whatever becomes of either clock, a way that takes what it did has no delay.
func TestAStepOfAClockIsNoDelay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var way oneWay
		x := time.Duration(0)
		for range rapid.IntRange(1, 20).Draw(t, "datagrams") {
			x += time.Duration(rapid.Int64Range(-int64(clockWrap), int64(clockWrap)).Draw(t, "step"))
			if got := way.take(wrapped(x), 0); got != 0 {
				t.Fatalf("delay %v after a step of a clock, want 0", got)
			}
		}
	})
}

// A delay is known of the direction that it is in, wherever the clocks are.
func TestADelayIsThatOfItsDirection(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var way oneWay
		apart := time.Duration(rapid.Int64Range(0, int64(clockWrap)).Draw(t, "apart"))
		way.take(wrapped(apart), 0)
		for range rapid.IntRange(1, 20).Draw(t, "datagrams") {
			here := time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "delay towards this node"))
			there := time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "delay to the peer"))
			if got := way.take(wrapped(apart+here), here+there); got != here {
				t.Fatalf("delay %v, want %v", got, here)
			}
		}
	})
}

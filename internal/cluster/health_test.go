package cluster

import (
	"testing"
	"time"
)

func TestTheScoreRisesAndHeals(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var h health
	for range 12 {
		h.worse(now)
	}
	if h.score != healthMax || h.votes(now) {
		t.Errorf("score %d votes %v, want %d and false", h.score, h.votes(now), healthMax)
	}
	h.heal(now.Add(24 * time.Second))
	if h.score != 4 || h.votes(now) {
		t.Errorf("after 24 clean seconds score %d votes %v, want 4 and false", h.score, h.votes(now))
	}
	h.heal(now.Add(25 * time.Second))
	if h.score != 3 || !h.votes(now.Add(25*time.Second)) {
		t.Errorf("after 25 clean seconds score %d, want 3 and a vote", h.score)
	}
}

func TestLongPausesFade(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var l longestPause
	l.saw(now, 6*time.Second)
	l.saw(now.Add(time.Hour), 3*time.Second)
	if got := l.fade(now.Add(time.Hour)); got != 6*time.Second {
		t.Errorf("a shorter pause made it %v, want 6s", got)
	}
	if got := l.fade(now.Add(48 * time.Hour)); got != 3*time.Second {
		t.Errorf("after two days it is %v, want 2s and a quarter of the 4s above", got)
	}
	if got := l.steps(now.Add(48 * time.Hour)); got != 5 {
		t.Errorf("steps = %d, want 5: 3s in 0.7s steps rounded up", got)
	}
	short := longestPause{d: time.Second, at: now}
	if got := short.fade(now.Add(48 * time.Hour)); got != time.Second {
		t.Errorf("a pause of 1s is %v after two days, want 1s: only what exceeds 2s fades", got)
	}
}

func TestHushDoesNotChain(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var h health
	h.hush(start)
	tests := []struct{ pause, until time.Duration }{
		{0, time.Second},
		{700 * time.Millisecond, time.Second},
		{1400 * time.Millisecond, time.Second},
		{2*time.Second - 1, time.Second},
		{2 * time.Second, 3 * time.Second},
	}
	for _, test := range tests {
		h.hush(start.Add(test.pause))
		if got := h.quiet.Sub(start); got != test.until {
			t.Errorf("a pause that ends at %v: own votes count again at %v, want %v", test.pause, got, test.until)
		}
	}
}

package cluster

import (
	"slices"
	"testing"
	"time"
)

// H1: the formulas of US9219621 claim 1, with the weights as printed there.
func TestRoundTripFollowsTheFormulas(t *testing.T) {
	t.Parallel()
	const us = time.Microsecond
	tests := []struct {
		name           string
		samples        []time.Duration
		wantMRT, wantD time.Duration
	}{
		{"before the first sample", nil, 200 * time.Millisecond, 200 * time.Millisecond},
		{"the first", []time.Duration{800 * us}, 800 * us, 400 * us},
		{"a negative one counts as zero", []time.Duration{-5 * us}, 0, 0},
		{"an equal one lets D fall to an eighth", []time.Duration{800 * us, 800 * us}, 800 * us, 50 * us},
		{"the error is taken before MRT moves", []time.Duration{800 * us, 1600 * us}, 900 * us, 750 * us},
		{"and is positive downwards", []time.Duration{800 * us, 0}, 700 * us, 750 * us},
	}
	for _, test := range tests {
		var r roundTrip
		for i, s := range test.samples {
			r.sample(second(i), s, time.Second)
		}
		if r.MRT() != test.wantMRT || r.D() != test.wantD {
			t.Errorf("%s: MRT %v D %v, want %v and %v", test.name, r.MRT(), r.D(), test.wantMRT, test.wantD)
		}
	}
}

// second is the moment of a sample that no other is near.
func second(n int) time.Time { return time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC) }

// An address was not resolved for some seconds: what was sent meanwhile comes at
// once, and only the last of it was hardly held back.
func TestOfWhatAQueueReleasesOnlyTheLastIsARoundTrip(t *testing.T) {
	t.Parallel()
	for _, known := range []bool{false, true} {
		var r, want roundTrip
		if known {
			r.sample(second(1), 2*time.Millisecond, time.Second)
			want = r
		}
		for held := 3004 * time.Millisecond; held > 0; held -= 200 * time.Millisecond {
			r.sample(second(5).Add(-held/1000), held, time.Second)
		}
		want.sample(second(5), 4*time.Millisecond, time.Second)
		if r.MRT() != want.MRT() || r.D() != want.D() || !slices.Equal(r.recent, want.recent) {
			t.Errorf("known %v: MRT %v D %v of %v, want %v and %v of %v", known, r.MRT(), r.D(), r.recent, want.MRT(), want.D(), want.recent)
		}
	}
}

func TestTheThirdOldSampleIsANewRegime(t *testing.T) {
	t.Parallel()
	const limit = 100 * time.Millisecond
	var r roundTrip
	n := 0
	sample := func(measured time.Duration) {
		n++
		r.sample(second(n), measured, limit)
	}
	sample(time.Millisecond)
	sample(time.Second)
	sample(time.Second)
	if r.MRT() != time.Millisecond {
		t.Errorf("after two old samples MRT = %v, want 1ms: they are left out", r.MRT())
	}
	sample(time.Millisecond)
	sample(time.Second)
	sample(time.Second)
	if r.MRT() != time.Millisecond {
		t.Errorf("two and two old samples with a fresh one between: MRT = %v, want 1ms", r.MRT())
	}
	sample(time.Second)
	if want := (7*time.Millisecond + time.Second) / 8; r.MRT() != want {
		t.Errorf("after the third in a row MRT = %v, want %v", r.MRT(), want)
	}
}

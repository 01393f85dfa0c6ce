package cluster

import (
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
		for _, s := range test.samples {
			r.sample(s, time.Second)
		}
		if r.MRT() != test.wantMRT || r.D() != test.wantD {
			t.Errorf("%s: MRT %v D %v, want %v and %v", test.name, r.MRT(), r.D(), test.wantMRT, test.wantD)
		}
	}
}

func TestTheThirdOldSampleIsANewRegime(t *testing.T) {
	t.Parallel()
	const limit = 100 * time.Millisecond
	var r roundTrip
	r.sample(time.Millisecond, limit)
	r.sample(time.Second, limit)
	r.sample(time.Second, limit)
	if r.MRT() != time.Millisecond {
		t.Errorf("after two old samples MRT = %v, want 1ms: they are left out", r.MRT())
	}
	r.sample(time.Millisecond, limit)
	r.sample(time.Second, limit)
	r.sample(time.Second, limit)
	if r.MRT() != time.Millisecond {
		t.Errorf("two and two old samples with a fresh one between: MRT = %v, want 1ms", r.MRT())
	}
	r.sample(time.Second, limit)
	if want := (7*time.Millisecond + time.Second) / 8; r.MRT() != want {
		t.Errorf("after the third in a row MRT = %v, want %v", r.MRT(), want)
	}
}

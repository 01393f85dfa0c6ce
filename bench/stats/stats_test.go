package stats_test

import (
	"math"
	"slices"
	"testing"

	"github.com/belfry-ha/belfry/bench/stats"
)

func TestMedianIsTheMiddleOrTheMeanOfTwo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 100}, 3.5},
	} {
		before := slices.Clone(c.values)
		if got := stats.Median(c.values); got != c.want {
			t.Errorf("median of %v: want %v, got %v", c.values, c.want, got)
		}
		if !slices.Equal(before, c.values) {
			t.Errorf("the values were changed: want %v, got %v", before, c.values)
		}
	}
	if got := stats.Median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: want NaN, got %v", got)
	}
}

func TestQuantileIsTheNearestRank(t *testing.T) {
	t.Parallel()
	var hundred []float64
	for i := 100; i >= 1; i-- {
		hundred = append(hundred, float64(i))
	}
	for q, want := range map[float64]float64{0: 1, 0.01: 1, 0.011: 2, 0.5: 50, 0.99: 99, 0.991: 100, 1: 100} {
		if got := stats.Quantile(hundred, q); got != want {
			t.Errorf("quantile %v of 1 to 100: want %v, got %v", q, want, got)
		}
	}
	if hundred[0] != 100 {
		t.Error("the values were sorted in place")
	}
	if got, want := stats.Quantile([]float64{3, 1, 2}, 0.99), 3.0; got != want {
		t.Errorf("quantile 0.99 of three: want %v, got %v", want, got)
	}
	for _, q := range []float64{-0.1, 1.1, math.NaN()} {
		if got := stats.Quantile(hundred, q); !math.IsNaN(got) {
			t.Errorf("quantile %v: want NaN, got %v", q, got)
		}
	}
	if got := stats.Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("quantile of nothing: want NaN, got %v", got)
	}
}

func TestQuantilesAgreeWithQuantile(t *testing.T) {
	t.Parallel()
	values := []float64{5, 3, 9, 1, 7, 7, 2}
	qs := []float64{0, 0.5, 0.9, 1}
	var want []float64
	for _, q := range qs {
		want = append(want, stats.Quantile(values, q))
	}
	if got := stats.Quantiles(values, qs...); !slices.Equal(want, got) {
		t.Errorf("want %v, got %v", want, got)
	}
	if got := stats.Quantiles(nil, 0.5); len(got) != 1 || !math.IsNaN(got[0]) {
		t.Errorf("quantiles of nothing: want one NaN, got %v", got)
	}
}

func TestSummaryHoldsTheExtremes(t *testing.T) {
	t.Parallel()
	want := stats.Summary{Median: 4, Least: 2, Most: 11}
	if got := stats.Summarize([]float64{4, 11, 2}); got != want {
		t.Errorf("want %v, got %v", want, got)
	}
	if got := stats.Summarize(nil); !math.IsNaN(got.Median) || !math.IsNaN(got.Least) || !math.IsNaN(got.Most) {
		t.Errorf("summary of nothing: want NaN, got %v", got)
	}
}

func TestRatiosPairWhatWasMeasuredInTurn(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	want := []float64{2, 0.5}
	if got := stats.Ratios([]float64{4, nan, 3, 5, 1}, []float64{2, 1, nan, 10}); !slices.Equal(want, got) {
		t.Errorf("want %v, got %v", want, got)
	}
	if got := stats.Ratios([]float64{1}, []float64{0}); len(got) != 0 {
		t.Errorf("a division by 0 gives no ratio; got %v", got)
	}
}

func TestValidLeavesOutVoidRepetitions(t *testing.T) {
	t.Parallel()
	values := []float64{1, math.NaN(), 3}
	if got, want := stats.Valid(values), []float64{1, 3}; !slices.Equal(want, got) {
		t.Errorf("want %v, got %v", want, got)
	}
	if !math.IsNaN(values[1]) {
		t.Error("the values were changed")
	}
}

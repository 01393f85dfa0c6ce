// Package stats reduces the repetitions of a measurement to what a table
// shows: a median, the spread around it, and the ratio of two systems that
// were measured in turn.
package stats

import (
	"math"
	"slices"
)

// Quantile is the value that the share q (0 to 1) of values does not exceed,
// by the nearest rank: always one that was measured. NaN without values, and
// for a q outside its range. values is not changed.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 || !(q >= 0 && q <= 1) {
		return math.NaN()
	}
	return quantile(slices.Sorted(slices.Values(values)), q)
}

// Quantiles is Quantile for several q over one sorting; it sorts values.
func Quantiles(values []float64, qs ...float64) []float64 {
	slices.Sort(values)
	out := make([]float64, len(qs))
	for i, q := range qs {
		out[i] = math.NaN()
		if len(values) > 0 && q >= 0 && q <= 1 {
			out[i] = quantile(values, q)
		}
	}
	return out
}

func quantile(sorted []float64, q float64) float64 {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// Median is the middle value, or the mean of the two in the middle. NaN
// without values. values is not changed.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// A Summary is the median of some repetitions and how far they lie apart.
type Summary struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

// Summarize is all NaN without values.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{math.NaN(), math.NaN(), math.NaN()}
	}
	return Summary{Median(values), slices.Min(values), slices.Max(values)}
}

// Ratios divides each value by the one that was measured beside it: what
// disturbed the machine at that moment disturbed both. Pairs of which one is
// NaN (a void repetition) or the divisor is 0 are left out, and so is what has
// no partner.
func Ratios(values, by []float64) []float64 {
	var out []float64
	for i := range min(len(values), len(by)) {
		if r := values[i] / by[i]; !math.IsNaN(r) && !math.IsInf(r, 0) {
			out = append(out, r)
		}
	}
	return out
}

// Valid is values without NaN.
func Valid(values []float64) []float64 {
	return slices.DeleteFunc(slices.Clone(values), math.IsNaN)
}

package main

import "math"

// A signTest compares two systems over pairs of the same fate, without any
// assumption about how their values are distributed.
type signTest struct {
	Less, More int     // pairs in which the first was below or above the second
	P          float64 // of a split at least as uneven if neither were better; two-sided
}

// signs leaves out pairs that are equal, and those of which one is missing; a
// value that is missing because nothing happened within the run counts as
// more than any other (missing is +Inf, void is NaN).
func signs(ours, theirs []float64) (t signTest) {
	for i := range min(len(ours), len(theirs)) {
		switch {
		case ours[i] < theirs[i]:
			t.Less++
		case ours[i] > theirs[i]:
			t.More++
		}
	}
	t.P = binomialTail(t.Less+t.More, min(t.Less, t.More))
	return t
}

// binomialTail is the chance that n fair coins show one side at most k times,
// either side.
func binomialTail(n, k int) float64 {
	sum := 0.0
	for i := range k + 1 {
		sum += math.Exp(logFactorial(n) - logFactorial(i) - logFactorial(n-i) - float64(n)*math.Ln2)
	}
	return min(1, 2*sum)
}

func logFactorial(n int) float64 {
	v, _ := math.Lgamma(float64(n) + 1)
	return v
}

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry/bench/stats"
)

// A goal is a figure to reach (cluster.md 14).
type goal struct {
	what  string
	bound float64
	unit  string
	value func(*report) float64 // NaN: not measured
}

func goals() []goal {
	killed, silent, idle := []string{"killed8", "killed32", "killed64", "killed10000"}, []string{"silent8", "silent32", "silent64", "silent1000", "silent10000"}, []string{"idle64", "idle1000", "idle10000"}
	unreach, dead := unreachable.String(), down.String()
	return []goal{
		{"killed process, first survivor, median", 0.005, "s", overScenarios(killed, detectFirst+unreach, middle)},
		{"killed process, all survivors, p99", 0.25, "s", overScenarios(killed, detectLast+unreach, worst)},
		{"silent host, *unreachable* at the first survivor, median", 0.55, "s", overScenarios(silent, detectFirst+unreach, middle)},
		{"silent host, *unreachable* at the first survivor, p99", 0.8, "s", overScenarios(silent, detectFirst+unreach, worst)},
		{"the same against *down* of memberlist tuned, 64 nodes, median", 0.5, "×", against("silent64", detectFirst+unreach, detectFirst+dead)},
		{"packets of an idle node, against memberlist tuned, 64 nodes", 0.3, "×", against("idle64", packetRate, packetRate)},
		{"bytes of an idle node, sealed, 64 nodes and more", 145, "B/s", overScenarios(idle, byteRate, stats1(stats.Median))},
		{"the same, most of all sizes against least", 1.1, "×", flat(idle, byteRate)},
		{"silent host, *down* at all survivors, median", 2.9, "s", overScenarios(silent, detectLast+dead, middle)},
		{"silent host, *down* at all survivors, p99", 3.2, "s", overScenarios(silent, detectLast+dead, worst)},
		{"false *down* under loss of up to 20 %", 0, "", overScenarios([]string{"loss5", "loss10", "loss20", "loss20-64"}, falseEpisodes+dead, sum)},
		{"false *down* of processes paused for up to 10 s", 0, "", overScenarios([]string{"pause2", "pause5", "pause10"}, pausedBad+dead, sum)},
		{"join of 64 at once, worst; without admission, see above", 2, "s", overScenarios([]string{"join64"}, joinedAll, worst)},
		{"processor time of an idle node, against memberlist (real lane)", 0.15, "×", realRatio},
	}
}

func stats1(f func([]float64) float64) func(series) float64 {
	return func(s series) float64 { return f(s) }
}

// overScenarios is the worst over those that were measured.
func overScenarios(scenarios []string, metric string, f func(series) float64) func(*report) float64 {
	return func(r *report) float64 {
		out := math.NaN()
		for _, v := range values(r, scenarios, metric, f) {
			if math.IsNaN(out) || v > out {
				out = v
			}
		}
		return out
	}
}

func values(r *report, scenarios []string, metric string, f func(series) float64) (out []float64) {
	for _, name := range scenarios {
		if c := r.cell(name, belfryName); c != nil && len(c.Values[metric]) > 0 {
			out = append(out, f(c.Values[metric]))
		}
	}
	return out
}

// flat is how much more the largest is than the smallest.
func flat(scenarios []string, metric string) func(*report) float64 {
	return func(r *report) float64 {
		v := values(r, scenarios, metric, stats1(stats.Median))
		if len(v) < 2 {
			return math.NaN()
		}
		return slices.Max(v) / slices.Min(v)
	}
}

// against is the median of the ratios of pairs.
func against(scenario, ours, theirs string) func(*report) float64 {
	return func(r *report) float64 {
		a, b := r.cell(scenario, belfryName), r.cell(scenario, "memberlist-tuned")
		if a == nil || b == nil {
			return math.NaN()
		}
		return stats.Median(stats.Ratios(a.Values[ours], b.Values[theirs]))
	}
}

func (g goal) String() string {
	return show(g.bound, g.unit)
}

func show(v float64, unit string) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case unit == "s":
		return duration(v)
	case unit == "×":
		return number(v) + "×"
	case unit != "":
		return number(v) + " " + unit
	}
	return number(v)
}

// verdict tells whether it is reached.
func (g goal) verdict(r *report) string {
	switch v := g.value(r); {
	case math.IsNaN(v):
		return "not measured"
	case v <= g.bound:
		return "met"
	}
	return "**missed**"
}

// goals is the table of them. Where several sizes were measured the worst
// counts.
func (r *report) goals() string {
	var s strings.Builder
	s.WriteString("| to reach | at most | measured | |\n|---|---|---|---|\n")
	for _, g := range goals() {
		fmt.Fprintf(&s, "| %s | %s | %s | %s |\n", g.what, g, show(g.value(r), g.unit), g.verdict(r))
	}
	return s.String()
}

package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/belfry-ha/belfry/bench/stats"
)

// realRatio is the processor time of Belfry against memberlist: the median of
// the ratios of neighbours.
func realRatio(r *report) float64 {
	var ours, theirs []float64
	for _, c := range r.Real {
		switch c.System {
		case belfryName:
			ours = c.pick(func(l laneResult) float64 { return l.CPU })
		case "memberlist":
			theirs = c.pick(func(l laneResult) float64 { return l.CPU })
		}
	}
	return stats.Median(stats.Ratios(ours, theirs))
}

// pick is one figure of each repetition.
func (c *realCell) pick(f func(laneResult) float64) []float64 {
	out := make([]float64, len(c.Repetitions))
	for i, r := range c.Repetitions {
		out[i] = f(r)
	}
	return out
}

// at is when a share of the survivors knew.
func at(level verdict, f func(reached) *float64) func(laneResult) float64 {
	return func(l laneResult) float64 {
		if v := f(l.Killed.Level[level.String()]); v != nil {
			return *v
		}
		return math.Inf(1)
	}
}

func first(r reached) *float64 { return r.First }

func last(r reached) *float64 { return r.Last }

// realTable is the figures of real processes.
func (r *report) realTable() string {
	var s strings.Builder
	s.WriteString("#### Real processes\n\n")
	s.WriteString("Medians (least–most) of the repetitions, which take turns. The machine is shared: only what stands in one table can be compared.\n\n")
	s.WriteString("| nodes | system | repetitions | load average | processor time, s per node-minute | resident, MiB | packets/s | bytes/s | at 20 % loss: packets/s | bytes/s | false down | paused held down | killed: first survivor | all survivors |\n")
	s.WriteString("|" + strings.Repeat("---|", 14) + "\n")
	for i := range r.Real {
		c := &r.Real[i]
		lossy := func(f func(laneWire) float64) string {
			return spread(c.pick(func(l laneResult) float64 {
				if l.Lossy == nil {
					return math.NaN()
				}
				return f(*l.Lossy)
			}), number)
		}
		total := func(f func(laneResult) int) string {
			n := 0
			for _, l := range c.Repetitions {
				n += f(l)
			}
			return fmt.Sprintf("%d of %d", n, len(c.Repetitions))
		}
		fmt.Fprintf(&s, "| %d | %s | %d | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n",
			c.Nodes, titleOf(c.System), len(c.Repetitions), spread(c.pick(load), number),
			spread(c.pick(func(l laneResult) float64 { return l.CPU }), number),
			spread(c.pick(func(l laneResult) float64 { return l.Resident }), number),
			spread(c.pick(func(l laneResult) float64 { return l.Idle.Packets }), number),
			spread(c.pick(func(l laneResult) float64 { return l.Idle.Bytes }), number),
			lossy(func(w laneWire) float64 { return w.Packets }), lossy(func(w laneWire) float64 { return w.Bytes }),
			fmt.Sprint(count(c.pick(func(l laneResult) float64 { return float64(l.LossMistakes[down.String()]) }))),
			total(func(l laneResult) int { return min(1, l.PauseBad[down.String()]) }),
			spread(c.pick(at(down, first)), duration), spread(c.pick(at(down, last)), duration))
	}
	for i, c := range r.Real {
		if i == 0 || c.Date != r.Real[i-1].Date {
			fmt.Fprintf(&s, "\n%d nodes measured from %s on; Belfry at %s.\n", c.Nodes, c.Date, c.Commit)
		}
	}
	return s.String()
}

// load is the average of the last minute.
func load(l laneResult) (v float64) {
	_, _ = fmt.Sscan(l.Load, &v)
	return v
}

// spread is a median with its extremes.
func spread(values []float64, text func(float64) string) string {
	valid := stats.Valid(values)
	if len(valid) == 0 {
		return "–"
	}
	v := stats.Summarize(valid)
	if len(valid) == 1 {
		return text(v.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", text(v.Median), text(v.Least), text(v.Most))
}

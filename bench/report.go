package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry/bench/stats"
)

// A report is what was measured so far: a run that measures a part keeps the
// others' figures, each with its date.
type report struct {
	Environment environment `json:"environment"` // of the newest
	Virtual     []cell      `json:"virtual"`
	Real        []realCell  `json:"real"`
}

// readReport is the report in a file; an empty one if there is no file.
func readReport(file string) (r report, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w; remove it to begin anew", file, err)
	}
	return r, nil
}

// merge replaces what was measured again.
func (r *report) merge(e environment, virtual []cell, real []realCell) {
	if len(virtual)+len(real) > 0 {
		r.Environment = e
	}
	for _, c := range virtual {
		same := func(o cell) bool { return o.Scenario == c.Scenario && o.System == c.System }
		if i := slices.IndexFunc(r.Virtual, same); i >= 0 {
			r.Virtual[i] = c
		} else {
			r.Virtual = append(r.Virtual, c)
		}
	}
	for _, c := range real {
		same := func(o realCell) bool { return o.Nodes == c.Nodes && o.System == c.System }
		if i := slices.IndexFunc(r.Real, same); i >= 0 {
			r.Real[i] = c
		} else {
			r.Real = append(r.Real, c)
		}
	}
}

// UnmarshalJSON reads null as what never happened.
func (s *series) UnmarshalJSON(text []byte) error {
	var values []*float64
	if err := json.Unmarshal(text, &values); err != nil {
		return err
	}
	*s = make(series, len(values))
	for i, v := range values {
		if (*s)[i] = math.Inf(1); v != nil {
			(*s)[i] = *v
		}
	}
	return nil
}

// text is the report as JSON, a line for each cell.
func (r *report) text() ([]byte, error) {
	var s strings.Builder
	e, err := json.Marshal(r.Environment)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&s, "{\"environment\":%s,\n\"virtual\":[", e)
	for i := range r.Virtual {
		if err := line(&s, i, r.Virtual[i]); err != nil {
			return nil, err
		}
	}
	s.WriteString("\n],\n\"real\":[")
	for i := range r.Real {
		if err := line(&s, i, r.Real[i]); err != nil {
			return nil, err
		}
	}
	s.WriteString("\n]}\n")
	return []byte(s.String()), nil
}

func line(s *strings.Builder, i int, v any) error {
	text, err := json.Marshal(v)
	if i > 0 {
		s.WriteByte(',')
	}
	s.WriteByte('\n')
	s.Write(text)
	return err
}

// cell is that of a scenario and a system; nil if it was not measured.
func (r *report) cell(scenario, system string) *cell {
	for i := range r.Virtual {
		if c := &r.Virtual[i]; c.Scenario == scenario && c.System == system {
			return c
		}
	}
	return nil
}

// The tables stand between these lines of the README.
const (
	markBegin = "<!-- cluster: begin; written by `make bench` -->"
	markEnd   = "<!-- cluster: end -->"
)

// rewrite returns the text with new tables.
func (r *report) rewrite(old string) (string, error) {
	before, rest, ok := strings.Cut(old, markBegin)
	_, after, ended := strings.Cut(rest, markEnd)
	if !ok || !ended {
		return "", fmt.Errorf("the lines %q and %q are not there in this order; put them where the tables belong", markBegin, markEnd)
	}
	return before + markBegin + "\n\n" + r.markdown() + "\n" + markEnd + after, nil
}

func (r *report) markdown() string {
	var s strings.Builder
	e := r.Environment
	fmt.Fprintf(&s, "Newest %s; %s; %d CPUs (%s), %s MiB of memory; %s; %s.\n\n", e.Date, e.Kernel, e.CPUs, e.CPU, commas(int64(e.MemoryMiB)), e.Go, e.Commit)
	s.WriteString(r.goals())
	for _, g := range groups() {
		var cells []*cell
		for _, scenario := range g.scenarios {
			for _, sys := range systems() {
				if c := r.cell(scenario, sys.Name); c != nil {
					cells = append(cells, c)
				}
			}
		}
		if len(cells) > 0 {
			fmt.Fprintf(&s, "\n#### %s\n\n%s\n\n%s\n%s", g.title, g.what, r.table(cells), origin(cells))
		}
		if g.plot != nil && len(cells) > 0 {
			fmt.Fprintf(&s, "\n![%s](%s/%s)\n", g.title, plotFolder, g.plot.file)
		}
	}
	if len(r.Real) > 0 {
		s.WriteString("\n" + r.realTable())
	}
	return s.String()
}

// origin is when the rows were measured, and Belfry's at which commit.
func origin(cells []*cell) string {
	var dates, commits []string
	for _, c := range cells {
		dates = append(dates, c.Date)
		if c.System == belfryName {
			commits = append(commits, c.Commit)
		}
	}
	slices.Sort(commits)
	text := "Measured " + slices.Min(dates)
	if last := slices.Max(dates); last != slices.Min(dates) {
		text += " to " + last
	}
	if commits = slices.Compact(commits); len(commits) > 0 {
		text += "; Belfry at " + strings.Join(commits, ", ")
	}
	return text + ".\n"
}

// A column of a table is shown when a row has something for it.
type column struct {
	head string
	text func(r *report, c *cell) string // empty: nothing
}

func columns() []column {
	own := func(head, metric string, text func(series) string) column {
		return column{head, func(_ *report, c *cell) string {
			if v, ok := c.Values[metric]; ok {
				return text(v)
			}
			return ""
		}}
	}
	return []column{
		{"scenario", func(_ *report, c *cell) string { return c.Scenario }},
		{"nodes", func(_ *report, c *cell) string { return commas(int64(c.Nodes)) }},
		{"system", func(_ *report, c *cell) string { return titleOf(c.System) }},
		own("runs", nodeHours, func(s series) string { return fmt.Sprint(len(s)) }),
		own("unreachable, first", detectFirst+unreachable.String(), seconds),
		own("unreachable, all", detectLast+unreachable.String(), seconds),
		own("down, first", detectFirst+down.String(), seconds),
		own("down, half", detectHalf+down.String(), seconds),
		own("down, all", detectLast+down.String(), seconds),
		{"Belfry sooner: unreachable, down", sooner},
		own("joined, all", joinedAll, seconds),
		own("healed, all", healedAll, seconds),
		own("pauses", pauses, func(s series) string { return number(sum(s)) }),
		own("held stalled or worse", pausedBad+stalled.String(), count),
		own("held unreachable or worse", pausedBad+unreachable.String(), count),
		own("held down", pausedBad+down.String(), count),
		{"node-hours", func(_ *report, c *cell) string { return ifFalse(c, number(sum(c.Values[nodeHours]))) }},
		{"false unreachable per node-hour", falseRate(unreachable)},
		{"false down per node-hour", falseRate(down)},
		{"a false down lasts", func(_ *report, c *cell) string {
			n := sum(c.Values[falseEpisodes+down.String()])
			if n == 0 {
				return ""
			}
			return number(sum(c.Values[falseSeconds+down.String()])/n) + " s"
		}},
		own("invariants broken", brokenRules, func(s series) string {
			if sum(s) == 0 {
				return ""
			}
			return count(s)
		}),
		{"packets/s", rate(packetRate)},
		{"bytes/s", rate(byteRate)},
	}
}

// kills tells whether a node dies in the scenario.
func (c *cell) kills() bool {
	_, seen := c.Values[detectFirst+down.String()]
	_, suspected := c.Values[detectFirst+unreachable.String()]
	return seen || suspected
}

// rate is shown where nobody dies.
func rate(metric string) func(*report, *cell) string {
	return func(_ *report, c *cell) string {
		v, ok := c.Values[metric]
		if c.kills() || !ok {
			return ""
		}
		return median(v)
	}
}

// ifFalse shows the text where a script kills nobody: false verdicts are not
// what the others are for.
func ifFalse(c *cell, text string) string {
	if c.kills() {
		return ""
	}
	if _, joins := c.Values[joinedAll]; joins {
		return ""
	}
	return text
}

func falseRate(level verdict) func(*report, *cell) string {
	return func(_ *report, c *cell) string {
		v, ok := c.Values[falseEpisodes+level.String()]
		if !ok {
			return ""
		}
		return ifFalse(c, number(sum(v)/sum(c.Values[nodeHours])))
	}
}

// sooner is the sign test over the seeds: Belfry's unreachable, and its down,
// against the other's down, each when the last survivor knows.
func sooner(r *report, c *cell) string {
	theirs, ok := c.Values[detectLast+down.String()]
	ours := r.cell(c.Scenario, belfryName)
	if !ok || c.System == belfryName || ours == nil {
		return ""
	}
	var out []string
	for _, level := range []verdict{unreachable, down} {
		t := signs(ours.Values[detectLast+level.String()], theirs)
		out = append(out, fmt.Sprintf("%d of %d (p %s)", t.Less, t.Less+t.More, chance(t.P)))
	}
	return strings.Join(out, ", ")
}

func chance(p float64) string {
	if p < 0.001 {
		return "< 0.001"
	}
	return fmt.Sprintf("%.3f", p)
}

func titleOf(name string) string {
	for _, s := range systems() {
		if s.Name == name {
			return s.Title
		}
	}
	return name
}

// table is the rows in Markdown.
func (r *report) table(cells []*cell) string {
	var shown []column
	for _, col := range columns() {
		if slices.ContainsFunc(cells, func(c *cell) bool { return col.text(r, c) != "" }) {
			shown = append(shown, col)
		}
	}
	var s strings.Builder
	for _, col := range shown {
		s.WriteString("| " + col.head + " ")
	}
	s.WriteString("|\n" + strings.Repeat("|---", len(shown)) + "|\n")
	for _, c := range cells {
		for _, col := range shown {
			s.WriteString("| " + dash(col.text(r, c)) + " ")
		}
		s.WriteString("|\n")
	}
	return s.String()
}

// seconds is the median and the 99th percentile, which is the worst of fewer
// than 100 runs; and how often it did not happen within the run.
func seconds(s series) string {
	if len(s) == 0 {
		return ""
	}
	never := 0
	for _, v := range s {
		if math.IsInf(v, 1) {
			never++
		}
	}
	text := duration(middle(s)) + " / " + duration(worst(s))
	if never > 0 {
		text += fmt.Sprintf(" (%d never)", never)
	}
	return text
}

func duration(seconds float64) string {
	switch {
	case math.IsInf(seconds, 1):
		return "never"
	case seconds < 0.1:
		return number(seconds*1000) + " ms"
	}
	return number(seconds) + " s"
}

// middle is the median in which never is later than anything.
func middle(s series) float64 { return stats.Quantile(s, 0.5) }

// worst is the 99th percentile.
func worst(s series) float64 { return stats.Quantile(s, 0.99) }

func median(s series) string { return number(stats.Median(s)) }

func count(s series) string { return number(sum(s)) }

func sum(s series) (total float64) {
	for _, v := range s {
		total += v
	}
	return total
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// number has three digits that count, and commas in what is large.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case math.IsInf(v, 0):
		return "never"
	case a == 0:
		return "0"
	case a < 1:
		return fmt.Sprintf("%.3g", v)
	case a < 10:
		return strings.TrimSuffix(fmt.Sprintf("%.2f", v), ".00")
	case a < 100:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	}
	return commas(int64(math.Round(v)))
}

func commas(v int64) string {
	digits := fmt.Sprint(v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

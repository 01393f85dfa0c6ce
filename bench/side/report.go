package side

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/belfry-ha/belfry/bench/stats"
)

// A Row is one line of a table: two systems on the same work. A repetition
// that is void has the value NaN.
type Row struct {
	Work   string // "10,000/s, p50"
	Unit   string
	Hops   string // of both, "2 : 2"
	Peer   string // who the other system is
	Theirs []float64
	Ours   []float64
	Target Target
	Note   string // what else was seen: counts, losses
}

// A Target bounds the ratio ours / theirs, or our figure itself.
type Target struct {
	Ratio   float64 // 0: none
	Own     float64 // 0: none; in the unit of the row
	AtLeast bool    // else at most
}

// minPairs is how many valid repetitions a row needs; with fewer a run of at
// least that many is void.
const minPairs = 3

func (r *Row) ratio() stats.Summary { return stats.Summarize(stats.Ratios(r.Ours, r.Theirs)) }

// void tells whether too much of the row fell behind.
func (r *Row) void() bool {
	least := min(minPairs, len(r.Ours))
	if len(r.Theirs) == 0 { // nobody to compare with
		return len(stats.Valid(r.Ours)) < least
	}
	return len(stats.Ratios(r.Ours, r.Theirs)) < least
}

// Verdict says whether the target is met.
func (r *Row) Verdict() string {
	value, bound := r.ratio().Median, r.Target.Ratio
	if r.Target.Own != 0 {
		value, bound = stats.Summarize(stats.Valid(r.Ours)).Median, r.Target.Own
	}
	switch {
	case r.void():
		return "void"
	case bound == 0:
		return ""
	case r.Target.AtLeast == (value >= bound):
		return "met"
	case !r.Target.AtLeast && value == bound:
		return "met"
	}
	return "**missed**"
}

func (t Target) String() string {
	sign := "≤"
	if t.AtLeast {
		sign = "≥"
	}
	switch {
	case t.Ratio != 0:
		return fmt.Sprintf("%s %g×", sign, t.Ratio)
	case t.Own != 0:
		return sign + " " + Number(t.Own)
	}
	return "–"
}

// MarshalJSON adds what is computed, and writes void values as null.
func (r Row) MarshalJSON() ([]byte, error) {
	nullable := func(values []float64) []*float64 {
		out := make([]*float64, len(values))
		for i := range values {
			if !math.IsNaN(values[i]) {
				out[i] = &values[i]
			}
		}
		return out
	}
	ratio := nullable([]float64{r.ratio().Median})[0]
	return json.Marshal(map[string]any{
		"work": r.Work, "unit": r.Unit, "hops": r.Hops, "peer": r.Peer, "peer_values": nullable(r.Theirs), "belfry_values": nullable(r.Ours),
		"ratio": ratio, "target": r.Target.String(), "verdict": strings.Trim(r.Verdict(), "*"), "note": r.Note,
	})
}

// A Table is what one part measured.
type Table struct {
	Name       string `json:"name"`
	Title      string `json:"title"`
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
	Rows       []Row  `json:"rows"`
}

// Markdown is the table as the README shows it.
func (t *Table) Markdown() string {
	var s strings.Builder
	fmt.Fprintf(&s, "### %s\n\nLoad average %s before, %s after.\n\n", t.Title, t.LoadBefore, t.LoadAfter)
	s.WriteString("| work | unit | peer | peer, median (spread) | Belfry, median (spread) | hops, peer : Belfry | ratio (spread) | target | |\n|---|---|---|---|---|---|---|---|---|\n")
	for i := range t.Rows {
		r := &t.Rows[i]
		fmt.Fprintf(&s, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.Work, r.Unit, dash(r.Peer), spread(r.Theirs, ""), spread(r.Ours, ""),
			dash(r.Hops), spread(stats.Ratios(r.Ours, r.Theirs), "×"), r.Target, r.Verdict())
	}
	for i := range t.Rows {
		if r := &t.Rows[i]; r.Note != "" {
			fmt.Fprintf(&s, "\n- %s: %s", r.Work, r.Note)
		}
	}
	return strings.TrimRight(s.String(), "\n") + "\n"
}

// Pick is one figure of each repetition.
func Pick[T any](all []T, f func(T) float64) []float64 {
	out := make([]float64, len(all))
	for i := range all {
		out[i] = f(all[i])
	}
	return out
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// spread is a median with its extremes and how many repetitions are void.
func spread(values []float64, unit string) string {
	valid := stats.Valid(values)
	if len(valid) == 0 {
		if len(values) > 0 {
			return "void"
		}
		return "–"
	}
	v := stats.Summarize(valid)
	text := Number(v.Median) + unit
	if len(valid) > 1 {
		text += fmt.Sprintf(" (%s–%s)", Number(v.Least), Number(v.Most))
	}
	if n := len(values) - len(valid); n > 0 {
		text += fmt.Sprintf(", %d void", n)
	}
	return text
}

// Number has three digits that count, and commas in what is large.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a == 0:
		return "0"
	case a < 1:
		return fmt.Sprintf("%.3g", v)
	case a < 10:
		return fmt.Sprintf("%.2f", v)
	case a < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return Commas(int64(math.Round(v)))
}

// Commas parts the thousands.
func Commas(v int64) string {
	if v < 0 {
		return "-" + Commas(-v)
	}
	digits := fmt.Sprint(v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// A Report is one run.
type Report struct {
	Mark        string      `json:"-"` // of its place in the README
	Environment Environment `json:"environment"`
	Repetitions int         `json:"repetitions"`
	Scale       float64     `json:"scale"`
	Took        string      `json:"took"`
	Tables      []Table     `json:"tables"`
}

// Header says where and how it was measured.
func (r *Report) Header() string {
	e := r.Environment
	return fmt.Sprintf("%s; %s; %d CPUs (%s), %s MiB of memory; %s; %s; %d repetitions of each system in turn, scale %g; %s in all.",
		e.Date, e.Kernel, e.CPUs, e.CPU, Commas(int64(e.MemoryMiB)), e.Go, e.Commit, r.Repetitions, r.Scale, r.Took)
}

// marks are the lines of the README between which the tables stand.
func (r *Report) marks() (begin, end string) {
	return "<!-- " + r.Mark + ": begin; written by `make bench` -->", "<!-- " + r.Mark + ": end -->"
}

// Rewrite returns the text with new tables.
func (r *Report) Rewrite(old string) (string, error) {
	begin, end := r.marks()
	before, rest, ok := strings.Cut(old, begin)
	_, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		return "", fmt.Errorf("the lines %q and %q are not there in this order; put them where the tables belong", begin, end)
	}
	var s strings.Builder
	s.WriteString(before + begin + "\n\n" + r.Header() + "\n\n")
	for i := range r.Tables {
		s.WriteString(r.Tables[i].Markdown() + "\n")
	}
	s.WriteString(end + after)
	return s.String(), nil
}

// Keep writes the report as JSON, and its tables into a README; an empty name
// is not written.
func (r *Report) Keep(out, readme string) error {
	if out != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if readme == "" {
		return nil
	}
	old, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	text, err := r.Rewrite(string(old))
	if err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	return os.WriteFile(readme, []byte(text), 0o644)
}

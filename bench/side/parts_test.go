package side

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
)

// TestPartsAreMeasuredInTheirOrder: those that are chosen, until one fails, and what
// they share is asked for only if one of them needs it.
func TestPartsAreMeasuredInTheirOrder(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	measure := func(err error) func(context.Context, *[]string) ([]Row, error) {
		return func(_ context.Context, log *[]string) ([]Row, error) {
			*log = append(*log, "measured")
			return []Row{{Work: "w", Unit: "µs", Ours: []float64{1}}}, err
		}
	}
	parts := []Part[*[]string]{
		{"quick", "Quick ones", false, measure(nil)},
		{"quiet", "Quiet ones", true, measure(nil)},
		{"other", "Others", false, measure(broken)},
	}
	for only, want := range map[string]struct {
		n      int
		shared bool
		err    error
	}{"": {3, true, broken}, "^qui": {2, true, nil}, "quick": {1, false, nil}, "none": {0, false, nil}} {
		chosen, shared := Chosen(parts, regexp.MustCompile(only))
		var log []string
		var out bytes.Buffer
		r := Report{Mark: "m"}
		err := Measure(t.Context(), &r, chosen, &log, &out)
		if shared != want.shared || len(log) != want.n || !errors.Is(err, want.err) {
			t.Errorf("%q: %d measured, shared %v, %v; want %d, %v, %v", only, len(log), shared, err, want.n, want.shared, want.err)
		}
		tables := want.n
		if want.err != nil {
			tables--
		} else if !strings.Contains(out.String(), r.Header()) || r.Took == "" {
			t.Errorf("%q: %q; want the header at the end", only, out.String())
		}
		if len(r.Tables) != tables || strings.Count(out.String(), "### ") != tables {
			t.Errorf("%q: %d tables, %d printed; want %d", only, len(r.Tables), strings.Count(out.String(), "### "), tables)
		}
	}
}

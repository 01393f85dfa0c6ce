package side

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"time"
)

// A Part of a program's measurements: B is what its parts share.
type Part[B any] struct {
	Name    string
	Title   string
	Shared  bool // needs the systems that the parts share
	Measure func(context.Context, B) ([]Row, error)
}

// Chosen are the parts whose name fits, and whether one of them needs what is shared.
func Chosen[B any](parts []Part[B], only *regexp.Regexp) (chosen []Part[B], shared bool) {
	for _, p := range parts {
		if only.MatchString(p.Name) {
			chosen, shared = append(chosen, p), shared || p.Shared
		}
	}
	return chosen, shared
}

// Measure fills the report with the tables of parts, one after the other, and prints
// each when it is there.
func Measure[B any](ctx context.Context, r *Report, parts []Part[B], of B, out io.Writer) error {
	begin := time.Now()
	for _, p := range parts {
		load := LoadAverage()
		rows, err := p.Measure(ctx, of)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		done := Table{Name: p.Name, Title: p.Title, LoadBefore: load, LoadAfter: LoadAverage(), Rows: rows}
		fmt.Fprintln(out, done.Markdown())
		r.Tables = append(r.Tables, done)
	}
	r.Took = time.Since(begin).Round(time.Second).String()
	fmt.Fprintln(out, r.Header())
	return nil
}

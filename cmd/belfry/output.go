package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/belfry-ha/belfry/internal/config"
)

// form is what -o chooses.
type form string

const (
	formTable       form = "table"
	formWide        form = "wide"
	formJSON        form = "json"
	formYAML        form = "yaml"
	formJSONL       form = "jsonl"
	formCloudEvents form = "cloudevents"
	formNagios      form = "nagios"
)

var forms = []string{"table", "wide", "json", "yaml", "jsonl", "cloudevents", "nagios"}

// String, Set and Type make a form a flag.
func (f *form) String() string {
	if *f == "" {
		return string(formTable)
	}
	return string(*f)
}

// Set refuses what is not a form.
func (f *form) Set(value string) error {
	if !slices.Contains(forms, value) {
		if near, ok := config.Nearest(value, forms); ok {
			return usagef("unknown form %q; did you mean %s?", value, near)
		}
		return usagef("unknown form %q; one of %s", value, strings.Join(forms, ", "))
	}
	*f = form(value)
	return nil
}

// Type is the word in help texts.
func (f *form) Type() string { return "FORM" }

// isTable tells whether a person reads it.
func (f form) isTable() bool { return f == "" || f == formTable || f == formWide }

// isJSON tells whether errors are JSON too.
func (f form) isJSON() bool { return f == formJSON || f == formJSONL || f == formCloudEvents }

// output gathers what a command writes and hands it to standard output at
// once, so that an error half-way leaves nothing half-written. Streams flush
// after each line.
type output struct {
	file    *os.File
	buffer  bytes.Buffer
	colored bool
	err     error // the first that a write met; everything after it is dropped
}

// Write gathers; it never fails.
func (o *output) Write(p []byte) (int, error) { return o.buffer.Write(p) }

// flush hands on what was gathered.
func (o *output) flush() error {
	if o.err == nil && o.buffer.Len() > 0 {
		var w io.Writer = o.file
		if _, err := w.Write(o.buffer.Bytes()); err != nil {
			o.err = writeError(err)
		}
	}
	o.buffer.Reset()
	return o.err
}

// writeError is err without the name of standard output, which says nothing.
func writeError(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return writeFailure{err}
}

// writeFailure keeps EPIPE visible for the exit status.
type writeFailure struct{ err error }

func (w writeFailure) Error() string {
	return w.err.Error() + "; send standard output where there is room"
}

func (w writeFailure) Unwrap() error { return w.err }

// A document is what one command answers: all of it in JSON and YAML, its
// rows one by one as JSON lines, and a table.
type document struct {
	value any   // the whole, for json and yaml
	rows  []any // for jsonl; nil: the whole is one row
	table func(o *output, wide bool)
}

// show writes d in the form that -o chose.
func (a *app) show(d document) error {
	switch a.form {
	case formJSON:
		return a.out.json(d.value, "  ")
	case formYAML:
		return a.out.yaml(d.value)
	case formJSONL:
		if d.rows == nil {
			return a.out.json(d.value, "")
		}
		for _, row := range d.rows {
			if err := a.out.json(row, ""); err != nil {
				return err
			}
		}
		return nil
	}
	d.table(a.out, a.form == formWide)
	return nil
}

// json writes v on one line, or indented.
func (o *output) json(v any, indent string) error {
	e := json.NewEncoder(o)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

// yaml writes the same names and values as json.
func (o *output) yaml(v any) error {
	text, err := yaml.MarshalWithOptions(v, yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return err
	}
	_, err = o.Write(text)
	return err
}

// rowsOf makes the rows of a document.
func rowsOf[T any](list []T) []any {
	rows := make([]any, len(list))
	for i := range list {
		rows[i] = list[i]
	}
	return rows
}

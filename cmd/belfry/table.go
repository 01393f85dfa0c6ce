package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A table has upper-case heads without spaces and two blanks between its
// columns; - stands for nothing.
type table struct {
	rows [][]cell
}

// A cell is a text and the colour that a terminal may give it.
type cell struct {
	text  string
	color color
}

// color is an SGR parameter of ECMA-48; it never is the only carrier of
// meaning.
type color string

const (
	plain  color = ""
	green  color = "32"
	yellow color = "33"
	red    color = "31"
)

// newTable begins with the heads, separated by blanks.
func newTable(heads string) *table {
	t := &table{}
	t.add(strings.Fields(heads)...)
	return t
}

// add appends a row of texts without colour.
func (t *table) add(texts ...string) {
	row := make([]cell, len(texts))
	for i, text := range texts {
		row[i].text = text
	}
	t.addCells(row...)
}

func (t *table) addCells(row ...cell) {
	for i := range row {
		row[i].text = printable(row[i].text)
		if row[i].text == "" {
			row[i].text = "-"
		}
	}
	t.rows = append(t.rows, row)
}

func (t *table) write(o *output) {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range t.rows {
		for i, c := range row {
			o.paint(c)
			if i < len(row)-1 { // no blanks at the end of a line
				fmt.Fprintf(o, "%*s", widths[i]-utf8.RuneCountInString(c.text)+2, "")
			}
		}
		fmt.Fprintln(o)
	}
}

// paint writes one text, in its colour where colours are wanted.
func (o *output) paint(c cell) {
	if !o.colored || c.color == plain {
		fmt.Fprint(o, c.text)
		return
	}
	fmt.Fprintf(o, "\x1b[%sm%s\x1b[0m", c.color, c.text)
}

// printable makes control characters visible: what other processes and nodes
// are called must not be able to steer this terminal.
func printable(s string) string {
	ok := utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
	if ok {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

// fieldValue is the right side of KEY=VALUE: in quotes where a blank or a
// quote would make the line ambiguous.
func fieldValue(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\n\"'\\=") || printable(s) != s {
		return strconv.Quote(s)
	}
	return s
}

// plural is "1 registration", "2 registrations".
func plural[N ~int | ~uint32 | ~uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

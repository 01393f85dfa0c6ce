// Package strictyaml reads what people write in YAML into Go values, and writes
// such values as people would. It is for texts where a typing error must not
// pass as something else: descriptions that are signed, the configuration of
// a cluster.
//
// There is one document; aliases, anchors, tags, merge keys and keys that are
// no words are refused, so that nothing is expanded. Names are those of the
// tag json. Every fault has its line and column, and all are told at once.
package strictyaml

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"

	"github.com/belfry-ha/belfry"
)

// MaxText is the greatest size of a text, in bytes.
const MaxText = 1 << 20

// Bounds of what is parsed. The parser recurses and is quadratic in the keys of
// one mapping, so they are held before it sees anything.
const (
	maxDepth    = 32
	maxKeys     = 256 // of one mapping
	maxProblems = 20  // told at once
)

// A Scalar is text that may be written as a number or a truth value too: 4,
// 0.3 and true are read as they stand there.
type Scalar string

// Options say how a text is read.
type Options struct {
	File string // its name in faults

	// Why says why a key that the value does not have can not stand there, and
	// what would be right; empty: it is just unknown. Nil: all are.
	Why func(path string) string
}

// A Source knows where the parts of a text stand.
type Source struct {
	file   string
	places map[string]place // by path: networks[1].name
}

type place struct{ line, column int }

// Has tells whether the text has a path.
func (s *Source) Has(path string) bool {
	_, ok := s.places[path]
	return ok
}

// Read reads a text into what into points at, which is zero. The kinds of
// values are those of a repository's document: structures, lists, maps by text,
// texts, whole numbers, truth values, and types with a text form. What the
// text leaves out stays zero.
//
// The errors are one a line, FILE:LINE:COLUMN: what is wrong; what would be
// right. They wrap ErrUsage, or ErrLimit for a text beyond [MaxText].
func Read(o Options, text []byte, into any) (*Source, error) {
	s := &Source{file: o.File, places: map[string]place{}}
	if len(text) > MaxText {
		return nil, fault{fmt.Sprintf("%s: %d bytes; at most %d", o.File, len(text), MaxText), belfry.ErrLimit}
	}
	tokens := lexer.Tokenize(string(text))
	if at, err := guard(tokens); err != nil {
		return nil, s.fault(at, "%v", err)
	}
	tree, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, s.syntax(err)
	}
	r := reader{Source: s, why: o.Why}
	for _, doc := range tree.Docs {
		if doc.Body != nil { // else comments only
			r.top(doc.Body, into)
		}
	}
	return s, r.err()
}

// syntax keeps place and message of the parser's error, and leaves out its
// picture of the source.
func (s *Source) syntax(err error) error {
	var at yaml.Error
	if !errors.As(err, &at) {
		return fault{fmt.Sprintf("%s: not YAML: %v", s.file, err), belfry.ErrUsage}
	}
	p := place{1, 1}
	if t := at.GetToken(); t != nil && t.Position != nil {
		p = place{t.Position.Line, t.Position.Column}
	}
	return s.fault(p, "not YAML: %s", at.GetMessage())
}

func (s *Source) fault(at place, format string, args ...any) error {
	return fault{fmt.Sprintf("%s:%d:%d: %s", s.file, at.line, at.column, fmt.Sprintf(format, args...)), belfry.ErrUsage}
}

// Locate puts line and column before each line of an error that begins with,
// or names, a path of the text or of something below one. What it wraps stays.
func (s *Source) Locate(err error) error {
	if err == nil {
		return nil
	}
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		lines = append(lines, s.located(line))
	}
	return fault{strings.Join(lines, "\n"), err}
}

// located takes the path that comes first in a line, of those the longest.
func (s *Source) located(line string) string {
	first, best := len(line), ""
	for path := range s.places {
		i := strings.Index(line, path)
		if i < 0 || i > 0 && (line[i-1] != ' ' || !strings.Contains(path, ".")) || !ends(line[i+len(path):]) {
			continue
		}
		if i < first || i == first && len(path) > len(best) {
			first, best = i, path
		}
	}
	if best == "" {
		return s.file + ": " + line
	}
	at := s.places[best]
	return fmt.Sprintf("%s:%d:%d: %s", s.file, at.line, at.column, line)
}

// ends tells whether a path ends before rest: networks is not in networkss.
func ends(rest string) bool { return rest == "" || strings.ContainsRune(":.[ ;?", rune(rest[0])) }

// A fault is an error whose text says it all, without the words of what it wraps.
type fault struct {
	text string
	is   error
}

func (f fault) Error() string { return f.text }

func (f fault) Unwrap() error { return f.is }

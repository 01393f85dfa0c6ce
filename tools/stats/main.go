// Command stats prints the tail of the sizes: the longest files and functions,
// and which share is within the guidance (90 % of files up to 500 lines, 95 %
// of functions up to 60, nothing over 800). It judges nothing; a reviewer asks
// "which two concerns are these?".
//
//	stats [-n 10] [DIR]
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	n := flag.Int("n", 10, "length of each list")
	flag.Parse()
	dir := cmp.Or(flag.Arg(0), ".")
	s, err := measure(os.DirFS(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, "stats:", err)
		os.Exit(1)
	}
	s.print(os.Stdout, *n)
}

// A size is the number of lines of something.
type size struct {
	name  string
	lines int
}

type sizes struct {
	files, functions []size
	code, tests      int // lines
}

// measure leaves out generated files and testdata.
func measure(root fs.FS) (s sizes, err error) {
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		base := filepath.Base(name)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name != "." && (base[0] == '.' || base == "testdata" || base == "node_modules") {
				return fs.SkipDir
			}
			return nil
		case filepath.Ext(name) != ".go":
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		return s.add(name, src)
	})
	longestFirst := func(a, b size) int { return cmp.Or(cmp.Compare(b.lines, a.lines), cmp.Compare(a.name, b.name)) }
	slices.SortFunc(s.files, longestFirst)
	slices.SortFunc(s.functions, longestFirst)
	return s, err
}

func (s *sizes) add(name string, src []byte) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	if ast.IsGenerated(f) {
		return nil
	}
	lines := bytes.Count(src, []byte("\n"))
	s.files = append(s.files, size{name, lines})
	if strings.HasSuffix(name, "_test.go") {
		s.tests += lines
	} else {
		s.code += lines
	}
	for _, decl := range f.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok {
			first, last := fset.Position(fn.Pos()), fset.Position(fn.End())
			s.functions = append(s.functions, size{fmt.Sprintf("%s:%d %s", name, first.Line, fn.Name.Name), last.Line - first.Line + 1})
		}
	}
	return nil
}

func (s sizes) print(w io.Writer, n int) {
	fmt.Fprintf(w, "%d lines of code, %d of tests\n", s.code, s.tests)
	for _, list := range []struct {
		what  string
		sizes []size
		limit int
	}{{"files", s.files, 500}, {"functions", s.functions, 60}} {
		within := 0
		for _, one := range list.sizes {
			if one.lines <= list.limit {
				within++
			}
		}
		fmt.Fprintf(w, "\n%d %s, %d of them up to %d lines\n", len(list.sizes), list.what, within, list.limit)
		for _, one := range list.sizes[:min(n, len(list.sizes))] {
			fmt.Fprintf(w, "%6d  %s\n", one.lines, one.name)
		}
	}
}

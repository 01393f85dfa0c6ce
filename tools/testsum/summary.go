package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// An event is a line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// A testKey names one test of one package.
type testKey struct{ pkg, test string }

func (k testKey) String() string { return strings.TrimSpace(short(k.pkg) + " " + k.test) }

// A summary collects events. It is not safe for concurrent use.
type summary struct {
	w       io.Writer
	output  map[testKey]*strings.Builder // of tests that have not ended
	result  map[testKey]string           // pass, fail or skip
	why     map[testKey]string           // of skips
	parents map[testKey]bool             // tests that have sub-tests
	broken  []string                     // packages that failed without a test that did
	build   map[string]*strings.Builder  // compiler output by import path
}

func newSummary(w io.Writer) *summary {
	return &summary{
		w:      w,
		output: map[testKey]*strings.Builder{}, result: map[testKey]string{},
		why: map[testKey]string{}, parents: map[testKey]bool{}, build: map[string]*strings.Builder{},
	}
}

// read takes the events of one run of go test.
func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprintf(s.w, "%s", line) // not an event: go itself speaks
			} else {
				s.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) take(e event) {
	key := testKey{e.Package, e.Test}
	switch e.Action {
	case "output":
		if strings.HasPrefix(e.Output, "=== ") {
			return // RUN, PAUSE, CONT, NAME: which test it is, the event says
		}
		builder(s.output, key).WriteString(e.Output)
	case "build-output":
		builder(s.build, e.ImportPath).WriteString(e.Output)
	case "run":
		for parent := e.Test; ; {
			i := strings.LastIndexByte(parent, '/')
			if i < 0 {
				break
			}
			parent = parent[:i]
			s.parents[testKey{e.Package, parent}] = true
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.packageEnded(e)
			return
		}
		s.result[key] = e.Action
		switch e.Action {
		case "fail":
			fmt.Fprintf(s.w, "%s", builder(s.output, key))
		case "skip":
			s.why[key] = reason(builder(s.output, key).String())
		}
		delete(s.output, key)
	}
}

// packageEnded prints one line a package. A package that fails prints what it
// said outside its tests: a panic, a failed build, os.Exit.
func (s *summary) packageEnded(e event) {
	out := builder(s.output, testKey{e.Package, ""}).String()
	delete(s.output, testKey{e.Package, ""})
	switch {
	case e.Action == "skip":
		return // no test files
	case e.Action == "pass":
		fmt.Fprintf(s.w, "ok    %-40s %6.1fs\n", short(e.Package), e.Elapsed)
		return
	case e.FailedBuild != "":
		fmt.Fprintf(s.w, "%s", builder(s.build, e.FailedBuild))
	}
	for _, key := range slices.SortedFunc(maps.Keys(s.output), compareKeys) {
		if key.pkg == e.Package { // tests that were running when the process ended
			fmt.Fprintf(s.w, "%s", s.output[key])
			delete(s.output, key)
			s.result[key] = "fail"
		}
	}
	for line := range strings.Lines(out) {
		if line != "FAIL\n" && !strings.HasPrefix(line, "FAIL\t") { // said below
			fmt.Fprint(s.w, line)
		}
	}
	fmt.Fprintf(s.w, "FAIL  %-40s %6.1fs\n", short(e.Package), e.Elapsed)
	if !s.failedIn(e.Package) {
		s.broken = append(s.broken, short(e.Package))
	}
}

func (s *summary) failedIn(pkg string) bool {
	for key, result := range s.result {
		if key.pkg == pkg && result == "fail" {
			return true
		}
	}
	return false
}

// counts counts leaves: a test with sub-tests counts only where it failed by
// itself, that is without a failed sub-test.
func (s *summary) counts() (passed int, failed, skipped []testKey) {
	for key, result := range s.result {
		switch {
		case result == "fail" && (!s.parents[key] || !s.failedBelow(key)):
			failed = append(failed, key)
		case s.parents[key]:
		case result == "pass":
			passed++
		case result == "skip":
			skipped = append(skipped, key)
		}
	}
	slices.SortFunc(failed, compareKeys)
	slices.SortFunc(skipped, compareKeys)
	return passed, failed, skipped
}

func (s *summary) failedBelow(parent testKey) bool {
	for key, result := range s.result {
		if result == "fail" && key.pkg == parent.pkg && strings.HasPrefix(key.test, parent.test+"/") {
			return true
		}
	}
	return false
}

// report prints lists and the last line; it returns whether all is well.
// strict turns skips into failures, except those that are allowed.
func (s *summary) report(strict bool, allowed []allowedSkip, note string) bool {
	passed, failed, skipped := s.counts()
	var refused []testKey
	if len(skipped) > 0 {
		fmt.Fprintln(s.w, "\nskipped:")
	}
	for _, key := range skipped {
		why, ok := s.why[key], true
		if strict {
			if i := slices.IndexFunc(allowed, func(a allowedSkip) bool { return a.covers(key) }); i >= 0 {
				why += " (allowed: " + allowed[i].reason + ")"
			} else {
				why, ok = why+" (not allowed here: make it run, or list it with its reason)", false
			}
		}
		fmt.Fprintf(s.w, "  %s: %s\n", key, why)
		if !ok {
			refused = append(refused, key)
		}
	}
	if len(failed)+len(s.broken) > 0 {
		fmt.Fprintln(s.w, "\nfailed:")
	}
	for _, key := range failed {
		fmt.Fprintf(s.w, "  %s\n", key)
	}
	for _, pkg := range s.broken {
		fmt.Fprintf(s.w, "  %s: did not build, or ended outside a test\n", pkg)
	}
	bad := len(failed) + len(s.broken) + len(refused)
	if bad == 0 && passed == 0 {
		fmt.Fprintln(s.w, "no test ran")
	}
	line := fmt.Sprintf("%d passed, %d failed, %d skipped", passed, bad, len(skipped)-len(refused))
	if note != "" {
		line += " (" + note + ")"
	}
	fmt.Fprintf(s.w, "\n%s\n", line)
	return bad == 0 && passed > 0
}

// An allowedSkip is a line of the list: package below its module, test,
// reason. Package and test are path.Match patterns.
type allowedSkip struct{ pkg, test, reason string }

func (a allowedSkip) covers(key testKey) bool {
	pkg, _ := path.Match(a.pkg, short(key.pkg))
	test, _ := path.Match(a.test, key.test)
	return pkg && test
}

func readAllowed(name string) ([]allowedSkip, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var list []allowedSkip
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 {
			return nil, fmt.Errorf("%s:%d: %q; want package, test and reason", name, n, line)
		}
		for _, pattern := range f[:2] {
			if _, err := path.Match(pattern, ""); err != nil {
				return nil, fmt.Errorf("%s:%d: %q: %w", name, n, pattern, err)
			}
		}
		list = append(list, allowedSkip{f[0], f[1], strings.Join(f[2:], " ")})
	}
	return list, nil
}

// place is what testing puts before a message: blanks, file, line.
var place = regexp.MustCompile(`^\s+[^\s:]+\.go:\d+: `)

// reason finds what a skipped test said, in one line.
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		if t := strings.TrimSpace(line); t == "" || strings.HasPrefix(t, "--- ") {
			continue
		}
		if _, need, ok := strings.Cut(strings.TrimSpace(line), "needs: "); ok { // the rest is a script's log
			return "needs: " + need
		}
		said = append(said, strings.TrimSpace(place.ReplaceAllString(line, "")))
	}
	return cmp.Or(strings.Join(said, " "), "no reason given")
}

// short is a package below its module: the module's own name for its root.
func short(pkg string) string {
	const project = "github.com/belfry-ha/belfry"
	if pkg == project {
		return "."
	}
	return strings.TrimPrefix(pkg, project+"/")
}

func compareKeys(a, b testKey) int {
	return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test))
}

// builder returns the text of a key, making it where there is none.
func builder[K comparable](m map[K]*strings.Builder, k K) *strings.Builder {
	if m[k] == nil {
		m[k] = &strings.Builder{}
	}
	return m[k]
}

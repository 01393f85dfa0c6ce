package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A mutant is one change of one file, and the test that must fail with it.
type mutant struct {
	name, file, test string
	old, new         string
}

// parse reads a list.
func parse(text string) (list []mutant, err error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if name, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(name, " --") {
			list = append(list, mutant{name: strings.TrimSpace(strings.TrimSuffix(name, "--"))})
			continue
		}
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("line %d: %q before the first mutant; want -- NAME --", n, line)
		}
		if err := list[len(list)-1].set(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	names := map[string]bool{}
	for _, m := range list {
		if m.file == "" || m.test == "" || m.old == "" || m.old == m.new {
			return nil, fmt.Errorf("mutant %q: want file, test, old, and a new that differs", m.name)
		}
		if names[m.name] {
			return nil, fmt.Errorf("mutant %q: the name is taken; want one of its own", m.name)
		}
		names[m.name] = true
	}
	return list, nil
}

// set takes one `key: value` line. One blank after the colon is not part of the value.
func (m *mutant) set(line string) error {
	key, value, ok := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch {
	case ok && key == "file":
		m.file = value
	case ok && key == "test":
		m.test = value
	case ok && key == "old":
		m.old = joinLines(m.old, value)
	case ok && key == "new":
		m.new = joinLines(m.new, value)
	default:
		return fmt.Errorf("%q; want one of file, test, old, new and a colon", line)
	}
	return nil
}

func joinLines(before, line string) string {
	if before == "" {
		return line
	}
	return before + "\n" + line
}

// apply returns the source with the change.
func (m mutant) apply(src []byte) ([]byte, error) {
	if n := bytes.Count(src, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("old text is in %s %d times; want exactly once", m.file, n)
	}
	return bytes.Replace(src, []byte(m.old), []byte(m.new), 1), nil
}

var (
	errSurvived = errors.New("survived: its test passes with the change; make the test see it")
	errNoTest   = errors.New("no test of that name ran")
	errCompile  = errors.New("does not compile with the change")
)

// try returns nil where the test fails with the change.
func (m mutant) try(pkg string) error {
	name, err := filepath.Abs(filepath.Join(pkg, m.file))
	if err != nil {
		return err
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	changed, err := m.apply(src)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	replacement, overlay := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(replacement, changed, 0o600); err != nil {
		return err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {name: replacement}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return err
	}
	// Vetting is left out: vet would find some mutants in the test's place.
	switch out, err := goTest(pkg, "-overlay", overlay, "-vet=off", "-run", m.test); {
	case err == nil:
		return errSurvived
	case bytes.Contains(out, []byte("[build failed]")):
		return fmt.Errorf("%w\n%s", errCompile, out)
	case bytes.Contains(out, []byte("[setup failed]")):
		return fmt.Errorf("go test: %w\n%s", err, out)
	}
	return nil
}

// passes returns nil where the test runs and passes on the code as it is.
func passes(pkg, test string) error {
	out, err := goTest(pkg, "-vet=off", "-run", test)
	switch {
	case bytes.Contains(out, []byte("[no tests to run]")), bytes.Contains(out, []byte("[no test files]")):
		return fmt.Errorf("%w: %s", errNoTest, test)
	case err != nil:
		return fmt.Errorf("its test %s fails without the change\n%s", test, out)
	}
	return nil
}

// goTest runs in the package's folder, so that the package's own module counts.
// A mutant may hang or run away; 60 s is more than any test of one package takes.
func goTest(pkg string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", slices.Concat([]string{"test", "-count=1", "-timeout=60s"}, args, []string{"."})...)
	cmd.Dir = pkg
	return cmd.CombinedOutput()
}

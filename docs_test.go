package belfry_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestArchitectureNamesEachFolder compares the folders that exist with the
// list in ARCHITECTURE.md, both ways.
func TestArchitectureNamesEachFolder(t *testing.T) {
	t.Parallel()
	text := readText(t, "ARCHITECTURE.md")
	_, section, _ := strings.Cut(text, "\n## Folders\n")
	_, block, _ := strings.Cut(section, "\n```\n")
	block, _, _ = strings.Cut(block, "\n```\n")
	named := []string{"."} // the paragraph above the list
	for line := range strings.Lines(block) {
		name, what, _ := strings.Cut(strings.TrimSpace(line), "/ ")
		if strings.TrimSpace(what) == "" {
			t.Errorf("ARCHITECTURE.md, folders: %q says nothing of the folder", line)
		}
		named = append(named, name)
	}
	tree, err := readTree(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	var exist []string
	for name, in := range tree {
		if len(in.files) > 0 || in.other {
			exist = append(exist, name)
		}
	}
	slices.Sort(named)
	slices.Sort(exist)
	if diff := cmp.Diff(exist, named); diff != "" {
		t.Errorf("folders of ARCHITECTURE.md (-exist +named):\n%s", diff)
	}
}

// TestArchitectureStaysShort: two pages of 66 lines. What does not fit belongs
// into the DESIGN.md of a package.
func TestArchitectureStaysShort(t *testing.T) {
	t.Parallel()
	const pages, lines, columns = 2, 66, 112
	text := readText(t, "ARCHITECTURE.md")
	if n := strings.Count(text, "\n"); n > pages*lines {
		t.Errorf("ARCHITECTURE.md has %d lines, want at most %d", n, pages*lines)
	}
	for line := range strings.Lines(text) {
		if len([]rune(line)) > columns {
			t.Errorf("line is longer than %d columns: %s", columns, line)
		}
	}
}

// link is [text](target) of a document, with the target in the first group.
var link = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)

// TestLinksLeadSomewhere looks at the relative links of all documents.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, name := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(readText(t, name), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
	}
}

// documents are all Markdown files of the tree, other modules included.
func documents(t *testing.T) (names []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && skipped(name):
			return fs.SkipDir
		case path.Ext(name) == ".md":
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestDecisionsHaveTheirForm: numbers without holes, five parts, one page.
func TestDecisionsHaveTheirForm(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("docs/adr/*.md")
	if err != nil || len(names) == 0 {
		t.Fatalf("docs/adr: %v, %v", names, err)
	}
	status := regexp.MustCompile(`(?m)^Status: (proposed|accepted|rejected|replaced by \d{4})(; .+)?$`)
	heading := regexp.MustCompile(`(?m)^## (.*)$`)
	for i, name := range names {
		text := readText(t, name)
		number := fmt.Sprintf("%04d", i+1)
		if !strings.HasPrefix(path.Base(name), number+"-") || !strings.HasPrefix(text, "# "+number+": ") {
			t.Errorf("%s: want number %s in the file's name and in its title", name, number)
		}
		if !status.MatchString(text) {
			t.Errorf("%s: no line `Status: proposed|accepted|rejected|replaced by NNNN`", name)
		}
		var got []string
		for _, m := range heading.FindAllStringSubmatch(text, -1) {
			got = append(got, m[1])
		}
		if diff := cmp.Diff([]string{"Context", "Decision", "Consequences", "Alternatives"}, got); diff != "" {
			t.Errorf("%s: parts (-want +got):\n%s", name, diff)
		}
		if n := strings.Count(text, "\n"); n > 80 {
			t.Errorf("%s: %d lines; a decision fits on one page of 80", name, n)
		}
	}
}

// TestChangelogHasItsForm: kinds in their order within each version.
func TestChangelogHasItsForm(t *testing.T) {
	t.Parallel()
	entry := regexp.MustCompile(`^- \[(CHANGE|FEATURE|ENHANCEMENT|BUGFIX)\] [a-z/]+: .*\.( \(#\d+\))?$`)
	version := regexp.MustCompile(`^## (Unreleased|v\d+\.\d+\.\d+, \d{4}-\d{2}-\d{2})$`)
	order := map[string]int{"CHANGE": 0, "FEATURE": 1, "ENHANCEMENT": 2, "BUGFIX": 3}
	last, versions := 0, 0
	_, body, _ := strings.Cut(readText(t, "CHANGELOG.md"), "\n## ")
	for line := range strings.Lines("## " + body) {
		line = strings.TrimSuffix(line, "\n")
		m := entry.FindStringSubmatch(line)
		switch {
		case line == "":
		case version.MatchString(line):
			last = 0
			versions++
		case m == nil:
			t.Errorf("CHANGELOG.md: %q; want `- [KIND] area: what a user notices.`", line)
		case order[m[1]] < last:
			t.Errorf("CHANGELOG.md: %q is out of order; want CHANGE, FEATURE, ENHANCEMENT, BUGFIX", line)
		default:
			last = order[m[1]]
		}
	}
	if versions == 0 {
		t.Error("CHANGELOG.md has no version")
	}
}

func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

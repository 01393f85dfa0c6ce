package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const sound = `# comment
-- dead line --
file: a.go
test: TestMax
old: if a > b {
old: 	return a
new: if false {
new: 	return a

-- removed --
file: a.go
test: TestMax
old: return b
new: return 0
`

func TestAListIsRead(t *testing.T) {
	t.Parallel()
	got, err := parse(sound)
	if err != nil {
		t.Fatal(err)
	}
	want := []mutant{
		{"dead line", "a.go", "TestMax", "if a > b {\n\treturn a", "if false {\n\treturn a"},
		{"removed", "a.go", "TestMax", "return b", "return 0"},
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("want %q, got %q", want, got)
	}
}

func TestABadListIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"file: a.go\n":                                "before the first mutant",
		"-- a --\nfile: a.go\n":                       `mutant "a": want file`,
		"-- a --\nfiel: a.go\n":                       "line 2",
		sound + "\n" + sound:                          "the name is taken",
		"-- a --\nfile: a\ntest: T\nold: x\nnew: x\n": "a new that differs",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want error with %q, got %v", text, want, err)
		}
	}
}

// TestMutantsAreJudged runs real tests of a small module.
func TestMutantsAreJudged(t *testing.T) {
	t.Parallel()
	pkg := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.org/a\n\ngo 1.26\n",
		"a.go":   "package a\n\nfunc Max(a, b int) int {\n\tif a > b {\n\t\treturn a\n\t}\n\treturn b\n}\n",
		"a_test.go": "package a\n\nimport \"testing\"\n\n" +
			"func TestMax(t *testing.T) {\n\tif Max(1, 2) != 2 {\n\t\tt.Error(\"want 2\")\n\t}\n}\n\n" +
			"func TestBroken(t *testing.T) { t.Error(\"always\") }\n",
	} {
		if err := os.WriteFile(filepath.Join(pkg, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		mutant
		want error
	}{
		{mutant{"found", "a.go", "TestMax", "return b", "return a"}, nil},
		{mutant{"survivor", "a.go", "TestMax", "a > b", "a >= b"}, errSurvived},
		{mutant{"not Go", "a.go", "TestMax", "return b", "return c"}, errCompile},
	} {
		if err := tt.try(pkg); !errors.Is(err, tt.want) {
			t.Errorf("%s: want %v, got %v", tt.name, tt.want, err)
		}
	}
	if err := (mutant{"twice", "a.go", "TestMax", "return", "panic"}).try(pkg); err == nil || !strings.Contains(err.Error(), "2 times; want exactly once") {
		t.Errorf("text that is there twice: %v", err)
	}
	if err := passes(pkg, "TestNone"); !errors.Is(err, errNoTest) {
		t.Errorf("no such test: %v", err)
	}
	if err := passes(pkg, "TestBroken"); err == nil || !strings.Contains(err.Error(), "fails without the change") {
		t.Errorf("broken test: %v", err)
	}

	list := filepath.Join(pkg, "testdata", "mutants.txt")
	if err := os.Mkdir(filepath.Dir(list), 0o700); err != nil {
		t.Fatal(err)
	}
	text := "-- found --\nfile: a.go\ntest: TestMax\nold: return b\nnew: return a\n" +
		"-- survivor --\nfile: a.go\ntest: TestMax\nold: a > b\nnew: a >= b\n"
	if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	packages, err := find(pkg)
	if err != nil || len(packages) != 1 || packages[0] != pkg {
		t.Fatalf("find: %v, %v", packages, err)
	}
	if tried, bad, err := gate(pkg, regexp.MustCompile("")); tried != 2 || bad != 1 || err != nil {
		t.Errorf("gate: %d tried, %d bad, %v; want 2, 1, nil", tried, bad, err)
	}
}

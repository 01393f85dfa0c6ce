package belfry_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMutantsNameTheCodeOfNow finds what make mutate would refuse after hours: a
// mutant whose old text is not in its file exactly once.
func TestMutantsNameTheCodeOfNow(t *testing.T) {
	t.Parallel()
	lists := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "mutants.txt" {
			return err
		}
		lists++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir := filepath.Dir(filepath.Dir(path)) // of testdata
		for _, mutant := range strings.Split("\n"+string(text), "\n-- ")[1:] {
			name, rest, _ := strings.Cut(mutant, " --\n")
			var file string
			var old []string
			for line := range strings.Lines(rest) {
				key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
				switch value = strings.TrimPrefix(value, " "); key {
				case "file":
					file = value
				case "old":
					old = append(old, value)
				}
			}
			code, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Errorf("%s: %s: %v", path, name, err)
			} else if n := strings.Count(string(code), strings.Join(old, "\n")); n != 1 || len(old) == 0 {
				t.Errorf("%s: %s: its old text is in %s %d times; want once", path, name, file, n)
			}
		}
		return nil
	})
	if err != nil || lists == 0 {
		t.Errorf("%d lists: %v", lists, err)
	}
}

package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the texts that are wanted")

// TestReports plays recorded events of go test. The texts that are wanted
// stand beside them: NAME.json, NAME.txt.
func TestReports(t *testing.T) {
	t.Parallel()
	allowed := []allowedSkip{{"internal/producer/*", "TestByConnector", "the kernel here has no connector"}}
	tests := []struct {
		name   string // of the recording
		strict bool
		ok     bool
	}{
		{name: "passed", ok: true},
		{name: "failed"},
		{name: "panicked"},
		{name: "unbuilt"},
		{name: "skipped", ok: true},
		{name: "skipped-strictly", strict: true},
		{name: "allowed", strict: true, ok: true},
		{name: "nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			events, err := os.Open(filepath.Join("testdata", tt.name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			var out strings.Builder
			s := newSummary(&out)
			if err := s.read(events); err != nil {
				t.Fatal(err)
			}
			if ok := s.report(tt.strict, allowed, ""); ok != tt.ok {
				t.Errorf("report = %t, want %t", ok, tt.ok)
			}
			name := filepath.Join("testdata", tt.name+".txt")
			if *update {
				if err := os.WriteFile(name, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("want:\n%s\ngot:\n%s", want, out.String())
			}
		})
	}
}

func TestAnAllowedSkipNeedsAReason(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "allowed")
	for text, want := range map[string]string{
		"# nothing\n\ninternal/x TestY because\n": "",
		"internal/x TestY\n":                      "want package, test and reason",
		"internal/x [ because\n":                  "syntax error in pattern",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readAllowed(name)
		if got := errorText(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%q: want error with %q, got %q", text, want, got)
		}
	}
}

func TestAnUnknownRaceSettingIsRefused(t *testing.T) {
	t.Parallel()
	if err := run(nil, nil, "maybe", "", nil); err == nil || !strings.Contains(err.Error(), "want auto, on or off") {
		t.Errorf("got %v", err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

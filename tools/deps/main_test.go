package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const list = `# group package program
base  jq     jq
base  gcc    gcc
fuse  fuse3  fusermount3
`

func TestOnlyAbsentPackagesOfTheGroupsAreNamed(t *testing.T) {
	t.Parallel()
	packages, err := read(strings.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	present := func(program string) bool { return program == "gcc" }
	for groups, want := range map[string][]string{"base": {"jq"}, "base fuse": {"jq", "fuse3"}} {
		if got, err := missing(packages, strings.Fields(groups), present); err != nil || !slices.Equal(got, want) {
			t.Errorf("groups %s: want %v, got %v, %v", groups, want, got, err)
		}
	}
	if _, err := missing(packages, []string{"bsae"}, present); err == nil {
		t.Error("a group that does not exist was accepted")
	}
}

func TestALineWithoutProgramIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := read(strings.NewReader("base jq\n")); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v", err)
	}
}

func TestAPathIsLookedForAsAFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "stdio.h")
	if present(name) {
		t.Error("found a file that is not there")
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !present(name) || !present("sh") || present("no-such-program") {
		t.Errorf("present: %t %t %t, want true true false", present(name), present("sh"), present("no-such-program"))
	}
}

// TestNoServiceIsStarted also wants that the policy goes away again, whatever
// apt-get does, and that a policy of the administrator stays.
func TestNoServiceIsStarted(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	tests := []struct {
		name    string
		there   bool    // a policy is there already
		results []error // of apt-get, in order
		calls   string
		fails   bool
	}{
		{name: "at once", results: []error{nil}, calls: "install"},
		{name: "after an update", results: []error{broken, nil, nil}, calls: "install update install"},
		{name: "no lists", results: []error{broken, broken}, calls: "install update", fails: true},
		{name: "never", results: []error{broken, nil, broken}, calls: "install update install", fails: true},
		{name: "with a policy", there: true, results: []error{nil}, calls: "install"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := installer{policy: filepath.Join(t.TempDir(), "policy-rc.d")}
			if tt.there {
				if err := os.WriteFile(i.policy, []byte("mine"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var calls []string
			i.apt = func(args ...string) error {
				text, err := os.ReadFile(i.policy)
				if err != nil {
					t.Errorf("%s without a policy: %v", args[0], err)
				}
				if !tt.there && !strings.Contains(string(text), "exit 101") {
					t.Errorf("policy is %q, want exit 101", text)
				}
				calls = append(calls, args[0])
				return tt.results[len(calls)-1]
			}
			if err := i.install([]string{"jq"}); (err != nil) != tt.fails {
				t.Errorf("install: %v, want failure %t", err, tt.fails)
			}
			if got := strings.Join(calls, " "); got != tt.calls {
				t.Errorf("apt-get %s, want %s", got, tt.calls)
			}
			text, err := os.ReadFile(i.policy)
			if there := err == nil && string(text) == "mine"; there != tt.there || !tt.there && err == nil {
				t.Errorf("afterwards the policy is %q (%v), want it there: %t", text, err, tt.there)
			}
		})
	}
}

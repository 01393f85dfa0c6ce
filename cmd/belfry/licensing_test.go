package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLicensingPage plays the page for vendors, whose commands need no agent,
// with the description that it shows, and then runs the program that it shows
// in the same directory: on the license that was signed there, and on one with
// a changed byte.
func TestLicensingPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "licensing.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("acme.yaml", blockOf(t, string(page), "yaml"))
	environ := append(os.Environ(), "NO_COLOR=1", "TZ=UTC", "BELFRY_SOCKET="+filepath.Join(dir, "none"))
	if err := parseSession(string(page)).play(dir, environ, t.Logf); err != nil {
		t.Fatal(err)
	}

	write("main.go", blockOf(t, string(page), "go"))
	write("go.mod", "module acme\n\ngo 1.26\n")
	build := exec.Command("go", "build", "-o", "acme", ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the program of the page: %v\n%s", err, out)
	}
	run := func() string {
		cmd := exec.Command("./acme")
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			return string(out) + err.Error()
		}
		return string(out)
	}
	if got, want := run(), "acme-db standard\n"; got != want {
		t.Errorf("the program says %q; want %q", got, want)
	}
	text, err := os.ReadFile(filepath.Join(dir, "acme.license"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	flipped := byte('A')
	if lines[3][0] == flipped {
		flipped = 'B'
	}
	lines[3] = string(flipped) + lines[3][1:]
	write("acme.license", strings.Join(lines, "\n"))
	if got, want := run(), "locked: not signed by us\nexit status 1"; got != want {
		t.Errorf("of a forged license the program says %q; want %q", got, want)
	}
}

// blockOf is the first block of a language on a page.
func blockOf(t *testing.T, page, language string) string {
	t.Helper()
	_, block, _ := strings.Cut(page, "\n```"+language+"\n")
	block, _, found := strings.Cut(block, "\n```\n")
	if !found {
		t.Fatalf("the page has no block of %s", language)
	}
	return block + "\n"
}

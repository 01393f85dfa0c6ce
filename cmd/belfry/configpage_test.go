package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestConfigurationPage plays docs/configuration.md with an agent that keeps
// its document in memory.
func TestConfigurationPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	environ := append(os.Environ(), "NO_COLOR=1", "TZ=UTC", "BELFRY_SOCKET="+filepath.Join(dir, "s"))
	agent, err := startConfigAgent(dir, filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := agent.stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := parseSession(string(page)).play(dir, environ, t.Logf); err != nil {
		t.Error(err)
	}
}

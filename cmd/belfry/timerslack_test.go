package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAllThreadsHaveTheSlack(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs: root")
	}
	relaxTimers()
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	for _, thread := range threads {
		b, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"))
		if os.IsNotExist(err) {
			continue // it has ended
		}
		if got := strings.TrimSpace(string(b)); err != nil || got != "1000000" {
			t.Errorf("thread %s has a slack of %q ns, %v; want 1,000,000", filepath.Base(thread), got, err)
		}
	}
}

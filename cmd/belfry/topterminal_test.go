package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdTTY runs a command in a terminal of its own, until the end of the
// script: tty COLUMNS LINES COMMAND ARGS.... The script types with
// `exec tmux -S tmux.sock send-keys` and reads with `tmux -S tmux.sock
// capture-pane -p`.
func cmdTTY(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: tty COLUMNS LINES COMMAND ARGS...")
	}
	start := []string{"tmux", "-f", "/dev/null", "-S", "tmux.sock", "new-session", "-d", "-x", args[0], "-y", args[1]}
	output, err := scriptCommand(ts, append(start, args[2:]...)).CombinedOutput()
	ts.Defer(func() {
		// The server ends by itself with the command; else the command ends with it.
		_, _ = scriptCommand(ts, []string{"tmux", "-S", "tmux.sock", "kill-server"}).CombinedOutput()
	})
	if err != nil {
		ts.Fatalf("tmux: %v\n%s", err, output)
	}
}

// screenLimit bounds the wait for a screen, as waitfor is bounded.
const screenLimit = 30 * time.Second

// cmdScreen waits until the terminal shows all of its arguments: screen TEXT...;
// with ! none of them.
func cmdScreen(ts *testscript.TestScript, neg bool, args []string) {
	var screen []byte
	err := waitUntil(screenLimit, func() (err error) {
		if screen, err = scriptCommand(ts, []string{"tmux", "-S", "tmux.sock", "capture-pane", "-p"}).CombinedOutput(); err != nil {
			return fmt.Errorf("tmux: %w", err)
		}
		for _, text := range args {
			if strings.Contains(string(screen), text) == neg {
				return fmt.Errorf("%q: found %t, want %t", text, neg, !neg)
			}
		}
		return nil
	})
	if err != nil {
		ts.Fatalf("%v\n%s", err, screen)
	}
	ts.Logf("%s", screen)
}

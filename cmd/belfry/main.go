// Command belfry is the agent and the command line of Belfry: every node of a
// cluster knows which nodes and links are alive, and every program can
// register for any event on any node.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// repeated is within what a second signal still belongs to the first.
const repeated = time.Second

func main() { os.Exit(main1()) }

// main1 is main as the scripts call it. A command that a signal ends exits
// with 128 and the signal's number, as a shell would say it.
func main1() int {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		sig := (<-signals).(syscall.Signal)
		stop(signalled(sig))
		first := time.Now()
		for range signals { // a second one does not wait for clean-ups
			if time.Since(first) > repeated { // but timeout(1) sends each twice
				os.Exit(128 + int(sig))
			}
		}
	}()
	// A reader that has seen enough must not end this process before its
	// clean-ups: a write then fails with EPIPE.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	a := &app{
		in:     os.Stdin,
		out:    &output{file: os.Stdout},
		errOut: os.Stderr,
		getenv: os.Getenv,
		stop:   stop,
	}
	return a.run(ctx, os.Args[1:])
}

// Command belfry is the agent and the command line of Belfry: every node of a
// cluster knows which nodes and links are alive, and every program can
// register for any event on any node.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

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
		<-signals // a second one does not wait for clean-ups
		os.Exit(128 + int(sig))
	}()
	a := &app{
		in:     os.Stdin,
		out:    &output{file: os.Stdout},
		errOut: os.Stderr,
		getenv: os.Getenv,
		stop:   stop,
	}
	return a.run(ctx, os.Args[1:])
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// The exit statuses of witness run beside those of its command.
const (
	exitRunUsage     = 125
	exitRunNoWitness = 126
)

// commandStop is how long the command has to end after SIGTERM.
const commandStop = 5 * time.Second

// runFlags are the flags of witness run.
type runFlags struct {
	witnessFlags
	mode     string
	resource string
	listen   string
	port     string
	hold     time.Duration
	drain    time.Duration
}

func newWitnessRun(a *app) *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run --resource RESOURCE [--listen HOST:PORT] [-- COMMAND...]",
		Short: "Let an ordinary TCP client follow a resource",
		Long: `Let an ordinary TCP client follow a resource, in one of three modes.

proxy: it connects to --listen, and is joined to where the resource is. When the
holder that it uses fails, its connection is reset at once, so that it connects
again instead of waiting for TCP; meanwhile new connections are held. After a move
new connections go to the new place, and old ones end when they are idle for a
second. Without COMMAND the proxy runs until a signal.

abort: COMMAND connects by itself. When a holder fails the connections that its
processes have there are aborted; after a move those to the old place, when --drain
is over. It needs CAP_NET_ADMIN.

restart: COMMAND is ended with SIGTERM when the holder that it was started for
fails, or clients are moved, and is started again when there is another one.

COMMAND finds the address in $BELFRY_RESOURCE_ADDRESS; its exit status is that of
this command. 125 is wrong use, 126 that no witness could be reached at the start.`,
		Example: `  belfry witness run --resource service/db --listen 127.0.0.1:5432 -- psql -h 127.0.0.1
  belfry witness run --resource address/10.0.0.50 --listen 127.0.0.1:8080 --port 80
  belfry witness run --resource service/db --mode restart -- sh -c 'exec worker "$BELFRY_RESOURCE_ADDRESS"'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.witnessRun(cmd.Context(), f, args)
			switch {
			case errors.Is(err, belfry.ErrUsage), errors.Is(err, belfry.ErrUnsupported):
				return status{exitRunUsage, "USAGE", withoutSentinel(err)}
			case errors.Is(err, belfry.ErrNoAgent):
				return status{exitRunNoWitness, "NO_AGENT", withoutSentinel(err)}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.resource, "resource", "", "what to follow, for example service/db")
	flags.StringVar(&f.mode, "mode", modeProxy, "proxy, abort or restart")
	flags.StringVar(&f.listen, "listen", "", "of the proxy, where the client connects to: HOST:PORT; port 0 is any")
	flags.StringVar(&f.port, "port", "", "of the resource, where its address has none (default that of --listen)")
	flags.DurationVar(&f.hold, "hold", 10*time.Second, "how long a new connection waits for the resource")
	flags.DurationVar(&f.drain, "drain", 30*time.Second, "how long an old connection may stay after a move")
	flags.StringVar(&f.name, "name", "belfry witness run", "what listings call the program")
	flags.BoolVar(&f.eager, "eager", false, "an unreachable holder counts as unavailable")
	flags.StringSliceVar(&f.seeds, "seed", nil, "more agents to ask: paths of sockets, or HOST:PORT with $BELFRY_IDENTITY")
	flags.DurationVar(&f.keepAlive, "keep-alive", 0, "how long a witness may be silent (default 5s)")
	redundancyFlag(cmd, &f.witnessFlags)
	return cmd
}

// The modes.
const (
	modeProxy   = "proxy"
	modeAbort   = "abort"
	modeRestart = "restart"
)

// check refuses what makes no sense, and says which port the resource has where its
// address has none; empty: none.
func (f *runFlags) check(command []string) (port string, err error) {
	switch {
	case f.resource == "":
		return "", usagef("--resource is missing; for example --resource service/db")
	case f.hold <= 0 || f.drain < 0:
		return "", usagef("--hold %s --drain %s: durations; more than 0, and at least 0", f.hold, f.drain)
	case f.mode == modeAbort || f.mode == modeRestart:
		if f.listen != "" {
			return "", usagef("--listen is for --mode proxy; in mode %s the command connects by itself", f.mode)
		}
		if len(command) == 0 {
			return "", usagef("--mode %s needs a command; name one after --", f.mode)
		}
		return f.port, nil
	case f.mode != modeProxy:
		return "", usagef("--mode %s: there are proxy, abort and restart", f.mode)
	case f.listen == "":
		return "", usagef("--listen is missing; for example --listen 127.0.0.1:5432")
	}
	_, port, err = net.SplitHostPort(f.listen)
	if err != nil {
		return "", usagef("--listen %s: not HOST:PORT; for example 127.0.0.1:5432", f.listen)
	}
	return cmp.Or(f.port, port), nil
}

func (a *app) witnessRun(ctx context.Context, f *runFlags, command []string) (err error) {
	if f.port, err = f.check(command); err != nil {
		return err
	}
	f.allowMissing = true // its holder may be down now
	cfg, err := a.witnessConfig(&f.witnessFlags, []string{f.resource})
	if err != nil {
		return err
	}
	var listener net.Listener
	switch f.mode {
	case modeProxy:
		if listener, err = net.Listen("tcp", f.listen); err != nil {
			return failf(belfry.ErrExist, "--listen %s: %v; choose another port, or stop who has it", f.listen, err)
		}
		defer listener.Close()
	case modeAbort:
		if err := checkAbort(); err != nil {
			return err
		}
	}
	opening, opened := context.WithTimeout(ctx, defaultTimeout)
	w, err := client.OpenWitness(opening, cfg)
	opened()
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = failf(belfry.ErrNoAgent, "no witness answers at %s", strings.Join(cfg.Seeds, ", "))
		}
		return err
	}
	defer w.Close()
	if listener != nil {
		return a.follow(ctx, f, w, listener, command)
	}
	return a.followCommand(ctx, f, w, command)
}

// A follower is told where a resource is. Both return at once.
type follower interface {
	// use: target is where to connect now, empty: nowhere; what is not usable has
	// failed.
	use(target string, usable []string)
	// move: target is where to connect now; what is elsewhere ends in its time, until
	// done is closed.
	move(target string, done <-chan struct{})
}

// follow runs the proxy and the command until one of them ends.
func (a *app) follow(ctx context.Context, f *runFlags, w *client.Witness, listener net.Listener, command []string) error {
	ctx, cancel := context.WithCancel(ctx)
	p := newProxy(listener, f.hold, f.drain, func(err error) { a.sayf("%v", err) })
	ended := make(chan error, 2)
	go func() { ended <- p.run(ctx) }()
	go func() { ended <- a.steer(ctx, f, w, p) }()
	var err error
	if len(command) > 0 {
		err = a.runCommand(ctx, listener.Addr().String(), command)
	} else {
		fmt.Fprintf(a.out, "%s at %s\n", printable(f.resource), listener.Addr())
		if err = a.out.flush(); err == nil {
			<-ctx.Done()
			err = ctx.Err()
		}
	}
	cancel()
	return errors.Join(err, <-ended, <-ended)
}

// followCommand runs a command that connects by itself.
func (a *app) followCommand(ctx context.Context, f *runFlags, w *client.Witness, command []string) error {
	ctx, cancel := context.WithCancel(ctx)
	s := newStarter()
	var told follower = s
	if f.mode == modeAbort {
		// What the command leaves behind is still below this process.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			cancel()
			return err
		}
		told = both{s, &aborter{drain: f.drain, said: a.sayf, trouble: func(err error) { a.notef("%v", err) }}}
	}
	ended := make(chan error, 1)
	go func() { ended <- a.steer(ctx, f, w, told) }()
	run := func(ctx context.Context, address string) error { return a.runCommand(ctx, address, command) }
	err := s.run(ctx, f.hold, f.mode == modeRestart, run)
	cancel()
	return errors.Join(err, <-ended)
}

// both are told.
type both [2]follower

func (b both) use(target string, usable []string) {
	b[0].use(target, usable)
	b[1].use(target, usable)
}

func (b both) move(target string, done <-chan struct{}) {
	b[0].move(target, done)
	b[1].move(target, done)
}

// steer turns what the witness says into where connections go.
func (a *app) steer(ctx context.Context, f *runFlags, w *client.Witness, p follower) error {
	target := ""
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return nil //nolint:nilerror // the command, or a signal, has ended it
		}
		switch e.Kind {
		case client.WitnessMove:
			if len(e.Change.Move.Addresses) == 0 {
				continue // nobody knows where that is
			}
			target = withPort(e.Change.Move.Addresses[0], f.port)
			a.sayf("moving to %s", target)
			p.move(target, ctx.Done())
		case client.WitnessState, client.WitnessChange:
			if e.Change.Level.State == belfry.ResourceUnknown {
				continue // a doubt: what works goes on
			}
			usable := usableNow(&e.Change, target, f.port)
			if !slices.Contains(usable, target) {
				target = ""
				if len(usable) > 0 {
					target = usable[0]
				}
			}
			a.sayf("%s is %s; connections go to %q", f.resource, e.Change.Level.State, target)
			p.use(target, usable)
		case client.WitnessMissing:
			a.notef("no witness: %s; connections stay where they are", a.plain(e.Err))
			continue
		case client.WitnessAt:
			continue
		}
		host, _, err := net.SplitHostPort(target)
		if err != nil {
			host = target
		}
		if host != "" {
			w.Use(host) // its failure is news although another one has it too
		}
	}
}

// usableNow is where a resource can be used, with ports. Of the holder in use a doubt is
// no failure, also where another one is certain: what works there goes on.
func usableNow(c *belfry.ResourceChange, target, port string) []string {
	usable := []string{}
	for _, address := range c.Addresses {
		usable = append(usable, withPort(address, port))
	}
	if c.HasAt && c.Level.At == belfry.ResourceUnknown && target != "" && !slices.Contains(usable, target) {
		usable = append(usable, target)
	}
	return usable
}

// withPort adds a port, if there is one, to an address that has none.
func withPort(address, port string) string {
	if _, _, err := net.SplitHostPort(address); err == nil || port == "" {
		return address
	}
	return net.JoinHostPort(address, port)
}

// runCommand is the exit status of the command.
func (a *app) runCommand(ctx context.Context, address string, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "BELFRY_RESOURCE_ADDRESS="+address)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = commandStop
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
		return status{code: exit.ExitCode()}
	} else if errors.As(err, &exit) {
		if wait, ok := exit.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
			return status{code: exitSignal + int(wait.Signal())}
		}
	}
	if err != nil {
		return failf(belfry.ErrUsage, "%s: %v; name a program after --", command[0], err)
	}
	return nil
}

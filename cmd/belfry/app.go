package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/agent"
)

// defaultSocket is where the agent of this machine listens.
const defaultSocket = "/run/belfry/belfry.sock"

// defaultTimeout bounds every command that does not stream. Answers come from
// the agent's memory, so it is long.
const defaultTimeout = 5 * time.Second

// app is what all commands share: streams, environment, global flags.
type app struct {
	in     io.Reader
	out    *output
	errOut io.Writer
	getenv func(string) string
	stop   context.CancelCauseFunc // of the context of run

	form    form
	socket  string
	server  string
	timeout time.Duration // zero: the command's default
	color   string
	verbose bool

	drawn bool // a picture is on the terminal

	command string // "node why", for errors
}

// run executes one command line and is the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.newRoot()
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if a.command == "" {
		a.command = commandName(command)
	}
	if err == nil {
		err = a.out.flush()
	}
	return a.finish(ctx, err)
}

func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "belfry",
		Short: "Know which nodes and links are alive; receive any event of any node",
		Long: `Belfry gives a Linux cluster awareness: every node knows which nodes and
links are alive, and every program can register for any event on any node.

"belfry up" starts a cluster of three on this machine to try it out.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: a.before,
		Args:              cobra.ArbitraryArgs,
		RunE:              a.group,
	}
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	root.SetFlagErrorFunc(flagError)
	a.globalFlags(root)
	root.AddCommand(a.commands()...)
	return root
}

func (a *app) globalFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.VarP(&a.form, "output", "o", "form of the output: table, wide, json, yaml, jsonl; watch also cloudevents, doctor also nagios")
	flags.StringVar(&a.socket, "socket", "", "unix socket of the agent (default $BELFRY_SOCKET, else "+defaultSocket+")")
	flags.StringVar(&a.server, "server", "", "HOST:PORT of an agent; the identity for it is in $BELFRY_IDENTITY: client.crt, client.key, ca.crt")
	flags.DurationVar(&a.timeout, "timeout", 0, "how long to wait (default 5s, none for streams)")
	flags.StringVar(&a.color, "color", "auto", "auto, always or never; $NO_COLOR is never")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say more on standard error")
}

// before checks what all commands have in common.
func (a *app) before(cmd *cobra.Command, _ []string) error {
	a.command = commandName(cmd)
	switch {
	case a.form == formCloudEvents && a.command != "watch":
		return usagef("-o cloudevents: only watch has events to write; use table, wide, json, yaml or jsonl")
	case a.form == formNagios && a.command != "doctor":
		return usagef("-o nagios: only doctor is a check; use table, wide, json, yaml or jsonl")
	case a.color != "auto" && a.color != "always" && a.color != "never":
		return usagef("--color %s: not known; use auto, always or never", a.color)
	case a.timeout < 0:
		return usagef("--timeout %s: a duration is positive; for example 5s", a.timeout)
	case cmd.Flags().Changed("socket") && a.server != "":
		return usagef("--socket and --server name two agents; give one of them")
	}
	a.out.colored = a.colored()
	return nil
}

func (a *app) colored() bool {
	if a.color != "auto" {
		return a.color == "always"
	}
	return a.getenv("NO_COLOR") == "" && a.terminal()
}

// terminal tells whether a person reads standard output.
func (a *app) terminal() bool {
	return a.out.file != nil && term.IsTerminal(int(a.out.file.Fd()))
}

// request is ctx with the time that a command without a stream has.
func (a *app) request(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.timeout == 0 {
		return context.WithTimeout(ctx, defaultTimeout)
	}
	return context.WithTimeout(ctx, a.timeout)
}

// ask runs one request: it connects, calls and closes in the time that the
// command has.
func (a *app) ask(ctx context.Context, call func(context.Context, *client.Client) error) error {
	ctx, cancel := a.request(ctx)
	defer cancel()
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return call(ctx, c)
}

// dial connects to the agent that flags and environment name.
func (a *app) dial(ctx context.Context) (*client.Client, error) {
	if a.server != "" {
		identity, err := a.identity()
		if err != nil {
			return nil, err
		}
		a.sayf("asking the agent at %s", a.server)
		return client.Dial(ctx, a.server, client.WithTLS(identity))
	}
	path := a.socketPath()
	a.sayf("asking the agent at %s", path)
	return client.Dial(ctx, "unix:"+path)
}

func (a *app) socketPath() string {
	for _, path := range []string{a.socket, a.getenv("BELFRY_SOCKET")} {
		if path != "" {
			return path
		}
	}
	return defaultSocket
}

// identity reads the client certificate that a remote agent wants to see.
func (a *app) identity() (*tls.Config, error) {
	dir := a.getenv("BELFRY_IDENTITY")
	if dir == "" {
		return nil, usagef("--server needs an identity; set BELFRY_IDENTITY to the directory that holds client.crt, client.key and ca.crt")
	}
	identity, err := agent.ClientTLS(dir)
	var e *belfry.Error
	if errors.As(err, &e) {
		err = e.Err // this message names the directory
	}
	if err != nil {
		return nil, usagef("BELFRY_IDENTITY %s: %v; it holds client.crt, client.key and ca.crt", dir, err)
	}
	return identity, nil
}

// sayf tells a person more, with -v.
func (a *app) sayf(format string, args ...any) {
	if a.verbose {
		fmt.Fprintf(a.errOut, "belfry: "+a.command+": "+format+"\n", args...)
	}
}

// notef tells what went not quite as asked, but does not end the command.
func (a *app) notef(format string, args ...any) {
	fmt.Fprintf(a.errOut, "belfry: "+a.command+": "+format+"\n", args...)
}

// unconfirmed warns of members that did not confirm a change, which is in
// force all the same, and returns them for JSON.
func (a *app) unconfirmed(members []string) []string {
	for _, m := range members {
		a.notef("warning: %s; it did not confirm the change, see belfry doctor there", printable(m))
	}
	return append([]string{}, members...)
}

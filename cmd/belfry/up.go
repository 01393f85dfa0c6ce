package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/agent"
	"github.com/belfry-ha/belfry/internal/cloudevents"
)

func newUpCommand(a *app) *cobra.Command {
	var (
		nodes   int
		state   string
		members bool
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a cluster of several agents on this machine, in the foreground",
		Long: `Run a cluster of several agents on this machine, in the foreground.

Each agent is a process of its own, with keys, ports and a state directory of
its own, and speaks to the others over loopback exactly as it would over a
network: sealed datagrams and mutual TLS. Ctrl-C stops them all. Without
--state nothing is left behind; with it the same cluster comes up again.

The configuration lies in the file repository.belfry of the directory; with
--members the nodes keep it among themselves, as machines do without shared
storage.`,
		Example: `  belfry up
  belfry up --nodes 5 --state ./dev`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !a.form.isTable() {
				return usagef("-o %s: up writes for people; belfry status -o %s and belfry demo -o json write for programs", a.form, a.form)
			}
			return up(cmd.Context(), a.out.file, state, nodes, members)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 3, "how many agents, 1 to 26; they are named a, b, c, …")
	cmd.Flags().BoolVar(&members, "members", false, "without a repository file; of a new cluster")
	cmd.Flags().StringVar(&state, "state", "", "directory that keeps the cluster; made if it is not there (default: a temporary one)")
	return cmd
}

// up runs until ctx ends. A signal is how it is meant to end, so that is no
// error.
func up(ctx context.Context, out io.Writer, state string, nodes int, members bool) error {
	begin := time.Now()
	c, err := newLocalCluster(state, nodes, members)
	if err != nil {
		return err
	}
	defer c.stop()
	if err := c.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	fmt.Fprintf(out, "cluster %s: %s up after %.1fs, stop with Ctrl-C\n", c.name, c.names(), time.Since(begin).Seconds())
	first := c.nodes[0]
	token, err := agent.WebToken(first.State)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "json       curl -H 'Authorization: Bearer %s' http://%s/v1/status\n", token, first.Web)
	fmt.Fprintf(out, "shell      export BELFRY_SOCKET=%s\n", shellPath(first.socket))
	var ends sync.WaitGroup
	for _, n := range c.nodes {
		ends.Go(func() { c.reportEnd(ctx, out, n) })
	}
	err = c.report(ctx, out)
	ends.Wait()
	return err
}

// shellPath keeps a relative path one, with the ./ that shows it as a path.
func shellPath(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return "./" + path
}

// reportEnd tells when an agent ends by itself, and how to bring it back.
func (c *localCluster) reportEnd(ctx context.Context, out io.Writer, n *localNode) {
	cmd, exited := n.running()
	select {
	case <-ctx.Done():
	case <-exited:
		if ctx.Err() == nil {
			fmt.Fprintf(out, "%s  agent %s (pid %d) ended: %s; again with: belfry agent --config %s\n",
				time.Now().Format(time.TimeOnly), n.Name, cmd.Process.Pid, cmd.ProcessState, shellPath(n.settings()))
		}
	}
}

// report prints the verdicts that the first agent which answers sees change.
// When that agent ends it goes on with the next.
func (c *localCluster) report(ctx context.Context, out io.Writer) error {
	for i := 0; ctx.Err() == nil; i++ {
		n := c.nodes[i%len(c.nodes)]
		if _, exited := n.running(); closed(exited) {
			if c.allEnded() {
				return fmt.Errorf("every agent has ended; the last said: %s", n.lastWords())
			}
			continue
		}
		c.reportFrom(ctx, out, n)
	}
	return nil
}

func (c *localCluster) allEnded() bool {
	for _, n := range c.nodes {
		if _, exited := n.running(); !closed(exited) {
			return false
		}
	}
	return true
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// reportFrom returns when n has ended or ctx has.
func (c *localCluster) reportFrom(ctx context.Context, out io.Writer, n *localNode) {
	_, exited := n.running()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		select {
		case <-exited:
		case <-ctx.Done():
		}
	}()
	conn, err := n.dial(ctx)
	if err != nil {
		return
	}
	defer conn.Close()
	states, err := conn.Register(ctx, belfry.Registration{Class: "node.state"})
	if err != nil {
		return
	}
	defer states.Close()
	for {
		got, err := states.Next(ctx)
		if err != nil {
			return
		}
		if got.Kind == belfry.KindOccurrence {
			fmt.Fprintln(out, verdictLine(got, n.Name))
		}
	}
}

// verdictLine is one line for people: who, from what to what, why, who says so.
func verdictLine(n belfry.Notification, at string) string {
	fields, err := cloudevents.Fields(n.Event.Class, n.Data)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %v -> %v", n.Time.Local().Format(time.TimeOnly), n.Event.Subject, fields["from"], fields["to"])
	if cause, _ := fields["cause"].(string); cause != "" && cause != "-" {
		fmt.Fprintf(&b, " (%s)", cause)
	}
	fmt.Fprintf(&b, "  seen at %s", at)
	return b.String()
}

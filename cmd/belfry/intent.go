package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// intentView is node stop and node start in JSON.
type intentView struct {
	ID          string   `json:"id" doc:"UUID of the node"`
	Name        string   `json:"name" doc:"name of the node"`
	Stopped     bool     `json:"stopped" doc:"it is held left (stopped)"`
	Changed     bool     `json:"changed" doc:"false: it was so already"`
	DryRun      bool     `json:"dry_run" doc:"nothing was changed"`
	Generation  uint64   `json:"generation" doc:"of the configuration in force"`
	Unconfirmed []string `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

func newNodeStop(a *app) *cobra.Command {
	var dryRun bool
	stop := &cobra.Command{
		Use:   "stop NODE",
		Short: "Hold a node left (stopped) until it is started again",
		Long: `Hold a node left (stopped) until it is started again. Its agent goes on
running, but neither sends nor accepts heartbeats, also after a restart or a
reboot: the intent is in the configuration that all nodes share.`,
		Example: "  belfry node stop c\n  belfry node start c",
		Args:    exactly(1, "the node's name or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.nodeStop(ctx, c, args[0], dryRun)
			})
		},
		ValidArgsFunction: a.completeNode,
	}
	dryRunFlag(stop, &dryRun)
	return stop
}

func newNodeStart(a *app) *cobra.Command {
	var dryRun bool
	start := &cobra.Command{
		Use:   "start NODE",
		Short: "Let a stopped node take part again",
		Long: `Let a stopped node take part again: it is up as soon as its agent is heard.
This starts no agent that does not run.`,
		Example: "  belfry node start c",
		Args:    exactly(1, "the node's name or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.nodeStart(ctx, c, args[0], dryRun)
			})
		},
		ValidArgsFunction: a.completeNode,
	}
	dryRunFlag(start, &dryRun)
	return start
}

func dryRunFlag(cmd *cobra.Command, dryRun *bool) {
	cmd.Flags().BoolVar(dryRun, "dry-run", false, "check, and change nothing")
}

func (a *app) nodeStop(ctx context.Context, c *client.Client, name string, dryRun bool) error {
	answer, err := c.StopNode(ctx, name, dryRun)
	if err != nil {
		return a.unknownTo(ctx, c, name, err)
	}
	if answer.GetRunning() == 0 {
		fmt.Fprintf(a.errOut, "belfry: node stop: warning: %s; belfry node start brings one back\n", wouldBe(dryRun, "every node is stopped now", "every node would be stopped"))
	}
	return a.showIntent(intentView{answer.GetNodeId(), answer.GetNodeName(), true, answer.GetChanged(), dryRun, answer.GetGeneration(), a.unconfirmed(answer.GetUnconfirmed())})
}

func (a *app) nodeStart(ctx context.Context, c *client.Client, name string, dryRun bool) error {
	answer, err := c.StartNode(ctx, name, dryRun)
	if err != nil {
		return a.unknownTo(ctx, c, name, err)
	}
	return a.showIntent(intentView{answer.GetNodeId(), answer.GetNodeName(), false, answer.GetChanged(), dryRun, answer.GetGeneration(), a.unconfirmed(answer.GetUnconfirmed())})
}

// unknownTo is err, or that there is no such node and what there is.
func (a *app) unknownTo(ctx context.Context, c *client.Client, name string, err error) error {
	if !isNotFound(err) {
		return err
	}
	nodes, listErr := c.Nodes(ctx)
	if listErr != nil {
		return err
	}
	return unknownNode(name, nodes, belfry.ErrNotFound)
}

func (a *app) showIntent(v intentView) error {
	return a.show(document{
		value: v,
		table: func(o *output, _ bool) {
			name := printable(v.Name)
			state := map[bool]string{true: "stopped", false: "started"}[v.Stopped]
			switch {
			case !v.Changed && v.Stopped:
				fmt.Fprintf(o, "%s is stopped already (generation %d)\n", name, v.Generation)
			case !v.Changed:
				fmt.Fprintf(o, "%s is not stopped (generation %d)\n", name, v.Generation)
			case v.DryRun:
				fmt.Fprintf(o, "%s would be %s; nothing is changed\n", name, state)
			default:
				fmt.Fprintf(o, "%s is %s (generation %d)\n", name, state, v.Generation)
			}
		},
	})
}

func wouldBe(dryRun bool, is, would string) string {
	if dryRun {
		return would
	}
	return is
}

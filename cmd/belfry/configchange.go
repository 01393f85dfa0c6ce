package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/strictyaml"
)

// waitingView is a change that comes back unless it is confirmed.
type waitingView struct {
	Generation uint64   `json:"generation" doc:"that waits to be confirmed"`
	Base       uint64   `json:"base" doc:"that comes back"`
	Deadline   *instant `json:"deadline" doc:"until when"`
}

// configCommitView is config apply, edit, confirm and rollback in JSON.
type configCommitView struct {
	Generation  uint64       `json:"generation" doc:"of the configuration in force"`
	Changed     bool         `json:"changed" doc:"false: it was so already; with dry_run: it would change"`
	DryRun      bool         `json:"dry_run" doc:"nothing was changed"`
	Replicated  bool         `json:"replicated" doc:"a majority of the members has it on disk too; false: it is only stored"`
	Nodes       []string     `json:"nodes" doc:"members that have it in force"`
	Waiting     *waitingView `json:"waiting" doc:"null: nothing waits to be confirmed"`
	Effects     []effectView `json:"effects" doc:"what changed, then what follows"`
	Unconfirmed []string     `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

// commitTimeout is how long a change may take: it waits 5 s for a majority.
const commitTimeout = 15 * time.Second

// The levels of an acknowledgement (repository.md, From message to member).
const (
	levelStored     = "stored"
	levelReplicated = "replicated"
)

// commitFlags are those of the commands that make a generation.
type commitFlags struct {
	base    uint64
	confirm time.Duration
	require string
	why     string
	dryRun  bool
}

func (f *commitFlags) whyFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.why, "why", "", "reason for the history, in one line")
}

func (f *commitFlags) requireFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.require, "require", levelStored, "stored, or replicated: exit with 5 unless a majority of the members has it on disk in time")
}

func (f *commitFlags) confirmFlag(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.confirm, "confirm", 0, "10s to 24h: what was before comes back unless belfry config confirm is run in that time")
}

// check refuses what no agent needs to be asked for.
func (f *commitFlags) check() error {
	if f.require != levelStored && f.require != levelReplicated {
		return usagef("--require %s: not known; stored or replicated", f.require)
	}
	if f.confirm != 0 && (f.confirm < configview.MinConfirm || f.confirm > configview.MaxConfirm) {
		return usagef("--confirm %s: out of range; write 10s to 24h", f.confirm)
	}
	return nil
}

func newConfigApply(a *app) *cobra.Command {
	var f commitFlags
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Put the configuration of a file in force on all nodes",
		Long: `Put the configuration of a file in force on all nodes, as one new generation, as a
whole or not at all. FILE of - is standard input; belfry config get writes one. A
section that the file leaves out stays as it is; one that it has is meant whole.

The line generation: N of the file, or --base N, says what it was made from. If
somebody has changed the configuration since, that is a conflict (exit status 4),
and nothing is changed: plan again. Without both the file counts whatever was
changed before.

With --confirm the change comes back by itself unless belfry config confirm is run
in that time: for changes that may cut you off.`,
		Example: `  belfry config get > c.yaml; vi c.yaml; belfry config plan c.yaml; belfry config apply c.yaml
  belfry config apply c.yaml --confirm 2m --why 'net2 is new' && belfry status && belfry config confirm`,
		Args: exactly(1, "the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			text, err := a.readInput(args[0], strictyaml.MaxText)
			if err != nil {
				return err
			}
			return a.configApply(cmd.Context(), inputName(args[0]), string(text), f)
		},
	}
	baseFlag(cmd, &f.base)
	f.confirmFlag(cmd)
	f.requireFlag(cmd)
	f.whyFlag(cmd)
	dryRunFlag(cmd, &f.dryRun)
	return cmd
}

// commitConfig is ask with the time that a change has.
func (a *app) commitConfig(ctx context.Context, call func(context.Context, *client.Client) error) error {
	if a.timeout == 0 {
		a.timeout = commitTimeout
	}
	return a.ask(ctx, call)
}

func (a *app) configApply(ctx context.Context, name, text string, f commitFlags) error {
	if f.dryRun {
		return a.ask(ctx, func(ctx context.Context, c *client.Client) error {
			return a.configPlan(ctx, c, client.ConfigChange{Name: name, Text: text, Base: f.base})
		})
	}
	return a.commitConfig(ctx, func(ctx context.Context, c *client.Client) error {
		answer, err := c.ApplyConfig(ctx, client.ConfigChange{Name: name, Text: text, Base: f.base, Confirm: f.confirm, Why: f.why})
		if err != nil {
			return err
		}
		return a.committed(answer, answer.GetConfirmation(), answer.GetEffects(), f)
	})
}

// An answer is what the changes answer alike.
type answer interface {
	GetGeneration() uint64
	GetChanged() bool
	GetReplicated() bool
	GetNodes() []string
	GetMembers() uint32
	GetUnconfirmed() []string
}

// committed says what a change came to. It fails if that is less than was
// required, though the change is made.
func (a *app) committed(got answer, waiting *belfryv1.ConfigConfirmation, effects []*belfryv1.ConfigEffect, f commitFlags) error {
	v := configCommitView{
		Generation: got.GetGeneration(), Changed: got.GetChanged(), DryRun: f.dryRun, Replicated: got.GetReplicated(), Nodes: append([]string{}, got.GetNodes()...),
		Waiting: viewOfWaiting(waiting), Effects: viewsOfEffects(effects), Unconfirmed: a.unconfirmed(got.GetUnconfirmed()),
	}
	err := a.show(document{value: v, table: func(o *output, wide bool) {
		v.text(o, int(got.GetMembers()))
		if wide || v.DryRun {
			effectText(o, v.Effects, got.GetMembers(), wide)
		}
	}})
	if err != nil || f.dryRun || !v.Changed || v.Replicated || f.require != levelReplicated {
		return err
	}
	if err := a.out.flush(); err != nil {
		return err
	}
	return status{exitTimeout, "TIMEOUT", fmt.Sprintf("generation %d is stored, but not on the disks of a majority of the members in time; it stays, and they take it when they can", v.Generation)}
}

func viewOfWaiting(w *belfryv1.ConfigConfirmation) *waitingView {
	if w == nil {
		return nil
	}
	return &waitingView{w.GetGeneration(), w.GetBase(), jsonTime(when(w.GetDeadline()))}
}

func (v configCommitView) text(o *output, members int) {
	switch {
	case v.DryRun && v.Changed:
		fmt.Fprintf(o, "generation %d would be followed by %d; nothing is changed\n", v.Generation, v.Generation+1)
		return
	case !v.Changed:
		fmt.Fprintf(o, "generation %d has it so already; nothing is changed\n", v.Generation)
		return
	}
	level := levelStored
	if v.Replicated {
		level = levelReplicated
	}
	fmt.Fprintf(o, "generation %d %s, in force on %s\n", v.Generation, level, someNodes(v.Nodes, members))
	if w := v.Waiting; w != nil {
		fmt.Fprintf(o, "generation %d comes back unless belfry config confirm is run before %s\n", w.Base, seconds(w.Deadline))
	}
}

// someNodes names nodes, if they are not too many to be read.
func someNodes(names []string, of int) string {
	switch {
	case len(names) == 0:
		return "no node yet"
	case len(names) <= 8:
		return printable(strings.Join(names, " "))
	}
	return fmt.Sprintf("%d of %d nodes", len(names), of)
}

func newConfigConfirm(a *app) *cobra.Command {
	var f commitFlags
	cmd := &cobra.Command{
		Use:   "confirm [GENERATION]",
		Short: "Keep a change that comes back otherwise",
		Long: `Keep a change that was applied with --confirm, and that comes back otherwise. With
GENERATION only that one: another one that waits is a conflict.`,
		Example: "  belfry config confirm",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%q is one argument too many", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			generation, err := generationArg(append(args, "0")[0])
			if err != nil {
				return err
			}
			return a.commitConfig(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.ConfirmConfig(ctx, generation)
				if err != nil {
					return err
				}
				return a.committed(answer, nil, nil, f)
			})
		},
	}
	f.requireFlag(cmd)
	return cmd
}

func generationArg(text string) (uint64, error) {
	all, numbers := generationsOf([]string{text})
	if numbers == 0 {
		return 0, usagef("%s: not a generation; belfry config history lists them", text)
	}
	return all[0], nil
}

func newConfigRollback(a *app) *cobra.Command {
	var f commitFlags
	cmd := &cobra.Command{
		Use:   "rollback GENERATION",
		Short: "Bring back the configuration of a past generation",
		Long: `Bring back the operator's sections of a past generation, as a new one: the name of
the cluster, networks, links, tunables, resources, witness, linked clusters and
handlers. Nodes, roles, licenses, keys and the repository stay as they are. What
the past says of nodes that are gone is left out.`,
		Example: "  belfry config rollback 7 --dry-run\n  belfry config rollback 7",
		Args:    exactly(1, "the generation, as config history lists it,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			generation, err := generationArg(args[0])
			if err != nil {
				return err
			}
			return a.commitConfig(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.RollbackConfig(ctx, generation, f.why, f.dryRun)
				if err != nil {
					return err
				}
				return a.committed(answer, nil, answer.GetEffects(), f)
			})
		},
		ValidArgsFunction: a.completeGeneration,
	}
	f.requireFlag(cmd)
	f.whyFlag(cmd)
	dryRunFlag(cmd, &f.dryRun)
	return cmd
}

// generationView is one generation in JSON.
type generationView struct {
	Generation uint64   `json:"generation" doc:"number"`
	Time       *instant `json:"time" doc:"when it was made"`
	Author     string   `json:"author" doc:"who asked for it, and where"`
	Node       string   `json:"node" doc:"that committed it; empty: whoever made the cluster"`
	Text       string   `json:"text" doc:"what was done"`
	Kept       bool     `json:"kept" doc:"the node that was asked keeps it, for config diff and config rollback"`
}

// configHistoryView is config history in JSON.
type configHistoryView struct {
	Generations []generationView `json:"generations" doc:"newest first; the first one is in force"`
	Waiting     *waitingView     `json:"waiting" doc:"null: nothing waits to be confirmed"`
}

func newConfigHistory(a *app) *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the generations: who made them, when and why",
		Long: `List the generations of the configuration, newest first: who made them, when and
why. The last 64 are known; those that belfry config diff and rollback take are
marked in the column KEPT of -o wide.`,
		Example: "  belfry config history --limit 10",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error { return a.configHistory(ctx, c, limit) })
		},
	}
	cmd.Flags().Uint32Var(&limit, "limit", 0, "how many; 0: all that are known")
	return cmd
}

func (a *app) configHistory(ctx context.Context, c *client.Client, limit uint32) error {
	answer, err := c.Generations(ctx, limit)
	if err != nil {
		return err
	}
	v := configHistoryView{Generations: make([]generationView, len(answer.GetGenerations())), Waiting: viewOfWaiting(answer.GetConfirmation())}
	for i, g := range answer.GetGenerations() {
		v.Generations[i] = generationView{g.GetGeneration(), jsonTime(when(g.GetTime())), g.GetAuthor(), g.GetNode(), g.GetText(), g.GetKept()}
	}
	if w := v.Waiting; w != nil {
		a.notef("generation %d waits to be confirmed: %d comes back unless belfry config confirm is run before %s", w.Generation, w.Base, seconds(w.Deadline))
	}
	return a.show(document{
		value: v,
		rows:  rowsOf(v.Generations),
		table: func(o *output, wide bool) {
			heads := "GENERATION TIME AUTHOR NODE WHAT"
			if wide {
				heads += " KEPT"
			}
			t := newTable(heads)
			for i, g := range v.Generations {
				row := []string{fmt.Sprint(g.Generation), localTime(answer.GetGenerations()[i].GetTime()), g.Author, g.Node, g.Text}
				if wide {
					row = append(row, yesNo(g.Kept))
				}
				t.add(row...)
			}
			t.write(o)
		},
	})
}

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api/configview"
)

// configGetView is config get in JSON.
type configGetView struct {
	Generation uint64        `json:"generation" doc:"of the configuration in force"`
	Settings   []settingView `json:"settings" doc:"those below the path that was asked for"`
	Text       string        `json:"text" doc:"the sections that were asked for in YAML, as config apply takes them; empty: one setting, or a cluster without a repository"`
	Waiting    *waitingView  `json:"waiting" doc:"null: nothing waits to be confirmed"`
}

// settingView is one setting.
type settingView struct {
	Path    string `json:"path" doc:"section and name"`
	Value   string `json:"value" doc:"in force, as config set takes it"`
	Default string `json:"default" doc:"in force where nobody wrote one"`
	Range   string `json:"range" doc:"what it may be"`
	Set     bool   `json:"set" doc:"somebody wrote it"`
}

// configSetView is config set in JSON.
type configSetView struct {
	Path        string   `json:"path" doc:"section and name"`
	Before      string   `json:"before" doc:"the value that was in force"`
	Value       string   `json:"value" doc:"the value now; with dry_run the one it would have"`
	Changed     bool     `json:"changed" doc:"false: it was so already"`
	DryRun      bool     `json:"dry_run" doc:"nothing was changed"`
	Generation  uint64   `json:"generation" doc:"of the configuration in force"`
	Unconfirmed []string `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

func newConfigCommand(a *app) *cobra.Command {
	return newGroup(a, "config", "Show and change what all nodes share", newConfigGet(a), newConfigSet(a), newConfigEdit(a), newConfigValidate(a),
		newConfigPlan(a), newConfigDiff(a), newConfigApply(a), newConfigConfirm(a), newConfigHistory(a), newConfigRollback(a))
}

func newConfigGet(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "get [PATH]",
		Short: "Show the configuration in force, a section or one setting",
		Long: `Show the configuration in force, as YAML, as belfry config apply takes it: the
sections that an operator changes, one of them, or one value. PATH is a section, or
one value as belfry config set takes it. With --all the rest is shown too: nodes,
roles, licenses, keys, history; no secret is among it. A cluster without a
repository has the section tunables only.`,
		Example: "  belfry config get > c.yaml\n  belfry config get tunables.node_timeout\n  belfry config get -o json | jq '.settings[] | select(.set)'",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%q is one argument too many", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usagef("--all is of the whole configuration; leave %s out", args[0])
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.configGet(ctx, c, strings.Join(args, ""), all)
			})
		},
		ValidArgsFunction: a.completeSetting,
	}
	cmd.Flags().BoolVar(&all, "all", false, "the whole configuration, without secrets")
	return cmd
}

func newConfigSet(a *app) *cobra.Command {
	var dryRun bool
	set := &cobra.Command{
		Use:   "set PATH VALUE",
		Short: "Change a setting on all nodes, at once",
		Long: `Change a setting on all nodes, at once and until it is changed again. A node
that does not run takes it when it is back. PATH is tunables.NAME, or in a cluster
with a repository any single value of the sections of belfry config get: entries of
a list by their name or their number from 0, as networks.net2.priority or
handlers[0].limit. Lists are changed with belfry config edit.`,
		Example: "  belfry config set tunables.node_timeout 10s\n  belfry config set networks.net2.priority 9\n  belfry config set tunables.loss_prior 30%\n  belfry config set tunables.profile aix",
		Args:    exactly(2, "a path or its value"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.configSet(ctx, c, args[0], args[1], dryRun)
			})
		},
		ValidArgsFunction: a.completeSetting,
	}
	dryRunFlag(set, &dryRun)
	return set
}

// completeSetting offers the paths of the settings to the shell.
func (a *app) completeSetting(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var paths []string
	if len(args) == 0 {
		a.complete(cmd, func(ctx context.Context, c *client.Client) error {
			answer, err := c.Config(ctx, "")
			if answer.GetText() != "" && cmd.Name() == "get" {
				paths = append(paths, configview.Sections...)
			}
			for _, s := range answer.GetSettings() {
				paths = append(paths, s.GetPath())
			}
			return err
		})
	}
	return paths, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) configGet(ctx context.Context, c *client.Client, path string, all bool) error {
	answer, err := c.ConfigText(ctx, path, all)
	if err != nil {
		return err
	}
	view := configGetView{
		Generation: answer.GetGeneration(), Settings: viewsOfSettings(answer.GetSettings()), Text: answer.GetText(), Waiting: viewOfWaiting(answer.GetConfirmation()),
	}
	return a.show(document{
		value: view,
		rows:  rowsOf(view.Settings),
		table: func(o *output, wide bool) {
			if strings.Contains(path, ".") && len(view.Settings) == 1 {
				fmt.Fprintln(o, printable(view.Settings[0].Value))
				return
			}
			if view.Text == "" || wide && path == "tunables" { // with the ranges
				configText(o, view.Settings, wide)
				return
			}
			fmt.Fprint(o, view.Text)
		},
	})
}

// configText is YAML; wide says of each setting what it may be.
func configText(o *output, settings []settingView, wide bool) {
	before := ""
	for _, s := range settings {
		section, name, _ := strings.Cut(s.Path, ".")
		if section != before {
			fmt.Fprintf(o, "%s:\n", printable(section))
			before = section
		}
		fmt.Fprintf(o, "  %s: %s", printable(name), printable(s.Value))
		if wide {
			fmt.Fprintf(o, " # %s; default %s", printable(s.Range), printable(s.Default))
		}
		fmt.Fprintln(o)
	}
}

func (a *app) configSet(ctx context.Context, c *client.Client, path, value string, dryRun bool) error {
	answer, err := c.SetConfig(ctx, path, value, dryRun)
	if err != nil {
		return err
	}
	v := configSetView{
		Path: answer.GetSetting().GetPath(), Before: answer.GetBefore(), Value: answer.GetSetting().GetValue(),
		Changed: answer.GetChanged(), DryRun: dryRun, Generation: answer.GetGeneration(), Unconfirmed: a.unconfirmed(answer.GetUnconfirmed()),
	}
	return a.show(document{
		value: v,
		table: func(o *output, _ bool) {
			switch {
			case !v.Changed:
				fmt.Fprintf(o, "%s is %s already (generation %d)\n", printable(v.Path), printable(v.Value), v.Generation)
			case v.DryRun:
				fmt.Fprintf(o, "%s would be %s, was %s; nothing is changed\n", printable(v.Path), printable(v.Value), printable(v.Before))
			default:
				fmt.Fprintf(o, "%s is %s, was %s (generation %d)\n", printable(v.Path), printable(v.Value), printable(v.Before), v.Generation)
			}
		},
	})
}

func viewsOfSettings(settings []*belfryv1.Setting) []settingView {
	views := make([]settingView, len(settings))
	for i, s := range settings {
		views[i] = settingView{Path: s.GetPath(), Value: s.GetValue(), Default: s.GetDefault(), Range: s.GetRange(), Set: s.GetSet()}
	}
	return views
}

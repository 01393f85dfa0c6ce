package main

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// witnessDeclaredView is witness resources in JSON.
type witnessDeclaredView struct {
	Generation uint64                  `json:"generation" doc:"of the cluster's configuration"`
	Resources  []witnessDeclarationRow `json:"resources" doc:"by name"`
	Drained    []string                `json:"drained" doc:"names of nodes that no client is sent to"`
}

// witnessDeclarationRow is one resource of a configuration.
type witnessDeclarationRow struct {
	Name    string   `json:"name" doc:"of the resource"`
	Source  string   `json:"source" doc:"cluster: all nodes know it; file: the settings file of the node that is asked"`
	Holders []string `json:"holders" doc:"nodes that can hold it"`
	Watch   []string `json:"watch" doc:"what it takes at a holder"`
	Address string   `json:"address" doc:"that clients use; empty: that of the holder"`
	Probe   string   `json:"probe" doc:"what is asked where only the agent of a holder is dead; empty: nothing"`
}

// witnessWrittenView is what witness declare, withdraw and zone wrote.
type witnessWrittenView struct {
	Name        string   `json:"name" doc:"of the resource, or of the node"`
	Changed     bool     `json:"changed" doc:"false: it was so already"`
	DryRun      bool     `json:"dry_run" doc:"nothing was changed"`
	Generation  uint64   `json:"generation" doc:"of the configuration that has it"`
	Unconfirmed []string `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

// witnessWritten is what all of them answer.
type witnessWritten interface {
	GetChanged() bool
	GetGeneration() uint64
	GetUnconfirmed() []string
}

// wrote shows a change of the configuration.
func (a *app) wrote(name string, dryRun bool, got witnessWritten, done string) error {
	v := witnessWrittenView{name, got.GetChanged(), dryRun, got.GetGeneration(), a.unconfirmed(got.GetUnconfirmed())}
	return a.show(document{
		value: v,
		table: func(o *output, _ bool) {
			switch {
			case !v.Changed:
				done = "it is so already"
			case dryRun:
				done = "it would be; nothing is changed: a dry run"
			}
			fmt.Fprintf(o, "%s: %s, generation %d\n", printable(name), done, v.Generation)
		},
	})
}

func newWitnessDeclare(a *app) *cobra.Command {
	r := &belfryv1.DeclaredResource{}
	var watch, probe string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "declare RESOURCE --holder NODE...",
		Short: "Declare what clients depend on, on all nodes",
		Long: `Declare what clients depend on: it is written into the configuration of the
cluster, in the place of what it held under that name, and in force at once.

--watch says what it takes at a holder; --probe also, and what is asked from
elsewhere where the agent of a holder is dead and its host answers.`,
		Example: `  belfry witness declare service/db --holder b,c --watch unit:db.service --probe 0.0.0.0:5432
  belfry witness declare service/web --holder b --watch http://127.0.0.1:8080/healthz --address 10.0.0.50:80`,
		Args: exactly(1, "the name of the resource, for example service/db,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name = args[0]
			if len(r.GetHolders()) == 0 {
				return usagef("--holder is missing; name the nodes that can hold it")
			}
			if watch != "" {
				r.Watch = []string{watch}
			}
			var err error
			if r.Probe, r.ProbePath, err = probeFlag(probe); err != nil {
				return err
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				got, err := c.DeclareResource(ctx, r, dryRun)
				if err != nil {
					return err
				}
				return a.wrote(r.GetName(), dryRun, got, "declared")
			})
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&r.Holders, "holder", nil, "nodes that can hold it")
	flags.StringVar(&watch, "watch", "", "what it takes at a holder: unit:NAME, process:SUBJECT, file:PATH, tcp:HOST:PORT or http://HOST:PORT/PATH (default: that the node is up)")
	flags.StringVar(&r.Address, "address", "", "that clients use: IP or IP:PORT (default that of the holder)")
	flags.StringVar(&probe, "probe", "", "what shows that it serves: IP:PORT or http://IP:PORT/PATH; 0.0.0.0 is each holder")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

// probeFlag reads IP:PORT or http://IP:PORT/PATH.
func probeFlag(text string) (to, path string, err error) {
	if text == "" {
		return "", "", nil
	}
	to = text
	if u, fault := url.Parse(text); fault == nil && u.Scheme == "http" {
		to, path = u.Host, "/"+strings.TrimPrefix(u.RequestURI(), "/")
	}
	if _, err := netip.ParseAddrPort(to); err != nil {
		return "", "", usagef("--probe %q; write IP:PORT or http://IP:PORT/PATH", text)
	}
	return to, path, nil
}

func newWitnessWithdraw(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "withdraw RESOURCE",
		Short: "Take a resource out of the configuration",
		Long: `Take a resource out of the configuration of the cluster. What a settings file
declares is taken out there. Clients that are registered for it stay, and are told
what the nodes still say of it.`,
		Example: "  belfry witness withdraw service/db",
		Args:    exactly(1, "the name of the resource"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				got, err := c.WithdrawResource(ctx, args[0], dryRun)
				if err != nil {
					return err
				}
				return a.wrote(args[0], dryRun, got, "withdrawn")
			})
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func newWitnessZone(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "zone NODE [ZONE]",
		Short: "Say which nodes fail together",
		Long: `Say which nodes fail together, because they are in one rack or one building: a
witness in the zone of the node that a client uses comes after those of others.
Without ZONE the node is in none.`,
		Example: "  belfry witness zone b rack-2",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			zone, done := "", "in no zone"
			if len(args) == 2 {
				zone, done = args[1], "in zone "+args[1]
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				got, err := c.SetZone(ctx, args[0], zone, dryRun)
				if err != nil {
					return a.unknownTo(ctx, c, args[0], err)
				}
				return a.wrote(args[0], dryRun, got, done)
			})
		},
		ValidArgsFunction: a.completeNode,
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func newWitnessResources(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "resources",
		Short: "List what is declared, and which nodes are drained",
		Long: `List the resources that the configuration of the cluster declares, those of the
settings file of the node that is asked, and the nodes that are drained.`,
		Example: "  belfry witness resources -o json",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				got, err := c.DeclaredResources(ctx)
				if err != nil {
					return err
				}
				return a.witnessDeclared(got)
			})
		},
	}
}

func (a *app) witnessDeclared(got *belfryv1.ListDeclaredResponse) error {
	v := witnessDeclaredView{Generation: got.GetGeneration(), Resources: []witnessDeclarationRow{}, Drained: append([]string{}, got.GetDrained()...)}
	for _, r := range got.GetResources() {
		row := witnessDeclarationRow{
			Name: r.GetName(), Source: "cluster", Holders: append([]string{}, r.GetHolders()...),
			Watch: append([]string{}, r.GetWatch()...), Address: r.GetAddress(), Probe: r.GetProbe(),
		}
		if r.GetFile() {
			row.Source = "file"
		}
		if r.GetProbePath() != "" {
			row.Probe = "http://" + r.GetProbe() + r.GetProbePath()
		}
		v.Resources = append(v.Resources, row)
	}
	return a.show(document{
		value: v,
		rows:  rowsOf(v.Resources),
		table: func(o *output, _ bool) {
			t := newTable("RESOURCE SOURCE HOLDERS WATCH ADDRESS PROBE")
			for _, r := range v.Resources {
				t.add(r.Name, r.Source, strings.Join(r.Holders, " "), strings.Join(r.Watch, " "), r.Address, r.Probe)
			}
			t.write(o)
			if len(v.Drained) > 0 {
				fmt.Fprintf(o, "\ndrained: %s\n", strings.Join(v.Drained, " "))
			}
		},
	})
}

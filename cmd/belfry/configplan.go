package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/strictyaml"
)

// effectView is one difference between two generations in JSON.
type effectView struct {
	Section     string   `json:"section" doc:"of the configuration; of a consequence: the one that it follows from"`
	Text        string   `json:"text" doc:"what changes"`
	Consequence bool     `json:"consequence" doc:"what follows from the changes for the cluster"`
	Nodes       []string `json:"nodes" doc:"where it comes into force; none: of a consequence, or not known"`
}

// configPlanView is config plan in JSON.
type configPlanView struct {
	Generation uint64       `json:"generation" doc:"of the configuration in force"`
	Next       uint64       `json:"next" doc:"generation that would be made; 0: nothing would change"`
	Effects    []effectView `json:"effects" doc:"what would change, then what follows"`
}

// configDiffView is config diff in JSON.
type configDiffView struct {
	From    string       `json:"from" doc:"generation or file"`
	To      string       `json:"to" doc:"generation or file"`
	Effects []effectView `json:"effects" doc:"what changes, then what follows"`
}

// configValidateView is config validate in JSON.
type configValidateView struct {
	File       string `json:"file" doc:"that has no fault"`
	Generation uint64 `json:"generation" doc:"of the document that it may follow; 0: none was given"`
	Members    bool   `json:"members" doc:"nodes that it names are members; false: that is not known"`
}

func newConfigPlan(a *app) *cobra.Command {
	var base uint64
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "Say what applying a file would change, and on which node",
		Long: `Say what applying a file would change, and on which node, and what follows from it
for the cluster. Nothing is changed. FILE of - is standard input; belfry config get
writes one. A line begins with ~ for a change and with ! for a consequence; -o wide
lists the changes node by node as well.`,
		Example: "  belfry config get > c.yaml; vi c.yaml; belfry config plan c.yaml",
		Args:    exactly(1, "the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.readInput(args[0], strictyaml.MaxText)
			if err != nil {
				return err
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.configPlan(ctx, c, client.ConfigChange{Name: inputName(args[0]), Text: string(text), Base: base})
			})
		},
	}
	baseFlag(cmd, &base)
	return cmd
}

// inputName is what faults call a file.
func inputName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

func baseFlag(cmd *cobra.Command, base *uint64) {
	cmd.Flags().Uint64Var(base, "base", 0, "GENERATION that the file was made from; another one in force is a conflict (default the one that the file names, else any)")
}

func (a *app) configPlan(ctx context.Context, c *client.Client, change client.ConfigChange) error {
	answer, err := c.PlanConfig(ctx, change)
	if err != nil {
		return err
	}
	v := configPlanView{answer.GetGeneration(), answer.GetNext(), viewsOfEffects(answer.GetEffects())}
	return a.show(document{
		value: v,
		rows:  rowsOf(v.Effects),
		table: func(o *output, wide bool) {
			if v.Next == 0 {
				fmt.Fprintf(o, "generation %d has it so already; nothing would change\n", v.Generation)
				return
			}
			fmt.Fprintf(o, "generation %d -> %d, not committed\n", v.Generation, v.Next)
			effectText(o, v.Effects, answer.GetNodes(), wide)
		},
	})
}

func viewsOfEffects(effects []*belfryv1.ConfigEffect) []effectView {
	views := make([]effectView, len(effects))
	for i, e := range effects {
		views[i] = effectView{e.GetSection(), e.GetText(), e.GetConsequence(), append([]string{}, e.GetNodes()...)}
	}
	return views
}

// effectText is a line for each effect; wide lists them node by node as well.
func effectText(o *output, views []effectView, nodes uint32, wide bool) {
	effects := make([]configview.Effect, len(views))
	for i, v := range views {
		effects[i] = configview.Effect{Change: repository.Change{Section: v.Section, Text: v.Text, Consequence: v.Consequence}, Nodes: v.Nodes}
	}
	for _, line := range configview.Lines(effects, int(nodes)) {
		fmt.Fprintln(o, printable(line))
	}
	if !wide {
		return
	}
	var names []string
	for _, v := range views {
		names = append(names, v.Nodes...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		fmt.Fprintf(o, "on %s:\n", printable(name))
		for _, v := range views {
			if slices.Contains(v.Nodes, name) {
				fmt.Fprintf(o, "  %s  %s\n", v.Section, printable(v.Text))
			}
		}
	}
}

func newConfigDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff GENERATION|FILE [GENERATION|FILE]",
		Short: "Say what differs between two generations, or two files",
		Long: `Say what differs between two generations; with one, between it and the one in
force. Two files are compared without an agent: each is what belfry config get
writes, or a document as a node keeps it below its state directory, in config.`,
		Example: "  belfry config diff 7\n  belfry config diff 7 9\n  belfry config diff old.yaml new.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("what to compare is missing: one or two generations, or two files")
			case len(args) > 2:
				return usagef("%q is one argument too many", args[2])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			generations, numbers := generationsOf(args)
			switch {
			case numbers == len(args):
				return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
					return a.configDiff(ctx, c, generations)
				})
			case numbers > 0:
				return usagef("%s: compare two generations or two files; belfry config plan FILE compares a file with what is in force", strings.Join(args, " "))
			case len(args) == 1:
				return usagef("a second file is missing; belfry config plan %s compares it with what is in force", args[0])
			}
			return a.diffFiles(args[0], args[1])
		},
		ValidArgsFunction: a.completeGeneration,
	}
}

// generationsOf reads the arguments that are numbers.
func generationsOf(args []string) (all [2]uint64, numbers int) {
	for i, arg := range args {
		if n, err := strconv.ParseUint(arg, 10, 64); err == nil {
			all[i] = n
			numbers++
		}
	}
	return all, numbers
}

func (a *app) configDiff(ctx context.Context, c *client.Client, generations [2]uint64) error {
	answer, err := c.DiffConfig(ctx, generations[0], generations[1])
	if err != nil {
		return err
	}
	v := configDiffView{fmt.Sprint(answer.GetFrom()), fmt.Sprint(answer.GetTo()), viewsOfEffects(answer.GetEffects())}
	return a.showDiff(v, "generation ", answer.GetNodes())
}

// showDiff writes what differs, or that nothing does.
func (a *app) showDiff(v configDiffView, what string, nodes uint32) error {
	return a.show(document{
		value: v,
		rows:  rowsOf(v.Effects),
		table: func(o *output, wide bool) {
			fmt.Fprintf(o, "%s%s -> %s", what, printable(v.From), printable(v.To))
			if len(v.Effects) == 0 {
				fmt.Fprint(o, ", no difference")
			}
			fmt.Fprintln(o)
			effectText(o, v.Effects, nodes, wide)
		},
	})
}

func (a *app) diffFiles(from, to string) error {
	x, err := a.configFile(from)
	if err != nil {
		return err
	}
	y, err := a.configFile(to)
	if err != nil {
		return err
	}
	v := configDiffView{from, to, []effectView{}}
	var nodes []string
	for _, e := range configview.Compare(x, y, configview.Tunables{}) {
		v.Effects = append(v.Effects, effectView{e.Section, e.Text, e.Consequence, append([]string{}, e.Nodes...)})
		nodes = append(nodes, e.Nodes...)
	}
	slices.Sort(nodes)
	return a.showDiff(v, "", uint32(len(slices.Compact(nodes))))
}

// configFile reads what people or nodes keep the configuration in.
func (a *app) configFile(name string) (configview.File, error) {
	text, err := a.readInput(name, repository.MaxDocument)
	if err != nil {
		return configview.File{}, err
	}
	return configview.ReadFile(inputName(name), text)
}

func newConfigValidate(a *app) *cobra.Command {
	var base string
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Look for faults in a file, without an agent",
		Long: `Look for faults in a file, without an agent: keys that there are not, wrong types
and values, names used twice, each with its line and column. FILE of - is standard
input. Nodes that it names are taken for members, unless --document gives the file
that knows them. What tunables may be is known to the agent: belfry config plan
says that too.`,
		Example: `  belfry config validate c.yaml
  belfry config validate c.yaml --document /var/lib/belfry/config/current`,
		Args: exactly(1, "the file"),
		RunE: func(_ *cobra.Command, args []string) error { return a.configValidate(args[0], base) },
	}
	cmd.Flags().StringVar(&base, "document", "", "FILE with the configuration in force, as nodes keep it below their state directory, in config")
	return cmd
}

func (a *app) configValidate(name, with string) error {
	file, err := a.configFile(name)
	if err != nil {
		return err
	}
	v := configValidateView{File: inputName(name), Members: file.Whole()}
	if with == "" {
		err = file.Check(inputName(name), configview.Tunables{})
	} else {
		var base configview.File
		if base, err = a.configFile(with); err != nil {
			return err
		}
		if !base.Whole() {
			return usagef("--document %s: not a document as nodes keep it; name a file in config below a state directory", with)
		}
		v.Generation, v.Members = base.Generation(), true
		err = file.CheckIn(base, configview.Tunables{})
	}
	if err != nil {
		return err
	}
	return a.show(document{value: v, table: func(o *output, _ bool) {
		switch {
		case v.Generation > 0:
			fmt.Fprintf(o, "%s may follow generation %d\n", printable(v.File), v.Generation)
		case v.Members:
			fmt.Fprintf(o, "%s has no fault\n", printable(v.File))
		default:
			fmt.Fprintf(o, "%s has no fault; its nodes and the values of its tunables are not judged here\n", printable(v.File))
		}
	}})
}

// completeGeneration offers the generations that are kept to the shell, and
// files where the command takes them.
func (a *app) completeGeneration(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var numbers []string
	if len(args) < 2 {
		a.complete(cmd, func(ctx context.Context, c *client.Client) error {
			answer, err := c.Generations(ctx, 0)
			for _, g := range answer.GetGenerations() {
				if g.GetKept() {
					numbers = append(numbers, fmt.Sprint(g.GetGeneration()))
				}
			}
			return err
		})
	}
	if cmd.Name() == "diff" {
		return numbers, cobra.ShellCompDirectiveDefault
	}
	return numbers, cobra.ShellCompDirectiveNoFileComp
}

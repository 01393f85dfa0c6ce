package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// witnessEventView is one line of witness watch in JSON.
type witnessEventView struct {
	Kind      string           `json:"kind" doc:"state: what a resource is at the beginning; change: it is otherwise; move: the client is asked to go elsewhere; at: registered at a witness; missing: no witness can be reached"`
	Time      *instant         `json:"time" doc:"when it happened, by the clock of the witness; of at and missing when it was noticed"`
	Witness   string           `json:"witness" doc:"name of the node that says so; empty: none"`
	Resource  string           `json:"resource" doc:"empty: it is about no resource"`
	From      string           `json:"from" doc:"the state that was told last; empty: none"`
	State     string           `json:"state" doc:"available, unavailable or unknown; empty: it is about no resource"`
	AtState   string           `json:"at_state" doc:"state of the holder that --at names; empty: it names none"`
	Count     uint64           `json:"count" doc:"changes that the line stands for; 0 of what is no change"`
	Flapped   bool             `json:"flapped" doc:"it is as it was, and was not in between"`
	Holder    string           `json:"holder" doc:"the one node that holds it; empty: none or several"`
	Addresses []string         `json:"addresses" doc:"where it can be used now"`
	Move      *witnessMoveView `json:"move" doc:"null: none is asked for"`
	Error     string           `json:"error" doc:"of missing: why"`
}

// witnessMoveView is where a client is asked to go.
type witnessMoveView struct {
	ID        string   `json:"id" doc:"unique; the same move may come twice to a client that registers twice"`
	To        []string `json:"to" doc:"nodes or addresses"`
	Addresses []string `json:"addresses" doc:"of to, as far as the witness knows them"`
	Reason    string   `json:"reason" doc:"operator, drain or balance"`
}

func newWitnessCommand(a *app) *cobra.Command {
	return newGroup(a, "witness", "Be told when what a program depends on fails on another node",
		newWitnessWatch(a), newWitnessRun(a), newWitnessList(a), newWitnessShow(a), newWitnessInfo(a),
		newWitnessMove(a), newWitnessDrain(a), newWitnessSet(a), newWitnessEnd(a),
		newWitnessDeclare(a), newWitnessWithdraw(a), newWitnessResources(a), newWitnessZone(a))
}

// witnessFlags are the flags of witness watch.
type witnessFlags struct {
	at           string
	name         string
	eager        bool
	allowMissing bool
	seeds        []string
	keepAlive    time.Duration
	count        uint64
	redundancy   int
}

func newWitnessWatch(a *app) *cobra.Command {
	f := &witnessFlags{}
	cmd := &cobra.Command{
		Use:   "watch RESOURCE...",
		Short: "Print what becomes of resources, whichever witness lives",
		Long: `Print what becomes of resources, until interrupted: first what they are, then
each change once. When the witness dies the next one is used, and what was
printed is not printed again.

A resource is node/NAME, address/IP, or what the settings files declare:
service/NAME, share/NAME/SHARE, name/NAME (docs/witness.md).`,
		Example: `  belfry witness watch node/b
  belfry witness watch service/db --at b -o jsonl
  BELFRY_IDENTITY=/etc/app belfry witness watch service/db --server 10.0.0.1:7432`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("nothing to watch; name a resource, for example node/b or service/db")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("count") && f.count == 0 {
				return usagef("--count 0: would end before it begins; use 1 or more")
			}
			return a.witnessWatch(cmd.Context(), f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.at, "at", "", "the node, or an address of one, that the program uses")
	flags.StringVar(&f.name, "name", "belfry witness watch", "what listings call the program")
	flags.BoolVar(&f.eager, "eager", false, "an unreachable holder counts as unavailable")
	flags.BoolVar(&f.allowMissing, "allow-missing", false, "resources that nobody knows are unknown, and no error")
	flags.StringSliceVar(&f.seeds, "seed", nil, "more agents to ask: paths of sockets, or HOST:PORT with $BELFRY_IDENTITY")
	flags.DurationVar(&f.keepAlive, "keep-alive", 0, "how long a witness may be silent (default 5s)")
	redundancyFlag(cmd, f)
	flags.Uint64Var(&f.count, "count", 0, "end after this many changes and moves")
	return cmd
}

func redundancyFlag(cmd *cobra.Command, f *witnessFlags) {
	cmd.Flags().IntVar(&f.redundancy, "redundancy", 1, "at how many witnesses at a time to be registered: 1 or 2")
}

// witnessConfig is what the flags ask for.
func (a *app) witnessConfig(f *witnessFlags, resources []string) (client.WitnessConfig, error) {
	cfg := client.WitnessConfig{
		Resources: resources, At: f.at, Name: f.name, Eager: f.eager, AllowMissing: f.allowMissing, KeepAlive: f.keepAlive,
		Redundancy: f.redundancy,
	}
	if a.server != "" {
		cfg.Seeds = []string{a.server}
	} else {
		cfg.Seeds = []string{"unix:" + a.socketPath()}
	}
	cfg.Seeds = append(cfg.Seeds, f.seeds...)
	if a.server != "" || a.getenv("BELFRY_IDENTITY") != "" {
		identity, err := a.identity()
		if err != nil {
			return cfg, err
		}
		cfg.TLS = identity
	}
	return cfg, nil
}

func (a *app) witnessWatch(ctx context.Context, f *witnessFlags, resources []string) error {
	cfg, err := a.witnessConfig(f, resources)
	if err != nil {
		return err
	}
	ctx, cancel := a.stream(ctx)
	defer cancel()
	opening, opened := context.WithTimeout(ctx, defaultTimeout)
	w, err := client.OpenWitness(opening, cfg)
	opened()
	if err != nil {
		return err
	}
	defer w.Close()
	told := map[belfry.Resource]string{}
	for count := uint64(0); f.count == 0 || count < f.count; {
		e, err := w.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		a.witnessLine(e, told)
		if err := a.out.flush(); err != nil {
			return err
		}
		if e.Kind == client.WitnessChange || e.Kind == client.WitnessMove {
			count++
		}
	}
	return nil
}

// witnessKinds are the words for the kinds of events.
var witnessKinds = map[client.WitnessEventKind]string{
	client.WitnessState: "state", client.WitnessChange: "change", client.WitnessMove: "move", client.WitnessAt: "at", client.WitnessMissing: "missing",
}

// witnessLine writes one event in the form that -o chose.
func (a *app) witnessLine(e client.WitnessEvent, told map[belfry.Resource]string) {
	c := e.Change
	v := witnessEventView{
		Kind: witnessKinds[e.Kind], Time: jsonTime(e.Time), Witness: e.Node, Resource: string(c.Resource), Count: c.Count,
		Flapped: c.Flapped, Holder: c.Holder, Addresses: append([]string{}, c.Addresses...),
	}
	at := e.Time
	switch e.Kind {
	case client.WitnessState, client.WitnessChange:
		at = c.Last
		v.Time, v.From, v.State = jsonTime(at), told[c.Resource], c.Level.State.String()
		if c.HasAt {
			v.AtState = c.Level.At.String()
		}
		told[c.Resource] = v.State
	case client.WitnessMove:
		v.Move = &witnessMoveView{c.Move.ID, append([]string{}, c.Move.To...), append([]string{}, c.Move.Addresses...), c.Move.Reason.String()}
	case client.WitnessMissing:
		v.Error = a.plain(e.Err)
	case client.WitnessAt:
	}
	if a.object(v) {
		return
	}
	fmt.Fprintln(a.out, strings.Join(append([]string{clock(at)}, witnessWords(&v)...), "  "))
}

// witnessWords is a line for people.
func witnessWords(v *witnessEventView) []string {
	switch v.Kind {
	case "at":
		return []string{"-- registered at " + printable(v.Witness)}
	case "missing":
		return []string{"-- no witness: " + v.Error + "; trying again"}
	case "move":
		return []string{"move", "to=" + fieldValue(strings.Join(v.Move.To, ",")) + " reason=" + v.Move.Reason}
	}
	state := v.State
	if v.From != "" && v.From != v.State {
		state = v.From + " -> " + v.State
	}
	fields := []string{}
	add := func(key, value string) {
		if value != "" {
			fields = append(fields, key+"="+fieldValue(value))
		}
	}
	if v.Count > 1 {
		add("count", fmt.Sprint(v.Count))
	}
	if v.Flapped {
		fields = append(fields, "flapped")
	}
	add("at", v.AtState)
	add("holder", v.Holder)
	add("addresses", strings.Join(v.Addresses, ","))
	add("witness", v.Witness)
	return []string{printable(v.Resource), state, strings.Join(fields, " ")}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/sim"
)

// scenarioSize is the largest scenario file that is read.
const scenarioSize = 1 << 20

// simRunView is sim run in JSON.
type simRunView struct {
	File string        `json:"file" doc:"the scenario"`
	OK   bool          `json:"ok" doc:"all that was expected came, and no invariant broke, with every seed"`
	Runs []simSeedView `json:"runs" doc:"one for each seed"`
}

// simSeedView is the run of one seed in JSON.
type simSeedView struct {
	Seed     uint64           `json:"seed" doc:"what all chance in the run comes from"`
	OK       bool             `json:"ok" doc:"nothing failed"`
	Trace    string           `json:"trace" doc:"hash of all that the nodes put out: the same seed gives the same"`
	Events   uint64           `json:"events" doc:"how many things happened on the virtual clock"`
	Changes  []simChangeView  `json:"changes" doc:"what nodes told their consumers, in order of time"`
	Expects  []simExpectView  `json:"expects" doc:"the lines that begin with expect"`
	Failures []simFailureView `json:"failures" doc:"expectations and invariants that did not hold"`
	Nodes    []simTrafficView `json:"nodes" doc:"what each node sent"`
}

// simChangeView is one change in JSON.
type simChangeView struct {
	AtSeconds float64 `json:"at_seconds" doc:"since the start of the run"`
	Observer  string  `json:"observer" doc:"the node that told it"`
	Class     string  `json:"class" doc:"of the event"`
	Subject   string  `json:"subject" doc:"the node that it is about"`
	From      string  `json:"from" doc:"verdict before; empty: the event is no verdict"`
	To        string  `json:"to" doc:"verdict from now on; empty: the event is no verdict"`
	Cause     string  `json:"cause" doc:"of the verdict; may be empty"`
	Text      string  `json:"text" doc:"what happened, where it is no verdict"`
}

// simExpectView is one expectation in JSON.
type simExpectView struct {
	Line int    `json:"line" doc:"of the file"`
	Text string `json:"text" doc:"what was expected"`
	OK   bool   `json:"ok" doc:"it came"`
}

// simFailureView is one failure in JSON.
type simFailureView struct {
	AtSeconds float64 `json:"at_seconds" doc:"since the start of the run"`
	Node      string  `json:"node" doc:"where; empty: nowhere in particular"`
	Text      string  `json:"text" doc:"what was wanted and what was seen"`
}

// simTrafficView is what one node sent in JSON.
type simTrafficView struct {
	Node    string `json:"node" doc:"its name"`
	Packets uint64 `json:"packets" doc:"datagrams sent"`
	Bytes   uint64 `json:"bytes" doc:"of IP, with all heads and seals"`
}

func newSimCommand(a *app) *cobra.Command {
	var seed uint64
	run := &cobra.Command{
		Use:   "run FILE",
		Short: "Play a scenario on virtual time and tell what the nodes made of it",
		Long: `Play a scenario with the real state machines on virtual time: the same seed
gives the same trace, to the byte. With one seed it prints what the nodes told
their consumers, what became of the lines that begin with expect, what was sent,
and the hash of the trace; with several a line for each. The exit status is 0
if all that was expected came and no invariant of the protocol broke, else 1.

  nodes 64                        n1 to n64
  networks net1 net2              net1 unless it says otherwise
  seeds 1..30                     what is played without --seed
  delay 500us exp 100us           one way, and the mean of what is added
  set allowance 5.5s              a tunable of the cluster
  at 10s loss n1>n2 20% until 70s           directed; n1|n2: both; * is any
  at 10s burst *>* good 30s bad 300ms loss 90%
  at 20s delay n3>*@net2 200ms jitter 50ms  on one network only
  at 30s cut n1,n2|n3 until 90s
  at 30s duplicate n1>n2 1%
  at 30s reorder n1>n2 5% 20ms
  at 40s kill host n7             or: kill process
  at 50s pause process n9 5s      or: pause vm, pause observer
  at 0s join *                    or: leave, restart, stop, start
  at 5s flood n5 50000/s 60s      forged datagrams
  at 5s clock n4 +3s              a step of its wall clock
  at 5s carrier n4 net2 lost      or: back; what n4 is told, packets need a cut
  run 120s
  expect n7 unreachable within 800ms at all    or: at first
  expect never down n9            or: never down *
  expect link n1>n2@net2 down within 2.8s      what n1 holds of n2 there
  expect never contact n1>n2 down              in general, up or down`,
		Example: "  belfry sim run kill.scenario --seed 7\n  belfry sim run kill.scenario -o json | jq .ok",
		Args:    exactly(1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			scenario, err := readScenario(args[0])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("seed") {
				scenario.SeedLow, scenario.SeedHigh = seed, seed
			}
			return a.simRun(cmd.Context(), args[0], scenario)
		},
	}
	run.Flags().Uint64Var(&seed, "seed", 0, "play this seed only, not those of the file")
	return newGroup(a, "sim", "Play whole clusters on virtual time", run)
}

// readScenario reads a file that may be anything.
func readScenario(path string) (*sim.Scenario, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, scenarioSize+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	if len(text) > scenarioSize {
		return nil, usagef("%s: larger than %d bytes; no scenario is", path, scenarioSize)
	}
	return sim.Parse(path, text)
}

func unreadable(path string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	return usagef("%s: %v; name the file of a scenario (belfry sim run --help shows one)", path, err)
}

func (a *app) simRun(ctx context.Context, path string, scenario *sim.Scenario) error {
	view := simRunView{File: path, OK: true}
	failed := uint64(0)
	for seed := scenario.SeedLow; ; seed++ { // the highest may be the largest number
		r, err := sim.Run(scenario, sim.Options{Seed: seed, Stop: ctx.Err})
		if err != nil {
			return err
		}
		if view.OK && len(r.Failures) > 0 {
			view.OK, failed = false, seed
		}
		view.Runs = append(view.Runs, viewOfRun(r))
		if seed == scenario.SeedHigh {
			break
		}
	}
	if err := a.show(document{value: view, rows: rowsOf(view.Runs), table: func(o *output, wide bool) {
		if len(view.Runs) == 1 {
			simSheet(o, &view.Runs[0], scenario.Run)
			return
		}
		simTable(o, view.Runs, scenario.Run)
	}}); err != nil {
		return err
	}
	if err := a.out.flush(); err != nil || view.OK {
		return err
	}
	return status{exitFailed, "FAILED", fmt.Sprintf("seed %d: not all held; belfry sim run %s --seed %d plays it again", failed, path, failed)}
}

// simSheet shows all of one run.
func simSheet(o *output, r *simSeedView, d time.Duration) {
	t := &table{}
	for _, c := range r.Changes {
		text := c.Text
		if c.To != "" {
			text = c.From + " -> " + c.To
			if c.Cause != "" {
				text += " (" + c.Cause + ")"
			}
		}
		t.add(fmt.Sprintf("%.3fs", c.AtSeconds), c.Observer, c.Class, c.Subject, text)
	}
	t.write(o)
	t = &table{}
	for _, e := range r.Expects {
		result := cell{text: "ok", color: green}
		if !e.OK {
			result = cell{text: "failed", color: red}
		}
		t.addCells(result, cell{text: e.Text})
	}
	t.write(o)
	for _, f := range r.Failures {
		o.paint(cell{text: "failure", color: red})
		fmt.Fprintf(o, "  %s\n", failureText(f))
	}
	packets, bytes := traffic(r, d)
	fmt.Fprintf(o, "sent per node  %s packets/s  %s bytes/s\n", packets, bytes)
	fmt.Fprintf(o, "trace %s  seed %d  %s\n", r.Trace, r.Seed, plural(r.Events, "event"))
}

// simTable has a line for each seed, and what failed below.
func simTable(o *output, runs []simSeedView, d time.Duration) {
	t := newTable("SEED RESULT CHANGES PACKETS/S BYTES/S TRACE")
	for i := range runs {
		r := &runs[i]
		result := cell{text: "ok", color: green}
		if !r.OK {
			result = cell{text: "failed", color: red}
		}
		packets, bytes := traffic(r, d)
		t.addCells(cell{text: strconv.FormatUint(r.Seed, 10)}, result, cell{text: strconv.Itoa(len(r.Changes))},
			cell{text: packets}, cell{text: bytes}, cell{text: r.Trace})
	}
	t.write(o)
	for i := range runs {
		for _, f := range runs[i].Failures {
			fmt.Fprintf(o, "seed %d  %s\n", runs[i].Seed, failureText(f))
		}
	}
}

func failureText(f simFailureView) string {
	text := fmt.Sprintf("%.3fs  ", f.AtSeconds)
	if f.Node != "" {
		text += f.Node + "  "
	}
	return text + f.Text
}

// traffic is what a node sent per second, on average.
func traffic(r *simSeedView, d time.Duration) (packets, bytes string) {
	var p, b uint64
	for _, n := range r.Nodes {
		p, b = p+n.Packets, b+n.Bytes
	}
	each := d.Seconds() * float64(len(r.Nodes))
	return fmt.Sprintf("%.1f", float64(p)/each), fmt.Sprintf("%.0f", float64(b)/each)
}

func viewOfRun(r *sim.Result) simSeedView {
	v := simSeedView{
		Seed: r.Seed, OK: len(r.Failures) == 0, Trace: r.Hash, Events: r.Events,
		Changes: []simChangeView{}, Expects: []simExpectView{}, Failures: []simFailureView{}, Nodes: []simTrafficView{},
	}
	for _, c := range r.Verdicts {
		change := simChangeView{
			AtSeconds: c.At.Seconds(), Observer: sim.Name(c.Observer), Class: c.Class, Subject: sim.Name(c.Subject), Text: c.Text,
		}
		if c.Text == "" {
			change.From, change.To = c.From.String(), c.To.String()
			if c.Cause != belfry.CauseNone {
				change.Cause = c.Cause.String()
			}
		}
		v.Changes = append(v.Changes, change)
	}
	for _, e := range r.Expects {
		v.Expects = append(v.Expects, simExpectView{Line: e.Line, Text: e.Text, OK: e.Held})
	}
	for _, f := range r.Failures {
		failure := simFailureView{AtSeconds: f.At.Seconds(), Text: f.Text}
		if f.Node >= 0 {
			failure.Node = sim.Name(f.Node)
		}
		v.Failures = append(v.Failures, failure)
	}
	for n := range r.Packets {
		v.Nodes = append(v.Nodes, simTrafficView{Node: sim.Name(n), Packets: r.Packets[n], Bytes: r.Bytes[n]})
	}
	return v
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
)

// demoTimeout bounds the whole demonstration.
const demoTimeout = 60 * time.Second

func newDemoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on real input: numbered, timed steps",
		Long: `Show the main job on real input: three agents are started as processes of
their own, real processes are killed, real files change, an agent is killed and
comes back. Each step says what happened and how long it took. The exit code is
0 when all steps happened in their time, else 1. -o json prints a step a line.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), demoTimeout)
			defer cancel()
			return runDemo(ctx, a.out.file, !a.form.isTable())
		},
	}
}

// A step is one line of the demonstration.
type step struct {
	Number  int            `json:"step"`
	Name    string         `json:"name"`
	OK      bool           `json:"ok"`
	Seconds float64        `json:"seconds"` // how long the step took
	Figures map[string]any `json:"figures,omitempty"`
	Error   string         `json:"error,omitempty"`
}

// A demo runs steps until one does not happen.
type demo struct {
	out     io.Writer
	json    bool
	number  int
	cluster *localCluster
	input   *demoInput
	main    *consumer // at a
	stalled *consumer // at a; does not read for a while
}

// figure is one thing that a step measured, in the order it is shown.
type figure struct {
	name  string
	value any // string, int, uint64, float64 or time.Duration
}

func runDemo(ctx context.Context, out io.Writer, asJSON bool) error {
	d := &demo{out: out, json: asJSON}
	begin := time.Now()
	defer d.close()
	steps := []struct {
		name  string
		limit time.Duration
		run   func(context.Context) ([]figure, error)
	}{
		{"three agents start and see each other up", 10 * time.Second, d.start},
		{"a consumer at a registers, with scope cluster", 5 * time.Second, d.register},
		{"a file system above its threshold at b is reported at a", 5 * time.Second, d.filesystem},
		{"a process at b is killed, a is told", 5 * time.Second, d.killProcess},
		{"a file changes at c, a is told", 5 * time.Second, d.changeFile},
		{"10,000 duplicates at b while the consumer at a does not read", 15 * time.Second, d.duplicates},
		{"agent c is killed with SIGKILL, a is told", 5 * time.Second, d.killAgent},
		{"agent c comes back, its registrations with it", 10 * time.Second, d.comeBack},
		{"an event at c is received at a again", 5 * time.Second, d.eventAgain},
	}
	for _, s := range steps {
		if err := d.step(ctx, s.name, s.limit, s.run); err != nil {
			return err
		}
	}
	if !asJSON {
		fmt.Fprintf(out, "\nall %d steps happened, in %.1fs\n", d.number, time.Since(begin).Seconds())
	}
	return nil
}

func (d *demo) close() {
	for _, c := range []*consumer{d.main, d.stalled} {
		if c != nil {
			c.close()
		}
	}
	if d.input != nil {
		d.input.close()
	}
	if d.cluster != nil {
		d.cluster.stop()
	}
}

// step runs one step within its limit and prints what it found.
func (d *demo) step(ctx context.Context, name string, limit time.Duration, run func(context.Context) ([]figure, error)) error {
	d.number++
	s := step{Number: d.number, Name: name}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	figures, err := run(limited)
	s.Seconds = time.Since(begin).Seconds()
	s.OK = err == nil
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		s.Error = fmt.Sprintf("did not happen within %v", limit)
	case err != nil:
		s.Error = err.Error()
	}
	if printErr := d.print(s, figures); printErr != nil {
		return printErr
	}
	if err != nil {
		return status{code: exitFailed, name: "FAILED", text: fmt.Sprintf("step %d, %s: %s", s.Number, s.Name, s.Error)}
	}
	return nil
}

func (d *demo) print(s step, figures []figure) error {
	if d.json {
		s.Figures = map[string]any{}
		for _, f := range figures {
			if took, ok := f.value.(time.Duration); ok {
				s.Figures[f.name+"_seconds"] = took.Seconds()
			} else {
				s.Figures[f.name] = f.value
			}
		}
		line, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(d.out, "%s\n", line)
		return err
	}
	mark := "ok"
	if !s.OK {
		mark = "FAILED: " + s.Error
	}
	var shown []string
	for _, f := range figures {
		value := f.value
		if took, ok := value.(time.Duration); ok {
			value = shortDuration(took)
		}
		shown = append(shown, fmt.Sprintf("%s=%v", f.name, value))
	}
	_, err := fmt.Fprintf(d.out, "%d  %s\n   %s after %.2fs  %s\n", s.Number, s.Name, mark, s.Seconds, strings.Join(shown, " "))
	return err
}

// shortDuration has three digits, which is all that one run can claim.
func shortDuration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// start brings the cluster up.
func (d *demo) start(ctx context.Context) (_ []figure, err error) {
	if d.cluster, err = newLocalCluster("", 3); err != nil {
		return nil, err
	}
	if err := d.cluster.start(ctx); err != nil {
		return nil, err
	}
	var pids []string
	for _, n := range d.cluster.nodes {
		cmd, _ := n.running()
		pids = append(pids, fmt.Sprintf("%s:%d", n.Name, cmd.Process.Pid))
	}
	return []figure{{"agents", strings.Join(pids, ",")}}, nil
}

// register makes the consumer whose notifications all later steps show.
func (d *demo) register(ctx context.Context) (_ []figure, err error) {
	if d.input, err = newDemoInput(d.cluster.dir); err != nil {
		return nil, err
	}
	if d.main, err = newConsumer(ctx, d.cluster.nodes[0]); err != nil {
		return nil, err
	}
	b, c := d.nodeID(ctx, "b"), d.nodeID(ctx, "c")
	// The three agents share this machine: --node says whose processes and
	// files are meant. Everything else goes the whole way.
	registrations := []belfry.Registration{
		{Class: "process.exit", Subject: "exe=" + d.input.worker, Scope: belfry.ScopeCluster, Nodes: b, Wait: true},
		{Class: "file.modify", Subject: d.input.file, Scope: belfry.ScopeCluster, Nodes: c, Wait: true},
		{
			Class: "filesystem.usage", Subject: d.input.mountPoint, Scope: belfry.ScopeCluster, Nodes: b,
			Threshold: belfry.Threshold{Hi: d.input.threshold, HasHi: true},
		},
		{Class: "node.state"},
	}
	for _, r := range registrations {
		if err := d.main.register(ctx, r); err != nil {
			return nil, fmt.Errorf("%s:%s: %w", r.Class, r.Subject, err)
		}
	}
	return []figure{{"registrations", len(registrations)}}, nil
}

// nodeID is a node's id as a list of one; an unknown node gives none, which
// the registration then refuses or the step's time ends.
func (d *demo) nodeID(ctx context.Context, name string) []belfry.NodeID {
	nodes, err := d.main.client.Nodes(ctx)
	if err != nil {
		return nil
	}
	for _, n := range nodes {
		if id, err := belfry.ParseNodeID(n.GetId()); err == nil && n.GetName() == name {
			return []belfry.NodeID{id}
		}
	}
	return nil
}

func (d *demo) filesystem(ctx context.Context) ([]figure, error) {
	n, err := d.main.next(ctx, "filesystem.usage", func(n belfry.Notification) bool {
		return n.Kind == belfry.KindAlready || n.Kind == belfry.KindOccurrence
	})
	if err != nil {
		return nil, err
	}
	return []figure{
		{"node", n.NodeName},
		{"mount_point", n.Event.Subject},
		{"used_percent", float64(int(n.Value*10)) / 10},
		{"threshold_percent", d.input.threshold},
		{"kind", n.Kind.String()},
	}, nil
}

func (d *demo) killProcess(ctx context.Context) ([]figure, error) {
	pid, err := d.input.startWorker()
	if err != nil {
		return nil, err
	}
	found := time.Now()
	if err := d.waitActive(ctx, "b", "process.exit", fmt.Sprintf("%d@", pid)); err != nil {
		return nil, fmt.Errorf("b has not found process %d: %w", pid, err)
	}
	took := time.Since(found)
	killed := time.Now()
	if err := d.input.killWorker(); err != nil {
		return nil, err
	}
	n, err := d.main.next(ctx, "process.exit", occurrence)
	if err != nil {
		return nil, err
	}
	latency := time.Since(killed)
	fields := fieldsOf(n)
	if fmt.Sprint(fields["pid"]) != fmt.Sprint(pid) {
		return nil, fmt.Errorf("told of process %v; %d was killed", fields["pid"], pid)
	}
	return []figure{{"node", n.NodeName}, {"pid", pid}, {"signal", fields["signal"]}, {"found_after", took}, {"latency", latency}}, nil
}

func (d *demo) changeFile(ctx context.Context) ([]figure, error) {
	if err := d.waitActive(ctx, "c", "file.modify", ""); err != nil {
		return nil, fmt.Errorf("c does not watch the file: %w", err)
	}
	changed := time.Now()
	if err := d.input.appendLine("changed"); err != nil {
		return nil, err
	}
	n, err := d.main.next(ctx, "file.modify", occurrence)
	if err != nil {
		return nil, err
	}
	return []figure{{"node", n.NodeName}, {"what", fieldsOf(n)["what"]}, {"latency", time.Since(changed)}}, nil
}

// duplicates makes a consumer that holds a notification and does not come for
// the next one, posts, and then lets it read on.
func (d *demo) duplicates(ctx context.Context) (_ []figure, err error) {
	const subject, posts = "duplicates", 10_000
	if d.stalled, err = newConsumer(ctx, d.cluster.nodes[0]); err != nil {
		return nil, err
	}
	b := d.cluster.nodes[1]
	if err := d.stalled.register(ctx, belfry.Registration{Class: "user.demo", Subject: subject, Scope: belfry.ScopeCluster}); err != nil {
		return nil, err
	}
	if err := d.waitActive(ctx, "b", "user.demo", ""); err != nil {
		return nil, fmt.Errorf("b does not know of the registration: %w", err)
	}
	begin := time.Now()
	if err := postMany(ctx, b, subject, 1); err != nil { // the one that it holds while it does not read
		return nil, err
	}
	first, err := d.stalled.next(ctx, "user.demo", occurrence)
	if err != nil {
		return nil, err
	}
	if err := postMany(ctx, b, subject, posts); err != nil {
		return nil, err
	}
	took := time.Since(begin)
	if err := d.waitDelivered(ctx, "b", "user.demo", posts+1, "a"); err != nil {
		return nil, err
	}
	n, err := d.stalled.next(ctx, "user.demo", occurrence)
	if err != nil {
		return nil, err
	}
	if n.Count != posts || n.First != first.Last+1 || n.LowerBound {
		return nil, fmt.Errorf("one notification stands for %d (%d to %d); %d were posted", n.Count, n.First, n.Last, posts)
	}
	return []figure{{"posted", posts}, {"notifications", 1}, {"stands_for", n.Count}, {"first", n.First}, {"last", n.Last}, {"posting_took", took}}, nil
}

func (d *demo) killAgent(ctx context.Context) ([]figure, error) {
	killed := time.Now()
	if err := d.cluster.nodes[2].signal(syscall.SIGKILL); err != nil {
		return nil, err
	}
	n, err := d.main.next(ctx, "node.state", func(n belfry.Notification) bool {
		return occurrence(n) && n.Event.Subject == "c" && verdictOf(n) == belfry.VerdictDown.String()
	})
	if err != nil {
		return nil, err
	}
	latency := time.Since(killed)
	fields := fieldsOf(n)
	why, err := d.main.client.Node(ctx, "c")
	if err != nil {
		return nil, err
	}
	var evidence []string
	for _, e := range why.GetEvidence() {
		if e.GetTime().AsTime().After(killed) {
			evidence = append(evidence, e.GetText())
		}
	}
	if len(evidence) == 0 {
		return nil, errors.New("a names no evidence for its verdict")
	}
	return []figure{
		{"node", "c"},
		{"verdict", fields["to"]},
		{"cause", fields["cause"]},
		{"evidence", strings.Join(slices.Compact(evidence), ", ")},
		{"latency", latency},
	}, nil
}

func (d *demo) comeBack(ctx context.Context) ([]figure, error) {
	begin := time.Now()
	if err := d.cluster.nodes[2].start(); err != nil {
		return nil, err
	}
	n, err := d.main.next(ctx, "node.state", func(n belfry.Notification) bool {
		return occurrence(n) && n.Event.Subject == "c" && verdictOf(n) == belfry.VerdictUp.String()
	})
	if err != nil {
		return nil, err
	}
	up := time.Since(begin)
	if err := d.waitActive(ctx, "c", "file.modify", ""); err != nil {
		return nil, fmt.Errorf("the registration is not in place at c again: %w", err)
	}
	return []figure{{"node", "c"}, {"incarnation", fieldsOf(n)["incarnation"]}, {"up_after", up}, {"registered_after", time.Since(begin)}}, nil
}

func (d *demo) eventAgain(ctx context.Context) ([]figure, error) {
	changed := time.Now()
	if err := d.input.appendLine("changed again"); err != nil {
		return nil, err
	}
	n, err := d.main.next(ctx, "file.modify", occurrence)
	if err != nil {
		return nil, err
	}
	return []figure{{"node", n.NodeName}, {"what", fieldsOf(n)["what"]}, {"incarnation", n.Incarnation}, {"latency", time.Since(changed)}}, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
)

// start brings the cluster up.
func (d *demo) start(ctx context.Context) (_ []figure, err error) {
	if d.network, err = newDemoNetwork(ctx); err != nil {
		return nil, err
	}
	if d.cluster, err = newLocalCluster("", 3, false); err != nil {
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
	unlocked := make(chan error, 1)
	var unlockedAfter time.Duration
	go func() {
		var err error
		unlockedAfter, err = d.unlocksItself(ctx, begin)
		unlocked <- err
	}()
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
	registered := time.Since(begin)
	if err := <-unlocked; err != nil {
		return nil, err
	}
	return []figure{
		{"node", "c"},
		{"incarnation", fieldsOf(n)["incarnation"]},
		{"up_after", up},
		{"registered_after", registered},
		{"product", demoProduct2},
		{"unlocked_after", unlockedAfter},
	}, nil
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

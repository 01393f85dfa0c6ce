package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	changesEach = 50
	// toldTimeout is how long the last of them may take to be told.
	toldTimeout = 20 * time.Second
)

// A change in force at a node: when, by the node's agent, and when a program at
// that node was told of it.
type inForce struct {
	node       string
	generation uint64
	at, told   time.Time
}

// A cluster is agents whose configuration lies in one file, a first.
type cluster struct {
	agents  *side.Agents
	names   []string
	clients []*client.Client
	news    chan inForce
	cancel  context.CancelFunc
	changes int
}

func startCluster(ctx context.Context, nodes int) (_ *cluster, err error) {
	c := &cluster{news: make(chan inForce, 64*nodes)}
	if c.agents, err = side.StartAgents(ctx, nodes); err != nil {
		return nil, err
	}
	ctx, c.cancel = context.WithCancel(ctx)
	for i := range nodes {
		name := string(rune('a' + i))
		if err = c.watch(ctx, name); err != nil {
			return nil, errors.Join(fmt.Errorf("node %s: %w", name, err), c.stop())
		}
		c.names = append(c.names, name)
	}
	return c, nil
}

// watch has a program at a node be told of what comes into force there.
func (c *cluster) watch(ctx context.Context, name string) error {
	at, err := client.Dial(ctx, c.agents.Socket(name))
	if err != nil {
		return err
	}
	c.clients = append(c.clients, at)
	s, err := at.Register(ctx, belfry.Registration{Class: "config.changed", Subject: "*"}, client.Name("bench"))
	if err != nil {
		return err
	}
	go func() {
		defer s.Close()
		for {
			n, err := s.Next(ctx)
			if err != nil {
				return // whoever waits for it says so
			}
			var data belfryv1.ConfigChanged
			if n.Kind == belfry.KindOccurrence && proto.Unmarshal(n.Data, &data) == nil {
				c.news <- inForce{name, data.GetGeneration(), n.Time, time.Now()}
			}
		}
	}()
	return nil
}

// change makes a generation, and returns when it began and what was told.
func (c *cluster) change(ctx context.Context) (begin time.Time, told []inForce, err error) {
	c.changes++
	ended := make(chan error, 1)
	var made *belfryv1.SetConfigResponse
	begin = time.Now()
	go func() {
		var err error
		made, err = c.clients[0].SetConfig(ctx, "tunables.node_timeout", strconv.Itoa(3+c.changes%50)+"s", false)
		ended <- err
	}()
	late := time.NewTimer(toldTimeout)
	defer late.Stop()
	for len(told) < len(c.names) {
		select {
		case n := <-c.news:
			if n.at.After(begin) {
				told = append(told, n)
			}
		case <-late.C:
			return begin, nil, fmt.Errorf("%d of %d nodes told of the change after %s", len(told), len(c.names), toldTimeout)
		case <-ctx.Done():
			return begin, nil, ctx.Err()
		}
	}
	if err := <-ended; err != nil {
		return begin, nil, err
	}
	for _, n := range told {
		if n.generation != made.GetGeneration() {
			return begin, nil, fmt.Errorf("node %s was told of generation %d, want %d", n.node, n.generation, made.GetGeneration())
		}
	}
	return begin, told, nil
}

func (c *cluster) stop() error {
	if c.cancel != nil {
		c.cancel()
	}
	for _, one := range c.clients {
		_ = one.Close()
	}
	return c.agents.Stop()
}

// A pair is a cluster and an etcd that are told of changes in turn.
type pair struct {
	*bench
	cluster *cluster
	etcd    *etcd
	puts    chan time.Time // when a watcher was told of one
	watch   int
}

func startPair(ctx context.Context, b *bench, nodes, watchers int) (_ *pair, err error) {
	p := &pair{bench: b, puts: make(chan time.Time, 64*watchers), watch: watchers}
	if p.cluster, err = startCluster(ctx, nodes); err != nil {
		return nil, err
	}
	if p.etcd, err = startEtcd(ctx, watchers, p.puts); err != nil {
		return nil, errors.Join(err, p.cluster.stop())
	}
	return p, nil
}

func (p *pair) stop() error { return errors.Join(p.etcd.stop(), p.cluster.stop()) }

// put returns how long it took until the last watcher was told.
func (p *pair) put(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	if err := p.etcd.put(ctx); err != nil {
		return 0, err
	}
	late := time.NewTimer(toldTimeout)
	defer late.Stop()
	var last time.Time
	for range p.watch {
		select {
		case at := <-p.puts:
			if at.After(last) {
				last = at
			}
		case <-late.C:
			return 0, fmt.Errorf("not all watchers of etcd were told within %s", toldTimeout)
		}
	}
	return last.Sub(begin), nil
}

// rounds are changes of both in turn: what one took from its request until it was
// in force, and until programs were told, at the last of the nodes that count.
func (p *pair) rounds(ctx context.Context, counts func(node string) bool) (force, told, theirs percentiles, err error) {
	var forces, tolds, puts []time.Duration
	for range p.scaled(changesEach) {
		begin, all, err := p.cluster.change(ctx)
		if err != nil {
			return force, told, theirs, err
		}
		all = slices.DeleteFunc(all, func(n inForce) bool { return !counts(n.node) })
		forces = append(forces, slices.MaxFunc(all, func(a, b inForce) int { return a.at.Compare(b.at) }).at.Sub(begin))
		tolds = append(tolds, slices.MaxFunc(all, func(a, b inForce) int { return a.told.Compare(b.told) }).told.Sub(begin))
		took, err := p.put(ctx)
		if err != nil {
			return force, told, theirs, err
		}
		puts = append(puts, took)
	}
	return percentilesOf(forces), percentilesOf(tolds), percentilesOf(puts), nil
}

// measure is so many rounds in each repetition.
func (p *pair) measure(ctx context.Context, what string, counts func(node string) bool) (force, told, theirs []percentiles, err error) {
	for range 3 { // the first ones open files and streams
		if _, _, err := p.cluster.change(ctx); err != nil {
			return nil, nil, nil, err
		}
		if _, err := p.put(ctx); err != nil {
			return nil, nil, nil, err
		}
	}
	err = p.turns(ctx, what, func(ctx context.Context) error {
		f, t, e, err := p.rounds(ctx, counts)
		force, told, theirs = append(force, f), append(told, t), append(theirs, e)
		return err
	})
	return force, told, theirs, err
}

// measureAnother changes the configuration at a of three nodes, and puts at one
// member of three, until another node has it.
func measureAnother(ctx context.Context, b *bench) (_ []side.Row, err error) {
	p, err := startPair(ctx, b, 3, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	force, told, theirs, err := p.measure(ctx, "another node", func(node string) bool { return node == "b" })
	row := func(work string, ours []percentiles, of func(percentiles) float64, t side.Target) side.Row {
		return side.Row{Work: work, Unit: "ms", Peer: etcdName, Theirs: side.Pick(theirs, of), Ours: side.Pick(ours, of), Target: t}
	}
	return []side.Row{
		row("from the request until it is in force at b, p50", force, p50, side.Target{Ratio: 3}),
		row("the same, p99", force, p99, side.Target{}),
		row("from the request until a program at b is told, p50", told, p50, side.Target{}),
		row("the same, p99", told, p99, side.Target{}),
	}, err
}

// measureAll changes the configuration at a of eight nodes, and puts at one member
// of three with eight watchers, until the last has it.
func measureAll(ctx context.Context, b *bench) (_ []side.Row, err error) {
	const nodes = 8
	p, err := startPair(ctx, b, nodes, nodes)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	force, told, theirs, err := p.measure(ctx, "eight nodes", func(string) bool { return true })
	row := func(work string, ours []percentiles, of func(percentiles) float64, t side.Target) side.Row {
		return side.Row{Work: work, Unit: "ms", Peer: etcdName, Theirs: side.Pick(theirs, of), Ours: side.Pick(ours, of), Target: t}
	}
	return []side.Row{
		row("from the request until it is in force at all, p50", force, p50, side.Target{Own: 10}),
		row("the same, p99", force, p99, side.Target{Own: 100}),
		row("from the request until a program at each is told, p50", told, p50, side.Target{}),
		row("the same, p99", told, p99, side.Target{}),
	}, err
}

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/belfry-ha/belfry/client"
)

const (
	// killWithin is how long after a change was asked for the agent is killed that
	// writes it: a change takes about half of that.
	killWithin = 40 * time.Millisecond
	// goOnWithin bounds everything that must happen: a killed agent is known to be
	// down within a second or two, also on a loaded machine.
	goOnWithin = 30 * time.Second
	// historyKept is how many generations the configuration itself remembers.
	historyKept = 64
)

// cmdKillwriters kills agents with SIGKILL while they commit, and starts them again:
// killwriters ROUNDS NODE NODE... The first one leads, and is killed most often. No
// generation that was acknowledged may be lost, the others go on, and the one that
// was killed comes back. The seed is in the log; BELFRY_TEST_SEED sets it.
func cmdKillwriters(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: killwriters ROUNDS NODE NODE...")
	}
	rounds, err := strconv.Atoi(args[0])
	ts.Check(err)
	seed := rand.Uint64()
	if text := os.Getenv("BELFRY_TEST_SEED"); text != "" {
		seed, err = strconv.ParseUint(text, 10, 64)
		ts.Check(err)
	}
	ts.Logf("seed %d", seed)
	k := &writerKiller{ts: ts, rng: rand.New(rand.NewPCG(seed, 1)), nodes: args[1:], pids: map[string]int{}, clients: map[string]*client.Client{}}
	for _, node := range k.nodes {
		k.pids[node] = agentPID(ts, node)
		k.clients[node], err = client.Dial(context.Background(), ts.MkAbs(filepath.Join("dev", node, "belfry.sock")))
		ts.Check(err)
		ts.Defer(func() { _ = k.clients[node].Close() })
	}
	for range rounds {
		k.round()
	}
	for _, node := range k.nodes {
		k.check(node)
	}
	ts.Logf("%d rounds: %d changes acknowledged, %d cut off, of which %d had happened; after a kill the next change took up to %s",
		rounds, len(k.acknowledged), k.cut, k.happened, k.slowest.Round(time.Millisecond))
}

// A writerKiller is one run of killwriters.
type writerKiller struct {
	ts      *testscript.TestScript
	rng     *rand.Rand
	nodes   []string
	pids    map[string]int
	clients map[string]*client.Client

	values       int
	acknowledged []acknowledgedChange
	cut          int // changes whose outcome the kill left open, or refused
	happened     int
	slowest      time.Duration
}

type acknowledgedChange struct {
	generation uint64
	value      string
}

// round kills one agent in the middle of a change.
func (k *writerKiller) round() {
	victim := k.nodes[0]
	if k.rng.IntN(4) == 0 {
		victim = k.nodes[1+k.rng.IntN(len(k.nodes)-1)]
	}
	asked, other := k.nodes[k.rng.IntN(len(k.nodes))], victim
	for other == victim {
		other = k.nodes[k.rng.IntN(len(k.nodes))]
	}
	value, wait := k.nextValue(), time.Duration(k.rng.Int64N(int64(killWithin)))
	done := make(chan error, 1)
	go func() { done <- k.set(asked, value) }()
	<-time.After(wait) // the moment of the kill, which is random, and no condition
	k.ts.Check(syscall.Kill(k.pids[victim], syscall.SIGKILL))
	killed := time.Now()
	cut := <-done
	k.ts.Check(waitUntil(goOnWithin, func() error { return runs(k.pids[victim]) }))
	k.ts.Check(waitUntil(goOnWithin, func() error { return k.set(other, k.nextValue()) }))
	k.slowest = max(k.slowest, time.Since(killed))
	if cut != nil {
		k.cut++
		if _, there := k.history(other)[value]; there {
			k.happened++
		}
	}
	k.restart(victim)
	k.check(victim)
	k.check(other)
}

func (k *writerKiller) nextValue() string {
	k.values++
	return (7*time.Second + time.Duration(k.values)*time.Millisecond).String()
}

// set changes one value, and notes it if that is acknowledged.
func (k *writerKiller) set(node, value string) error {
	ctx, cancel := context.WithTimeout(context.Background(), goOnWithin)
	defer cancel()
	answer, err := k.clients[node].SetConfig(ctx, "tunables.node_timeout", value, false)
	if err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	k.acknowledged = append(k.acknowledged, acknowledgedChange{answer.GetGeneration(), value})
	return nil
}

// restart returns when the agent has everything that was acknowledged.
func (k *writerKiller) restart(node string) {
	dir := k.ts.MkAbs(".")
	agent, err := startFamily(dir, filepath.Join(dir, "agent-"+node+".log"), os.Environ(), "belfry", "agent", "--config", filepath.Join("dev", node, "belfry.yaml"))
	k.ts.Check(err)
	k.ts.Defer(func() { k.ts.Check(agent.stop()) })
	k.pids[node] = agent.cmd.Process.Pid
	newest := k.acknowledged[len(k.acknowledged)-1].generation
	k.ts.Check(waitUntil(goOnWithin, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		status, err := k.clients[node].Status(ctx)
		if err != nil {
			return err
		}
		if r := status.GetRepository(); r.GetState() != "ready" || r.GetGeneration() < newest {
			return fmt.Errorf("%s is %s with generation %d; want ready, %d: %s", node, r.GetState(), r.GetGeneration(), newest, r.GetReason())
		}
		return nil
	}))
}

// history is what a node has of the past: generations by the value that they set.
func (k *writerKiller) history(node string) map[string]uint64 {
	all := map[string]uint64{}
	k.ts.Check(waitUntil(goOnWithin, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		answer, err := k.clients[node].Generations(ctx, historyKept)
		if err != nil {
			return err
		}
		clear(all)
		for _, g := range answer.GetGenerations() {
			if _, value, ok := strings.Cut(g.GetText(), " -> "); ok {
				all[value] = g.GetGeneration()
			}
		}
		return nil
	}))
	return all
}

// check wants every acknowledged change where it was acknowledged.
func (k *writerKiller) check(node string) {
	newest := k.acknowledged[len(k.acknowledged)-1].generation
	k.ts.Check(waitUntil(goOnWithin, func() error {
		there := k.history(node)
		for _, a := range k.acknowledged {
			if g, ok := there[a.value]; a.generation+historyKept > newest+1 && (!ok || g != a.generation) {
				return fmt.Errorf("%s has node_timeout %s in generation %d; acknowledged was %d", node, a.value, g, a.generation)
			}
		}
		return nil
	}))
}

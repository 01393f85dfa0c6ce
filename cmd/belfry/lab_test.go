package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/agent"
)

// A lab is a cluster of real agents, each in a network namespace of its own,
// that are joined by a wire. `up` has one kernel and one loopback interface for
// all; here a packet has a direction and takes time.
type lab struct {
	cluster *localCluster // its nodes; their processes are in nodes below
	nodes   []*labNode
	wire    *wire
	heard   *verdictLog
	timers  *fixedTimers
}

// labKey finds the lab of a script.
type labKey struct{}

type labNode struct {
	*localNode
	ns      *namespace
	agents  []*family // every one that was started; the last may be running
	dropped []string  // nodes whose packets it does not take
}

// labWords are what a script can do with its lab: `lab WORD ARGS...`.
var labWords = map[string]struct {
	usage string
	args  int // at least
	do    func(*lab, *testscript.TestScript, bool, []string)
}{
	"start":    {"NODES: agents, and waits until all hold all up", 1, (*lab).start},
	"restart":  {"NODE: its agent again, after it was killed", 1, (*lab).restart},
	"kill":     {"NODE LIMIT [COUNT]: SIGKILL, and all others hold it down within LIMIT", 2, (*lab).kill},
	"pause":    {"NODE TIME [COUNT]: SIGSTOP, and SIGCONT after TIME; ends when all hold it up", 2, (*lab).pause},
	"drop":     {"FROM TO: no packet passes, by nft; * is every other node", 2, (*lab).drop},
	"undrop":   {"FROM TO: ends drop", 2, (*lab).undrop},
	"delay":    {"FROM TO DELAY [JITTER]", 3, (*lab).delay},
	"lose":     {"FROM TO N: one of N datagrams, 0 for none", 3, (*lab).lose},
	"late":     {"FROM TO DELAY...: one delay for each of the next datagrams", 3, (*lab).late},
	"settle":   {"waits until every link has adapted to a short path", 0, (*lab).settle},
	"period":   {"FROM TO MIN MAX: waits for three heartbeats in a row that are so far apart, as announced", 4, (*lab).period},
	"missed":   {"[!] FROM TO DELAY: the next heartbeat is so late, and TO holds it missed", 3, (*lab).missed},
	"rtt":      {"NODE PEER N: the next N round trips give the MRT and D that are reported", 3, (*lab).roundTrips},
	"maxdev":   {"NODE PEER LOW HIGH: waits until the maximum deviation of the link is within", 4, (*lab).maxDeviation},
	"linkdown": {"NODE PEER: waits until NODE holds the link down, which its deviation must justify", 2, (*lab).linkDown},
	"timers":   {"start|count: fixed timers beside the heartbeats, and how often they are wrong", 1, (*lab).fixedTimers},
	"verdicts": {"prints what changed, at any node, since the last time", 0, (*lab).verdicts},
}

func cmdLab(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: lab WORD ARGS...")
	}
	word, ok := labWords[args[0]]
	if !ok || len(args)-1 < word.args {
		ts.Fatalf("usage: lab %s %s", args[0], word.usage)
	}
	word.do(ts.Value(labKey{}).(*lab), ts, neg, args[1:])
}

// labPort is the port of heartbeats; that of streams follows.
const labPort = 7431

// start makes the state directories as `up` does, with other addresses.
func (l *lab) start(ts *testscript.TestScript, _ bool, args []string) {
	count, err := strconv.Atoi(args[0])
	ts.Check(err)
	seed := rand.Uint64()
	ts.Logf("seed of the wire: %d", seed)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dir := ts.MkAbs("dev")
	l.cluster, l.wire = &localCluster{name: "dev", dir: dir}, newWire(seed)
	ts.Defer(func() { ts.Check(l.stop()) })
	var made []agent.LocalNode
	for i := range count {
		name := string(rune('a' + i))
		addr := netip.AddrFrom4([4]byte{10, 77, 1, byte(i + 1)})
		n := agent.LocalNode{
			Name:     name,
			State:    filepath.Join(dir, name),
			Networks: []agent.Network{{Name: "net1", Heartbeat: netip.AddrPortFrom(addr, labPort)}},
			Streams:  netip.AddrPortFrom(addr, labPort+1),
			Web:      netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), labPort+2),
		}
		made = append(made, n)
		l.cluster.add(n)
		l.nodes = append(l.nodes, &labNode{localNode: l.cluster.nodes[i]})
		ts.Check(os.MkdirAll(n.State, 0o700))
	}
	_, err = agent.CreateLocal(l.cluster.name, made, l.cluster.clientDir())
	ts.Check(err)
	ts.Check(l.cluster.writeSettings())
	for _, n := range l.nodes {
		ts.Check(n.connect(l.wire))
	}
	l.wire.carry()
	for _, n := range l.nodes {
		ts.Check(n.run())
	}
	for _, n := range l.nodes {
		ts.Check(l.cluster.waitAllUp(ctx, n.localNode))
	}
	l.heard, err = listen(ctx, l.nodes)
	ts.Check(err)
}

// connect makes the node's network.
func (n *labNode) connect(w *wire) (err error) {
	if n.ns, err = newNamespace(); err != nil {
		return err
	}
	port, err := n.ns.openTun("net1")
	if err != nil {
		return err
	}
	addr := n.Networks[0].Heartbeat.Addr()
	w.join(n.Name, addr, port)
	return errors.Join(
		n.ns.run("", "ip", "link", "set", "lo", "up"),
		n.ns.run("", "ip", "address", "add", addr.String()+"/24", "dev", "net1"),
		n.ns.run("", "ip", "link", "set", "net1", "up"),
		n.ns.run("table ip lab { chain input { type filter hook input priority 0; }; }", "nft", "-f", "-"),
	)
}

// run starts the node's agent.
func (n *labNode) run() error {
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	return n.ns.do(func() error {
		cmd := exec.Command("belfry", "agent", "--config", n.settings())
		cmd.Dir = filepath.Dir(filepath.Dir(n.State))
		cmd.Env = withoutSettings(os.Environ())
		// The thread of the namespace starts it, so it ends with that one.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		started, err := startCommand(cmd, log)
		if err == nil {
			n.agents = append(n.agents, started)
		}
		return err
	})
}

// pid is that of the agent that was started last.
func (n *labNode) pid() int { return n.agents[len(n.agents)-1].cmd.Process.Pid }

// stop ends everything, whatever was started.
func (l *lab) stop() error {
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		errs  []error
	)
	if l.heard != nil {
		l.heard.stop()
	}
	if l.timers != nil {
		l.timers.stop()
	}
	for _, n := range l.nodes {
		for _, a := range n.agents {
			group.Go(func() {
				err := a.stop()
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			})
		}
	}
	group.Wait()
	l.wire.cut()
	for _, n := range l.nodes {
		if n.ns != nil {
			n.ns.close()
		}
	}
	return errors.Join(errs...)
}

func (l *lab) node(ts *testscript.TestScript, name string) *labNode {
	i := slices.IndexFunc(l.nodes, func(n *labNode) bool { return n.Name == name })
	if i < 0 {
		ts.Fatalf("no node %s in the lab", name)
	}
	return l.nodes[i]
}

// directions are those that two words name: a b, a *, * a.
func (l *lab) directions(ts *testscript.TestScript, args []string) (all []direction) {
	names := func(word string) (matching []string) {
		if word != "*" {
			return []string{l.node(ts, word).Name}
		}
		for _, n := range l.nodes {
			matching = append(matching, n.Name)
		}
		return matching
	}
	for _, from := range names(args[0]) {
		for _, to := range names(args[1]) {
			if from != to {
				all = append(all, direction{from, to})
			}
		}
	}
	return all
}

func (l *lab) drop(ts *testscript.TestScript, _ bool, args []string) {
	for _, d := range l.directions(ts, args) {
		from, to := l.node(ts, d.from), l.node(ts, d.to)
		ts.Check(to.ns.run("", "nft", "add", "rule", "ip", "lab", "input", "ip", "saddr", from.Networks[0].Heartbeat.Addr().String(), "drop"))
		to.dropped = append(to.dropped, from.Name)
	}
}

// undrop replaces the rules of each receiver by those that are left.
func (l *lab) undrop(ts *testscript.TestScript, _ bool, args []string) {
	for _, d := range l.directions(ts, args) {
		to := l.node(ts, d.to)
		to.dropped = slices.DeleteFunc(to.dropped, func(name string) bool { return name == d.from })
		rules := "flush chain ip lab input\n"
		for _, name := range to.dropped {
			rules += fmt.Sprintf("add rule ip lab input ip saddr %s drop\n", l.node(ts, name).Networks[0].Heartbeat.Addr())
		}
		ts.Check(to.ns.run(rules, "nft", "-f", "-"))
	}
}

func (l *lab) delay(ts *testscript.TestScript, _ bool, args []string) {
	delays := durations(ts, args[2:])
	l.wire.set(l.directions(ts, args), func(c *condition) {
		c.delay, c.jitter = delays[0], 0
		if len(delays) > 1 {
			c.jitter = delays[1]
		}
	})
}

func (l *lab) lose(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	l.wire.set(l.directions(ts, args), func(c *condition) { c.lose, c.count = n, 0 })
}

func (l *lab) late(ts *testscript.TestScript, _ bool, args []string) {
	delays := durations(ts, args[2:])
	l.wire.set(l.directions(ts, args), func(c *condition) { c.script = slices.Clone(delays) })
}

func durations(ts *testscript.TestScript, words []string) (all []time.Duration) {
	for _, word := range words {
		d, err := time.ParseDuration(word)
		ts.Check(err)
		all = append(all, d)
	}
	return all
}

func (l *lab) restart(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(l.node(ts, args[0]).run())
}

// dial is a client of a node's agent.
func (l *lab) dial(ts *testscript.TestScript, name string) *client.Client {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, l.node(ts, name).socket)
	ts.Check(err)
	return c
}

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
	copies  map[string]*labCopy // by node
	wire    *wire
	heard   *verdictLog
	timers  *fixedTimers
}

// labKey finds the lab of a script.
type labKey struct{}

type labNode struct {
	*localNode
	ns         *namespace
	interfaces map[string]string // by network, where it is not the one of the same name
	agents     []*family         // every one that was started; the last may be running
	dropped    []netip.Addr      // whose packets it does not take
}

// labWords are what a script can do with its lab: `lab WORD ARGS...`.
var labWords = map[string]struct {
	usage string
	args  int // at least
	do    func(*lab, *testscript.TestScript, bool, []string)
}{
	"start":       {"NODES [NETWORKS]: agents, and waits until all hold all up", 1, (*lab).start},
	"restart":     {"NODE: its agent again, after it was killed", 1, (*lab).restart},
	"kill":        {"NODE LIMIT [COUNT]: SIGKILL, and all others hold it down within LIMIT", 2, (*lab).kill},
	"pause":       {"NODE TIME [COUNT]: SIGSTOP, and SIGCONT after TIME; ends when all hold it up", 2, (*lab).pause},
	"drop":        {"FROM[@NETWORK] TO: no packet passes, by nft; * is every other node", 2, (*lab).drop},
	"undrop":      {"FROM[@NETWORK] TO: ends drop", 2, (*lab).undrop},
	"cut":         {"A[@NETWORK] B: drop in both directions", 2, (*lab).cutBoth},
	"heal":        {"A[@NETWORK] B: ends cut", 2, (*lab).heal},
	"set":         {"NODE NETWORK up|down: its interface", 3, (*lab).setInterface},
	"cable":       {"NODE NETWORK in|out: the carrier of its interface", 3, (*lab).cable},
	"address":     {"NODE NETWORK del|add|move: its address, from the interface, to it, or to another one", 3, (*lab).address},
	"copy":        {"NODE NETWORK...: a copy of its state runs elsewhere, and has its addresses on these networks", 2, (*lab).copyState},
	"uncopy":      {"NODE: ends the copy with SIGTERM; the node has its addresses again", 1, (*lab).endCopy},
	"ip":          {"NODE ARGS...: ip(8) in its namespace", 2, (*lab).ip},
	"mtu":         {"FROM[@NETWORK] TO BYTES: larger packets are lost on the way; 0 for none", 3, (*lab).mtu},
	"delay":       {"FROM TO DELAY [JITTER]", 3, (*lab).delay},
	"lose":        {"FROM TO N: one of N datagrams, 0 for none", 3, (*lab).lose},
	"late":        {"FROM TO DELAY...: one delay for each of the next datagrams", 3, (*lab).late},
	"settle":      {"waits until every link has adapted to a short path", 0, (*lab).settle},
	"period":      {"FROM TO MIN MAX: waits for three heartbeats in a row that are so far apart, as announced", 4, (*lab).period},
	"missed":      {"[!] FROM TO DELAY: the next heartbeat is so late, and TO holds it missed", 3, (*lab).missed},
	"rtt":         {"NODE PEER N: the next N round trips give the MRT and D that are reported", 3, (*lab).roundTrips},
	"maxdev":      {"NODE PEER LOW HIGH: waits until the maximum deviation of the link is within", 4, (*lab).maxDeviation},
	"linkdown":    {"NODE PEER: waits until NODE holds the link down, which its deviation must justify", 2, (*lab).linkDown},
	"linkstate":   {"NODE PEER/NETWORK STATE|STATE... within TIME: waits until the link is in one of them", 5, (*lab).linkState},
	"carrierloss": {"NODE PEER/NETWORK LIMIT COUNT: pulls the cable so often; the row tells within LIMIT of the kernel, each time", 4, (*lab).carrierLoss},
	"timers":      {"start|count: fixed timers beside the heartbeats, and how often they are wrong", 1, (*lab).fixedTimers},
	"verdicts":    {"prints what changed, at any node, since the last time", 0, (*lab).verdicts},
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
	networks := 1
	if len(args) > 1 {
		networks, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	seed := rand.Uint64()
	ts.Logf("seed of the wire: %d", seed)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dir := ts.MkAbs("dev")
	l.cluster, l.wire = &localCluster{name: "dev", dir: dir}, newWire(seed)
	ts.Defer(func() { ts.Check(l.stop()) })
	ts.Check(l.create(networks, count))
	for _, n := range l.nodes {
		ts.Check(n.connect(l.wire))
	}
	for _, n := range l.nodes {
		ts.Check(n.run())
	}
	for _, n := range l.nodes {
		ts.Check(l.cluster.waitAllUp(ctx, n.localNode))
	}
	l.heard, err = listen(ctx, l.nodes)
	ts.Check(err)
}

// create makes the cluster, on net1, net2, ….
func (l *lab) create(networks, count int) error {
	var made []agent.LocalNode
	for i := range count {
		n := agent.LocalNode{
			Name:    string(rune('a' + i)),
			Streams: netip.AddrPortFrom(labAddr(1, i), labPort+1),
			Web:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), labPort+2),
		}
		n.State = filepath.Join(l.cluster.dir, n.Name)
		for network := range networks {
			addr := labAddr(network+1, i)
			n.Networks = append(n.Networks, agent.Network{Name: labNetwork(network + 1), Heartbeat: netip.AddrPortFrom(addr, labPort)})
			l.wire.name(addr, end{n.Name, labNetwork(network + 1)})
		}
		made = append(made, n)
		l.cluster.add(n)
		l.nodes = append(l.nodes, &labNode{localNode: l.cluster.nodes[i], interfaces: map[string]string{}})
		if err := os.MkdirAll(n.State, 0o700); err != nil {
			return err
		}
	}
	if _, err := agent.CreateLocal(l.cluster.name, made, l.cluster.clientDir(), ""); err != nil {
		return err
	}
	return l.cluster.writeSettings()
}

// labAddr is the address of a node, from 0, on a network, from 1.
func labAddr(network, node int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(network), byte(node + 1)})
}

// labNetwork is the name of a network, from 1.
func labNetwork(n int) string { return fmt.Sprintf("net%d", n) }

// connect makes the node's networks.
func (n *labNode) connect(w *wire) (err error) {
	if n.ns, err = newNamespace(); err != nil {
		return err
	}
	errs := []error{
		n.ns.run("", "ip", "link", "set", "lo", "up"),
		n.ns.run("table ip lab { chain input { type filter hook input priority 0; }; }", "nft", "-f", "-"),
	}
	for _, network := range n.Networks {
		errs = append(errs, n.plug(w, network.Heartbeat.Addr(), network.Name))
	}
	return errors.Join(errs...)
}

// plug gives the node an interface with an address.
func (n *labNode) plug(w *wire, addr netip.Addr, name string) error {
	port, err := n.ns.openTun(name)
	if err != nil {
		return err
	}
	w.plug(addr, port)
	return errors.Join(
		n.ns.run("", "ip", "address", "add", addr.String()+"/24", "dev", name),
		n.ns.run("", "ip", "link", "set", name, "up"),
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
	nodes := slices.Clone(l.nodes)
	for _, c := range l.copies {
		nodes = append(nodes, c.labNode)
	}
	for _, n := range nodes {
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
	for _, n := range nodes {
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

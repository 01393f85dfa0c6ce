package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/belfry-ha/belfry/internal/agent"
)

// directions are those that two words name: a b, a *, * a; on all networks, or
// with a@net2 b on one.
func (l *lab) directions(ts *testscript.TestScript, args []string) (all []direction) {
	first, only, one := strings.Cut(args[0], "@")
	var networks []string
	for _, network := range l.nodes[0].Networks {
		if !one || network.Name == only {
			networks = append(networks, network.Name)
		}
	}
	if len(networks) == 0 {
		ts.Fatalf("no network %s in the lab", only)
	}
	names := func(word string) (matching []string) {
		if word != "*" {
			return []string{l.node(ts, word).Name}
		}
		for _, n := range l.nodes {
			matching = append(matching, n.Name)
		}
		return matching
	}
	for _, from := range names(first) {
		for _, to := range names(args[1]) {
			for _, network := range networks {
				if from != to {
					all = append(all, direction{from, to, network})
				}
			}
		}
	}
	return all
}

// opposite are the same directions, the other way round.
func opposite(all []direction) (back []direction) {
	for _, d := range all {
		back = append(back, direction{d.to, d.from, d.network})
	}
	return back
}

// addr is the address of a node on a network, which must be one of the lab's.
func (l *lab) addr(ts *testscript.TestScript, node, network string) netip.Addr {
	networks := l.node(ts, node).Networks
	i := slices.IndexFunc(networks, func(n agent.Network) bool { return n.Name == network })
	if i < 0 {
		ts.Fatalf("node %s is on no network %s", node, network)
	}
	return networks[i].Heartbeat.Addr()
}

func (l *lab) drop(ts *testscript.TestScript, _ bool, args []string) {
	l.filter(ts, l.directions(ts, args), true)
}

func (l *lab) undrop(ts *testscript.TestScript, _ bool, args []string) {
	l.filter(ts, l.directions(ts, args), false)
}

func (l *lab) cutBoth(ts *testscript.TestScript, _ bool, args []string) {
	all := l.directions(ts, args)
	l.filter(ts, append(all, opposite(all)...), true)
}

func (l *lab) heal(ts *testscript.TestScript, _ bool, args []string) {
	all := l.directions(ts, args)
	l.filter(ts, append(all, opposite(all)...), false)
}

// filter replaces the rules of the receivers.
func (l *lab) filter(ts *testscript.TestScript, all []direction, drop bool) {
	for _, d := range all {
		to, from := l.node(ts, d.to), l.addr(ts, d.from, d.network)
		to.dropped = slices.DeleteFunc(to.dropped, func(addr netip.Addr) bool { return addr == from })
		if drop {
			to.dropped = append(to.dropped, from)
		}
		rules := "flush chain ip lab input\n"
		for _, addr := range to.dropped {
			rules += fmt.Sprintf("add rule ip lab input ip saddr %s drop\n", addr)
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

// mtu makes a network on the way narrow, and nobody say so (RFC 2923 2.1).
func (l *lab) mtu(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	l.wire.set(l.directions(ts, args), func(c *condition) { c.mtu = n })
}

// device is the interface that has a node's address on a network.
func (n *labNode) device(network string) string {
	if name, ok := n.interfaces[network]; ok {
		return name
	}
	return network
}

func (l *lab) setInterface(ts *testscript.TestScript, _ bool, args []string) {
	n := l.node(ts, args[0])
	ts.Check(n.ns.run("", "ip", "link", "set", n.device(args[1]), args[2]))
}

// ip is for interfaces that are none of the lab's networks.
func (l *lab) ip(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(l.node(ts, args[0]).ns.run("", "ip", args[1:]...))
}

func (l *lab) cable(ts *testscript.TestScript, _ bool, args []string) {
	if args[2] != "in" && args[2] != "out" {
		ts.Fatalf("a cable is in or out")
	}
	ts.Check(l.wire.setCarrier(l.addr(ts, args[0], args[1]), args[2] == "in"))
}

// address takes an address from its interface, gives it back, or moves it to
// an interface that was not there before.
func (l *lab) address(ts *testscript.TestScript, _ bool, args []string) {
	n, addr := l.node(ts, args[0]), l.addr(ts, args[0], args[1])
	device := n.device(args[1])
	switch args[2] {
	case "add", "del":
		ts.Check(n.ns.run("", "ip", "address", args[2], addr.String()+"/24", "dev", device))
	case "move":
		ts.Check(n.ns.run("", "ip", "address", "del", addr.String()+"/24", "dev", device))
		n.interfaces[args[1]] = device + "x"
		ts.Check(n.plug(l.wire, addr, n.device(args[1])))
	default:
		ts.Fatalf("an address can be del, add or move")
	}
}

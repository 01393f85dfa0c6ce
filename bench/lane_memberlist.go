package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// nodeRole is one node of memberlist as a process.
const nodeRole = "node"

// A nodeJob is how it starts.
type nodeJob struct {
	System string `json:"system"`
	Node   int    `json:"node"`
	Join   string `json:"join"` // empty: it is the first
}

// A nodeWord is what it says: that it is there, or a verdict. Members is how
// many it knows, itself among them.
type nodeWord struct {
	At      time.Time `json:"at"`
	Subject int       `json:"subject"`
	Verdict verdict   `json:"verdict"`
	Members int       `json:"members"`
}

func realAddress(node int) string { return net.IPv4(127, 0, 12, byte(node+1)).String() }

// playNode runs until its input ends.
func playNode(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	var j nodeJob
	text, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	chosen, err := chosen(j.System)
	if err != nil {
		return err
	}
	mouth := &mouth{out: json.NewEncoder(out), names: map[string]int{}}
	for i := range maxBelfryNodes {
		mouth.names[nodeName(i)] = i
	}
	c := chosen[0].settings(nodeName(j.Node), nil, mouth)
	c.BindAddr, c.AdvertiseAddr = realAddress(j.Node), realAddress(j.Node)
	m, err := memberlist.Create(c)
	if err != nil {
		return err
	}
	for j.Join != "" {
		if _, err := m.Join([]string{j.Join}); err == nil {
			break
		}
		idleFor(joinRetry)
	}
	_, err = io.Copy(io.Discard, lines)
	return err
}

// A mouth is the EventDelegate of a node: it says what it is told.
type mouth struct {
	mu    sync.Mutex
	out   *json.Encoder
	names map[string]int
	known int
}

func (m *mouth) say(n *memberlist.Node, v verdict, change int) {
	at := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known += change
	_ = m.out.Encode(nodeWord{At: at, Subject: m.names[n.Name], Verdict: v, Members: m.known}) // nobody listens: it ends soon
}

func (m *mouth) NotifyJoin(n *memberlist.Node) { m.say(n, up, +1) }

func (m *mouth) NotifyLeave(n *memberlist.Node) { m.say(n, down, -1) }

func (m *mouth) NotifyUpdate(*memberlist.Node) {}

// memberlistCluster is one process for each node.
type memberlistCluster struct {
	nodes []*child
	wake  chan struct{} // one slot: something was said

	mu      sync.Mutex
	members []int // that each node knows
	log     *sightings
}

func startMemberlist(system string, nodes int) (*memberlistCluster, error) {
	c := &memberlistCluster{members: make([]int, nodes), wake: make(chan struct{}, 1)}
	for i := range nodes {
		n, err := startRole(nodeRole, nil)
		if err == nil {
			c.nodes = append(c.nodes, n)
			j := nodeJob{System: system, Node: i}
			if i > 0 {
				j.Join = fmt.Sprintf("%s:%d", realAddress(0), memberlistPort)
			}
			err = n.asks.Encode(j)
		}
		if err != nil {
			return nil, errors.Join(err, c.stop())
		}
		go c.listen(i, n)
	}
	return c, nil
}

// listen ends with the node.
func (c *memberlistCluster) listen(node int, n *child) {
	for {
		var w nodeWord
		if n.answers.Decode(&w) != nil {
			return
		}
		c.mu.Lock()
		c.members[node] = w.Members
		if c.log != nil && w.Subject != node {
			c.log.add(w.At, observation{Observer: node, Subject: w.Subject, Verdict: w.Verdict})
		}
		c.mu.Unlock()
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

func (c *memberlistCluster) formed(ctx context.Context) error {
	for {
		c.mu.Lock()
		all := true
		for _, known := range c.members {
			all = all && known == len(c.nodes)
		}
		c.mu.Unlock()
		if all {
			return nil
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return fmt.Errorf("the nodes did not find each other: %w\n%s", ctx.Err(), c.complaints())
		}
	}
}

func (c *memberlistCluster) complaints() string {
	var all []string
	for _, n := range c.nodes {
		if text := n.stderr.String(); text != "" {
			all = append(all, text)
		}
	}
	return strings.Join(all, "\n")
}

func (c *memberlistCluster) watch(_ context.Context, l *sightings) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = l
	return nil
}

func (c *memberlistCluster) process(node int) int { return c.nodes[node].cmd.Process.Pid }

// stop kills: memberlist has nothing to put in order.
func (c *memberlistCluster) stop() error {
	for _, n := range c.nodes {
		n.kill()
	}
	return nil
}

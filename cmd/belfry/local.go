package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/agent"
	"github.com/belfry-ha/belfry/internal/cloudevents"
)

// A localCluster is a cluster on one machine: an agent process for each node,
// on loopback addresses of its own, with a state directory of its own.
type localCluster struct {
	name      string
	dir       string
	temporary bool           // remove dir when it is stopped
	members   bool           // made without a repository file
	dirLock   net.Listener   // holds the directory
	ports     []net.Listener // hold the blocks of ports, one each
	nodes     []*localNode
}

// Bounds of a cluster on one machine.
const (
	maxLocalNodes = 26 // a to z
	firstPort     = 7431
	portBlock     = 10  // ports of one node: heartbeats, streams, web
	blocks        = 500 // ends far below the ephemeral ports
	startTimeout  = 20 * time.Second
	agentStop     = 6 * time.Second // an agent bounds its own end with 5 s
)

// newLocalCluster makes the cluster in dir, or takes up the one that is there.
// An empty dir is a temporary one. With members set a new one has no repository.
func newLocalCluster(dir string, count int, members bool) (_ *localCluster, err error) {
	c := &localCluster{dir: dir, name: filepath.Base(dir), members: members}
	if dir == "" {
		if c.dir, err = os.MkdirTemp("", "belfry-"); err != nil {
			return nil, err
		}
		c.temporary, c.name = true, "local"
	}
	defer func() {
		if err != nil {
			c.remove()
		}
	}()
	if count < 1 || count > maxLocalNodes {
		return nil, fmt.Errorf("%w: --nodes %d; want 1 to %d", belfry.ErrUsage, count, maxLocalNodes)
	}
	if err := c.reserveDir(); err != nil {
		return nil, err
	}
	if members, openErr := agent.OpenMembers(c.nodeDir("a")); openErr == nil {
		return c, c.takeUp(members.Table(), count)
	} else if !errors.Is(openErr, belfry.ErrNotMember) {
		return nil, openErr
	}
	return c, c.create(count)
}

// reserveDir keeps a second belfry up away from the directory, also while the
// first is still writing keys.
func (c *localCluster) reserveDir() error {
	path, err := filepath.Abs(c.dir)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return fmt.Errorf("%w: %s is not a directory; name one, or what can be made one", belfry.ErrUsage, c.dir)
	}
	lock, err := net.Listen("unix", fmt.Sprintf("@belfry-up-%x", sha256.Sum256([]byte(path))))
	if err != nil {
		return fmt.Errorf("%w: another belfry up uses %s; stop it or use another directory", belfry.ErrExist, c.dir)
	}
	c.dirLock = lock
	return nil
}

func (c *localCluster) nodeDir(name string) string { return filepath.Join(c.dir, name) }

func (c *localCluster) clientDir() string { return filepath.Join(c.dir, "client") }

// takeUp uses the ports that the cluster had before: they are in its member
// table.
func (c *localCluster) takeUp(t *agent.Table, count int) error {
	if len(t.Nodes) != count {
		return fmt.Errorf("%w: %s holds a cluster of %d nodes (%s); use --nodes %d or another directory", belfry.ErrUsage, c.dir, len(t.Nodes), t.Names(), len(t.Nodes))
	}
	c.name = t.Name
	base := int(t.Nodes[0].Networks[0].Heartbeat.Port())
	locks, err := reservePorts(base, count)
	if err != nil {
		return fmt.Errorf("%w: another belfry up uses the ports from %d, which are those of %s; stop it or use another directory", belfry.ErrExist, base, c.dir)
	}
	c.ports = locks
	for _, n := range t.Nodes {
		c.add(agent.LocalNode{Name: n.Name, State: c.nodeDir(n.Name), Networks: n.Networks, Streams: n.Streams, Web: n.Web})
	}
	return c.writeSettings()
}

func (c *localCluster) create(count int) error {
	base, err := c.findPorts(count)
	if err != nil {
		return err
	}
	var nodes []agent.LocalNode
	for i := range count {
		name := string(rune('a' + i))
		nodes = append(nodes, localAddresses(name, c.nodeDir(name), i, base))
		c.add(nodes[i])
	}
	for _, n := range nodes {
		if err := os.MkdirAll(n.State, 0o700); err != nil {
			return err
		}
	}
	file := filepath.Join(c.dir, localRepository)
	if c.members {
		file = ""
	}
	if _, err := agent.CreateLocal(c.name, nodes, c.clientDir(), file); err != nil {
		return err
	}
	return c.writeSettings()
}

func (c *localCluster) add(n agent.LocalNode) {
	c.nodes = append(c.nodes, &localNode{LocalNode: n, socket: filepath.Join(n.State, "belfry.sock")})
}

// localRepository is the file of such a cluster, in its directory.
const localRepository = "repository.belfry"

const settingsText = `# Settings of one agent; what differs from the defaults.
node: {name: %s}
state: %q
socket: {path: %q, group: ""}
ports: {heartbeat: %d, streams: %d}
web: {listen: %q}
repository: {search: [%q]}
log: {level: info, format: text}
`

func (c *localCluster) writeSettings() error {
	for _, n := range c.nodes {
		state, err := filepath.Abs(n.State)
		if err != nil {
			return err
		}
		text := fmt.Sprintf(settingsText, n.Name, state, filepath.Join(state, "belfry.sock"), n.Networks[0].Heartbeat.Port(), n.Streams.Port(), n.Web, filepath.Dir(state))
		if err := os.WriteFile(n.settings(), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// start starts all agents and waits until each holds all of them up.
func (c *localCluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, n := range c.nodes {
		if err := n.start(); err != nil {
			return err
		}
	}
	for _, n := range c.nodes { // they come up side by side
		if err := c.waitAllUp(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// waitAllUp takes the present states and then their changes until n holds
// every node up, but for those that the configuration holds left.
func (c *localCluster) waitAllUp(ctx context.Context, n *localNode) error {
	conn, err := n.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	states, err := conn.Register(ctx, belfry.Registration{Class: "node.state", Snapshot: true})
	if err != nil {
		return fmt.Errorf("agent %s: %w", n.Name, err)
	}
	defer states.Close()
	up := map[string]bool{}
	for len(up) < len(c.nodes) {
		got, err := states.Next(ctx)
		if err != nil {
			return fmt.Errorf("agent %s holds %d of %d nodes up: %w", n.Name, len(up), len(c.nodes), err)
		}
		if got.Kind == belfry.KindState || got.Kind == belfry.KindOccurrence {
			delete(up, got.Event.Subject)
			if verdictOf(got) == belfry.VerdictUp.String() || fieldOf(got, "cause") == belfry.CauseStopped.String() {
				up[got.Event.Subject] = true
			}
		}
	}
	return waitLinksUp(ctx, conn)
}

// waitLinksUp waits until the agent hears all others itself: a node is up as
// soon as anybody hears it.
func waitLinksUp(ctx context.Context, conn *client.Client) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := conn.Status(ctx)
		if err != nil {
			return err
		}
		if status.GetLinksUp() == status.GetLinksTotal() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("agent %s has %d of %d links up: %w", status.GetNodeName(), status.GetLinksUp(), status.GetLinksTotal(), ctx.Err())
		}
	}
}

// verdictOf is the verdict that a notification of node.state reports.
func verdictOf(n belfry.Notification) string { return fieldOf(n, "to") }

// fieldOf is a text field of a notification's data; empty: it has none.
func fieldOf(n belfry.Notification, name string) string {
	fields, err := cloudevents.Fields(n.Event.Class, n.Data)
	if err != nil {
		return ""
	}
	text, _ := fields[name].(string)
	return text
}

// stop ends all agents, waits for them, and removes what is temporary.
func (c *localCluster) stop() {
	for _, n := range c.nodes {
		_ = n.signal(syscall.SIGTERM) // one that has ended needs none
	}
	deadline := time.After(agentStop)
	for _, n := range c.nodes {
		_, exited := n.running()
		if exited == nil {
			continue
		}
		select {
		case <-exited:
		case <-deadline:
			_ = n.signal(syscall.SIGKILL)
			<-exited
		}
	}
	c.remove()
}

func (c *localCluster) remove() {
	closeAll(c.ports)
	if c.dirLock != nil {
		c.dirLock.Close()
	}
	if c.temporary {
		_ = os.RemoveAll(c.dir)
	}
}

// names are the nodes' names, for messages.
func (c *localCluster) names() string {
	var names []string
	for _, n := range c.nodes {
		names = append(names, n.Name)
	}
	return strings.Join(names, " ")
}

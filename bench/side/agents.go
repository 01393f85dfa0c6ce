// Package side is what the side-by-side benches share: processes of their own,
// agents, where figures come from, and tables of ratios.
package side

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/belfry-ha/belfry/client"
)

// Agents are a cluster on loopback, each agent a process of its own.
type Agents struct {
	Program string         // belfry
	PIDs    map[string]int // by name; Settle brings it up to date
	nodes   int
	dir     string
	up      *Child
}

// StartAgents builds the program and starts a cluster of nodes, 1 to 26, as
// belfry up does. env is added to the environment of the agents.
func StartAgents(ctx context.Context, nodes int, env ...string) (a *Agents, err error) {
	if os.Getuid() != 0 {
		return nil, errors.New("an agent takes 1,000 events a second from each user but root; run this as root")
	}
	dir, err := os.MkdirTemp("", "belfry-bench-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	a = &Agents{Program: filepath.Join(dir, "belfry"), PIDs: map[string]int{}, nodes: nodes, dir: dir}
	build := exec.CommandContext(ctx, "go", "build", "-o", a.Program, "./cmd/belfry")
	build.Dir, err = moduleRoot()
	if err != nil {
		return nil, err
	}
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build ./cmd/belfry: %w\n%s", err, text)
	}
	up := exec.Command(a.Program, "up", "--nodes", strconv.Itoa(nodes), "--state", filepath.Join(dir, "state"))
	up.Env = append(os.Environ(), env...)
	if a.up, _, err = Start(up); err != nil {
		return nil, err
	}
	if err := a.Settle(ctx); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

// moduleRoot is the folder of Belfry's own go.mod, above bench.
func moduleRoot() (string, error) {
	text, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/belfry-ha/belfry").Output()
	if err != nil {
		return "", fmt.Errorf("go list of the main module: %w; run this in bench/", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Settle waits until a holds all nodes up, and learns their processes.
func (a *Agents) Settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, a.Socket("a"))
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return err
		}
		up := 0
		for _, n := range nodes {
			if n.GetVerdict() == "up" && n.GetPid() != 0 {
				a.PIDs[n.GetName()] = int(n.GetPid())
				up++
			}
		}
		if up == a.nodes {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the agents did not find each other: %w; see %s", ctx.Err(), a.dir)
		}
	}
}

// State is the state directory of a node, or of "client", which has the identity
// of an operator.
func (a *Agents) State(name string) string { return filepath.Join(a.dir, "state", name) }

// Socket is where a node's agent listens.
func (a *Agents) Socket(node string) string { return filepath.Join(a.State(node), "belfry.sock") }

// Resident is what all agents have in memory together, KiB.
func (a *Agents) Resident() (sum int) {
	for _, pid := range a.PIDs {
		sum += ResidentKiB(pid)
	}
	return sum
}

// Stop ends them and removes what they left.
func (a *Agents) Stop() error {
	err := a.up.Interrupt()
	return errors.Join(err, os.RemoveAll(a.dir))
}

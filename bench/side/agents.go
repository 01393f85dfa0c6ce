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
	"syscall"
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
	again   []*exec.Cmd // agents that were started once more
}

// StartAgents builds the program and starts a cluster of nodes, 1 to 26, as
// belfry up does.
func StartAgents(ctx context.Context, nodes int) (a *Agents, err error) {
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
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		up, err := a.look(ctx)
		if up == a.nodes {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the agents did not find each other: %w; see %s", errors.Join(ctx.Err(), err), a.dir)
		}
	}
}

// look counts the nodes that a holds up.
func (a *Agents) look(ctx context.Context) (up int, err error) {
	c, err := client.Dial(ctx, a.Socket("a"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	nodes, err := c.Nodes(ctx)
	for _, n := range nodes {
		if n.GetVerdict() == "up" && n.GetPid() != 0 {
			a.PIDs[n.GetName()] = int(n.GetPid())
			up++
		}
	}
	return up, err
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
	for _, cmd := range a.again {
		_ = cmd.Process.Kill() // else it has ended already
		_ = cmd.Wait()
	}
	err := a.up.Interrupt()
	return errors.Join(err, os.RemoveAll(a.dir))
}

// Configure adds settings to those of a node, and starts its agent with them.
func (a *Agents) Configure(ctx context.Context, node, settings string) error {
	f, err := os.OpenFile(a.settings(node), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(settings)
	if err := errors.Join(err, f.Close(), a.Kill(node), a.Restart(node)); err != nil {
		return err
	}
	return a.Settle(ctx)
}

func (a *Agents) settings(node string) string { return filepath.Join(a.State(node), "belfry.yaml") }

// Kill ends a node's agent as a crash does.
func (a *Agents) Kill(node string) error { return syscall.Kill(a.PIDs[node], syscall.SIGKILL) }

// Restart starts the agent of a node that was killed. Settle then waits for it.
func (a *Agents) Restart(node string) error {
	cmd := exec.Command(a.Program, "agent", "--config", a.settings(node))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	a.again = append(a.again, cmd)
	return nil
}

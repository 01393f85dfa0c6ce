package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/agent"
)

// A localNode is one of its agents.
type localNode struct {
	agent.LocalNode
	socket string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

func (n *localNode) settings() string { return filepath.Join(n.State, "belfry.yaml") }

func (n *localNode) log() string { return filepath.Join(n.State, "agent.log") }

// start starts the node's agent. It does not wait until it answers.
func (n *localNode) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(self, "agent", "--config", n.settings())
	cmd.Env = withoutSettings(os.Environ())
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own, so that Ctrl-C reaches this process alone, which then
	// stops the agents in order; and an end when this process is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	n.mu.Lock()
	n.cmd, n.exited = cmd, exited
	n.mu.Unlock()
	go func() {
		_ = cmd.Wait() // the state is in cmd
		close(exited)
	}()
	return nil
}

// withoutSettings keeps the caller's BELFRY_… away from the agents: each has
// its own file.
func withoutSettings(environ []string) []string {
	var kept []string
	for _, v := range environ {
		if !strings.HasPrefix(v, "BELFRY_") {
			kept = append(kept, v)
		}
	}
	return kept
}

func (n *localNode) running() (*exec.Cmd, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd, n.exited
}

// signal sends sig to the agent, if one was started.
func (n *localNode) signal(sig os.Signal) error {
	cmd, _ := n.running()
	if cmd == nil {
		return nil
	}
	return cmd.Process.Signal(sig)
}

// dial waits until the agent answers, or has ended, or ctx ends.
func (n *localNode) dial(ctx context.Context) (*client.Client, error) {
	_, exited := n.running()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := client.Dial(ctx, n.socket)
		if err == nil {
			return c, nil
		}
		select {
		case <-exited:
			return nil, fmt.Errorf("agent %s ended: %s", n.Name, n.lastWords())
		case <-ctx.Done():
			return nil, fmt.Errorf("agent %s does not answer: %w", n.Name, err)
		case <-tick.C:
		}
	}
}

// lastWords is the end of the agent's log, which says why it ended.
func (n *localNode) lastWords() string {
	const tail = 512
	f, err := os.Open(n.log())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-tail), io.SeekStart)
	}
	text, _ := io.ReadAll(f)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "belfry: ")
}

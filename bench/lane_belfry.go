package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/cloudevents"
)

// belfryCluster is what belfry up starts.
type belfryCluster struct {
	dir     string
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has ended
	nodes   int
	pids    []int
	clients []*client.Client
}

// maxBelfryNodes is how many belfry up allows.
const maxBelfryNodes = 26

func startBelfry(ctx context.Context, program string, nodes int) (*belfryCluster, error) {
	// Beside the program: the parent removes both, whatever ends this process.
	dir, err := os.MkdirTemp(filepath.Dir(program), "cluster-")
	if err != nil {
		return nil, err
	}
	c := &belfryCluster{dir: dir, nodes: nodes, pids: make([]int, nodes), done: make(chan struct{})}
	c.cmd = exec.Command(program, "up", "--nodes", fmt.Sprint(nodes), "--state", filepath.Join(dir, "state"))
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func nodeLetter(node int) string { return string(rune('a' + node)) }

// formed asks every agent.
func (c *belfryCluster) formed(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := c.ask(ctx)
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the agents did not find each other: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// ask is whether everyone holds everyone up.
func (c *belfryCluster) ask(ctx context.Context) (bool, error) {
	for i := len(c.clients); i < c.nodes; i++ {
		conn, err := client.Dial(ctx, filepath.Join(c.dir, "state", nodeLetter(i), "belfry.sock"))
		if err != nil {
			return false, err
		}
		c.clients = append(c.clients, conn)
	}
	for _, conn := range c.clients {
		nodes, err := conn.Nodes(ctx)
		if err != nil {
			return false, err
		}
		ups := 0
		for _, n := range nodes {
			if n.GetVerdict() != up.String() {
				continue
			}
			ups++
			if pid := int(n.GetPid()); pid != 0 {
				c.pids[n.GetName()[0]-'a'] = pid
			}
		}
		if ups != c.nodes {
			return false, nil
		}
	}
	for _, pid := range c.pids {
		if pid == 0 {
			return false, nil
		}
	}
	return true, nil
}

// watch registers for the verdicts of every agent.
func (c *belfryCluster) watch(ctx context.Context, l *sightings) error {
	for i, conn := range c.clients {
		s, err := conn.Register(ctx, belfry.Registration{Class: "node.state"})
		if err != nil {
			return err
		}
		go func() { _ = follow(ctx, s, i, l) }() // ends with the agent, or the repetition
	}
	return nil
}

func follow(ctx context.Context, s *client.Stream, observer int, l *sightings) error {
	for {
		n, err := s.Next(ctx)
		if err != nil {
			return err
		}
		at := time.Now()
		if n.Kind != belfry.KindOccurrence {
			continue
		}
		fields, err := cloudevents.Fields(n.Event.Class, n.Data)
		if err != nil {
			return err
		}
		for v := up; v <= left; v++ {
			if fields["to"] == v.String() {
				l.add(at, observation{Observer: observer, Subject: int(n.Event.Subject[0] - 'a'), Verdict: v})
			}
		}
	}
}

func (c *belfryCluster) process(node int) int { return c.pids[node] }

func (c *belfryCluster) stop() error {
	for _, conn := range c.clients {
		_ = conn.Close()
	}
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	timer := time.AfterFunc(endTimeout, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	<-c.done
	return os.RemoveAll(c.dir)
}

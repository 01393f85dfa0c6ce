package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// agents is a cluster of two, a and b, each agent a process of its own: events
// are posted at b and consumed at a.
type agents struct {
	dir  string
	up   *child
	pids map[string]int // by name
}

const class = "user.bench"

// startAgents builds the program and starts the cluster.
func startAgents(ctx context.Context) (a *agents, err error) {
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
	program := filepath.Join(dir, "belfry")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/belfry")
	build.Dir, err = moduleRoot()
	if err != nil {
		return nil, err
	}
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build ./cmd/belfry: %w\n%s", err, text)
	}
	a = &agents{dir: dir, pids: map[string]int{}}
	if a.up, _, err = startChild(exec.Command(program, "up", "--nodes", "2", "--state", filepath.Join(dir, "state"))); err != nil {
		return nil, err
	}
	if err := a.settle(ctx); err != nil {
		return nil, errors.Join(err, a.stop())
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

// settle learns the agents' processes, once a knows of both.
func (a *agents) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, a.socket("a"))
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
		for _, n := range nodes {
			if n.GetVerdict() == "up" && n.GetPid() != 0 {
				a.pids[n.GetName()] = int(n.GetPid())
			}
		}
		if a.pids["a"] != 0 && a.pids["b"] != 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the agents did not find each other: %w; see %s", ctx.Err(), a.dir)
		}
	}
}

func (a *agents) socket(node string) string {
	return filepath.Join(a.dir, "state", node, "belfry.sock")
}

// resident is what both agents have in memory together, KiB.
func (a *agents) resident() int { return residentKiB(a.pids["a"]) + residentKiB(a.pids["b"]) }

func (a *agents) stop() error {
	err := a.up.interrupt()
	return errors.Join(err, os.RemoveAll(a.dir))
}

// A belfryBus is a sender at b and consumers at a, each with a connection of
// its own.
type belfryBus struct {
	agents *agents

	clients []*client.Client
	streams []*client.Stream
	sender  *client.Sender
	names   []string

	stop    context.CancelFunc
	readers sync.WaitGroup
	mu      sync.Mutex
	err     error // the first of a reader
}

func (b *belfryBus) dial(ctx context.Context, node string) (*client.Client, error) {
	c, err := client.Dial(ctx, b.agents.socket(node))
	if err == nil {
		b.clients = append(b.clients, c)
	}
	return c, err
}

// queueLimit is what each registration may hold before it begins to drop.
const queueLimit = 65_536

func (b *belfryBus) open(ctx context.Context, consumers, subjects int, deliver func(int, delivery)) error {
	b.names = make([]string, subjects)
	for i := range b.names {
		b.names[i] = "n/" + strconv.Itoa(i)
	}
	r := belfry.Registration{Class: class, Subject: "n/*", Scope: belfry.ScopeCluster, Limit: queueLimit}
	if subjects == 1 {
		r.Subject = b.names[0]
	}
	running, stop := context.WithCancel(ctx)
	b.stop = stop
	for i := range consumers {
		c, err := b.dial(ctx, "a")
		if err != nil {
			return err
		}
		s, err := c.Register(ctx, r, client.Name(fmt.Sprintf("bench %d", i)))
		if err != nil {
			return err
		}
		b.streams = append(b.streams, s)
		b.readers.Go(func() { b.fail(read(running, s, i, deliver)) })
	}
	c, err := b.dial(ctx, "b")
	if err != nil {
		return err
	}
	b.sender, err = c.Sender(running)
	return err
}

// read hands on what one stream brings until ctx ends.
func read(ctx context.Context, s *client.Stream, consumer int, deliver func(int, delivery)) error {
	for {
		n, err := s.Next(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		d := delivery{count: n.Count, oldest: n.FirstTime, newest: n.Time}
		if n.Gap != nil {
			d.lost = n.Gap.Total
		}
		if _, number, ok := strings.Cut(n.Event.Subject, "/"); ok {
			if d.subject, err = strconv.Atoi(number); err != nil {
				return err
			}
		}
		if d.count+d.lost > 0 {
			deliver(consumer, d)
		}
	}
}

func (b *belfryBus) post(ctx context.Context, subject int) error {
	return b.sender.Post(ctx, class, b.names[subject], nil, 1)
}

func (b *belfryBus) servers() []int { return []int{b.agents.pids["a"], b.agents.pids["b"]} }

func (b *belfryBus) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil && err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
}

func (b *belfryBus) close() error {
	if b.stop != nil {
		b.stop()
	}
	if b.sender != nil {
		b.sender.Close()
	}
	b.readers.Wait()
	for _, s := range b.streams {
		s.Close()
	}
	for _, c := range b.clients {
		_ = c.Close()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

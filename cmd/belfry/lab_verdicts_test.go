package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
)

// A verdictLog holds what the agents of a lab told of verdicts, in the order
// it came: it is a client of each of them.
type verdictLog struct {
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu      sync.Mutex
	changes []heardVerdict
	told    int           // changes that the script has asked for
	news    chan struct{} // closed and replaced when changes grows
}

type heardVerdict struct {
	at   string // the node whose agent told it
	came time.Time
	line string // "c  up -> down (process)"
}

// listen registers at all agents before it returns.
func listen(ctx context.Context, nodes []*labNode) (*verdictLog, error) {
	running, cancel := context.WithCancel(context.Background())
	v := &verdictLog{cancel: cancel, news: make(chan struct{})}
	for _, n := range nodes {
		conn, err := n.dial(ctx)
		if err != nil {
			v.stop()
			return nil, err
		}
		stream, err := conn.Register(ctx, belfry.Registration{Class: "node.state"})
		if err != nil {
			v.stop()
			return nil, errors.Join(err, conn.Close())
		}
		v.group.Go(func() {
			defer conn.Close()
			v.follow(running, n.Name, stream)
		})
	}
	return v, nil
}

func (v *verdictLog) stop() {
	v.cancel()
	v.group.Wait()
}

func (v *verdictLog) follow(ctx context.Context, at string, stream *client.Stream) {
	for {
		n, err := stream.Next(ctx)
		if err != nil {
			return
		}
		line := fmt.Sprintf("%v of node.state", n.Kind)
		if n.Kind == belfry.KindOccurrence {
			_, line, _ = strings.Cut(verdictLine(n, at), "  ")
			line, _, _ = strings.Cut(line, "  seen at ")
		}
		v.mu.Lock()
		v.changes = append(v.changes, heardVerdict{at: at, came: time.Now(), line: line})
		close(v.news)
		v.news = make(chan struct{})
		v.mu.Unlock()
	}
}

// first waits for a line that a node's agent tells.
func (v *verdictLog) first(ctx context.Context, at, line string, from int) (heardVerdict, error) {
	for {
		v.mu.Lock()
		news := v.news
		for _, c := range v.changes[from:] {
			if c.at == at && c.line == line {
				v.mu.Unlock()
				return c, nil
			}
		}
		v.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return heardVerdict{}, fmt.Errorf("%s did not tell %q, but:\n%s", at, line, v.since(from))
		}
	}
}

func (v *verdictLog) since(from int) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return text(v.changes[from:])
}

func (v *verdictLog) len() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.changes)
}

// verdicts prints a line for each change: "a: c  up -> down (process)".
func (l *lab) verdicts(ts *testscript.TestScript, _ bool, _ []string) {
	v := l.heard
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Fprint(ts.Stdout(), text(v.changes[v.told:]))
	v.told = len(v.changes)
}

func text(changes []heardVerdict) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "%s: %s\n", c.at, c.line)
	}
	return b.String()
}

// kill kills an agent and wants every other node to hold it down in time; with
// a count it does so again and again, and starts the agent in between.
func (l *lab) kill(ts *testscript.TestScript, _ bool, args []string) {
	limit := durations(ts, args[1:2])[0]
	l.killOnce(ts, args[0], limit)
	for range count(ts, args[2:]) - 1 {
		l.restart(ts, false, args[:1])
		l.awaitAllUp(ts)
		<-time.After(time.Second) // both streams of it are open by then
		l.killOnce(ts, args[0], limit)
	}
}

func (l *lab) killOnce(ts *testscript.TestScript, name string, limit time.Duration) {
	victim := l.node(ts, name)
	from := l.heard.len()
	begin := time.Now()
	ts.Check(syscall.Kill(victim.pid(), syscall.SIGKILL))
	ctx, cancel := context.WithTimeout(context.Background(), max(limit, 10*time.Second))
	defer cancel()
	for _, n := range l.nodes {
		if n == victim {
			continue
		}
		heard, err := l.heard.first(ctx, n.Name, name+"  up -> down (process)", from)
		ts.Check(err)
		took := heard.came.Sub(begin).Round(time.Millisecond)
		ts.Logf("%s down at %s after %s", name, n.Name, took)
		if took > limit {
			ts.Fatalf("%s knew after %s that %s is down; want %s at most", n.Name, took, name, limit)
		}
	}
}

// pause stops an agent for a while, once or as often as it is told, and ends a
// second after all hold it up again: what the agent makes of its own pause is
// told by then.
func (l *lab) pause(ts *testscript.TestScript, _ bool, args []string) {
	paused := l.node(ts, args[0])
	length := durations(ts, args[1:2])[0]
	for range count(ts, args[2:]) {
		ts.Check(syscall.Kill(paused.pid(), syscall.SIGSTOP))
		<-time.After(length)
		ts.Check(syscall.Kill(paused.pid(), syscall.SIGCONT))
		l.awaitAllUp(ts)
		<-time.After(time.Second)
	}
}

func (l *lab) awaitAllUp(ts *testscript.TestScript) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, n := range l.nodes {
		ts.Check(l.cluster.waitAllUp(ctx, n.localNode))
	}
}

// count is how often a word is to be done: once, if it is not told.
func count(ts *testscript.TestScript, words []string) int {
	if len(words) == 0 {
		return 1
	}
	n, err := strconv.Atoi(words[0])
	ts.Check(err)
	return n
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/bench/stats"
	"github.com/belfry-ha/belfry/client"
)

const (
	localExits  = 200
	localWrites = 1000
	// localRest is before each, so that it finds a system at rest.
	localRest = 2 * time.Millisecond
	// localTimeout is for one that is never told.
	localTimeout = 5 * time.Second
)

// An informant is told that something has happened. close ends it.
type informant struct {
	next  func() error // waits for the next time
	close func()
}

// measureLocal takes the time from a cause to a program on the same node that
// is told of it, next to what the kernel takes to tell a program itself.
func measureLocal(ctx context.Context, b *bench) ([]side.Row, error) {
	dir, err := os.MkdirTemp("", "belfry-bench-local-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := client.Dial(ctx, b.agents.Socket("a"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	agent := func(class, subject string) (informant, error) {
		return askAgent(ctx, c, belfry.Registration{Class: class, Subject: subject})
	}
	exits, err := b.beside(ctx, "process exit", "pidfd", side.Target{Ratio: 1.36}, side.Target{Ratio: 1.41},
		func() ([]float64, error) { return exitTimes(ctx, b.scaled(localExits), askPidfd) },
		withRelay(func(relay *side.Child) ([]float64, error) {
			return exitTimes(ctx, b.scaled(localExits), func(pid int) (informant, error) { return askRelay(relay, "exit", strconv.Itoa(pid)) })
		}),
		func() ([]float64, error) {
			return exitTimes(ctx, b.scaled(localExits), func(pid int) (informant, error) { return agent("process.exit", fmt.Sprintf("pid=%d", pid)) })
		})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "written")
	writes, err := b.beside(ctx, "file write", "inotify", side.Target{Ratio: 5}, side.Target{Ratio: 3.7},
		func() ([]float64, error) { return writeTimes(ctx, b.scaled(localWrites), file, askInotify) },
		withRelay(func(relay *side.Child) ([]float64, error) {
			return writeTimes(ctx, b.scaled(localWrites), file, func(path string) (informant, error) { return askRelay(relay, "write", path) })
		}),
		func() ([]float64, error) {
			return writeTimes(ctx, b.scaled(localWrites), file, func(path string) (informant, error) { return agent("file.modify", path) })
		})
	return append(exits, writes...), err
}

// beside runs all in turn: the kernel itself, a process between that does
// nothing but pass it on, and an agent. Each returns its times in µs.
func (b *bench) beside(ctx context.Context, what, peer string, p50, p99 side.Target, floor, relay, own func() ([]float64, error)) ([]side.Row, error) {
	rows := []side.Row{{Work: what + ", p50", Target: p50}, {Work: what + ", p99", Target: p99}, {Work: what + ", p50"}, {Work: what + ", p99"}}
	for i := range rows {
		rows[i].Unit, rows[i].Hops, rows[i].Peer = "µs", "0 : 1", "bare "+peer
		if i >= 2 {
			rows[i].Hops, rows[i].Peer = "1 : 1", "bare relay"
		}
	}
	once := func(measure func() ([]float64, error), put func(i int, v float64)) func(context.Context) error {
		return func(context.Context) error {
			took, err := measure()
			if err != nil {
				return err
			}
			for i, v := range stats.Quantiles(took, 0.5, 0.99) {
				put(i, v)
			}
			return nil
		}
	}
	err := b.turns(ctx, what,
		once(floor, func(i int, v float64) { rows[i].Theirs = append(rows[i].Theirs, v) }),
		once(relay, func(i int, v float64) { rows[i+2].Theirs = append(rows[i+2].Theirs, v) }),
		once(own, func(i int, v float64) {
			rows[i].Ours, rows[i+2].Ours = append(rows[i].Ours, v), append(rows[i+2].Ours, v)
		}))
	return rows, err
}

// exitTimes kills processes one by one.
func exitTimes(ctx context.Context, n int, ask func(pid int) (informant, error)) ([]float64, error) {
	var times []float64
	for range n {
		cmd := exec.CommandContext(ctx, "sleep", "60")
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		i, err := ask(cmd.Process.Pid)
		if err == nil {
			var took time.Duration
			took, err = timeOf(ctx, i, cmd.Process.Kill)
			times = append(times, float64(took)/1e3)
			i.close()
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err != nil {
			return nil, err
		}
	}
	return times, nil
}

// writeTimes writes to one file again and again.
func writeTimes(ctx context.Context, n int, path string, ask func(path string) (informant, error)) ([]float64, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i, err := ask(path)
	if err != nil {
		return nil, err
	}
	defer i.close()
	var times []float64
	for range n {
		took, err := timeOf(ctx, i, func() error {
			_, err := f.WriteAt([]byte{1}, 0)
			return err
		})
		if err != nil {
			return nil, err
		}
		times = append(times, float64(took)/1e3)
	}
	return times, nil
}

// timeOf is how long after the cause the informant is told.
func timeOf(ctx context.Context, i informant, cause func() error) (time.Duration, error) {
	type told struct {
		at  time.Time
		err error
	}
	done := make(chan told, 1)
	go func() {
		err := i.next()
		done <- told{time.Now(), err}
	}()
	time.Sleep(localRest)
	begin := time.Now()
	if err := cause(); err != nil {
		return 0, err
	}
	timer := time.NewTimer(localTimeout)
	defer timer.Stop()
	select {
	case t := <-done:
		return t.at.Sub(begin), t.err
	case <-timer.C:
		return 0, fmt.Errorf("not told within %s", localTimeout)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// askAgent registers at an agent; it returns when the registration is in force.
func askAgent(ctx context.Context, c *client.Client, r belfry.Registration) (informant, error) {
	s, err := c.Register(ctx, r)
	if err != nil {
		return informant{}, err
	}
	next := func() error {
		for {
			if n, err := s.Next(ctx); err != nil || n.Kind == belfry.KindOccurrence {
				return err
			}
		}
	}
	return informant{next, s.Close}, nil
}

// askPidfd waits for a process as the kernel offers it to a program.
func askPidfd(pid int) (informant, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return informant{}, fmt.Errorf("pidfd_open: %w", err)
	}
	next := func() error {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(localTimeout/time.Millisecond))
			if err != unix.EINTR {
				return err
			}
		}
	}
	return informant{next, func() { _ = unix.Close(fd) }}, nil
}

// askInotify does the same for a file.
func askInotify(path string) (informant, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return informant{}, fmt.Errorf("inotify_init1: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		_ = unix.Close(fd)
		return informant{}, fmt.Errorf("inotify_add_watch %s: %w", path, err)
	}
	room := make([]byte, 4096)
	next := func() error {
		for {
			if _, err := unix.Read(fd, room); err != unix.EINTR {
				return err
			}
		}
	}
	return informant{next, func() { _ = unix.Close(fd) }}, nil
}

// playRelay is the least that an agent could do: it is asked in a line, "exit
// PID" or, once, "write PATH", says that it watches, and says when it happened.
func playRelay(in io.Reader, out io.Writer) error {
	fmt.Fprintln(out, "relay")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		what, which, _ := strings.Cut(lines.Text(), " ")
		next, err := informant{}, error(nil)
		if what == "exit" {
			var pid int
			if pid, err = strconv.Atoi(which); err == nil {
				next, err = askPidfd(pid)
			}
		} else {
			next, err = askInotify(which)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "watching")
		go func() {
			defer next.close()
			for next.next() == nil {
				fmt.Fprintln(out, "told")
				if what == "exit" {
					return
				}
			}
		}()
	}
	return nil
}

// withRelay measures with a relay of its own.
func withRelay(measure func(relay *side.Child) ([]float64, error)) func() ([]float64, error) {
	return func() (took []float64, err error) {
		relay, _, err := side.StartRole("relay")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, relay.End()) }()
		return measure(relay)
	}
}

// askRelay asks the relay, which answers in lines.
func askRelay(c *side.Child, what, which string) (informant, error) {
	if _, err := fmt.Fprintln(c.In, what, which); err != nil {
		return informant{}, err
	}
	line, err := c.Line()
	if err == nil && line != "watching" {
		err = fmt.Errorf("the relay says %q", line)
	}
	next := func() error {
		_, err := c.Line()
		return err
	}
	return informant{next, func() {}}, err
}

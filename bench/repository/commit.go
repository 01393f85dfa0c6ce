package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/bench/stats"
	"github.com/belfry-ha/belfry/internal/repository"
)

const (
	commitsEach = 400
	plainWrite  = "write and flush"
)

// percentiles of one repetition, ms.
type percentiles struct{ p50, p99 float64 }

func percentilesOf(took []time.Duration) percentiles {
	all := side.Pick(took, func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) })
	q := stats.Quantiles(all, 0.5, 0.99)
	return percentiles{q[0], q[1]}
}

func p50(p percentiles) float64 { return p.p50 }
func p99(p percentiles) float64 { return p.p99 }

// measureCommits takes commits of a host that has the claim on a quiet disk, and
// as often one write of as many bytes with a flush, in turns.
func measureCommits(ctx context.Context, b *bench) (rows []side.Row, err error) {
	for _, on := range []struct {
		name string
		loop []string
	}{{"file", nil}, {"loop device, direct", []string{"--direct-io=on"}}, {"loop device, cached", []string{"--direct-io=off"}}} {
		m, err := newMedium(ctx, on.name, on.loop...)
		if err != nil {
			return nil, err
		}
		for _, slots := range []int{3, 64} {
			more, err := commitsOn(ctx, b, m, slots)
			if err != nil {
				return nil, errors.Join(err, m.end())
			}
			rows = append(rows, more...)
		}
		if err := m.end(); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func commitsOn(ctx context.Context, b *bench, m *medium, slots int) ([]side.Row, error) {
	h, err := openHost(m.path, 0, slots)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	c, err := openControl(m.path)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := h.load(); err != nil {
		return nil, err
	}
	var ours, theirs []percentiles
	what := fmt.Sprintf("%s, %d slots given", m.name, slots)
	err = b.turns(ctx, what, func(context.Context) error {
		var commits, writes []time.Duration
		for range b.scaled(commitsEach) {
			took, err := h.commit()
			if err == nil {
				err = h.sealed()
			}
			if err != nil {
				return err
			}
			commits = append(commits, took)
			if took, err = c.write(); err != nil {
				return err
			}
			writes = append(writes, took)
		}
		ours, theirs = append(ours, percentilesOf(commits)), append(theirs, percentilesOf(writes))
		return nil
	})
	if err != nil {
		return nil, err
	}
	over := make([]float64, len(ours))
	for i := range ours {
		over[i] = ours[i].p99 - theirs[i].p99
	}
	return []side.Row{
		{Work: what + ", p50", Unit: "ms", Peer: plainWrite, Theirs: side.Pick(theirs, p50), Ours: side.Pick(ours, p50), Target: side.Target{Ratio: 3}},
		{Work: what + ", p99", Unit: "ms", Peer: plainWrite, Theirs: side.Pick(theirs, p99), Ours: side.Pick(ours, p99)},
		{Work: what + ", p99 above that of the write", Unit: "ms", Ours: over, Target: side.Target{Own: 5}},
	}, nil
}

// A control writes where no host does.
type control struct {
	fd     int
	memory []byte
	off    int64
}

func openControl(path string) (*control, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	const size = documentSize + repository.BlockSize // document and record
	memory := make([]byte, size+repository.BlockSize)
	skip := (repository.BlockSize - int(uintptr(unsafe.Pointer(&memory[0]))%repository.BlockSize)) % repository.BlockSize
	c := &control{fd: fd, memory: memory[skip : skip+size], off: layout().Payload(63, 1)}
	_, err = c.write() // the first one allocates
	return c, err
}

// write is as many bytes as a commit writes, in one piece, and fdatasync.
func (c *control) write() (time.Duration, error) {
	begin := time.Now()
	n, err := unix.Pwrite(c.fd, c.memory, c.off)
	if err == nil && n < len(c.memory) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = unix.Fdatasync(c.fd)
	}
	return time.Since(begin), err
}

func (c *control) close() error { return unix.Close(c.fd) }

// roleWriter is a host that commits until it is killed; its arguments are the
// path and the number of its slot.
const roleWriter = "writer"

func playWriter(args []string, _ io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("arguments %q; path and slot", args)
	}
	slot, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	h, err := openHost(args[0], slot, hostsKilled)
	if err != nil {
		return err
	}
	if err := h.load(); err != nil {
		return err
	}
	for {
		if _, err := h.commit(); err != nil {
			return err
		}
		if h.commits == 1 {
			fmt.Fprintln(out, "commits")
		}
	}
}

// hostsKilled is how many slots are given where writers are killed.
const hostsKilled = 3

// measureKilled kills a process that commits all the time, and takes the time
// from there until another host has committed: it reads what was committed last,
// claims, and commits on top of it; as an agent does, again if there was more than
// it had read. Beside it a commit on the quiet disk.
func measureKilled(ctx context.Context, b *bench) ([]side.Row, error) {
	m, err := newMedium(ctx, "file")
	if err != nil {
		return nil, err
	}
	defer m.end()
	h, err := openHost(m.path, 0, hostsKilled)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var after, quiet []percentiles
	err = b.turns(ctx, "writer killed", func(context.Context) error {
		var killed, commits []time.Duration
		for range b.scaled(20) {
			took, err := killWriter(m.path, h)
			if err != nil {
				return err
			}
			killed = append(killed, took)
			for range 5 {
				if err = h.sealed(); err != nil {
					return err
				}
				if took, err = h.commit(); err != nil {
					return err
				}
				commits = append(commits, took)
			}
		}
		after, quiet = append(after, percentilesOf(killed)), append(quiet, percentilesOf(commits))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []side.Row{
		{Work: "from SIGKILL to the next commit by another host, p50", Unit: "ms", Peer: "its commits on the quiet disk", Theirs: side.Pick(quiet, p50), Ours: side.Pick(after, p50), Target: side.Target{Ratio: 5}},
		{Work: "the same, p99", Unit: "ms", Peer: "its commits on the quiet disk", Theirs: side.Pick(quiet, p99), Ours: side.Pick(after, p99), Note: "20 kills in each repetition: p99 is the longest"},
	}, nil
}

// killWriter is one of them.
func killWriter(path string, h *host) (time.Duration, error) {
	writer, _, err := side.StartRole(roleWriter, path, "1")
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := unix.Kill(writer.PID(), unix.SIGKILL); err != nil {
		return 0, err
	}
	err = h.follow()
	took := time.Since(begin)
	writer.Kill() // waits for its end
	return took, err
}

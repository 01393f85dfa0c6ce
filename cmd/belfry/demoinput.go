package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/cloudevents"
)

// demoInput is the real input: a program, a file, a file system.
type demoInput struct {
	worker     string // path of a program that does nothing for long
	process    *exec.Cmd
	file       string
	mountPoint string
	threshold  float64 // percent, below what is used
}

// newDemoInput makes the input in dir.
func newDemoInput(dir string) (*demoInput, error) {
	// A copy with a name of its own, so that no other process of this machine runs
	// the same program, nor may do so: an agent without rights can not look.
	in := &demoInput{worker: filepath.Join(dir, fmt.Sprintf("demo-%d", os.Getpid())), file: filepath.Join(dir, "watched")}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return nil, fmt.Errorf("the demonstration kills a sleep(1): %w", err)
	}
	if err := copyProgram(sleep, in.worker); err != nil {
		return nil, err
	}
	if err := os.WriteFile(in.file, []byte("first line\n"), 0o600); err != nil {
		return nil, err
	}
	in.mountPoint, in.threshold, err = fullestFilesystem()
	return in, err
}

func copyProgram(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// fullestFilesystem finds a file system that is used enough to be above a
// threshold, which is set one percent below its use.
func fullestFilesystem() (mountPoint string, threshold float64, err error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", 0, err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || !slices.Contains([]string{"ext4", "xfs", "btrfs", "overlay", "tmpfs"}, f[2]) || strings.Contains(f[1], `\`) {
			continue
		}
		var s syscall.Statfs_t
		if syscall.Statfs(f[1], &s) != nil || s.Blocks == 0 || s.Bsize == 0 {
			continue
		}
		used := s.Blocks - s.Bfree
		if percent := 100 * float64(used) / float64(used+s.Bavail); percent > threshold+1 {
			mountPoint, threshold = f[1], percent-1
		}
	}
	if mountPoint == "" {
		return "", 0, errors.New("no file system of this machine is used by more than 1%")
	}
	return mountPoint, float64(max(1, int(threshold))), nil
}

func (in *demoInput) startWorker() (pid int64, err error) {
	in.process = exec.Command(in.worker, "600")
	in.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := in.process.Start(); err != nil {
		in.process = nil
		return 0, err
	}
	return int64(in.process.Process.Pid), nil
}

func (in *demoInput) killWorker() error {
	p := in.process
	in.process = nil
	if err := p.Process.Kill(); err != nil {
		return err
	}
	_ = p.Wait() // reports the signal
	return nil
}

func (in *demoInput) appendLine(text string) error {
	f, err := os.OpenFile(in.file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, text)
	return errors.Join(err, f.Close())
}

func (in *demoInput) close() {
	if in.process != nil {
		_ = in.killWorker()
	}
}

// A consumer is one client of one agent that looks for notifications of one
// class at a time and keeps the others for later steps.
type consumer struct {
	client *client.Client
	stream *client.Stream
	kept   []belfry.Notification
}

// newConsumer takes one notification at a time: what it does not come for
// waits, and merges, at the agent.
func newConsumer(ctx context.Context, n *localNode) (*consumer, error) {
	conn, err := n.dial(ctx)
	if err != nil {
		return nil, err
	}
	stream, err := conn.Subscribe(ctx, client.Window(1), client.Name("demo"))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &consumer{client: conn, stream: stream}, nil
}

func (c *consumer) register(ctx context.Context, r belfry.Registration) error {
	_, err := c.stream.Register(ctx, r)
	return err
}

func (c *consumer) close() {
	c.stream.Close()
	c.client.Close()
}

// next is the first notification of class that fits.
func (c *consumer) next(ctx context.Context, class belfry.Class, fits func(belfry.Notification) bool) (belfry.Notification, error) {
	wanted := func(n belfry.Notification) bool { return n.Event.Class == class && fits(n) }
	if i := slices.IndexFunc(c.kept, wanted); i >= 0 {
		n := c.kept[i]
		c.kept = slices.Delete(c.kept, i, i+1)
		return n, nil
	}
	for {
		n, err := c.stream.Next(ctx)
		if err != nil {
			return n, err
		}
		if n.Kind == belfry.KindGap && n.Gap.Total > 0 {
			return n, fmt.Errorf("%d occurrences were lost (%s)", n.Gap.Total, n.Gap.Reason)
		}
		if wanted(n) {
			return n, nil
		}
		c.kept = append(c.kept, n)
	}
}

func occurrence(n belfry.Notification) bool { return n.Kind == belfry.KindOccurrence }

// fieldsOf are the fields of a notification's data; none if there are none.
func fieldsOf(n belfry.Notification) map[string]any {
	fields, err := cloudevents.Fields(n.Event.Class, n.Data)
	if err != nil {
		return nil
	}
	return fields
}

// postMany posts one by one: each is an event of its own, though they share a
// stream.
func postMany(ctx context.Context, n *localNode, subject string, posts int) error {
	conn, err := n.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	sender, err := conn.Sender(ctx)
	if err != nil {
		return err
	}
	defer sender.Close()
	for range posts {
		if err := sender.Post(ctx, "user.demo", subject, nil, 1); err != nil {
			return err
		}
	}
	_, err = sender.Flush(ctx)
	return err
}

// waitActive waits until the entry of a class at a node has an identifier
// that begins so.
func (d *demo) waitActive(ctx context.Context, node, class, identifier string) error {
	return d.waitListing(ctx, node, func(list *belfryv1.ListEntriesResponse) bool {
		return slices.ContainsFunc(list.GetEntries(), func(e *belfryv1.RegistrationEntry) bool {
			return e.GetClass() == class && e.GetState() == belfry.EntryActive.String() && strings.HasPrefix(e.GetIdentifier(), identifier)
		})
	})
}

// waitDelivered waits until a node has counted so many occurrences and its
// peer has acknowledged all of them.
func (d *demo) waitDelivered(ctx context.Context, node, class string, sequence uint64, peer string) error {
	return d.waitListing(ctx, node, func(list *belfryv1.ListEntriesResponse) bool {
		counted := slices.ContainsFunc(list.GetEntries(), func(e *belfryv1.RegistrationEntry) bool {
			return e.GetClass() == class && e.GetSequence() >= sequence
		})
		return counted && slices.ContainsFunc(list.GetInterests(), func(i *belfryv1.PeerInterests) bool {
			return i.GetNodeName() == peer && i.GetUnacknowledged() == 0 && i.GetQueued() == 0
		})
	})
}

func (d *demo) waitListing(ctx context.Context, node string, is func(*belfryv1.ListEntriesResponse) bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := d.main.client.Registrations(ctx, node)
		if err == nil && is(list) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

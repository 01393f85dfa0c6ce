// Package exec is the sink that runs a command for each notification
// (events.md 10).
package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry/internal/cloudevents"
	"github.com/belfry-ha/belfry/internal/sink"
)

const (
	// DefaultTimeout is how long a command may take.
	DefaultTimeout = 30 * time.Second
	// grace is how long a command has to end after SIGTERM, and how long its
	// output is waited for when it has left a child behind.
	grace = 5 * time.Second
	// exitDead is EX_DATAERR of sysexits.h: the command says that another
	// attempt would not help.
	exitDead = 65
	noteRoom = 48 // bytes, for what says that output is missing
	path     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// A Sink runs one command, never through a shell. It finds the event in its
// environment, which has nothing else but PATH, and as a CloudEvent on its
// input. Its working directory is /.
type Sink struct {
	Node    string        // names this node in the environment of its commands
	Argv    []string      // at least the program, an absolute path
	Timeout time.Duration // zero: DefaultTimeout
}

var (
	_ sink.Sink   = Sink{}
	_ sink.Leaver = Sink{}
)

// Deliver returns nil for exit status 0, a permanent error for 65 or if the
// command can not be started at all, and another one for the rest. A command
// that takes too long gets SIGTERM, 5 s later SIGKILL, with its process group.
func (s Sink) Deliver(ctx context.Context, d *sink.Delivery) error {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(limited, s.Argv[0], s.Argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(cloudevents.Environment(&d.Notification),
		"BELFRY_HANDLER="+d.Handler, "BELFRY_ATTEMPT="+strconv.Itoa(d.Attempt), runVariable+"="+s.runOf(d.Begun()), "PATH="+path)
	cmd.Stdin = bytes.NewReader(append(cloudevents.Append(nil, d.Cluster, &d.Notification), '\n'))
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	if err := start(cmd); err != nil {
		return sink.Permanent(fmt.Errorf("%s: %w; correct the handler's exec", s.Argv[0], startFault(err)))
	}
	err := cmd.Wait()
	if limited.Err() != nil {
		// Whoever ignored SIGTERM, or was started by one that did not.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	d.Output = out.kept()
	return judge(d, cmd, err, limited.Err() != nil && ctx.Err() == nil, timeout)
}

func judge(d *sink.Delivery, cmd *exec.Cmd, err error, tookTooLong bool, timeout time.Duration) error {
	state := cmd.ProcessState
	if state != nil && state.Exited() {
		d.Exit = new(state.ExitCode())
	}
	switch {
	case tookTooLong:
		return fmt.Errorf("not ended after %s", timeout)
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && state.Success():
		return nil // a child that it left behind may go on
	case d.Exit != nil && *d.Exit == exitDead:
		return sink.Permanent(fmt.Errorf("exit status %d: it will not work", exitDead))
	}
	return err
}

// startFault words why a command did not start without naming it again.
func startFault(err error) error {
	var inner *exec.Error
	if errors.As(err, &inner) {
		return inner.Err
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// prSetNoNewPrivs is PR_SET_NO_NEW_PRIVS of prctl(2), which package syscall
// does not have.
const prSetNoNewPrivs = 38

// start starts a command that gains no privileges by set-user-id programs.
// That is an attribute of the thread that forks: it takes one of its own, which
// ends with its goroutine because it is never unlocked.
func start(cmd *exec.Cmd) error {
	inherited.Do(closeOnExec)
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
			started <- fmt.Errorf("no new privileges: %w", errno)
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}

// inherited are descriptors that whoever started the agent left open: Go's own
// are closed in a command anyway.
var inherited sync.Once

func closeOnExec() {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // no /proc: nothing is known to be open
	}
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// output keeps the first bytes of what a command prints, and takes the rest.
type output struct {
	mu   sync.Mutex // a child that is left behind may still print
	text []byte
	cut  int
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	room := min(len(p), sink.MaxOutput-noteRoom-len(o.text))
	o.text = append(o.text, p[:room]...)
	o.cut += len(p) - room
	return len(p), nil
}

// kept says at its end how much is missing.
func (o *output) kept() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := bytes.Clone(o.text)
	if o.cut > 0 {
		text = fmt.Appendf(text, "\n[%d bytes more]\n", o.cut)
	}
	return text
}

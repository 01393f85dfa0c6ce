package side

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// RoleVariable makes this binary play a child's part instead of measuring.
const RoleVariable = "BELFRY_BENCH_ROLE"

// A Child is a process that speaks in lines.
type Child struct {
	cmd   *exec.Cmd
	In    io.WriteCloser
	lines *bufio.Reader
	done  chan struct{} // closed when it has ended
	err   error         // how; after done
}

// EndTimeout is how long a child may take to end by itself.
const EndTimeout = 10 * time.Second

// Start starts cmd and returns its first line of output.
func Start(cmd *exec.Cmd) (*Child, string, error) {
	cmd.Stderr = os.Stderr
	// Ctrl-C is for the parent, which ends it, and the child ends with the parent.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, "", err
	}
	// A pipe of our own: Wait closes the one of StdoutPipe under the reader.
	out, w, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	cmd.Stdout = w
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		_ = out.Close()
		return nil, "", err
	}
	c := &Child{cmd: cmd, In: in, lines: bufio.NewReader(out), done: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		_ = out.Close()
		close(c.done)
	}()
	line, err := c.Line()
	if err != nil {
		c.Kill()
		return nil, "", fmt.Errorf("%s said nothing: %w", cmd.Path, err)
	}
	return c, line, nil
}

// StartRole starts this binary in another part.
func StartRole(role string, args ...string) (*Child, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), RoleVariable+"="+role)
	return Start(cmd)
}

// Line is the next line of its output.
func (c *Child) Line() (string, error) {
	line, err := c.lines.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

// PID is its process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Kill ends it at once.
func (c *Child) Kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// End closes the child's input and waits; what does not end is killed.
func (c *Child) End() error {
	_ = c.In.Close()
	return c.wait()
}

// Interrupt is End for a program that waits for a signal.
func (c *Child) Interrupt() error {
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	return c.wait()
}

func (c *Child) wait() error {
	timer := time.NewTimer(EndTimeout)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.err
	case <-timer.C:
		c.Kill()
		return fmt.Errorf("%s did not end within %s and was killed", c.cmd.Path, EndTimeout)
	}
}

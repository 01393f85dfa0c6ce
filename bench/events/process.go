package main

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

// roleVariable makes this binary play a child's part instead of measuring.
const roleVariable = "BELFRY_BENCH_ROLE"

// play runs a child's part. It ends when its standard input does, so that no
// child outlives its parent.
func play(role string, args []string, in io.Reader, out io.Writer) error {
	switch role {
	case "nats-server":
		return playServer(args, in, out)
	case "nats-stalled":
		return playStalled(args, in, out)
	case "relay":
		return playRelay(in, out)
	}
	return fmt.Errorf("unknown part; %s is for this program's own use, unset it", roleVariable)
}

// A child is a process that speaks in lines.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
	done  chan struct{} // closed when it has ended
	err   error         // how; after done
}

// endTimeout is how long a child may take to end by itself.
const endTimeout = 10 * time.Second

// startChild starts cmd and returns its first line of output.
func startChild(cmd *exec.Cmd) (*child, string, error) {
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
	c := &child{cmd: cmd, in: in, lines: bufio.NewReader(out), done: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		_ = out.Close()
		close(c.done)
	}()
	line, err := c.line()
	if err != nil {
		c.kill()
		return nil, "", fmt.Errorf("%s said nothing: %w", cmd.Path, err)
	}
	return c, line, nil
}

// startRole starts this binary in another part.
func startRole(role string, args ...string) (*child, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	return startChild(cmd)
}

func (c *child) line() (string, error) {
	line, err := c.lines.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// end closes the child's input and waits; what does not end is killed.
func (c *child) end() error {
	_ = c.in.Close()
	return c.wait()
}

// interrupt is end for a program that waits for a signal.
func (c *child) interrupt() error {
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	return c.wait()
}

func (c *child) wait() error {
	timer := time.NewTimer(endTimeout)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.err
	case <-timer.C:
		c.kill()
		return fmt.Errorf("%s did not end within %s and was killed", c.cmd.Path, endTimeout)
	}
}

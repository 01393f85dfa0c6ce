package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// roleVariable makes this binary play a child's part instead of measuring.
const roleVariable = "BELFRY_BENCH_ROLE"

// answersFile is the file that a child of this binary answers to; its standard
// output is for whatever else writes there.
const answersFile = 3

// play runs a child's part. It ends when its standard input does, so that no
// child outlives its parent.
func play(role string) error {
	switch role {
	case bubbleRole:
		playBubbles(os.Stdin, os.NewFile(answersFile, "answers"))
		return nil
	case laneRole:
		return playLane(os.Stdin, os.NewFile(answersFile, "answers"))
	case nodeRole:
		return playNode(os.Stdin, os.NewFile(answersFile, "answers"))
	}
	return fmt.Errorf("unknown part %q; %s is for this program's own use, unset it", role, roleVariable)
}

// A child is a process that takes and gives JSON.
type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *os.File
	asks    *json.Encoder
	answers *json.Decoder
	stderr  *tail
}

// tail keeps the last of what a child complains of.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}

// ownNetwork puts a child into a network namespace that it owns, as unshare
// -rn does.
func ownNetwork(a *syscall.SysProcAttr) {
	a.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
}

// startRole starts this binary in another part. prepare may be nil.
func startRole(role string, prepare func(*syscall.SysProcAttr)) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	// Ctrl-C is for the parent, which ends it, and the child ends with the parent.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if prepare != nil {
		prepare(cmd.SysProcAttr)
	}
	c := &child{cmd: cmd, stderr: &tail{}}
	cmd.Stderr = c.stderr
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{w}
	if c.in, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	_ = w.Close()
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	c.out, c.asks, c.answers = out, json.NewEncoder(c.in), json.NewDecoder(bufio.NewReader(out))
	return c, nil
}

// ask sends one question and waits for its answer.
func (c *child) ask(question, answer any) error {
	err := c.asks.Encode(question)
	if err == nil {
		err = c.answers.Decode(answer)
	}
	if err == nil {
		return nil
	}
	c.kill() // it may hang; and its last words are complete only then
	return fmt.Errorf("child process: %w\n%s", err, c.stderr)
}

// interrupt makes whoever waits for an answer go on without.
func (c *child) interrupt() { _ = c.cmd.Process.Kill() }

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	_ = c.out.Close()
}

// endTimeout is how long a child may take to end by itself.
const endTimeout = 10 * time.Second

// end closes the child's input and waits; what does not end is killed.
func (c *child) end() error {
	_ = c.in.Close()
	timer := time.AfterFunc(endTimeout, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	err := c.cmd.Wait()
	_ = c.out.Close()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return fmt.Errorf("child process: %w\n%s", err, c.stderr)
	}
	return err
}

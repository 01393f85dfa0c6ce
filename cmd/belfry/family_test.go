package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// cmdAgents starts `belfry up` with N agents in the directory dev and waits
// until all are up and have streams with each other, by which a death is known
// at once: a node is up as soon as its datagrams are heard. At the end of the
// script it stops them and makes sure that no process is left. Its output goes to
// the file up.out. With members they have no repository: what takes most members
// there takes the file here.
func cmdAgents(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 || len(args) == 2 && args[1] != "members" {
		ts.Fatalf("usage: agents N [members]")
	}
	var flags []string
	if len(args) == 2 {
		flags = []string{"--members"}
	}
	up, err := startUp(ts.MkAbs("."), args[0], flags...)
	ts.Check(err)
	ts.Defer(func() {
		if err := up.stop(); err != nil {
			ts.Fatalf("%v", err)
		}
	})
	if err := waitUntil(20*time.Second, func() error { return fileHas(up.out, " up after ") }); err != nil {
		ts.Fatalf("agents: %v", err)
	}
	states, err := filepath.Glob(ts.MkAbs("dev/*/belfry.sock"))
	ts.Check(err)
	for _, at := range states {
		for _, of := range states {
			node := filepath.Base(filepath.Dir(of))
			if err := waitUntil(20*time.Second, func() error { return knowsProcess(ts, at, node) }); err != nil {
				ts.Fatalf("agents: at %s: %v", at, err)
			}
		}
	}
}

// knowsProcess fails unless an agent knows the process of a node, of which the
// stream tells.
func knowsProcess(ts *testscript.TestScript, socket, node string) error {
	var view nodeShowView
	output, err := scriptCommand(ts, []string{"belfry", "node", "show", node, "-o", "json", "--socket", socket}).Output()
	if err == nil {
		err = json.Unmarshal(output, &view)
	}
	if err == nil && view.PID == nil {
		err = fmt.Errorf("no stream with %s", node)
	}
	return err
}

// agents finds what cmdAgent has started, by node.
type agents struct{}

// cmdAgent starts the agent of one node again: agent c.
func cmdAgent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: agent NODE")
	}
	dir := ts.MkAbs(".")
	agent, err := startFamily(dir, filepath.Join(dir, "agent-"+args[0]+".log"), os.Environ(), "belfry", "agent", "--config", filepath.Join("dev", args[0], "belfry.yaml"))
	ts.Check(err)
	ts.Value(agents{}).(map[string]*family)[args[0]] = agent
	ts.Defer(func() {
		if err := agent.stop(); err != nil {
			ts.Fatalf("%v", err)
		}
	})
}

// cmdEnded waits until the agent that agent NODE has started has ended by
// itself: until then it holds its state directory, also when its socket is gone.
func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ended NODE")
	}
	agent, ok := ts.Value(agents{}).(map[string]*family)[args[0]]
	if !ok {
		ts.Fatalf("no agent %s was started", args[0])
	}
	select {
	case <-agent.exited:
	case <-time.After(30 * time.Second):
		ts.Fatalf("the agent of %s goes on", args[0])
	}
}

// A family is a process with all its descendants.
type family struct {
	cmd    *exec.Cmd
	out    string
	exited chan struct{} // closed when the program has ended
	alive  *os.File      // end of file when the last descendant has ended
}

// headless is a process whose first thread ends long before the others.
func headless() {
	for {
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // ends this thread only
			}
			select {} // keeps its thread: the next one gets another
		}()
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return
		}
	}
}

// TestAProcessGoesOnUntilItsLastThreadEnds: so long it holds what it holds, though
// it is shown as one that has ended (proc(5)).
func TestAProcessGoesOnUntilItsLastThreadEnds(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("headless")
	more, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer more.Close()
	stat := func() string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if err := waitUntil(30*time.Second, func() error {
		if strings.Contains(stat(), ") Z ") {
			return nil
		}
		_, err := more.Write([]byte("x"))
		return errors.Join(errors.New("its first thread goes on"), err)
	}); err != nil {
		t.Fatal(err)
	}
	if err := runs(cmd.Process.Pid); err == nil {
		t.Errorf("it has ended, says %s", stat())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := waitUntil(30*time.Second, func() error { return runs(cmd.Process.Pid) }); err != nil {
		t.Errorf("killed: %v: %s", err, stat())
	}
}

func startUp(dir, nodes string, flags ...string) (*family, error) {
	args := append([]string{"up", "--nodes", nodes, "--state", "dev"}, flags...)
	return startFamily(dir, filepath.Join(dir, "up.out"), os.Environ(), "belfry", args...)
}

// startFamily runs a program whose output goes to a file. A pipe that every
// descendant inherits tells when the last of them has ended.
func startFamily(dir, out string, environ []string, name string, args ...string) (*family, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, environ
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	file, err := os.Create(out)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return startCommand(cmd, file)
}

// startCommand starts a command that is set up otherwise.
func startCommand(cmd *exec.Cmd, out *os.File) (*family, error) {
	alive, held, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer held.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{held}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	f := &family{cmd: cmd, out: out.Name(), exited: make(chan struct{}), alive: alive}
	go f.wait()
	return f, nil
}

func (f *family) wait() {
	_ = f.cmd.Wait() // the state is in cmd
	close(f.exited)
}

// stop asks the program to end and waits for all of its descendants.
func (f *family) stop() error {
	defer f.alive.Close()
	_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGCONT)
	_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGTERM) // it may have ended by itself
	if err := f.alive.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		return err
	}
	if _, err := f.alive.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("processes are left 15 s after SIGTERM to %s: %w; at SIGQUIT:\n%s", f.cmd, err, f.stacks())
	}
	<-f.exited
	return f.races()
}

// stacks ends the program without grace, and returns what its goroutines were at.
func (f *family) stacks() []byte {
	begun, _ := os.ReadFile(f.out) // without it: all of the output
	_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGQUIT)
	_ = f.alive.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, _ = f.alive.Read(make([]byte, 1))
	_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL)
	text, err := os.ReadFile(f.out)
	if err != nil {
		return []byte(err.Error())
	}
	return text[min(len(begun), len(text)):]
}

// races looks for what the race detector has told the logs of the agents.
func (f *family) races() error {
	logs, err := filepath.Glob(filepath.Join(f.cmd.Dir, "dev", "*", "agent.log"))
	if err != nil {
		return err
	}
	for _, log := range append(logs, f.out) {
		if text, err := os.ReadFile(log); err == nil && bytes.Contains(text, []byte("DATA RACE")) {
			return fmt.Errorf("data race, in %s:\n%s", log, text)
		}
	}
	return nil
}

package agent

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/client"
)

// badVariable makes this test binary a consumer that stops in the middle of a
// batch, because only a process can be killed: "SOCKET DIRECTORY".
const badVariable = "BELFRY_TEST_BAD_CONSUMER"

func TestMain(m *testing.M) {
	if line := os.Getenv(badVariable); line != "" {
		if err := consumeBadly(strings.Fields(line)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

// consumeBadly registers for the load, says so, takes half of a piece of a
// batch, and from then on reads nothing. When more of it lies unread in its socket
// it says how much, and waits to be killed.
func consumeBadly(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	way, end, err := narrow(filepath.Join(args[1], "s"), args[0], holds)
	if err != nil {
		return err
	}
	defer end()
	c, err := client.Dial(ctx, way.path)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Register(ctx, loadOf); err != nil {
		return err
	}
	close(way.closed)
	fmt.Println("registered")
	select {
	case n := <-way.unread:
		fmt.Println("holding", n, "bytes")
	case <-ctx.Done():
	}
	<-ctx.Done()
	return ctx.Err()
}

// A badProcess is consumeBadly from outside.
type badProcess struct {
	cmd  *exec.Cmd
	says *bufio.Scanner
}

func startBadProcess(t *testing.T, socket string) *badProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &badProcess{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", badVariable, socket, t.TempDir()))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.says = bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

// wants waits for a line that begins so.
func (p *badProcess) wants(t *testing.T, begin string) {
	t.Helper()
	if !p.says.Scan() || !strings.HasPrefix(p.says.Text(), begin) {
		t.Fatalf("the process says %q, %v; want %s", p.says.Text(), p.says.Err(), begin)
	}
	t.Logf("the bad process: %s", p.says.Text())
}

// kill ends the process as it is: what it has not read stays in the socket.
func (p *badProcess) kill(t *testing.T) {
	if err := p.cmd.Process.Kill(); err != nil {
		t.Errorf("kill -9: %v", err)
	}
}

// wantsDeath waits for the end of the process, which must be the kill.
func (p *badProcess) wantsDeath(t *testing.T) {
	t.Helper()
	if p.says.Scan() {
		t.Errorf("the process says %q after it was killed", p.says.Text())
	}
	_ = p.cmd.Wait() // an error, of a process that was killed
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v; want the kill", p.cmd.ProcessState)
	}
}

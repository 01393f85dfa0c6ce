package exec

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain is a stand-in for an agent where the variable is set: it begins a run
// and is killed while that goes on.
func TestMain(m *testing.M) {
	if script := os.Getenv("BELFRY_TEST_AGENT"); script != "" {
		s := shell(script)
		s.Node = os.Getenv("BELFRY_TEST_NODE")
		_ = s.Deliver(context.Background(), delivery())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestWhatAKilledAgentLeftIsEnded before the next attempt: also what ignores
// SIGTERM, and what the command itself had started; not another run, nor what
// has a session of its own.
func TestWhatAKilledAgentLeftIsEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begin := func(node string) (pids []int) {
		file := filepath.Join(dir, node)
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "BELFRY_TEST_NODE="+node, "BELFRY_TEST_AGENT=trap '' TERM; sleep 300 & one=$!; setsid sleep 300 & echo $$ $one $! > "+file+".new; mv "+file+".new "+file+"; wait")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var text []byte
		for deadline := time.Now().Add(10 * time.Second); len(text) == 0; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // a file tells nobody
			if time.Now().After(deadline) {
				t.Fatal("the command does not start")
			}
			text, _ = os.ReadFile(file)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		for _, word := range strings.Fields(string(text)) {
			pid, _ := strconv.Atoi(word)
			pids = append(pids, pid)
		}
		t.Cleanup(func() {
			for _, pid := range pids {
				if p, err := os.FindProcess(pid); err == nil && alive(pid) {
					_ = p.Kill()
				}
			}
		})
		return pids
	}
	mine, other := begin("a"+fmt.Sprint(os.Getpid())), begin("b"+fmt.Sprint(os.Getpid()))
	s := Sink{Node: "a" + fmt.Sprint(os.Getpid())}
	if err := s.EndLeft(t.Context(), delivery().Begun()); err != nil {
		t.Fatal(err)
	}
	if alive(mine[0]) || alive(mine[1]) {
		t.Error("something of the run goes on")
	}
	if !alive(mine[2]) {
		t.Error("what has a session of its own was ended")
	}
	if !alive(other[0]) || !alive(other[1]) {
		t.Error("another run was ended")
	}
}

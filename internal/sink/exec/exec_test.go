package exec

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/sink"
)

func delivery() *sink.Delivery {
	return &sink.Delivery{Handler: "page", Cluster: "dev", Attempt: 2, Notification: belfry.Notification{
		NodeName: "b", Incarnation: 1, Entry: 4, Event: belfry.EventID{Class: "node.state", Subject: "c"},
		First: 3, Last: 5, Count: 3, Code: 4, Edge: belfry.EdgeFailing, Time: time.Unix(1795322116, 0),
	}}
}

func shell(script string) Sink { return Sink{Argv: []string{"/bin/sh", "-c", script}} }

func TestCommandFindsTheEvent(t *testing.T) {
	t.Parallel()
	d := delivery()
	if err := shell("env | sort; pwd; cat").Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	out := string(d.Output)
	for _, want := range []string{
		"BELFRY_ATTEMPT=2\n", "BELFRY_CLASS=node.state\n", "BELFRY_COUNT=3\n", "BELFRY_HANDLER=page\n", "BELFRY_SEQUENCE=5\n",
		"\n/\n{", `"type":"dev.belfry.node.state.v1"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	for line := range strings.Lines(out[:strings.Index(out, "\n/\n")]) {
		name, _, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, "BELFRY_") && name != "PATH" && name != "PWD" && name != "SHLVL" && name != "OLDPWD" && name != "_" {
			t.Errorf("the environment is not clean: %s", line)
		}
	}
}

func TestExitStatusDecides(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		script, want string
		permanent    bool
		exit         int
	}{
		{"exit 0", "", false, 0},
		{"exit 1", "exit status 1", false, 1},
		{"exit 65", "exit status 65: it will not work", true, 65},
		{"kill -KILL $$", "signal: killed", false, -1},
	} {
		d := delivery()
		err := shell(test.script).Deliver(t.Context(), d)
		if got := fmt.Sprint(err); err == nil && test.want != "" || err != nil && got != test.want {
			t.Errorf("%s: %v, want %q", test.script, err, test.want)
		}
		if sink.IsPermanent(err) != test.permanent {
			t.Errorf("%s: permanent is %v", test.script, !test.permanent)
		}
		if exit := d.Exit; test.exit >= 0 && (exit == nil || *exit != test.exit) || test.exit < 0 && exit != nil {
			t.Errorf("%s: exit %v, want %d", test.script, exit, test.exit)
		}
	}
}

func TestWhatCanNotStartIsPermanent(t *testing.T) {
	t.Parallel()
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	for argv, want := range map[string]string{
		"/nonexistent": "/nonexistent: no such file or directory; correct the handler's exec",
		"/etc":         "/etc: permission denied; correct the handler's exec",
		text:           text + ": exec format error; correct the handler's exec",
	} {
		err := Sink{Argv: []string{argv}}.Deliver(t.Context(), delivery())
		if err == nil || err.Error() != want || !sink.IsPermanent(err) {
			t.Errorf("%s: %v, want %s", argv, err, want)
		}
	}
}

// The group has SIGTERM first; who ignores it is killed with all it started.
func TestTimeoutEndsTheWholeGroup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pids := filepath.Join(dir, "pids")
	s := shell("trap 'echo asked' TERM; sleep 300 & echo $$ $! > " + pids + "; while :; do sleep 300 & wait; done")
	s.Timeout = 300 * time.Millisecond
	d := delivery()
	err := s.Deliver(t.Context(), d)
	if err == nil || err.Error() != "not ended after 300ms" || sink.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	if !strings.Contains(string(d.Output), "asked\n") {
		t.Errorf("no SIGTERM came: %q", d.Output)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(text)) {
		pid, _ := strconv.Atoi(word)
		for deadline := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // init tells nobody
			if time.Now().After(deadline) {
				t.Fatalf("process %d lives on", pid)
			}
		}
	}
}

// alive: a zombie that init has not asked for yet does not count.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ") && syscall.Kill(pid, 0) == nil
}

func TestEndOfTheAgentEndsTheCommand(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	ready := filepath.Join(t.TempDir(), "ready")
	done := make(chan error, 1)
	go func() { done <- shell("touch "+ready+"; exec sleep 300").Deliver(ctx, delivery()) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // a file tells nobody
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command does not start")
		}
	}
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a command that was ended counts as done")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the command goes on")
	}
}

func TestAChildThatIsLeftBehindIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	pid := filepath.Join(t.TempDir(), "pid")
	begun := time.Now()
	d := delivery()
	if err := shell("echo done; sleep 300 & echo $! > "+pid).Deliver(t.Context(), d); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 3*grace {
		t.Errorf("took %s", took)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	child, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if !alive(child) {
		t.Error("the child was ended")
	}
	_ = syscall.Kill(child, syscall.SIGKILL)
	if string(d.Output) != "done\n" {
		t.Errorf("output %q", d.Output)
	}
}

func TestOutputIsBoundedAndSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	d := delivery()
	if err := shell("head -c 1000000 /dev/zero | tr '\\0' x; echo end >&2").Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	kept := sink.MaxOutput - noteRoom
	if want := fmt.Sprintf("\n[%d bytes more]\n", 1000004-kept); len(d.Output) > sink.MaxOutput || !strings.HasSuffix(string(d.Output), want) {
		t.Errorf("%d bytes, ends with %q, want %q", len(d.Output), d.Output[max(0, len(d.Output)-40):], want)
	}
}

func TestNoPrivilegesAndNoDescriptorsAreGained(t *testing.T) {
	t.Parallel()
	d := delivery()
	if err := shell("grep NoNewPrivs /proc/self/status; exec ls /proc/self/fd").Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got := string(d.Output); got != "NoNewPrivs:\t1\n0\n1\n2\n3\n" { // 3 is the directory that ls reads
		t.Errorf("%q", got)
	}
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(status), "NoNewPrivs:\t1") {
		own, err := os.ReadFile("/proc/self/status")
		if err != nil || !strings.Contains(string(own), "NoNewPrivs:\t1") { // the whole test runs so
			t.Error("the agent's own thread has lost the ability to gain privileges")
		}
	}
}

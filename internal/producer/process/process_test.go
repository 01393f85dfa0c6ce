package process_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
)

// program copies a shell to a path of its own, so that exe= names only what
// this test starts.
func program(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "worker")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// A child waits for a line on its standard input and then does what the
// script says.
type child struct {
	*exec.Cmd
	t       *testing.T
	release func()
	started time.Time
	reaped  chan struct{}
}

// start runs a script, which goes on once release is called. Its parent takes the status at once.
func start(t *testing.T, path, script string, args ...string) *child {
	t.Helper()
	c := unreaped(t, path, script, args...)
	go func() {
		defer close(c.reaped)
		_ = c.Wait() // tells of the signal
	}()
	return c
}

// unreaped is a child whose status nobody takes before the test ends.
func unreaped(t *testing.T, path, script string, args ...string) *child {
	t.Helper()
	c := &child{t: t, reaped: make(chan struct{})}
	c.Cmd = exec.Command(path, append([]string{"-c", "read line; " + script, "worker"}, args...)...)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	for { // ETXTBSY: another test's fork still holds the file that we wrote
		if err = c.Start(); !errors.Is(err, syscall.ETXTBSY) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	c.started = time.Now()
	c.release = func() { fmt.Fprintln(in, "go") }
	t.Cleanup(func() { _ = c.Process.Kill() })
	// Start returns when the descriptors of exec are closed, which is before the
	// kernel shows the new command line.
	deadline := time.Now().Add(10 * time.Second)
	for {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Process.Pid))
		switch {
		case err != nil:
			t.Fatal(err)
		case bytes.Contains(line, []byte("read line")):
			return c
		case time.Now().After(deadline):
			t.Fatalf("process %d shows the command line %q", c.Process.Pid, line)
		}
	}
}

func (c *child) kill(sig syscall.Signal) {
	c.t.Helper()
	if err := c.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// exited reads Post and Invalidate, in this order and of the same instance.
func exited(t *testing.T, d *producertest.Driver, a event.Associate) *belfryv1.ProcessExit {
	t.Helper()
	post, invalidate := producertest.NextOf[event.Post](d), producertest.NextOf[event.Invalidate](d)
	if post.Entry != a.Entry || post.Occurrence.Event.Instance != a.Instance || invalidate.Instance != a.Instance {
		t.Fatalf("exit of %q: post of %q, invalidate of %q", a.Instance, post.Occurrence.Event.Instance, invalidate.Instance)
	}
	if age := time.Since(post.Occurrence.Time); age < 0 || age > 10*time.Second {
		t.Errorf("the occurrence is %v old", age)
	}
	if post.Repeat > 1 || post.Occurrence.LowerBound {
		t.Errorf("an exit happens once and is seen: %+v", post)
	}
	var data belfryv1.ProcessExit
	if err := proto.Unmarshal(post.Occurrence.Data, &data); err != nil {
		t.Fatal(err)
	}
	return &data
}

func associated(t *testing.T, d *producertest.Driver, c *child) event.Associate {
	t.Helper()
	a := producertest.NextOf[event.Associate](d)
	if !strings.HasPrefix(a.Instance, fmt.Sprint(c.Process.Pid, "@")) {
		t.Fatalf("instance %q, want that of process %d", a.Instance, c.Process.Pid)
	}
	return a
}

func pid(c *child) string { return fmt.Sprint("pid=", c.Process.Pid) }

func TestTheExitOfAPidTellsItsCodeOrSignalAndEndsTheWatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, script string
		kill         syscall.Signal
		code         int32
		signal       string
	}{
		{name: "code 0", script: "exit 0"},
		{name: "code 7", script: "exit 7", code: 7},
		{name: "killed", script: "exit 0", kill: syscall.SIGKILL, signal: "KILL"},
		{name: "terminated", script: "exit 0", kill: syscall.SIGTERM, signal: "TERM"},
		{name: "a real-time signal", script: "exit 0", kill: 40, signal: "40"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := producertest.Start(t, process.New())
			c := start(t, "/bin/sh", test.script)
			d.Watch(event.Watch{Class: process.Class, Subject: pid(c)})
			a := associated(t, d, c)
			if !a.Exclusive {
				t.Error("pid= is not exclusive")
			}
			if test.kill != 0 {
				c.kill(test.kill)
			} else {
				c.release()
			}
			data := exited(t, d, a)
			if data.StatusSource != "pidfd" && data.StatusSource != "proc" {
				t.Skipf("needs: exit-status (the source is %s)", data.StatusSource)
			}
			if data.Signal != test.signal || (data.ExitCode == nil) != (test.signal != "") || data.GetExitCode() != test.code {
				t.Errorf("data %v, want code %d, signal %q", data, test.code, test.signal)
			}
			if data.Pid != int32(c.Process.Pid) || data.Uid != uint32(os.Getuid()) || !strings.Contains(data.Cmdline, "read line") || data.Exe == "" {
				t.Errorf("data %v does not describe the process", data)
			}
			if end := producertest.NextOf[event.End](d); !errors.Is(end.Err, belfry.ErrNoEvent) {
				t.Errorf("end %v, want ErrNoEvent", end.Err)
			}
		})
	}
}

// The parent may never ask for the status; it is in /proc for root and the owner.
func TestTheStatusOfAZombieIsKnownBeforeItsParentAsks(t *testing.T) {
	t.Parallel()
	for _, want := range []int32{0, 3} {
		d := producertest.Start(t, process.New())
		c := unreaped(t, "/bin/sh", fmt.Sprint("exit ", want))
		d.Watch(event.Watch{Class: process.Class, Subject: pid(c)})
		a := associated(t, d, c)
		c.release()
		if data := exited(t, d, a); data.StatusSource != "proc" || data.GetExitCode() != want {
			t.Errorf("data %v, want exit code %d from proc", data, want)
		}
		_ = c.Wait() // tells of the signal
	}
}

func TestARegistrationByExeOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	path := program(t)
	d := producertest.Start(t, process.New())
	d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + path, Wait: true})
	for i := range 3 {
		c := start(t, path, "exit 0")
		a := associated(t, d, c)
		c.kill(syscall.SIGKILL)
		if data := exited(t, d, a); data.Exe != path {
			t.Errorf("exit %d: exe %q, want %q", i+1, data.Exe, path)
		}
	}
}

// The kernel's hint that the file was opened is enough to find what lives
// far shorter than the time between two searches.
func TestAProcessThatLivesShorterThanTheSearchIntervalIsSeen(t *testing.T) {
	t.Parallel()
	path := program(t)
	d := producertest.Start(t, process.Scanning())
	d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + path, Wait: true})
	for range 3 {
		d.Quiet(3 * time.Second) // past the time of close attention
		c := start(t, path, "exit 0")
		a := producertest.NextOf[event.Associate](d)
		if took := time.Since(c.started); took > 500*time.Millisecond {
			t.Errorf("found after %v, want well below a second", took)
		}
		c.release()
		exited(t, d, a)
	}
}

func TestOfAServerAndItsWorkersTheServerIsMeant(t *testing.T) {
	t.Parallel()
	path := program(t)
	server := start(t, path, "exec 3<&0; "+path+" -c 'read end' <&3 & wait")
	server.release() // it starts its worker now
	younger := start(t, path, "exit 0")
	d := producertest.Start(t, process.New())
	d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + path, Wait: true})
	associated(t, d, server)
	_ = younger
}

func TestExecOfAnotherProgramTakesTheIdentifierAway(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, p *process.Producer, _ string) {
		path := program(t)
		c := start(t, path, "exec sleep 600")
		d := producertest.Start(t, p)
		d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + path})
		a := associated(t, d, c)
		c.release()
		if got := producertest.NextOf[event.Invalidate](d); got.Instance != a.Instance {
			t.Errorf("invalidate %+v, want instance %s", got, a.Instance)
		}
	})
}

func TestAnUpgradedExecutableIsStillTheOneThatRuns(t *testing.T) {
	t.Parallel()
	path := program(t)
	c := start(t, path, "exit 0")
	if err := os.Rename(program(t), path); err != nil { // as a package upgrade does
		t.Fatal(err)
	}
	d := producertest.Start(t, process.New())
	d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + path})
	a := associated(t, d, c)
	c.kill(syscall.SIGKILL)
	exited(t, d, a)
}

// /bin/x and /usr/bin/x, where one directory is a link to the other.
func TestTwoNamesOfOneProgramAreBothTold(t *testing.T) {
	t.Parallel()
	path := program(t)
	link := filepath.Join(t.TempDir(), "bin")
	if err := os.Symlink(filepath.Dir(path), link); err != nil {
		t.Fatal(err)
	}
	c := start(t, path, "exit 0")
	d := producertest.Start(t, process.New())
	d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + path})
	a := associated(t, d, c)
	d.Watch(event.Watch{Class: process.Class, Subject: "exe=" + filepath.Join(link, filepath.Base(path))})
	b := associated(t, d, c)
	if a.Exclusive || b.Exclusive {
		t.Error("one of them would be blocked")
	}
}

func TestAPidFileThatIsWrittenAnewNamesTheNewProcess(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "worker.pid")
	write := func(c *child) {
		if err := os.WriteFile(file, fmt.Appendln(nil, c.Process.Pid), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	first, second := start(t, "/bin/sh", "exit 0"), start(t, "/bin/sh", "exit 5")
	write(first)
	d := producertest.Start(t, process.New())
	d.Watch(event.Watch{Class: process.Class, Subject: "pidfile=" + file})
	a := associated(t, d, first)
	write(second)
	if got := producertest.NextOf[event.Invalidate](d); got.Instance != a.Instance {
		t.Errorf("invalidate %+v, want %s", got, a.Instance)
	}
	a = associated(t, d, second)
	second.release()
	if data := exited(t, d, a); data.GetExitCode() != 5 {
		t.Errorf("data %v, want exit code 5", data)
	}
}

// Whoever owns the file may put anything in its place, at any time.
func TestWhatIsPutInPlaceOfAPidFileKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(path string) error{
		"a FIFO":            func(path string) error { return unix.Mkfifo(path, 0o666) },
		"an endless device": func(path string) error { return os.Symlink("/dev/zero", path) },
		"a directory":       func(path string) error { return os.Mkdir(path, 0o755) },
		"a terabyte": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "worker.pid")
			named := start(t, "/bin/sh", "exit 0")
			if err := os.WriteFile(file, fmt.Appendln(nil, named.Process.Pid), 0o644); err != nil {
				t.Fatal(err)
			}
			d := producertest.Start(t, process.New())
			d.Watch(event.Watch{Class: process.Class, Subject: "pidfile=" + file})
			a := associated(t, d, named)
			if err := errors.Join(os.Remove(file), put(file)); err != nil {
				t.Fatal(err)
			}
			d.Watch(event.Watch{Class: process.Class, Subject: "pidfile=" + file, Wait: true})
			other := start(t, "/bin/sh", "exit 3")
			d.Watch(event.Watch{Class: process.Class, Subject: pid(other)})
			b := associated(t, d, other)
			other.release()
			exited(t, d, b)
			producertest.NextOf[event.End](d)
			named.kill(syscall.SIGKILL)
			exited(t, d, a)
		})
	}
}

func TestACommandLineIsMatchedButNotThatOfWhoeverAsks(t *testing.T) {
	t.Parallel()
	mark := filepath.Base(t.TempDir()) + t.Name()
	subject := "cmdline=worker " + mark + "$"
	start(t, "/bin/sh", "exit 0", "watch", "process.exit:"+subject, "worker", mark)
	meant := start(t, "/bin/sh", "exit 0", mark)
	d := producertest.Start(t, process.New())
	d.Watch(event.Watch{Class: process.Class, Subject: subject})
	a := associated(t, d, meant)
	if a.Exclusive {
		t.Error("cmdline= is exclusive")
	}
	meant.kill(syscall.SIGKILL)
	exited(t, d, a)
}

func TestWhatIsNotThereIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	dead := unreaped(t, "/bin/sh", "exit 0")
	dead.kill(syscall.SIGKILL)
	wait(t, dead)
	none := filepath.Join(t.TempDir(), "none")
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("nginx\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		subject string
		want    error
		text    string
	}{
		{pid(dead), belfry.ErrNoEvent, "no process"},
		{"exe=" + none, belfry.ErrNoEvent, "no process runs " + none},
		{"cmdline=no such command line$", belfry.ErrNoEvent, "no command line matches"},
		{"pidfile=" + none, belfry.ErrNoEvent, "no such file"},
		{"pidfile=" + bad, belfry.ErrNoEvent, `"nginx" is not a process id`},
		{"nginx", belfry.ErrUsage, "write pid=N, exe=/PATH"},
		{"unit=nginx.service", belfry.ErrUnsupported, "nobody follows services here; write exe=/PATH"},
		{"unit=nginx.timer", belfry.ErrUsage, "only services have a main process"},
		{"unit=nginx@.service", belfry.ErrUsage, "write unit=nginx@NAME.service"},
		{"unit=/nginx.service", belfry.ErrUsage, "no name of a service"},
		{"socket=nginx.service", belfry.ErrUsage, `unknown kind "socket"`},
		{"pid=0", belfry.ErrUsage, "from 1 to"},
		{"pid=1x", belfry.ErrUsage, "from 1 to"},
		{"exe=bin/nginx", belfry.ErrUsage, "write exe=/full/path"},
		{"cmdline=(", belfry.ErrUsage, "missing closing )"},
		{"cmdline=", belfry.ErrUsage, "matches every process"},
	}
	d := producertest.Start(t, process.New())
	for _, test := range tests {
		w := d.Watch(event.Watch{Class: process.Class, Subject: test.subject})
		end := producertest.NextOf[event.End](d)
		if end.Entry != w.Entry || !errors.Is(end.Err, test.want) || !strings.Contains(end.Err.Error(), test.text) {
			t.Errorf("%s: error %v, want %v with %q", test.subject, end.Err, test.want, test.text)
		}
	}
	w := d.Watch(event.Watch{Class: process.Class, Subject: "exe=*", Entry: producertest.NoEntry})
	if end := producertest.NextOf[event.End](d); end.Watch != w.ID || !errors.Is(end.Err, belfry.ErrUnsupported) {
		t.Errorf("pattern: %+v, want ErrUnsupported for the watch", end)
	}
}

// wait until the child is dead; it stays a zombie.
func wait(t *testing.T, c *child) {
	t.Helper()
	d := producertest.Start(t, process.New())
	d.Watch(event.Watch{Class: process.Class, Subject: pid(c)})
	d.Until(func(m event.Message) bool { _, ok := m.(event.End); return ok })
}

func TestAThreadIsNotAProcess(t *testing.T) {
	t.Parallel()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if task.Name() == fmt.Sprint(os.Getpid()) {
			continue
		}
		d := producertest.Start(t, process.New())
		d.Watch(event.Watch{Class: process.Class, Subject: "pid=" + task.Name()})
		end := producertest.NextOf[event.End](d)
		if want := fmt.Sprintf("write pid=%d", os.Getpid()); !errors.Is(end.Err, belfry.ErrUsage) || !strings.Contains(end.Err.Error(), want) {
			t.Errorf("error %v, want ErrUsage with %q", end.Err, want)
		}
		return
	}
}

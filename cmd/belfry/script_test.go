package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/belfry-ha/belfry/internal/repository/disk"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata, docs/schema and packaging/man")

func TestMain(m *testing.M) {
	time.Local = time.UTC // golden files show times of day
	// With -race every process would sleep a second when it ends.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"belfry": main, "patience": patience, "alone": alone, "configagent": configAgent, "crowd": crowd, "headless": headless})
}

// slowdown is how much longer scripts and sessions sleep than they say: pages
// are written for a machine that does nothing else, and for a program without
// the race detector. All their sleeps grow alike, so their order stays.
func slowdown() float64 {
	if raceDetector() {
		return 3
	}
	return 1.5
}

// patience is a sleep that knows slowdown. Sessions find it as sleep; it is not
// called so everywhere, because the demonstration runs a copy of the real one.
func patience() {
	seconds, err := strconv.ParseFloat(os.Args[len(os.Args)-1], 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, "patience:", err)
		os.Exit(2)
	}
	<-time.After(time.Duration(seconds * slowdown() * float64(time.Second)))
}

// scriptLimit bounds one script, with all its agents.
const scriptLimit = time.Minute

// underRace are the scripts that play with -race too, which is several times
// slower: together they run every loop of an agent.
var underRace = strings.Fields("cut deadnode demo form handlers identifiers journal linkwatch net_links overflow remote server")

// TestScripts plays testdata/script/*.txtar with the real program: real
// agents, sockets, processes and files. With -race only some of them play,
// unless BELFRY_TEST_SCRIPTS is all: make test makes a run of each kind.
func TestScripts(t *testing.T) {
	t.Parallel()
	params := scriptParams("script", 38*scriptLimit) // less than make test gives the package
	if raceDetector() && os.Getenv("BELFRY_TEST_SCRIPTS") != "all" {
		for _, name := range underRace {
			params.Files = append(params.Files, filepath.Join(params.Dir, name+".txtar"))
		}
		params.Dir = ""
	}
	testscript.Run(t, params)
}

func scriptParams(dir string, limit time.Duration) testscript.Params {
	return testscript.Params{
		Dir:                 filepath.Join("testdata", dir),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(limit),
		Setup: func(env *testscript.Env) error {
			docs, err := filepath.Abs(filepath.Join("..", "..", "docs"))
			if err != nil {
				return err
			}
			env.Setenv("DOCS", docs) // pages whose programs are run
			env.Setenv("NO_COLOR", "1")
			env.Setenv("TZ", "UTC")
			env.Setenv("BELFRY_SOCKET", filepath.Join(env.WorkDir, "dev", "a", "belfry.sock"))
			env.Values[skipKey{}] = env.T()
			env.Values[labKey{}] = new(lab)
			env.Values[occupations{}] = map[string]*disk.Host{}
			env.Values[etcds{}] = map[string]*family{}
			env.Values[agents{}] = map[string]*family{}
			env.Values[hangings{}] = map[string]*hanging{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agent":       cmdAgent,
			"agents":      cmdAgents,
			"cgroup":      cmdCgroup,
			"commit":      cmdCommit,
			"ended":       cmdEnded,
			"etcd":        cmdEtcd,
			"fast":        cmdFast,
			"flip":        cmdFlip,
			"hang":        cmdHang,
			"hanging":     cmdHanging,
			"header":      cmdHeader,
			"killwriters": cmdKillwriters,
			"lab":         cmdLab,
			"loop":        cmdLoop,
			"needs":       cmdNeeds,
			"occupy":      cmdOccupy,
			"repository":  cmdRepository,
			"schema":      cmdSchema,
			"screen":      cmdScreen,
			"serveconfig": cmdConfigAgent,
			"session":     cmdSession,
			"signal":      cmdSignal,
			"status":      cmdStatus,
			"tmpfs":       cmdTmpfs,
			"tty":         cmdTTY,
			"stopproc": func(ts *testscript.TestScript, neg bool, nodes []string) {
				cmdSignal(ts, neg, append([]string{"STOP"}, nodes...)) // until the end of the script
			},
			"waitfor": cmdWaitfor,
		},
	}
}

// cmdNeeds skips the script where one of its arguments is absent: root, agents
// (left out by -short), or a program.
func cmdNeeds(ts *testscript.TestScript, _ bool, args []string) {
	for _, need := range args {
		if missing := lacks(need); missing != "" {
			ts.Value(skipKey{}).(testscript.T).Skip("needs: " + missing)
		}
	}
}

// lacksLoop tells whether files can be made disks of; empty: they can.
func lacksLoop() string {
	if _, err := exec.LookPath("losetup"); err != nil {
		return "losetup"
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "loop"
	}
	control.Close()
	return ""
}

// skipKey finds the test of a script, which can be skipped.
type skipKey struct{}

// lacks is what is missing of a need; empty: nothing.
func lacks(need string) string {
	switch need {
	case "agents":
		if testing.Short() {
			return "a run without -short"
		}
		return ""
	case "root":
		if os.Geteuid() != 0 {
			return need
		}
		return ""
	case "netns":
		for _, program := range []string{"ip", "nft", "unshare"} {
			if _, err := exec.LookPath(program); err != nil {
				return program
			}
		}
		return lacksNamespaces()
	case "loop":
		return lacksLoop()
	case "exit-status":
		return lacksExitStatus()
	case "ns_last_pid":
		if _, err := os.Stat("/proc/sys/kernel/ns_last_pid"); err != nil {
			return need
		}
		return ""
	case "cgroup2", "memcg":
		return lacksCgroups(need == "memcg")
	}
	if _, err := exec.LookPath(need); err != nil {
		return need
	}
	return ""
}

// lacksExitStatus tells whether a process that is not a child's exit status
// can be known: PIDFD_GET_INFO of Linux 6.15, or CAP_NET_ADMIN.
func lacksExitStatus() string {
	var name syscall.Utsname
	if err := syscall.Uname(&name); err != nil {
		return "exit-status"
	}
	var release []byte
	for _, c := range name.Release {
		release = append(release, byte(c))
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(release), "%d.%d", &major, &minor); err != nil || major < 6 || major == 6 && minor < 15 {
		return "exit-status"
	}
	return ""
}

// cmdTmpfs mounts a small file system until the end of the script: tmpfs DIR SIZE.
func cmdTmpfs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tmpfs DIR SIZE")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
	ts.Defer(func() { ts.Check(syscall.Unmount(dir, syscall.MNT_DETACH)) }) // also while it is in use
}

func fileHas(file, text string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !bytes.Contains(content, []byte(text)) {
		return fmt.Errorf("no %q in %s:\n%s", text, file, content)
	}
	return nil
}

// waitUntil polls: what happens in other processes sends no signal here.
func waitUntil(limit time.Duration, done func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for {
		err := done()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
}

// waitLimit ends a wait for what will not come. It says nothing of how long a
// thing may take: where that is promised, the script says so itself.
const waitLimit = time.Minute

// cmdWaitfor repeats a command until it succeeds.
func cmdWaitfor(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: [!] waitfor COMMAND ARGS...")
	}
	var output []byte
	err := waitUntil(waitLimit, func() error {
		cmd := scriptCommand(ts, args)
		var err error
		output, err = cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			return err
		}
		if (err == nil) == neg {
			return fmt.Errorf("%s: exit status %d\n%s", strings.Join(args, " "), shellStatus(cmd.ProcessState), output)
		}
		return nil
	})
	if err != nil {
		ts.Fatalf("%v", err)
	}
	_, _ = ts.Stdout().Write(output)
}

// scriptCommand runs args in the directory and environment of the script.
func scriptCommand(ts *testscript.TestScript, args []string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), scriptEnvironment(ts)
	return cmd
}

func scriptEnvironment(ts *testscript.TestScript) []string {
	environ := os.Environ()
	for _, name := range []string{"BELFRY_SOCKET", "BELFRY_IDENTITY", "CGROUP", "CGROUP_PROCS", "HOME", "NO_COLOR", "TMPDIR", "TZ", "WORK"} {
		environ = append(environ, name+"="+ts.Getenv(name))
	}
	return environ
}

// cmdStatus runs a command and wants this exit status: status 3 belfry status.
func cmdStatus(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND ARGS...")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[1], args[2:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), scriptEnvironment(ts)
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	err := cmd.Run()
	if cmd.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	if got := shellStatus(cmd.ProcessState); fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

// shellStatus is the exit status as a shell has it in $?.
func shellStatus(p *os.ProcessState) int {
	if w, ok := p.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return p.ExitCode()
}

// fastRuns is how often cmdFast measures at most. On a machine with thirty
// times as much to do as it has processors five runs did not show what the
// program takes.
const fastRuns = 50

// cmdFast runs a command and wants the fastest run within a duration: what the
// program needs, not what else this machine does. The race detector has five
// times as long.
func cmdFast(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: fast DURATION COMMAND ARGS...")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	if raceDetector() {
		limit *= 5
	}
	fastest := time.Hour
	for n := 1; fastest > limit; n++ {
		if n > fastRuns {
			ts.Fatalf("fastest of %d took %s, want at most %s", fastRuns, fastest, limit)
		}
		begin := time.Now()
		output, err := scriptCommand(ts, args[1:]).CombinedOutput()
		if err != nil {
			ts.Fatalf("%v\n%s", err, output)
		}
		fastest = min(fastest, time.Since(begin))
	}
	ts.Logf("fastest run: %s", fastest)
}

// raceDetector tells whether this program was built with -race.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// cmdSignal sends a signal to the agents of nodes: signal KILL c.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: signal KILL|STOP|CONT|TERM|HUP NODE...")
	}
	sig, ok := map[string]syscall.Signal{
		"KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP,
	}[args[0]]
	if !ok {
		ts.Fatalf("unknown signal %s", args[0])
	}
	for _, node := range args[1:] {
		pid := agentPID(ts, node)
		ts.Check(syscall.Kill(pid, sig))
		switch sig {
		case syscall.SIGSTOP:
			ts.Defer(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
		case syscall.SIGKILL: // its locks are held until it is gone
			ts.Check(waitUntil(30*time.Second, func() error { return runs(pid) }))
		}
	}
}

// runs fails while the process is there, other than as one that its parent has
// not waited for. One whose first thread has ended looks dead while others are
// on their way out, with all that it had open: those are counted (proc(5)).
func runs(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil //nolint:nilerr // it is gone
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	const state, threads = 0, 17 // of the fields after the name
	fields := strings.Fields(after)
	if len(fields) <= threads {
		return fmt.Errorf("process %d: %q is too short", pid, stat)
	}
	if dead := fields[state] == "Z" || fields[state] == "X"; dead && (fields[threads] == "0" || fields[threads] == "1") {
		return nil
	}
	return fmt.Errorf("process %d goes on", pid)
}

// agentPID asks the agent of the script, because the node's own may not answer.
func agentPID(ts *testscript.TestScript, node string) int {
	output, err := scriptCommand(ts, []string{"belfry", "node", "show", node, "-o", "json"}).Output()
	if err != nil {
		ts.Fatalf("pid of %s: %v", node, err)
	}
	var view nodeShowView
	if err := json.Unmarshal(output, &view); err != nil || view.PID == nil {
		ts.Fatalf("pid of %s: %v in %s", node, err, output)
	}
	return int(*view.PID)
}

// cmdSchema holds a file, or stdout or stderr of the last command, against a
// schema; with -lines each line is a value.
func cmdSchema(ts *testscript.TestScript, _ bool, args []string) {
	lines := len(args) > 0 && args[0] == "-lines"
	if lines {
		args = args[1:]
	}
	if len(args) != 2 {
		ts.Fatalf("usage: schema [-lines] NAME FILE")
	}
	text := strings.TrimSpace(ts.ReadFile(args[1]))
	values := []string{text}
	if lines {
		values = strings.Split(text, "\n")
	}
	for _, value := range values {
		if err := checkSchema(args[0], []byte(value)); err != nil {
			ts.Fatalf("schema %s: %v\n%s", args[0], err, value)
		}
	}
}

// TestNoTwoScriptsStartAgentsOnOneAddress: they run at the same time.
func TestNoTwoScriptsStartAgentsOnOneAddress(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	begins := regexp.MustCompile(`(?m)^[^#\n]*\bbelfry init\b.*--address (127\.\d+\.\d+\.\d+)\b`)
	of := map[string]string{}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range begins.FindAllSubmatch(text, -1) {
			address := string(m[1])
			if other, taken := of[address]; taken && other != script {
				t.Errorf("%s and %s begin a cluster on %s", other, script, address)
			}
			of[address] = script
		}
	}
}

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

// sessionLimit bounds one line of a session, with its output.
const sessionLimit = 40 * time.Second

// A session is what a page shows between ```console and ```: lines that begin
// with "$ " are typed into one shell, what follows them is what it answers.
type session struct {
	steps []sessionStep
	needs []string // of blocks that were left out
	alone bool     // in a network namespace of its own, where it may drop packets
}

type sessionStep struct{ command, want string }

// background tells whether the shell does not wait for it; its output comes
// meanwhile.
func (s sessionStep) background() bool { return strings.HasSuffix(strings.TrimSpace(s.command), "&") }

// parseSession reads all blocks of a page. A block "console needs=X" is left
// out where X is absent. One that needs netns is of a page that is played in a
// network namespace as a whole.
func parseSession(page string) (s session) {
	in, skipped := false, false
	for line := range strings.Lines(page) {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && in:
			in = false
		case fence:
			language, rest, _ := strings.Cut(strings.TrimSpace(info), " ")
			in, skipped = language == "console", false
			need, needs := strings.CutPrefix(rest, "needs=")
			if needs && in && lacks(need) != "" {
				s.needs, skipped = append(s.needs, lacks(need)), true
			}
			s.alone = s.alone || in && need == "netns"
		case !in || skipped:
		case strings.HasPrefix(line, "$ "):
			s.steps = append(s.steps, sessionStep{command: strings.TrimSpace(line[2:])})
		case len(s.steps) > 0:
			s.steps[len(s.steps)-1].want += line
		}
	}
	return s
}

// cmdSession plays the session of a file in the script's directory.
func cmdSession(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: session FILE")
	}
	s := parseSession("```console\n" + ts.ReadFile(args[0]) + "```\n")
	if err := s.play(ts.MkAbs("."), scriptEnvironment(ts), ts.Logf); err != nil {
		ts.Fatalf("%v", err)
	}
}

// play types the session into one shell and compares what it answers.
func (s session) play(dir string, environ []string, logf func(string, ...any)) (err error) {
	bin := filepath.Join(dir, ".bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "sleep"), []byte("#!/bin/sh\nexec patience \"$@\"\n"), 0o755); err != nil {
		return err
	}
	environ = append(environ, "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	sh, err := startShell(dir, environ, s.alone)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := sh.stop(); err == nil {
			err = stopErr
		}
	}()
	for i, step := range s.steps {
		logf("$ %s", step.command)
		got, err := sh.answer(i, step)
		if err != nil {
			return fmt.Errorf("$ %s: %w", step.command, err)
		}
		if diff := cmp.Diff(normal(step.want, dir), normal(got, dir)); diff != "" {
			return fmt.Errorf("$ %s (-want +got):\n%s\nas it came:\n%s", step.command, diff, got)
		}
	}
	return nil
}

// A shell is one sh that reads what is typed from a pipe.
type shell struct {
	*family
	dir    string
	stdin  io.WriteCloser
	output *bufio.Reader
}

func startShell(dir string, environ []string, alone bool) (*shell, error) {
	alive, held, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer held.Close()
	cmd := exec.Command("sh")
	if alone {
		cmd = exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up && exec sh")
	}
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, environ, []*os.File{held}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	f := &family{cmd: cmd, exited: make(chan struct{}), alive: alive}
	go f.wait()
	return &shell{family: f, dir: dir, stdin: in, output: bufio.NewReader(reader)}, nil
}

// endMark follows the output of each command that is typed.
const endMark = "\x01end of output\x01"

// answer types one command and reads what it writes. A background command
// writes to a file, so that what it says later is not in the answer of another.
func (sh *shell) answer(i int, step sessionStep) (string, error) {
	command := step.command
	file := filepath.Join(sh.dir, fmt.Sprintf(".background-%d", i))
	if step.background() {
		command = strings.TrimSuffix(strings.TrimSpace(command), "&")
		command = fmt.Sprintf("{ %s; } > %s 2>&1 &", command, file)
	}
	if !step.background() { // what is typed next is not its input
		command = fmt.Sprintf("{ %s\n} < /dev/null", command)
	}
	if _, err := fmt.Fprintf(sh.stdin, "%s\nprintf '%%s\\n' '%s'\n", command, endMark); err != nil {
		return "", err
	}
	got, err := sh.untilMark()
	if err != nil || !step.background() || step.want == "" {
		return got, err
	}
	// Its output is waited for until all of it has come.
	err = waitUntil(sessionLimit, func() error {
		content, err := os.ReadFile(file)
		got = string(content)
		if err == nil && strings.Count(got, "\n") < strings.Count(step.want, "\n") {
			err = fmt.Errorf("output is not complete:\n%s", got)
		}
		return err
	})
	return got, err
}

func (sh *shell) untilMark() (string, error) {
	type answer struct {
		text string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		var text strings.Builder
		for {
			line, err := sh.output.ReadString('\n')
			if before, ok := strings.CutSuffix(line, endMark+"\n"); ok {
				text.WriteString(before)
				done <- answer{text.String(), nil}
				return
			}
			text.WriteString(line)
			if err != nil {
				done <- answer{text.String(), err}
				return
			}
		}
	}()
	select {
	case a := <-done:
		return a.text, a.err
	case <-time.After(sessionLimit):
		return "", fmt.Errorf("no end within %s", sessionLimit)
	}
}

// normalised are the things that differ from run to run, in the order in which
// they are replaced.
var normalised = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "RFC3339"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d(\.\d+)?\b`), "TIME"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "UUID"},
	{regexp.MustCompile(`(token=|Bearer )[A-Za-z0-9_-]+`), "${1}TOKEN"},
	{regexp.MustCompile(`(pid[= ]|"pid": ?)\d+`), "${1}PID"},
	{regexp.MustCompile(`\b\d+@\d+\b`), "PID@START"},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(ns|µs|ms|s|m|h|d))+\b`), "DURATION"},
	{regexp.MustCompile(`(\d\.\d+\.\d+\.\d+|localhost|\]):\d{2,5}\b`), "${1}:PORT"},
	{regexp.MustCompile(`\bloop\d+\b`), "LOOP"},
	{regexp.MustCompile(`\b(key|issuer) [0-9a-f]{16}\b`), "$1 KEYID"},
	{regexp.MustCompile(`(free|used|size)_bytes=\d+`), "${1}_bytes=BYTES"},
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(` ?\n`), "\n"},
}

// normal puts placeholders where a run differs from the next.
func normal(text, dir string) string {
	text = strings.ReplaceAll(text, dir, "$PWD")
	for _, n := range normalised {
		text = n.pattern.ReplaceAllString(text, n.with)
	}
	return strings.TrimSpace(text)
}

func TestNormalKeepsWhatMatters(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"12:00:05.120  b  process.exit  exe=/home/w/worker  seq 1  x1  pid=4711 signal=KILL": "TIME b process.exit exe=$PWD/worker seq 1 x1 pid=PID signal=KILL",
		"c  down (process)  for 0.9s  incarnation 1  seen by a b":                            "c down (process) for DURATION incarnation 1 seen by a b",
		"posted 9999 of user.build:web at a, matched 1 registration":                         "posted 9999 of user.build:web at a, matched 1 registration",
		"dashboard  http://127.0.0.1:7433/#token=k3v9\n\n":                                   "dashboard http://127.0.0.1:PORT/#token=TOKEN",
		"a     up       12s  -      -         -        this node   \n":                       "a up DURATION - - - this node",
		"id 0199e2a4-7c1e-4c3a-9d1e-1a2b3c4d5e6f at 2026-11-23T20:15:16.5Z, 4711@8812345":    "id UUID at RFC3339, PID@START",
	} {
		if got := normal(text, "/home/w"); got != want {
			t.Errorf("normal(%q)\n got %q\nwant %q", text, got, want)
		}
	}
}

// TestPagesSessions plays the sessions of the README and of the producers'
// pages: what they show is what happens. A page that does not start its own
// agents finds three of them running.
func TestPagesSessions(t *testing.T) {
	t.Parallel()
	if missing := lacks("agents"); missing != "" {
		t.Skip("needs: " + missing)
	}
	if raceDetector() && os.Getenv("BELFRY_TEST_SCRIPTS") != "all" {
		t.Skip("needs: a run without -race")
	}
	root := filepath.Join("..", "..")
	folders, err := filepath.Glob(filepath.Join(root, "internal", "producer", "*", ""))
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{"README": filepath.Join(root, "README.md"), "networks": filepath.Join(root, "docs", "networks.md"), "licenses": filepath.Join(root, "docs", "licenses.md")}
	for _, folder := range folders {
		name := filepath.Base(folder)
		if info, err := os.Stat(folder); err == nil && info.IsDir() && name != "testdata" && !strings.HasSuffix(name, "test") {
			pages[name] = filepath.Join(folder, "README.md")
		}
	}
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			playPage(t, string(text))
		})
	}
}

func playPage(t *testing.T, text string) {
	t.Helper()
	s := parseSession(text)
	if len(s.needs) > 0 {
		defer func() {
			if !t.Failed() {
				t.Skip("needs: " + strings.Join(s.needs, ", ") + " (for a part of the page)")
			}
		}()
	}
	if len(s.steps) == 0 && len(s.needs) > 0 {
		return
	}
	if len(s.steps) == 0 {
		t.Fatal("the page has no session; show one between ```console and ```")
	}
	dir := t.TempDir()
	environ := append(os.Environ(), "NO_COLOR=1", "TZ=UTC", "BELFRY_SOCKET="+filepath.Join(dir, "dev", "a", "belfry.sock"))
	if !strings.HasPrefix(s.steps[0].command, "belfry up") {
		up, err := startUp(dir, "3")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := up.stop(); err != nil {
				t.Error(err)
			}
		}()
		if err := waitUntil(20*time.Second, func() error { return fileHas(up.out, " up after ") }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.play(dir, environ, t.Logf); err != nil {
		t.Error(err)
	}
}

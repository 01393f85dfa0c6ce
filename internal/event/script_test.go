package event

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var update = flag.Bool("update", false, "rewrite the outputs in testdata")

// TestScripts plays testdata/*.txt: one or more commands, `----`, what the
// machines put out, an empty line. The commands are in script_test.go.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playScript(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// playScript returns the script with the outputs that came.
func playScript(t *testing.T, script string) string {
	t.Helper()
	w := newWorld()
	var out, commands strings.Builder
	skipping := false
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "----":
			skipping = true
			out.WriteString(commands.String() + "----\n")
			for command := range strings.Lines(commands.String()) {
				if command = strings.TrimSpace(command); command != "" && command[0] != '#' {
					out.WriteString(w.do(t, command))
				}
			}
			out.WriteString("\n")
			commands.Reset()
		case skipping && line == "":
			skipping = false
		case !skipping:
			commands.WriteString(line + "\n")
		}
	}
	return strings.TrimSuffix(out.String(), "\n") + commands.String()
}

// A world is some nodes on virtual time and the streams between them.
type world struct {
	now      time.Time
	machines map[string]*Machine
	names    []string
	streams  map[string]bool // "a>b": open; frames arrive at once
	quiet    bool            // do not print frames
	lose     bool            // frames are lost, as when a stream breaks
}

var scriptStart = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newWorld() *world {
	return &world{now: scriptStart, machines: map[string]*Machine{}, streams: map[string]bool{}}
}

func scriptNode(name string) belfry.NodeID { return belfry.NodeID{15: name[0]} }

var scriptClasses = []belfry.ClassInfo{
	{Class: "file.modify", Subject: "PATH", Globs: true, Remote: true, Volatile: true},
	{Class: "process.exit", Subject: "exe=PATH | pid=N", Remote: true, LocalKinds: []string{"pid"}, LiteralKinds: []string{"cmdline"}},
	{Class: "process.start", Subject: "exe=PATH", Globs: true, Remote: true},
	{Class: "node.state", Kind: belfry.State, Subject: "NODE", Globs: true, Remote: true, Optional: true},
	{Class: "filesystem.usage", Kind: belfry.Value, Subject: "PATH", Unit: "%", Globs: true, Remote: true},
	{Class: "cpu.wait", Kind: belfry.Value, Unit: "ms", Remote: true},
	{Class: "local.only", Subject: "NAME"},
	{Class: "user.*", Subject: "TEXT", Globs: true, Remote: true, Optional: true, Custom: true},
}

func scriptMachine(name string, incarnation int, now time.Time) *Machine {
	return New(Config{
		Node: scriptNode(name), Name: name, Incarnation: belfry.Incarnation(incarnation), Classes: scriptClasses,
		LooksAtData: func(expression string) bool { return strings.HasPrefix(expression, "data") },
		Compile: func(_, expression string) (Filter, error) {
			if data, ok := strings.CutPrefix(expression, "data=="); ok {
				return func(n *belfry.Notification) (bool, error) { return string(n.Data) == data, nil }, nil
			}
			code, err := strconv.Atoi(strings.TrimPrefix(expression, "code=="))
			if err != nil {
				return nil, refusal(belfry.ErrUsage, "expression %q; write code==N", expression)
			}
			return func(n *belfry.Notification) (bool, error) {
				if n.Code < 0 {
					return false, errors.New("negative code")
				}
				return n.Code == int32(code), nil
			}, nil
		},
	}, now, rand.New(rand.NewPCG(1, 2)))
}

// do runs `[NODE] COMMAND ARGS…` and returns what all machines put out.
func (w *world) do(t *testing.T, line string) string {
	t.Helper()
	var out bytes.Buffer
	f := strings.Fields(line)
	switch f[0] {
	case "node": // node NAME [INCARNATION]
		inc := 1
		if len(f) > 2 {
			inc = number(t, f[2])
		}
		if w.machines[f[1]] == nil {
			w.names = append(w.names, f[1])
		}
		w.machines[f[1]] = scriptMachine(f[1], inc, w.now)
		return ""
	case "join", "cut", "gone", "removed": // both sides: join a b
		w.stream(f[0], f[1], f[2])
		w.settle(&out)
		return out.String()
	case "run": // time passes
		d, err := time.ParseDuration(f[1])
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(d)
		w.settle(&out)
		return out.String()
	case "quiet":
		w.quiet = true
		return ""
	case "lose": // frames are lost from now on
		w.lose = true
		return ""
	}
	if len(w.machines) == 0 {
		w.do(t, "node a")
	}
	name := w.names[0]
	if w.machines[f[0]] != nil {
		name, f = f[0], f[1:]
	}
	m := w.machines[name]
	if printed, ok := inspect(m, f[0]); ok {
		return printed
	}
	times := 1
	if strings.HasPrefix(f[0], "*") {
		times, f = number(t, f[0][1:]), f[1:]
	}
	for i := range times {
		m.Receive(w.now, scriptMessage(t, f, i+1))
	}
	w.settle(&out)
	return out.String()
}

func (w *world) stream(what, a, b string) {
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		from, to := w.machines[pair[0]], pair[1]
		if from == nil {
			continue
		}
		switch what {
		case "join":
			w.lose = false
			from.Receive(w.now, PeerUp{Node: scriptNode(to), Name: to, Incarnation: w.machines[to].cfg.Incarnation})
			from.Receive(w.now, PeerReady{Node: scriptNode(to)})
		case "cut":
			from.Receive(w.now, PeerLost{Node: scriptNode(to)})
		case "gone":
			from.Receive(w.now, PeerGone{Node: scriptNode(to)})
		case "removed":
			from.Receive(w.now, PeerRemoved{Node: scriptNode(to)})
		}
		w.streams[pair[0]+">"+pair[1]] = what == "join"
	}
}

// settle lets every machine work until nothing is left to carry.
func (w *world) settle(out *bytes.Buffer) {
	for range 1000 {
		busy := false
		for _, name := range w.names {
			m := w.machines[name]
			m.Advance(w.now)
			o := m.Take()
			prefix := ""
			if len(w.names) > 1 {
				prefix = name + " "
			}
			printOutput(out, prefix, &o)
			for _, f := range o.Peers {
				busy = true
				w.carry(out, name, f)
			}
		}
		if !busy {
			return
		}
	}
	out.WriteString("never settles\n")
}

func (w *world) carry(out *bytes.Buffer, from string, f PeerFrame) {
	to := string(f.Node[15:])
	if !w.quiet {
		fmt.Fprintf(out, "%s>%s %s\n", from, to, frameText(f.Frame))
	}
	m := w.machines[to]
	if m == nil || !w.streams[from+">"+to] || w.lose {
		return
	}
	m.Receive(w.now, PeerReceived{Node: scriptNode(from), Frame: f.Frame})
	if _, batch := f.Frame.(PeerBatch); batch {
		w.machines[from].Receive(w.now, PeerReady{Node: f.Node})
	}
}

func inspect(m *Machine, what string) (string, bool) {
	var out strings.Builder
	switch what {
	case "status":
		s := m.Status()
		for _, e := range s.Entries {
			if e.Pattern {
				fmt.Fprintf(&out, "%s pattern:", label(e.Class, e.Subject))
			} else {
				fmt.Fprintf(&out, "%s %s id=%q seq=%d held by %s:", label(e.Class, e.Subject), e.State, e.Instance, e.Sequence, e.Held)
			}
			for _, c := range e.Consumers {
				fmt.Fprintf(&out, " [%s %s/%d queued %d gaps %d observed %v]", c.Kind, c.Name, c.Registration, c.Queued, c.Gaps, c.Observed)
			}
			out.WriteString("\n")
		}
		for _, i := range s.Interests {
			fmt.Fprintf(&out, "interests of %s: %d version %d live %v unacked %d queued %d\n", i.Name, i.Interests, i.Version, i.Live, i.Unacknowledged, i.Queued)
		}
		for _, want := range s.Wants {
			fmt.Fprintf(&out, "wants %s:", label(belfry.Class(want.Class), want.Subject))
			for _, c := range want.Consumers {
				fmt.Fprintf(&out, " [%s %s/%d]", c.Kind, c.Name, c.Registration)
			}
			for _, c := range want.Coverage {
				fmt.Fprintf(&out, " %s:%s", string(c.Node[15:]), coverageText(c.State))
				if !c.Since.IsZero() {
					fmt.Fprintf(&out, " at %s", since(c.Since))
				}
				if c.Err != nil {
					fmt.Fprintf(&out, " (%v)", c.Err)
				}
			}
			out.WriteString("\n")
		}
	case "mirrors":
		for _, p := range m.peers {
			fmt.Fprintf(&out, "mirrors of %s: %d\n", p.name, p.mirrors.Len())
		}
	case "counters":
		c := m.Counters()
		fmt.Fprintf(&out, "posted %v coalesced %v lost %v stale %d unexplained %d\n", c.Posted, c.Coalesced, c.Lost, c.Stale, c.Unexplained)
	default:
		return "", false
	}
	return out.String(), true
}

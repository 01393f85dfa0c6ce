package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary play the children's parts, as the program does.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestEverySystemPlaysEverySeedOfAScenario(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "small.scenario")
	if err := os.WriteFile(file, []byte("nodes 5\nseeds 3..5\ndelay 500us exp 100us\nat 5s kill host n2\nrun 20s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	chosen, err := chosen("belfry,memberlist-tuned")
	if err != nil {
		t.Fatal(err)
	}
	task, err := readTask(file, chosen)
	if err != nil {
		t.Fatal(err)
	}
	cells, err := (&virtualLane{jobs: 2, log: io.Discard}).play(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"belfry", "memberlist-tuned"} {
		c := cells[i]
		if c.Scenario != "small" || c.System != name || c.Nodes != 5 || c.Seeds != "3..5" {
			t.Errorf("cell %d is %s, %s, %d nodes, seeds %s", i, c.Scenario, c.System, c.Nodes, c.Seeds)
		}
		all := c.Values[detectLast+down.String()]
		if len(all) != 3 || worst(all) > 10 {
			t.Errorf("%s: want 3 detections within 10 s, got %v", name, c.Values)
		}
	}
	if v := cells[0].Values[detectFirst+unreachable.String()]; len(v) != 3 || worst(v) > 1 {
		t.Errorf("belfry: want 3 times unreachable within 1 s, got %v", v)
	}
}

func TestBelfryComesToTheSameFiguresEachTime(t *testing.T) {
	t.Parallel()
	s := parsed(t, "nodes 8\nat 5s kill process n2\nrun 10s\n")
	var texts [2]string
	for i := range texts {
		r, err := playBelfry(s, 7)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = fmt.Sprintf("%+v", r)
	}
	if texts[0] != texts[1] {
		t.Errorf("once:\n%s\nand once:\n%s", texts[0], texts[1])
	}
}

func TestRatesCountInTheSecondHalfOnly(t *testing.T) {
	t.Parallel()
	s := parsed(t, "nodes 8\nrun 200s\n")
	r, err := playBelfry(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	if f := measure(s, r); f.Packets < 1.9 || f.Packets > 2.5 {
		t.Errorf("want about 2 packets/s of a node that knows its network, got %g", f.Packets)
	}
}

func TestEveryScenarioOfTheReadmeCanBeRead(t *testing.T) {
	t.Parallel()
	named := map[string]bool{}
	for _, g := range groups() {
		tasks, err := g.tasks(testdata, func(string) bool { return true })
		if err != nil {
			t.Fatalf("%s: %v", g.title, err)
		}
		for _, task := range tasks {
			named[task.name+scenarioEnding] = true
		}
	}
	files, err := os.ReadDir(testdata)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !named[f.Name()] {
			t.Errorf("%s is in no table", f.Name())
		}
	}
}

func TestTheSeedShiftsWhatHappensToNodesAndNotTheNetwork(t *testing.T) {
	t.Parallel()
	s := parsed(t, "nodes 4\nat 0s join *\nat 5s kill host n2\nat 5s cut n1|n3 until 6s\nrun 20s\n")
	a, b := shifted(s, 1), shifted(s, 1)
	if a.Format() != b.Format() {
		t.Errorf("one seed shifts in two ways:\n%s\n%s", a.Format(), b.Format())
	}
	later := 0
	for seed := range uint64(30) {
		for _, step := range shifted(s, seed).Steps {
			kills := len(step.Nodes) == 1
			if by := step.At - 5*time.Second; kills && (by < 0 || by >= shiftRange) || !kills && step.At != 0 && by != 0 {
				t.Errorf("seed %d: line %d comes at %s", seed, step.Line, step.At)
			} else if kills && by > shiftRange/2 {
				later++
			}
		}
	}
	if later < 13 || later > 17 {
		t.Errorf("%d of 30 seeds are in the second half of the range", later)
	}
}

func TestWrongUseSaysWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-lane reel":         "there are virtual, real, both and none",
		"-scenario x -out y": "choose with -only",
		"-readme README.md":  "name both",
		"-real-nodes 100":    "want 4 to 26",
		"more":               "there are only flags",
		"-scenario testdata/silent8.scenario -seeds 9..": "such as 1..30",
		"-scenario testdata/silent8.scenario -systems x": "there are belfry, memberlist, ",
	} {
		if err := measureAll(t.Context(), strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want an error with %q, got %v", args, want, err)
		}
	}
}

func TestProcessorTimeOfThisProcessGrows(t *testing.T) {
	t.Parallel()
	begin, before := time.Now(), processorTime(os.Getpid())
	for processorTime(os.Getpid())-before < 5*time.Millisecond {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("10 s of work count less than 5 ms")
		}
	}
}

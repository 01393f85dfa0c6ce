package sim

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// read parses a scenario of testdata.
func read(t *testing.T, file string) *Scenario {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(filepath.Base(file), text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parse(t *testing.T, text string) *Scenario {
	t.Helper()
	s, err := Parse(t.Name(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run plays a scenario, and wants nothing to fail.
func run(t *testing.T, s *Scenario, seed uint64) *Result {
	t.Helper()
	r, err := Run(s, Options{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Failures {
		t.Errorf("seed %d: %v", seed, f)
	}
	return r
}

// cluster.md 15, invariant 8.
func TestI8TheSameSeedGivesTheSameTrace(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "*.scenario"))
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios:", err)
	}
	traces := map[string]string{}
	for _, file := range files {
		s := read(t, file)
		a, b := run(t, s, 1), run(t, s, 1)
		if a.Hash != b.Hash || a.Events != b.Events {
			t.Errorf("%s: traces %s and %s, %d and %d events", file, a.Hash, b.Hash, a.Events, b.Events)
		}
		if diff := cmp.Diff(a.Verdicts, b.Verdicts); diff != "" {
			t.Errorf("%s (-one +two):\n%s", file, diff)
		}
		if other, ok := traces[a.Hash]; ok {
			t.Errorf("%s and %s have one trace", file, other)
		}
		traces[a.Hash] = file
	}
}

func TestAnotherSeedGivesAnotherTrace(t *testing.T) {
	t.Parallel()
	s := parse(t, "nodes 3\nrun 5s\n")
	if a, b := run(t, s, 1), run(t, s, 2); a.Hash == b.Hash {
		t.Error("seeds 1 and 2 have one trace:", a.Hash)
	}
}

// A step of a wall clock changes what kernels stamp, and nothing that comes of
// it. While mail waits for a process that is stopped, it can move the times of
// arrival within the wait, but no verdict.
func TestAStepOfAClockChangesNothing(t *testing.T) {
	t.Parallel()
	const text = "nodes 8\nat 20s pause process n4 1s\nat 30s kill process n5\nrun 40s\n"
	without := run(t, parse(t, text), 3)
	for _, step := range []string{"+3s", "-3s", "+24h0m0s"} {
		with := run(t, parse(t, text+"at 10s clock n4 "+step+"\nat 25s clock n4 "+step+"\n"), 3)
		if with.Hash != without.Hash {
			t.Errorf("clock n4 %s: another trace", step)
		}
		paused := run(t, parse(t, text+"at 20.5s clock n4 "+step+"\n"), 3)
		if diff := cmp.Diff(changes(without), changes(paused)); diff != "" {
			t.Errorf("clock n4 %s while it is stopped (-without +with):\n%s", step, diff)
		}
	}
}

// changes is who told what of whom.
func changes(r *Result) (list []string) {
	for _, v := range r.Verdicts {
		list = append(list, fmt.Sprintf("%s %s %s %v -> %v (%v) %s", Name(v.Observer), v.Class, Name(v.Subject), v.From, v.To, v.Cause, v.Text))
	}
	slices.Sort(list)
	return list
}

func TestARunEndsWhenItIsTold(t *testing.T) {
	t.Parallel()
	stopped := errors.New("stopped")
	asked := 0
	r, err := Run(parse(t, "nodes 8\nrun 24h\n"), Options{Seed: 1, Stop: func() error { asked++; return stopped }})
	if !errors.Is(err, stopped) || r != nil || asked != 1 {
		t.Errorf("got %v, %v after %d questions; want the error at the first", r, err, asked)
	}
}

// What an expectation says that did not come; else a run that expects nothing
// could pass for one that holds.
func TestExpectationsThatDoNotComeFail(t *testing.T) {
	t.Parallel()
	s := parse(t, `nodes 3
at 10s kill host n3
run 20s
expect n3 down within 1s at first
expect n3 down at all
expect n2 left at first
expect n2 down at all
expect never down n3
expect never down *
expect never left *
`)
	r, err := Run(s, Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var held []bool
	for _, e := range r.Expects {
		held = append(held, e.Held)
	}
	if diff := cmp.Diff([]bool{false, true, false, false, false, false, true}, held); diff != "" {
		t.Errorf("what held (-want +got):\n%s", diff)
	}
}

// The same of links and contacts; what a contact is told of is no verdict.
func TestExpectationsOfLinksThatDoNotComeFail(t *testing.T) {
	t.Parallel()
	s := parse(t, `nodes 3
networks net1 net2
at 30s cut n1|n2 until 60s
at 40s carrier n3 net2 lost
run 80s
expect link n1>n2@net1 down within 100ms
expect link n1>n2@net1 down within 3s
expect link n1>n3@net1 down
expect link n3>n1@net2 no-carrier within 1ms
expect link n3>n1@net1 no-carrier
expect contact n1>n2 down within 3s
expect contact n1>n3 down
expect never link n1>n2@net2 down
expect never link n1>n3@net2 one-way-out
expect never contact n2>n1 down
expect never contact n2>n3 down
`)
	r, err := Run(s, Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var held []bool
	for _, e := range r.Expects {
		held = append(held, e.Held)
	}
	if diff := cmp.Diff([]bool{false, true, false, true, false, true, false, false, true, false, true}, held); diff != "" {
		t.Errorf("what held (-want +got):\n%s", diff)
	}
	for _, v := range r.Verdicts {
		if v.Class == "node.state" && v.Observer == v.Subject {
			t.Errorf("%s told a verdict of itself: %+v", Name(v.Observer), v)
		}
	}
}

// Same fate: the number of packets that a system sends changes nothing for the
// packets of others.
func TestFateIsAFunctionOfPairTimeAndNumber(t *testing.T) {
	t.Parallel()
	c := parse(t, "nodes 8\nat 0s loss *>* 20%\nat 0s duplicate *>* 5%\nrun 60s\n").Conditions(9)
	var counter Counter
	const packets = 100_000
	lost, copies, delay := 0, 0, time.Duration(0)
	for i := range packets {
		at := time.Duration(i) * 500 * time.Microsecond
		nth := counter.Next(1, 2, 0, at)
		if want := i % 20; nth != want {
			t.Fatalf("packet %d has number %d in its bucket, want %d", i, nth, want)
		}
		f := c.Fate(1, 2, 0, at, nth)
		if again := c.Fate(1, 2, 0, at, nth); again != f {
			t.Fatalf("packet %d: %+v, then %+v", i, f, again)
		}
		if f.Lost {
			lost++
		}
		if f.Copy {
			copies++
		}
		delay += f.Delay - 500*time.Microsecond
	}
	if lost < 19_500 || lost > 20_500 {
		t.Errorf("%d of %d lost, want 20 %%", lost, packets)
	}
	if copies < 4700 || copies > 5300 {
		t.Errorf("%d of %d copied, want 5 %%", copies, packets)
	}
	if mean := delay / packets; mean < 98*time.Microsecond || mean > 102*time.Microsecond {
		t.Errorf("mean of the exponential part is %v, want 100µs", mean)
	}
}

// Bad spells take the share of time that their means say.
func TestBurstsTakeTheirShareOfTime(t *testing.T) {
	t.Parallel()
	c := parse(t, "nodes 2\nat 0s burst *>* good 3s bad 300ms loss 100%\nrun 24h\n").Conditions(5)
	const samples = 200_000
	lost := 0
	for i := range samples {
		if c.Fate(0, 1, 0, time.Duration(i)*100*time.Millisecond, 0).Lost {
			lost++
		}
	}
	if share := float64(lost) / samples; share < 0.08 || share > 0.10 { // 0.3 / 3.3
		t.Errorf("%.3f of the time is bad, want about 0.091", share)
	}
}

func TestCutsAreDirectedAndOnTheirNetwork(t *testing.T) {
	t.Parallel()
	c := parse(t, "nodes 3\nnetworks net1 net2\nat 1s cut n1>n2@net2 until 2s\nat 3s cut n1|n2\nrun 9s\n").Conditions(1)
	for _, row := range []struct {
		src, dst, network int
		at                time.Duration
		want              bool
	}{
		{0, 1, 1, 1500 * time.Millisecond, true},
		{1, 0, 1, 1500 * time.Millisecond, false},
		{0, 1, 0, 1500 * time.Millisecond, false},
		{0, 1, 1, 999 * time.Millisecond, false},
		{0, 1, 1, 2 * time.Second, false},
		{0, 1, 0, 4 * time.Second, true},
		{1, 0, 1, 4 * time.Second, true},
		{0, 2, 0, 4 * time.Second, false},
	} {
		if got := c.Cut(row.src, row.dst, row.network, row.at); got != row.want {
			t.Errorf("cut %s>%s on network %d at %v: %v, want %v", Name(row.src), Name(row.dst), row.network, row.at, got, row.want)
		}
		if f := c.Fate(row.src, row.dst, row.network, row.at, 0); f.Lost != row.want {
			t.Errorf("lost %s>%s on network %d at %v: %v, want %v", Name(row.src), Name(row.dst), row.network, row.at, f.Lost, row.want)
		}
	}
}

// The draws are integers, so that they are the same on every machine; these are
// the values of one.
func TestExponentialDrawsAreTheSameEverywhere(t *testing.T) {
	t.Parallel()
	c := parse(t, "nodes 2\nrun 1s\n").Conditions(1)
	var got []time.Duration
	for _, u := range []uint64{0, 1 << 62, 1 << 63, 3 << 62, ^uint64(0)} { // ln 2⁵³, ln 4, ln 2, ln 4/3, 0
		got = append(got, c.exponential(time.Second, u).Round(time.Microsecond))
	}
	want := []time.Duration{36736801 * time.Microsecond, 1386294 * time.Microsecond, 693147 * time.Microsecond, 287682 * time.Microsecond, 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if bits.OnesCount64(chain(1, 2, 3)^chain(1, 2, 4)) < 16 {
		t.Error("neighbours have alike chains")
	}
}

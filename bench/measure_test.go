package main

import (
	"math"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/internal/sim"
)

const second = time.Second

func scenario(nodes int, steps ...sim.Step) *sim.Scenario {
	return &sim.Scenario{Name: "test", Nodes: nodes, Delay: time.Millisecond, Run: 100 * second, Steps: steps}
}

func about(t *testing.T, what string, want float64, got *float64) {
	t.Helper()
	if got == nil {
		t.Errorf("%s: want %g, got nothing", what, want)
	} else if math.Abs(*got-want) > 1e-9 {
		t.Errorf("%s: want %g, got %g", what, want, *got)
	}
}

func TestDetectionCountsFromTheKillAndOverTheSurvivors(t *testing.T) {
	t.Parallel()
	s := scenario(4, sim.Step{At: 10 * second, Kind: sim.StepKillHost, Nodes: []int{3}})
	f := measure(s, run{Observations: []observation{
		{5 * second, 0, 3, down},
		{6 * second, 0, 3, up}, // before it died
		{11 * second, 0, 3, unreachable},
		{12 * second, 1, 3, unreachable},
		{13 * second, 1, 3, down},
		{14 * second, 2, 3, down},
		{15 * second, 0, 3, down},
		{16 * second, 3, 0, down}, // the dead do not count
	}})
	d := f.Detections[0]
	about(t, "unreachable, first", 1, d.Level["unreachable"].First)
	about(t, "unreachable, half", 2, d.Level["unreachable"].Half)
	about(t, "unreachable, all", 4, d.Level["unreachable"].Last)
	about(t, "down, first", 3, d.Level["down"].First)
	about(t, "down, all", 5, d.Level["down"].Last)
	if got := f.Mistakes["down"].Episodes; got != 1 {
		t.Errorf("want the one false verdict before the kill, got %d", got)
	}
}

func TestAVerdictThatIsTakenBackIsNoDetection(t *testing.T) {
	t.Parallel()
	s := scenario(3, sim.Step{At: 10 * second, Kind: sim.StepKillHost, Nodes: []int{2}})
	f := measure(s, run{Observations: []observation{
		{11 * second, 0, 2, down}, {12 * second, 0, 2, up}, {20 * second, 0, 2, down},
	}})
	about(t, "first", 10, f.Detections[0].Level["down"].First)
	if got := f.Detections[0].Level["down"].Last; got != nil {
		t.Errorf("one survivor never knew, yet all did after %g s", *got)
	}
}

func TestAFalseVerdictLastsUntilTheLastObserverGivesItUp(t *testing.T) {
	t.Parallel()
	f := measure(scenario(3), run{Observations: []observation{
		{10 * second, 0, 2, down},
		{11 * second, 1, 2, down},
		{12 * second, 0, 2, up},
		{15 * second, 1, 2, up},
		{90 * second, 0, 1, unreachable}, // until the end
	}})
	if got, want := f.Mistakes["down"], (mistakes{1, 5}); got != want {
		t.Errorf("down: want %+v, got %+v", want, got)
	}
	if got, want := f.Mistakes["unreachable"], (mistakes{2, 15}); got != want {
		t.Errorf("unreachable: want %+v, got %+v", want, got)
	}
	if want := 300.0 / 3600; f.NodeHours != want {
		t.Errorf("node-hours: want %g, got %g", want, f.NodeHours)
	}
}

func TestTheDeathOfAnObserverEndsItsFalseVerdict(t *testing.T) {
	t.Parallel()
	s := scenario(3, sim.Step{At: 20 * second, Kind: sim.StepKillProcess, Nodes: []int{0}})
	f := measure(s, run{Observations: []observation{{10 * second, 0, 2, down}}})
	if got, want := f.Mistakes["down"], (mistakes{1, 10}); got != want {
		t.Errorf("want %+v, got %+v", want, got)
	}
}

func TestAPausedNodeThatIsHeldDownIsCountedOnce(t *testing.T) {
	t.Parallel()
	s := scenario(3, sim.Step{At: 10 * second, Kind: sim.StepPauseProcess, Nodes: []int{2}, D: 5 * second})
	f := measure(s, run{Observations: []observation{
		{12 * second, 0, 2, down}, {13 * second, 0, 2, up}, {14 * second, 1, 2, down}, {15 * second, 1, 2, up},
	}})
	if f.Pauses != 1 || f.Accused["down"] != 1 || f.Mistakes["down"].Episodes != 2 {
		t.Errorf("want 1 pause, accused, in 2 episodes; got %+v", f)
	}
}

func TestJoinedIsWhenTheLastPairMet(t *testing.T) {
	t.Parallel()
	s := scenario(2, sim.Step{At: 10 * second, Kind: sim.StepJoin, Nodes: []int{0, 1}})
	seen := []observation{{11 * second, 0, 1, up}, {13 * second, 1, 0, up}}
	about(t, "joined", 3, measure(s, run{Observations: seen}).Joined)
	if got := measure(s, run{Observations: seen[:1]}).Joined; got != nil {
		t.Errorf("one pair never met, yet all joined after %g s", *got)
	}
}

func TestHealedCountsFromTheEndOfTheLastCondition(t *testing.T) {
	t.Parallel()
	s := scenario(2, sim.Step{At: 10 * second, Until: 40 * second})
	f := measure(s, run{Observations: []observation{{20 * second, 0, 1, down}, {47 * second, 0, 1, up}}})
	about(t, "healed", 7, f.Healed)
}

func TestSignTest(t *testing.T) {
	t.Parallel()
	never := math.Inf(1)
	ten := []float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}
	for _, c := range []struct {
		name         string
		ours, theirs []float64
		want         signTest
	}{
		{"ten of ten", ten, []float64{2, 2, 2, 2, 2, 2, 2, 2, 2, never}, signTest{10, 0, 0.001953125}},
		{"eight of ten", ten, []float64{2, 2, 2, 2, 2, 2, 2, 2, 0, 0}, signTest{8, 2, 0.109375}},
		{"even", ten, []float64{2, 2, 2, 2, 2, 0, 0, 0, 0, 0}, signTest{5, 5, 1}},
		{"ties are left out", ten, []float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 2}, signTest{1, 0, 1}},
		{"never against never is a tie", []float64{never}, []float64{never}, signTest{0, 0, 1}},
	} {
		if got := signs(c.ours, c.theirs); got.Less != c.want.Less || got.More != c.want.More || math.Abs(got.P-c.want.P) > 1e-9 {
			t.Errorf("%s: want %+v, got %+v", c.name, c.want, got)
		}
	}
}

package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Random is a schedule of faults that a seed chooses: 8 to 16 nodes for 60 to
// 120 seconds, with conditions and happenings of every kind. It expects nothing
// of its own; the invariants have to hold whatever happens. The same seed gives
// the same schedule.
func Random(seed uint64) *Scenario {
	g := generator{rng: rand.New(rand.NewPCG(chain(seed, 0x5ced), seed))}
	g.s = Scenario{
		Name: fmt.Sprintf("random %d", seed), Nodes: 8 + g.rng.IntN(9), Networks: []string{"net1"},
		SeedLow: seed, SeedHigh: seed, Delay: 500 * time.Microsecond, Exp: 100 * time.Microsecond,
		Run: time.Duration(60+g.rng.IntN(61)) * time.Second,
	}
	if g.rng.IntN(3) == 0 {
		g.s.Networks = append(g.s.Networks, "net2")
	}
	if g.rng.IntN(8) == 0 {
		g.s.Steps = append(g.s.Steps, Step{Kind: StepJoin})
	}
	for range 1 + g.rng.IntN(5) {
		g.s.Steps = append(g.s.Steps, g.condition())
	}
	for range 1 + g.rng.IntN(6) {
		g.s.Steps = append(g.s.Steps, g.happening())
	}
	slices.SortStableFunc(g.s.Steps, func(a, b Step) int { return int(a.At - b.At) })
	return &g.s
}

type generator struct {
	rng *rand.Rand
	s   Scenario
}

// between draws whole milliseconds.
func (g *generator) between(low, high time.Duration) time.Duration {
	return low + time.Duration(g.rng.Int64N(int64((high-low)/time.Millisecond)+1))*time.Millisecond
}

// some draws one to four nodes.
func (g *generator) some() []int {
	nodes := g.rng.Perm(g.s.Nodes)[:1+g.rng.IntN(4)]
	slices.Sort(nodes)
	return nodes
}

// at is a time between the start and a while before the end.
func (g *generator) at() time.Duration { return g.between(2*time.Second, g.s.Run-20*time.Second) }

func (g *generator) condition() Step {
	s := Step{At: g.at(), Kind: StepKind(g.rng.IntN(int(StepReorder) + 1)), From: g.some(), Both: g.rng.IntN(2) == 0}
	s.Until = s.At + g.between(time.Second, 30*time.Second)
	if g.rng.IntN(3) > 0 {
		s.To = g.some()
	}
	if g.rng.IntN(3) == 0 && s.Kind != StepCut {
		s.From = nil
	}
	if g.rng.IntN(2) == 0 && len(g.s.Networks) > 1 {
		s.Network = g.s.Networks[g.rng.IntN(2)]
	}
	switch s.Kind {
	case StepLoss:
		s.Permille = 10 + g.rng.IntN(390)
	case StepDuplicate:
		s.Permille = 10 + g.rng.IntN(490)
	case StepBurst:
		s.Good, s.D, s.Permille = g.between(2*time.Second, 30*time.Second), g.between(50*time.Millisecond, 500*time.Millisecond), 500+g.rng.IntN(501)
	case StepDelay:
		s.D, s.Jitter = g.between(time.Millisecond, 200*time.Millisecond), g.between(0, 100*time.Millisecond)
	case StepReorder:
		s.Permille, s.D = 10+g.rng.IntN(290), g.between(time.Millisecond, 50*time.Millisecond)
	}
	return s
}

// happenings is what may happen to nodes in a random schedule; nobody joins
// late, for a warm cluster has no joiners.
var happenings = []StepKind{
	StepKillHost, StepKillProcess, StepPauseProcess, StepPauseVM, StepPauseObserver, StepLeave, StepRestart, StepRestart,
	StepStop, StepStart, StepFlood, StepClock,
}

func (g *generator) happening() Step {
	s := Step{At: g.at(), Kind: happenings[g.rng.IntN(len(happenings))], Nodes: g.some()}
	switch s.Kind {
	case StepPauseProcess, StepPauseVM, StepPauseObserver:
		s.D = g.between(100*time.Millisecond, 12*time.Second)
	case StepFlood:
		s.Rate, s.D = 1+g.rng.IntN(50_000), g.between(time.Second, 20*time.Second)
	case StepClock:
		s.D = g.between(-time.Hour, time.Hour)
	}
	return s
}

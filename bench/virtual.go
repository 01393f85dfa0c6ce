package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/belfry-ha/belfry/internal/sim"
)

// A cell is one system in one scenario, over all seeds.
type cell struct {
	Scenario string `json:"scenario"` // its file's name, without the ending
	Nodes    int    `json:"nodes"`
	System   string `json:"system"`
	Seeds    string `json:"seeds"`
	Date     string `json:"date"`
	Commit   string `json:"commit"`
	// Values are a metric's, in the order of the seeds. A system that did not
	// come to it within the run has +Inf, which is null in JSON.
	Values map[string]series `json:"values"`
}

// A series is one value for each seed.
type series []float64

// MarshalJSON keeps six digits, and writes what never happened as null.
func (s series) MarshalJSON() ([]byte, error) {
	out := []byte{'['}
	for i, v := range s {
		if i > 0 {
			out = append(out, ',')
		}
		if math.IsInf(v, 0) || math.IsNaN(v) {
			out = append(out, "null"...)
			continue
		}
		out = fmt.Appendf(out, "%.6g", v)
	}
	return append(out, ']'), nil
}

// names of metrics. Those of verdicts have the verdict's name behind.
const (
	detectFirst   = "detect_first_seconds_"
	detectHalf    = "detect_half_seconds_"
	detectLast    = "detect_all_seconds_"
	falseEpisodes = "false_episodes_"
	falseSeconds  = "false_seconds_"
	pausedBad     = "paused_"
	pauses        = "pauses"
	nodeHours     = "node_hours"
	packetRate    = "packets_per_node_second"
	byteRate      = "bytes_per_node_second"
	joinedAll     = "joined_all_seconds"
	healedAll     = "healed_all_seconds"
	brokenRules   = "broken_invariants"
)

// add appends the figures of one more seed.
func (c *cell) add(s *sim.Scenario, f figures) {
	put := func(name string, v float64) { c.Values[name] = append(c.Values[name], v) }
	maybe := func(name string, v *float64) {
		if v == nil {
			put(name, math.Inf(1))
			return
		}
		put(name, *v)
	}
	for _, level := range levelsOf(c.System) {
		l := level.String()
		for _, d := range f.Detections {
			maybe(detectFirst+l, d.Level[l].First)
			maybe(detectHalf+l, d.Level[l].Half)
			maybe(detectLast+l, d.Level[l].Last)
		}
		put(falseEpisodes+l, float64(f.Mistakes[l].Episodes))
		put(falseSeconds+l, f.Mistakes[l].Seconds)
		if f.Pauses > 0 {
			put(pausedBad+l, float64(f.Accused[l]))
		}
	}
	if f.Pauses > 0 {
		put(pauses, float64(f.Pauses))
	}
	put(nodeHours, f.NodeHours)
	if !kills(s) {
		put(packetRate, f.Packets)
		put(byteRate, f.Bytes)
	}
	if c.System == belfryName {
		put(brokenRules, float64(f.Broken))
	}
	if s.Joins() {
		maybe(joinedAll, f.Joined)
	}
	if lastEnd(s) > 0 {
		maybe(healedAll, f.Healed)
	}
}

// levelsOf is which verdicts a system tells of.
func levelsOf(name string) []verdict {
	if name == belfryName {
		return levels
	}
	return []verdict{down}
}

// A task is one scenario with the systems that play it.
type task struct {
	name     string
	text     []byte
	scenario *sim.Scenario
	systems  []system
}

func readTask(file string, systems []system) (task, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return task{}, err
	}
	s, err := sim.Parse(file, text)
	if err != nil {
		return task{}, err
	}
	return task{strings.TrimSuffix(filepath.Base(file), scenarioEnding), text, s, systems}, nil
}

const scenarioEnding = ".scenario"

// A virtualLane plays tasks on virtual time.
type virtualLane struct {
	jobs int // at a time
	log  io.Writer
}

// play returns a cell for each system. Every system plays each seed before any
// plays the next.
func (v *virtualLane) play(ctx context.Context, t task) ([]cell, error) {
	type place struct{ seed, system int }
	seeds := int(t.scenario.SeedHigh - t.scenario.SeedLow + 1)
	results := make([][]figures, seeds)
	for i := range results {
		results[i] = make([]figures, len(t.systems))
	}
	var (
		mu      sync.Mutex
		next    place
		failed  error
		workers sync.WaitGroup
	)
	take := func() (place, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next.seed == seeds || failed != nil || ctx.Err() != nil {
			return place{}, false
		}
		p := next
		if next.system++; next.system == len(t.systems) {
			next = place{seed: next.seed + 1}
			fmt.Fprintf(v.log, "\r\033[K%s: seed %d of %d ", t.name, next.seed, seeds)
		}
		return p, true
	}
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = errors.Join(failed, err)
	}
	for range max(1, v.jobs) {
		workers.Go(func() {
			bubbles, err := startRole(bubbleRole, nil)
			if err != nil {
				fail(err)
				return
			}
			defer context.AfterFunc(ctx, bubbles.interrupt)()
			for p, ok := take(); ok; p, ok = take() {
				f, err := t.one(bubbles, t.systems[p.system], t.scenario.SeedLow+uint64(p.seed))
				if err != nil {
					fail(err)
					return
				}
				results[p.seed][p.system] = f
			}
			if err := bubbles.end(); err != nil {
				fail(err)
			}
		})
	}
	workers.Wait()
	fmt.Fprint(v.log, "\r\033[K")
	if err := errors.Join(failed, ctx.Err()); err != nil {
		return nil, err
	}
	e := surroundings(ctx)
	cells := make([]cell, len(t.systems))
	for i, s := range t.systems {
		cells[i] = cell{
			Scenario: t.name, Nodes: t.scenario.Nodes, System: s.Name, Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Commit: e.Commit,
			Seeds: fmt.Sprintf("%d..%d", t.scenario.SeedLow, t.scenario.SeedHigh), Values: map[string]series{},
		}
		for seed := range results {
			cells[i].add(t.scenario, results[seed][i])
		}
	}
	return cells, nil
}

// shiftRange is how much later a step comes at most. It is longer than any
// interval at which a system looks after a node.
const shiftRange = 2 * time.Second

// golden is the golden ratio: its multiples fill the range evenly, however many
// seeds there are.
const golden = 0.6180339887498949

// shifted is the scenario with all that happens to nodes later, by a time that
// depends on the seed alone. Belfry's nodes all start with the scenario, and
// would else be met in the same phase with every seed. A join stays: it is
// where phases begin.
func shifted(s *sim.Scenario, seed uint64) *sim.Scenario {
	_, part := math.Modf(float64(seed) * golden)
	by := time.Duration(part * float64(shiftRange))
	out := *s
	out.Steps = slices.Clone(s.Steps)
	for i := range out.Steps {
		if step := &out.Steps[i]; step.Kind >= sim.StepKillHost && step.Kind != sim.StepJoin {
			step.At += by
		}
	}
	slices.SortStableFunc(out.Steps, func(a, b sim.Step) int { return cmp.Compare(a.At, b.At) })
	return &out
}

// one plays one seed: Belfry's machines here, memberlist in a child's bubble.
func (t task) one(bubbles *child, s system, seed uint64) (figures, error) {
	if s.config == nil {
		seeded := shifted(t.scenario, seed)
		r, err := playBelfry(seeded, seed)
		if err != nil {
			return figures{}, fmt.Errorf("%s, %s, seed %d: %w", t.name, s.Name, seed, err)
		}
		return measure(seeded, r), nil
	}
	var a answer
	if err := bubbles.ask(job{Scenario: t.name, Text: string(t.text), System: s.Name, Seed: seed}, &a); err != nil {
		return figures{}, fmt.Errorf("%s, %s, seed %d: %w", t.name, s.Name, seed, err)
	}
	if a.Error != "" {
		return figures{}, errors.New(a.Error)
	}
	return a.Figures, nil
}

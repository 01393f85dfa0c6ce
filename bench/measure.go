package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry/internal/sim"
)

// A verdict is what one node holds another for, by how bad it is.
type verdict uint8

const (
	up verdict = iota
	joining
	stalled     // Belfry: the kernel answers, the process does not
	unreachable // Belfry
	down
	left
)

// An observation is a verdict that changed.
type observation struct {
	At       time.Duration `json:"at"`
	Observer int           `json:"observer"`
	Subject  int           `json:"subject"`
	Verdict  verdict       `json:"verdict"`
}

// A run is one system in one scenario with one seed.
type run struct {
	System       string        `json:"system"`
	Seed         uint64        `json:"seed"`
	Observations []observation `json:"observations"`
	Sent         []traffic     `json:"sent"`    // by each node, in the second half
	Dropped      int           `json:"dropped"` // datagrams, for a full queue
	Broken       int           `json:"broken"`  // invariants of Belfry's machines
}

// A figures is what one run comes to.
type figures struct {
	Seed uint64 `json:"seed"`
	// Detections are those of the steps that kill, in order.
	Detections []detection `json:"detections,omitempty"`
	// False verdicts about nodes that were there, by how bad.
	Mistakes map[string]mistakes `json:"mistakes"`
	// Pauses is how many nodes were paused, and Accused how many of them were
	// held to be that bad by anyone.
	Pauses  int            `json:"pauses,omitempty"`
	Accused map[string]int `json:"accused,omitempty"`
	// NodeHours is the time that nodes were there.
	NodeHours float64 `json:"node_hours"`
	// Packets and Bytes are those of a node in a second, in the second half.
	Packets float64 `json:"packets_per_node_second"`
	Bytes   float64 `json:"bytes_per_node_second"`
	// Joined is when everyone held everyone up; nil: not within the run, or
	// nobody joined.
	Joined *float64 `json:"joined_seconds,omitempty"`
	// Healed is how long after the last condition of the network ended the last
	// false verdict did; nil: never, or there was no condition that ended.
	Healed  *float64 `json:"healed_seconds,omitempty"`
	Dropped int      `json:"dropped,omitempty"`
	Broken  int      `json:"broken,omitempty"`
}

// A detection is how long after a kill the survivors held the node to be that
// bad or worse. Nil: not within the run.
type detection struct {
	Node  int                `json:"node"`
	Kind  string             `json:"kind"`
	Level map[string]reached `json:"level"`
}

type reached struct {
	First *float64 `json:"first_seconds"`
	Half  *float64 `json:"half_seconds"`
	Last  *float64 `json:"last_seconds"`
}

// mistakes are episodes: from when the first node holds a node that is there
// for that bad or worse, until none does any more.
type mistakes struct {
	Episodes int     `json:"episodes"`
	Seconds  float64 `json:"seconds"` // all together
}

// levels are the verdicts that count as bad. Memberlist tells only of the last.
var levels = []verdict{stalled, unreachable, down}

func (v verdict) String() string {
	return [...]string{"up", "joining", "stalled", "unreachable", "down", "left"}[v]
}

// bad tells whether v is as bad as level or worse.
func (v verdict) bad(level verdict) bool { return v >= level && v != left }

// nodesOf is who a step happens to; nobody, of a condition of the network.
func nodesOf(s *sim.Scenario, step sim.Step) []int {
	if step.Kind < sim.StepKillHost {
		return nil
	}
	if step.Nodes != nil {
		return step.Nodes
	}
	all := make([]int, s.Nodes)
	for i := range all {
		all[i] = i
	}
	return all
}

// kills tells whether a node dies. What others send then is about the dead.
func kills(s *sim.Scenario) bool {
	return slices.ContainsFunc(s.Steps, func(step sim.Step) bool { return step.Kind == sim.StepKillHost || step.Kind == sim.StepKillProcess })
}

// middleOf is when packets and bytes begin to count: by then a cluster has
// learned what its network is like.
func middleOf(s *sim.Scenario) time.Duration { return s.Run / 2 }

// A life is when a node is there, by the script.
type life struct{ from, to time.Duration }

func (l life) holds(at time.Duration) bool { return at >= l.from && at < l.to }

// lives is one for each node; a node that comes back lives on, since whoever
// restarts it disturbs the figures anyway.
func lives(s *sim.Scenario) []life {
	out := make([]life, s.Nodes)
	for i := range out {
		out[i].to = s.Run
	}
	for _, step := range s.Steps {
		for _, i := range nodesOf(s, step) {
			switch step.Kind {
			case sim.StepJoin:
				out[i].from = step.At
			case sim.StepKillHost, sim.StepKillProcess, sim.StepLeave, sim.StepStop:
				out[i].to = min(out[i].to, step.At)
			}
		}
	}
	return out
}

// measure reduces a run.
func measure(s *sim.Scenario, r run) figures {
	alive := lives(s)
	f := figures{Seed: r.Seed, Mistakes: map[string]mistakes{}, Accused: map[string]int{}, Dropped: r.Dropped, Broken: r.Broken}
	slices.SortStableFunc(r.Observations, func(a, b observation) int { return cmp.Compare(a.At, b.At) })
	var lived, counted float64
	for _, l := range alive {
		lived += (l.to - l.from).Hours()
		counted += max(0, l.to-max(l.from, middleOf(s))).Seconds()
	}
	for _, sent := range r.Sent {
		f.Packets += float64(sent.Packets) / counted
		f.Bytes += float64(sent.Bytes) / counted
	}
	f.NodeHours = lived
	f.detections(s, r, alive)
	f.mistakes(s, r, alive)
	if s.Joins() {
		f.joined(s, r, alive)
	}
	return f
}

func (f *figures) detections(s *sim.Scenario, r run, alive []life) {
	for _, step := range s.Steps {
		if step.Kind != sim.StepKillHost && step.Kind != sim.StepKillProcess {
			continue
		}
		for _, node := range nodesOf(s, step) {
			d := detection{Node: node, Kind: "host", Level: map[string]reached{}}
			if step.Kind == sim.StepKillProcess {
				d.Kind = "process"
			}
			for _, level := range levels {
				d.Level[level.String()] = spreadOf(r, alive, node, step.At, level)
			}
			f.Detections = append(f.Detections, d)
		}
	}
}

// spreadOf is how the knowledge spreads over those who outlive the node.
func spreadOf(r run, alive []life, node int, killed time.Duration, level verdict) (out reached) {
	since := map[int]time.Duration{} // when each survivor came to know
	for _, o := range r.Observations {
		if o.Subject != node || o.At < killed || alive[o.Observer].to <= killed {
			continue
		}
		switch _, known := since[o.Observer]; {
		case !o.Verdict.bad(level):
			delete(since, o.Observer)
		case !known:
			since[o.Observer] = o.At - killed
		}
	}
	survivors := 0
	for i := range alive {
		if i != node && alive[i].from <= killed && alive[i].to > killed {
			survivors++
		}
	}
	var times []time.Duration
	for _, t := range since {
		times = append(times, t)
	}
	slices.Sort(times)
	nth := func(n int) *float64 {
		if n < 1 || n > len(times) {
			return nil
		}
		t := times[n-1].Seconds()
		return &t
	}
	return reached{First: nth(1), Half: nth((survivors + 1) / 2), Last: nth(survivors)}
}

func (f *figures) mistakes(s *sim.Scenario, r run, alive []life) {
	paused := map[int]bool{}
	for _, step := range s.Steps {
		switch step.Kind {
		case sim.StepPauseProcess, sim.StepPauseVM, sim.StepPauseObserver:
			for _, i := range nodesOf(s, step) {
				f.Pauses++
				paused[i] = true
			}
		}
	}
	ended := lastEnd(s)
	healed := ended
	for _, level := range levels {
		var m mistakes
		accused := map[int]bool{}
		for _, e := range episodes(r, alive, level, s.Run) {
			m.Episodes++
			m.Seconds += (e.to - e.from).Seconds()
			if paused[e.node] {
				accused[e.node] = true
			}
			healed = max(healed, e.to)
		}
		f.Mistakes[level.String()] = m
		f.Accused[level.String()] = len(accused)
	}
	if ended > 0 && healed < s.Run {
		after := (healed - ended).Seconds()
		f.Healed = &after
	}
}

// lastEnd is when the network became as it was; 0: never, or it never changed.
func lastEnd(s *sim.Scenario) (end time.Duration) {
	for _, step := range s.Steps {
		if step.Until > end && step.Until < s.Run {
			end = step.Until
		}
	}
	return end
}

type episode struct {
	node     int
	from, to time.Duration
}

// episodes are the times in which anyone who is there holds a node that is
// there for as bad as level, or worse.
func episodes(r run, alive []life, level verdict, end time.Duration) []episode {
	var out []episode
	open := map[int]time.Duration{}   // since when, by subject
	holders := map[int]map[int]bool{} // who, by subject
	finish := func(node int, at time.Duration) {
		if from, ok := open[node]; ok {
			out = append(out, episode{node, from, min(at, alive[node].to)})
			delete(open, node)
		}
	}
	for _, o := range withDeaths(r, alive) {
		if !alive[o.Subject].holds(o.At) {
			continue
		}
		who := holders[o.Subject]
		if who == nil {
			who = map[int]bool{}
			holders[o.Subject] = who
		}
		if !o.Verdict.bad(level) {
			if delete(who, o.Observer); len(who) == 0 {
				finish(o.Subject, o.At)
			}
			continue
		}
		who[o.Observer] = true
		if _, ok := open[o.Subject]; !ok {
			open[o.Subject] = o.At
		}
	}
	for node := range open {
		finish(node, end)
	}
	slices.SortFunc(out, func(a, b episode) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.node, b.node)) })
	return out
}

// withDeaths is the observations of those who are there; whoever ends takes
// all verdicts back.
func withDeaths(r run, alive []life) (out []observation) {
	said := map[[2]int]bool{}
	for _, o := range r.Observations {
		if !alive[o.Observer].holds(o.At) {
			continue
		}
		out = append(out, o)
		if pair := [2]int{o.Observer, o.Subject}; !said[pair] {
			said[pair] = true
			out = append(out, observation{At: alive[o.Observer].to, Observer: o.Observer, Subject: o.Subject, Verdict: up})
		}
	}
	slices.SortStableFunc(out, func(a, b observation) int { return cmp.Compare(a.At, b.At) })
	return out
}

// joined is when the last of those who are there held the last other up.
func (f *figures) joined(s *sim.Scenario, r run, alive []life) {
	var begin, last time.Duration
	met := map[[2]int]bool{}
	present := 0
	for i := range alive {
		begin = max(begin, alive[i].from)
		if alive[i].to >= s.Run {
			present++
		}
	}
	for _, o := range r.Observations {
		pair := [2]int{o.Observer, o.Subject}
		if o.Observer == o.Subject || alive[o.Observer].to < s.Run || alive[o.Subject].to < s.Run {
			continue
		}
		if o.Verdict == up && !met[pair] {
			met[pair], last = true, o.At
		} else if o.Verdict != up && met[pair] {
			delete(met, pair)
		}
	}
	if len(met) == present*(present-1) {
		after := (last - begin).Seconds()
		f.Joined = &after
	}
}

package main

// A group is the scenarios of one table, and who plays them.
type group struct {
	title     string
	what      string
	scenarios []string
	systems   string            // of each scenario
	others    map[string]string // of those that differ
	plot      *plot
}

const (
	plain      = "belfry,memberlist,memberlist-tuned"
	withSealed = "belfry,memberlist,memberlist-sealed,memberlist-tuned,memberlist-tuned-sealed"
)

// groups is everything that README.md shows, in its order.
func groups() []group {
	return []group{
		{
			title: "Killed process", scenarios: []string{"killed8", "killed32", "killed64", "killed10000"}, systems: plain,
			others: map[string]string{"killed10000": belfryName},
			what:   "From the death of a process, whose kernel lives on, to the verdict of the first and of all survivors: median / 99th percentile, which is the worst of these runs.",
		},
		{
			title: "Silent host", scenarios: []string{"silent8", "silent32", "silent64", "silent1000", "silent10000"}, systems: plain,
			others: map[string]string{"silent1000": belfryName, "silent10000": belfryName},
			what:   "The same for a host that falls silent. Belfry says *unreachable* first, and *down* when its allowance of 2.5 s is over; memberlist only tells that a node is down.",
			plot:   &plot{file: "silent64.svg", draw: plotDetection},
		},
		{
			title: "Idle", scenarios: []string{"idle8", "idle32", "idle64", "idle1000", "idle10000"}, systems: withSealed,
			others: map[string]string{"idle1000": belfryName, "idle10000": belfryName},
			what:   "What a node sends when nothing happens.",
			plot:   &plot{file: "bytes.svg", draw: plotBytes},
		},
		{
			title: "Loss", scenarios: []string{"loss5", "loss10", "loss20", "loss20-64"}, systems: plain,
			others: map[string]string{"loss20-64": belfryName},
			what:   "Every packet is lost with the same chance, independently, from start to end. A false verdict is an episode: from when the first node holds a living node for that bad, or worse, until none does.",
		},
		{
			title: "Paused process", scenarios: []string{"pause2", "pause5", "pause10"}, systems: plain,
			what: "A process that is stopped and goes on (SIGSTOP, SIGCONT). It did not die, so *down* is false. That it is *stalled* is true; memberlist has no such word.",
		},
		{
			title: "Join", scenarios: []string{"join64"}, systems: plain,
			what: "64 nodes join at once, until everyone holds everyone up.",
		},
		{
			title: "Cut", scenarios: []string{"cut32"}, systems: plain,
			what: "Half of the nodes cannot hear the other half for 30 s. How long after the cut until everyone holds everyone up again.",
		},
	}
}

// tasks are the scenarios of the group whose name is wanted.
func (g group) tasks(folder string, wanted func(string) bool) (out []task, err error) {
	for _, name := range g.scenarios {
		if !wanted(name) {
			continue
		}
		names := g.systems
		if other, ok := g.others[name]; ok {
			names = other
		}
		chosen, err := chosen(names)
		if err != nil {
			return nil, err
		}
		t, err := readTask(folder+"/"+name+scenarioEnding, chosen)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

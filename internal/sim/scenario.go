// Package sim plays whole clusters of the real machines on virtual time:
// networks that lose and delay, hosts that die, processes that are paused.
//
// What happens stands in a scenario (Parse). What the network does to a packet
// is a pure function of seed, pair and time (Conditions), so that systems which
// send different numbers of packets meet the same fate. Run plays Belfry's
// machines; the same seed gives the same outputs to the byte, which their hash
// shows.
package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Scenario is what Parse reads. It is not written after that.
type Scenario struct {
	Name              string
	Nodes             int      // n1 … nN; 1 to 10,000
	Networks          []string // at least one
	SeedLow, SeedHigh uint64   // of the runs that the scenario asks for
	Delay, Exp        time.Duration
	Settings          []Setting
	Steps             []Step // by time, then by line
	Run               time.Duration
	Expects           []Expect
}

// A Setting is a tunable of the cluster, by its name in the configuration.
type Setting struct {
	Name  string
	Value time.Duration
	Line  int
}

// StepKind is what a Step does.
type StepKind uint8

// The kinds. Conditions last until their end and concern pairs of nodes; all
// others happen to nodes.
const (
	StepLoss StepKind = iota
	StepBurst
	StepDelay
	StepCut
	StepDuplicate
	StepReorder
	StepKillHost
	StepKillProcess
	StepPauseProcess
	StepPauseVM
	StepPauseObserver
	StepJoin
	StepLeave
	StepRestart
	StepStop
	StepStart
	StepFlood
	StepClock
	StepCarrier
)

// A Step is one line that begins with at.
type Step struct {
	At    time.Duration
	Until time.Duration // conditions: end; zero: of the run
	Line  int
	Kind  StepKind
	Nodes []int // 0 is n1; not for conditions

	From, To []int  // conditions: directed, each with each; nil: all
	Both     bool   // conditions: in the other direction too
	Network  string // conditions: on this one only; empty: on all. Of a carrier: whose
	Lost     bool   // of a carrier: it is lost; else it is back

	D, Jitter time.Duration // length of a pause, more delay, step of a clock, mean of a bad spell
	Good      time.Duration // mean of a good spell
	Permille  int           // loss, duplicates, what is reordered: 1/1000
	Rate      int           // of a flood, per second
}

// condition tells whether the step is about pairs.
func (s *Step) condition() bool { return s.Kind <= StepReorder }

// An Expect is a line that begins with expect: what tests of Belfry want of the
// run. Other systems ignore it.
type Expect struct {
	Line    int
	Node    int
	Verdict string        // as listings write it
	Within  time.Duration // after a cause: a step about the node; zero: by the end of the run
	All     bool          // at all live nodes; else at the first
	Never   bool          // at no node at any time
	Any     bool          // of a never: no node at all

	// Of a link or a contact: what Node holds of Peer.
	Pair    PairKind
	Peer    int
	Network string // of a link
	State   string // of a link as listings write it; of a contact up or down
}

// Name is what scenarios and traces call a node.
func Name(node int) string { return fmt.Sprintf("n%d", node+1) }

// Joins tells whether nodes become members while the scenario runs. Else all
// are from the start, and hold each other up.
func (s *Scenario) Joins() bool {
	return slices.ContainsFunc(s.Steps, func(st Step) bool { return st.Kind == StepJoin })
}

// stepWords are the words that begin each kind.
var stepWords = map[StepKind]string{
	StepLoss: "loss", StepBurst: "burst", StepDelay: "delay", StepCut: "cut", StepDuplicate: "duplicate", StepReorder: "reorder",
	StepKillHost: "kill host", StepKillProcess: "kill process", StepPauseProcess: "pause process", StepPauseVM: "pause vm",
	StepPauseObserver: "pause observer", StepJoin: "join", StepLeave: "leave", StepRestart: "restart", StepStop: "stop",
	StepStart: "start", StepFlood: "flood", StepClock: "clock", StepCarrier: "carrier",
}

// Format writes the scenario so that Parse reads the same again.
func (s *Scenario) Format() string {
	var b strings.Builder
	fmt.Fprintf(&b, "nodes %d\nnetworks %s\nseeds %d..%d\ndelay %v exp %v\n", s.Nodes, strings.Join(s.Networks, " "), s.SeedLow, s.SeedHigh, s.Delay, s.Exp)
	for _, set := range s.Settings {
		fmt.Fprintf(&b, "set %s %v\n", set.Name, set.Value)
	}
	for i := range s.Steps {
		b.WriteString(s.Steps[i].format() + "\n")
	}
	fmt.Fprintf(&b, "run %v\n", s.Run)
	for _, e := range s.Expects {
		b.WriteString(e.format() + "\n")
	}
	return b.String()
}

func (s *Step) format() string {
	var b strings.Builder
	fmt.Fprintf(&b, "at %v %s", s.At, stepWords[s.Kind])
	if !s.condition() {
		b.WriteString(" " + formatNodes(s.Nodes))
		switch s.Kind {
		case StepCarrier:
			fmt.Fprintf(&b, " %s %s", s.Network, map[bool]string{true: "lost", false: "back"}[s.Lost])
		case StepPauseProcess, StepPauseVM, StepPauseObserver:
			fmt.Fprintf(&b, " %v", s.D)
		case StepFlood:
			fmt.Fprintf(&b, " %d/s %v", s.Rate, s.D)
		case StepClock:
			fmt.Fprintf(&b, " %+v", s.D)
			if s.D >= 0 {
				return strings.Replace(b.String(), " "+s.D.String(), " +"+s.D.String(), 1)
			}
		}
		return b.String()
	}
	way := ">"
	if s.Both {
		way = "|"
	}
	b.WriteString(" " + formatNodes(s.From) + way + formatNodes(s.To))
	if s.Network != "" {
		b.WriteString("@" + s.Network)
	}
	percent := func() string { return fmt.Sprintf("%d.%d%%", s.Permille/10, s.Permille%10) }
	switch s.Kind {
	case StepLoss, StepDuplicate:
		b.WriteString(" " + percent())
	case StepBurst:
		fmt.Fprintf(&b, " good %v bad %v loss %s", s.Good, s.D, percent())
	case StepDelay:
		fmt.Fprintf(&b, " %v jitter %v", s.D, s.Jitter)
	case StepReorder:
		fmt.Fprintf(&b, " %s %v", percent(), s.D)
	}
	if s.Until != 0 {
		fmt.Fprintf(&b, " until %v", s.Until)
	}
	return b.String()
}

func formatNodes(nodes []int) string {
	if nodes == nil {
		return "*"
	}
	var names []string
	for _, n := range nodes {
		names = append(names, Name(n))
	}
	return strings.Join(names, ",")
}

func (e *Expect) format() string {
	switch {
	case e.Pair != PairNone:
		return e.formatPair()
	case e.Never && e.Any:
		return "expect never " + e.Verdict + " *"
	case e.Never:
		return "expect never " + e.Verdict + " " + Name(e.Node)
	}
	text := "expect " + Name(e.Node) + " " + e.Verdict
	if e.Within != 0 {
		text += " within " + e.Within.String()
	}
	if e.All {
		return text + " at all"
	}
	return text + " at first"
}

package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

// The most that a scenario may ask for.
const (
	maxNodes    = 10_000
	maxLines    = 10_000
	maxNetworks = 4
	maxRun      = 24 * time.Hour
	maxSeeds    = 1_000_000
)

// Parse reads a scenario. name is for its errors, which wrap ErrUsage and name
// line, word, and what would be right. Lines are words between blanks; # begins
// a comment.
//
//	nodes 64                      n1 … n64
//	networks net1 net2            default: net1
//	seeds 1..30                   default: 1..1
//	delay 500us exp 100us         one way; default: these
//	set allowance 5.5s            a tunable of the cluster
//	at 10s loss n1>n2 20% until 70s          directed; * is any; n1|n2 both ways; n1>n2@net2 there only
//	at 10s burst n1>n2 good 30s bad 300ms loss 90%
//	at 20s delay n3>* 200ms jitter 50ms until 60s
//	at 30s cut net2 n1,n2|n3 until 90s       or: cut n1|n3@net2
//	at 30s duplicate n1>n2 1%
//	at 30s reorder n1>n2 5% 20ms
//	at 40s kill host n7                      or: kill process n7
//	at 50s pause process n9 5s               or: pause vm, pause observer
//	at 0s join *                             also: leave, restart, stop, start
//	at 5s flood n5 50000/s 60s
//	at 5s clock n4 +3s
//	at 5s carrier n4 net2 lost               or: back; what n4 is told: packets need a cut
//	run 120s
//	expect n7 unreachable within 800ms at all
//	expect never down n9
//	expect link n1>n2@net2 down within 2.8s  what n1 holds of n2 there; within: of the last cause
//	expect contact n1>n2 down                in general, up or down
//	expect never link n1>n2@net1 down
//	expect never contact n1>n2 down
func Parse(name string, text []byte) (*Scenario, error) {
	p := parser{name: name, seen: map[string]int{}, s: Scenario{
		Name: name, Networks: []string{"net1"}, SeedLow: 1, SeedHigh: 1,
		Delay: 500 * time.Microsecond, Exp: 100 * time.Microsecond,
	}}
	lines := strings.Split(string(text), "\n")
	if len(lines) > maxLines {
		return nil, p.fault("%d lines; at most %d", len(lines), maxLines)
	}
	// Names of nodes need their number, wherever it stands.
	for pass, words := range []string{"nodes networks", "seeds delay set at run expect"} {
		for i, line := range lines {
			line, _, _ = strings.Cut(line, "#")
			p.line, p.words = i+1, strings.Fields(line)
			if len(p.words) == 0 {
				continue
			}
			word := p.words[0]
			known := slices.Contains(strings.Fields("nodes networks seeds delay set at run expect"), word)
			if pass == 0 && !known {
				return nil, p.fault("%q begins no line; one of nodes, networks, seeds, delay, set, at, run, expect", word)
			}
			if !slices.Contains(strings.Fields(words), word) {
				continue
			}
			p.words = p.words[1:]
			if err := p.statement(word); err != nil {
				return nil, err
			}
			if len(p.words) > 0 {
				return nil, p.fault("%q is one word too many", p.words[0])
			}
		}
		p.line = len(lines)
		if p.s.Nodes == 0 {
			return nil, p.fault("no line says how many nodes there are; write nodes 3")
		}
	}
	if p.s.Run == 0 {
		return nil, p.fault("no line says how long it runs; write run 60s")
	}
	for i := range p.s.Steps {
		if s := &p.s.Steps[i]; s.At > p.s.Run {
			p.line = s.Line
			return nil, p.fault("%v is after the end of the run, %v", s.At, p.s.Run)
		}
	}
	slices.SortStableFunc(p.s.Steps, func(a, b Step) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Line, b.Line)) })
	return &p.s, nil
}

type parser struct {
	name  string
	seen  map[string]int // line of each statement that may stand once
	line  int
	words []string // of the line that are not read yet
	s     Scenario
}

func (p *parser) fault(format string, args ...any) error {
	return &belfry.Error{Op: "scenario", Subject: fmt.Sprintf("%s:%d", p.name, p.line), Err: fmt.Errorf("%w: "+format, append([]any{belfry.ErrUsage}, args...)...)}
}

// next takes the next word, empty at the end of the line.
func (p *parser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	word := p.words[0]
	p.words = p.words[1:]
	return word
}

// skip takes the next word if it is this one.
func (p *parser) skip(word string) bool {
	if len(p.words) > 0 && p.words[0] == word {
		p.words = p.words[1:]
		return true
	}
	return false
}

func (p *parser) expect(word string) error {
	if !p.skip(word) {
		return p.fault("%q stands where %s has to", p.next(), word)
	}
	return nil
}

func (p *parser) statement(word string) (err error) {
	if word != "at" && word != "expect" && word != "set" {
		if line, twice := p.seen[word]; twice {
			return p.fault("%q stands twice; line %d has it already", word, line)
		}
		p.seen[word] = p.line
	}
	switch word {
	case "nodes":
		p.s.Nodes, err = p.number(1, maxNodes)
	case "networks":
		p.s.Networks, p.words = p.words, nil
		if n := len(p.s.Networks); n < 1 || n > maxNetworks {
			return p.fault("%d networks; 1 to %d", n, maxNetworks)
		}
		err = p.networks()
	case "seeds":
		err = p.seeds()
	case "delay":
		if p.s.Delay, err = p.duration(0, time.Minute); err == nil && p.skip("exp") {
			p.s.Exp, err = p.duration(0, time.Minute)
		}
	case "set":
		err = p.set()
	case "at":
		err = p.step()
	case "run":
		p.s.Run, err = p.duration(time.Millisecond, maxRun)
	case "expect":
		err = p.expectation()
	}
	return err
}

// networks checks that names of networks can be told apart from what stands
// beside them.
func (p *parser) networks() error {
	for i, name := range p.s.Networks {
		if strings.ContainsFunc(name, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
		}) {
			return p.fault("%q is no name of a network; letters, digits and -", name)
		}
		if slices.Contains(p.s.Networks[:i], name) {
			return p.fault("%q is there twice; each network has a name of its own", name)
		}
	}
	return nil
}

func (p *parser) number(low, high int) (int, error) {
	word := p.next()
	n, err := strconv.Atoi(word)
	if err != nil || n < low || n > high {
		return 0, p.fault("%q is no number from %d to %d", word, low, high)
	}
	return n, nil
}

func (p *parser) duration(low, high time.Duration) (time.Duration, error) {
	word := p.next()
	d, err := time.ParseDuration(word)
	if err != nil || d < low || d > high {
		return 0, p.fault("%q is no time from %v to %v, like 500ms or 2s", word, low, high)
	}
	return d, nil
}

// permille reads a share like 20% or 0.5%.
func (p *parser) permille() (int, error) {
	word := p.next()
	digits, ok := strings.CutSuffix(word, "%")
	whole, tenth, _ := strings.Cut(digits, ".")
	if tenth == "" {
		tenth = "0"
	}
	n, err := strconv.Atoi(whole)
	f, err2 := strconv.Atoi(tenth)
	if !ok || err != nil || err2 != nil || len(tenth) != 1 || f < 0 || n < 0 || n*10+f > 1000 {
		return 0, p.fault("%q is no share from 0%% to 100%% with one decimal at most, like 20%% or 0.5%%", word)
	}
	return n*10 + f, nil
}

func (p *parser) seeds() error {
	word := p.next()
	low, high, ok := strings.Cut(word, "..")
	if !ok {
		high = low
	}
	a, err := strconv.ParseUint(low, 10, 64)
	b, err2 := strconv.ParseUint(high, 10, 64)
	if err != nil || err2 != nil || b < a || b-a >= maxSeeds {
		return p.fault("%q are no seeds; write 1..30, at most %d of them", word, maxSeeds)
	}
	p.s.SeedLow, p.s.SeedHigh = a, b
	return nil
}

func (p *parser) set() error {
	name := p.next()
	if _, ok := settings[name]; !ok {
		names := []string{}
		for n := range settings {
			names = append(names, n)
		}
		slices.Sort(names)
		return p.fault("%q is no tunable that a scenario can set; one of %s", name, strings.Join(names, ", "))
	}
	d, err := p.duration(0, 10*time.Minute)
	if err != nil {
		return err
	}
	tunables := cluster.DefaultTunables()
	settings[name](&tunables, d)
	if err := tunables.Validate(); err != nil {
		return p.fault("%s", strings.TrimPrefix(err.Error(), belfry.ErrUsage.Error()+": tunables: "))
	}
	p.s.Settings = append(p.s.Settings, Setting{Name: name, Value: d, Line: p.line})
	return nil
}

// nodes reads n1,n2 or *; nil is all.
func (p *parser) nodes(word string) ([]int, error) {
	if word == "*" {
		return nil, nil
	}
	var nodes []int
	for _, name := range strings.Split(word, ",") {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "n"))
		if err != nil || !strings.HasPrefix(name, "n") || n < 1 || n > p.s.Nodes || name != fmt.Sprintf("n%d", n) {
			return nil, p.fault("%q is no node; n1 to n%d, several with commas, or *", name, p.s.Nodes)
		}
		nodes = append(nodes, n-1)
	}
	slices.Sort(nodes)
	return slices.Compact(nodes), nil
}

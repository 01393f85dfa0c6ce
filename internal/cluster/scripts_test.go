package cluster

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected output of the scripts in testdata")

// TestScripts plays testdata/*.txt: blocks of one command, "----" and the
// output up to an empty line. play documents the commands.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		if name == "mutants" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(text), got); diff != "" {
				t.Errorf("%s differs (-want +got):\n%s", file, diff)
			}
		})
	}
}

// play runs the commands of a script and returns it with the output it has.
func play(t *testing.T, text string) string {
	t.Helper()
	var s script
	var out strings.Builder
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if i+1 < len(lines) && lines[i+1] == "----" {
			result := s.do(t, strings.Fields(line))
			out.WriteString(line + "\n----\n" + result)
			for i++; i+1 < len(lines) && lines[i+1] != ""; {
				i++
			}
			continue
		}
		out.WriteString(line)
		if i+1 < len(lines) {
			out.WriteString("\n")
		}
	}
	return out.String()
}

type script struct {
	n     *network
	lines strings.Builder
	links bool

	asleep time.Time
}

// do runs one command:
//
//	nodes NAME... [seed=N] [nets=N]   machines that are started by start; all are members
//	start, restart, kill, halt, stop, cont, leave NODE...   stop and cont are signals, halt kills the host
//	late TIME every TIME NODE...            from now on reads nothing that long, that often; late 0s ends it
//	suspend, resume NODE...    the whole machine sleeps and goes on
//	dying NODE...              killed, but its ports stay open for 20 ms
//	reset NODE...              a middlebox resets its streams
//	goodbye NODE               it says that it restarts, and ends
//	intent stop|start NODE     by the configuration
//	cut A>B | A|B, heal A>B    loss A>B PERCENT, delay A>B TIME; A>B@NET: on one network
//	clock NODE 500ppm          how much faster its clock goes from now on
//	clock NODE -30s            while it is suspended: its clock stood still so long
//	interface NODE NET up|no-carrier|admin-down
//	interests NODE PEER...     that somebody there has registered links of; all of them
//	since NODE VERSION         what changed in its link database
//	set NAME TIME              a tunable, from now on
//	links on                   print link changes too
//	run TIME                   prints the changes
//	nodes-at NODE, links-at NODE, why NODE SUBJECT, rate, agree
func (s *script) do(t *testing.T, args []string) string {
	t.Helper()
	s.lines.Reset()
	rest := args[1:]
	switch args[0] {
	case "nodes":
		s.nodes(rest)
	case "run":
		s.n.sent = 0
		s.n.run(duration(t, rest[0]))
	case "cut", "heal", "loss", "delay":
		s.condition(t, args[0], rest)
	case "late":
		s.n.lateness++
		if d := duration(t, rest[0]); d > 0 {
			for _, name := range rest[3:] {
				s.n.late(s.n.host(name), d, duration(t, rest[2]), s.n.lateness)
			}
		}
	case "clock":
		s.clock(t, s.n.host(rest[0]), rest[1])
	case "interface":
		state := map[string]InterfaceState{"up": InterfaceUp, "no-carrier": InterfaceNoCarrier, "admin-down": InterfaceAdminDown}
		s.n.deliver(s.n.host(rest[0]), Interface{Network: rest[1], State: state[rest[2]], Name: "eth-" + rest[1], Speed: 1000, MTU: 1500})
	case "interests":
		var peers []belfry.NodeID
		for _, name := range rest[1:] {
			peers = append(peers, nodeID(s.n.host(name).number))
		}
		s.n.deliver(s.n.host(rest[0]), Interests{Peers: peers})
	case "since":
		from, _ := strconv.ParseUint(rest[1], 10, 64)
		s.showSince(s.n.host(rest[0]), from)
	case "links":
		s.links = rest[0] == "on"
	case "nodes-at":
		s.showNodes(s.n.host(rest[0]))
	case "links-at":
		s.showLinks(s.n.host(rest[0]))
	case "why":
		s.showWhy(s.n.host(rest[0]), s.n.host(rest[1]))
	case "rate":
		fmt.Fprintf(&s.lines, "%d datagrams\n", s.n.sent)
	case "agree":
		fmt.Fprintf(&s.lines, "%v\n", s.n.agree())
	case "set":
		s.set(t, rest[0], duration(t, rest[1]))
	case "intent":
		s.n.stopped[rest[1]] = rest[0] == "stop"
		s.n.generation++
		for _, h := range s.n.hosts {
			s.n.deliver(h, s.n.members())
		}
	default:
		if len(rest) == 1 && rest[0] == "all" {
			rest = nil
			for _, h := range s.n.hosts {
				rest = append(rest, h.name)
			}
		}
		for _, name := range rest {
			s.process(t, args[0], s.n.host(name))
		}
	}
	return s.lines.String()
}

func (s *script) clock(t *testing.T, h *host, change string) {
	t.Helper()
	if ppm, pace := strings.CutSuffix(change, "ppm"); pace {
		n, err := strconv.ParseInt(ppm, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		h.clock.turn(s.n.now, 0, n)
		return
	}
	h.clock.turn(s.n.now, duration(t, change), h.clock.ppm)
}

func (s *script) set(t *testing.T, name string, d time.Duration) {
	t.Helper()
	before := s.n.cfg
	s.n.cfg = func(c *Config) {
		before(c)
		switch name {
		case "node_timeout":
			c.NodeTimeout = d
		case "node_down_delay":
			c.NodeDownDelay = d
		case "stall_max":
			c.StallMax = d
		default:
			t.Fatalf("no tunable %q", name)
		}
	}
	cfg := Default()
	s.n.cfg(&cfg)
	for _, h := range s.n.hosts {
		if h.m != nil {
			s.n.deliver(h, Settings{cfg.Tunables})
		}
	}
}

func (s *script) nodes(names []string) {
	seed, networks := uint64(1), 1
	if last, ok := strings.CutPrefix(names[len(names)-1], "nets="); ok {
		networks, _ = strconv.Atoi(last)
		names = names[:len(names)-1]
	}
	if last, ok := strings.CutPrefix(names[len(names)-1], "seed="); ok {
		seed, _ = strconv.ParseUint(last, 10, 64)
		names = names[:len(names)-1]
	}
	s.n = newNetwork(seed, names...)
	s.n.networks = networks
	s.n.trace = func(h *host, c Change) {
		_, link := c.(LinkChange)
		_, failed := c.(LinkFailed)
		_, contact := c.(ContactChange)
		if !link && !failed && !contact || s.links {
			s.lines.WriteString(s.n.describe(h, c) + "\n")
		}
	}
}

func (s *script) process(t *testing.T, what string, h *host) {
	t.Helper()
	switch what {
	case "start", "restart":
		if h.running {
			s.n.end(h, StreamReset)
		}
		s.n.boot(h)
	case "kill":
		s.n.end(h, StreamReset)
	case "dying":
		s.n.end(h, StreamReset)
		h.dying = true
		s.n.at(20*time.Millisecond, func() { h.dying = false })
	case "leave":
		s.n.end(h, GoodbyeLeave)
	case "goodbye":
		s.n.end(h, GoodbyeRestart)
	case "halt":
		h.dead, h.running = true, false
		for _, p := range s.n.hosts {
			delete(s.n.streams, pair(h, p))
		}
	case "stop":
		h.frozen = true
	case "suspend":
		h.dead, s.asleep = true, s.n.now
	case "resume":
		s.n.wake(h, s.n.now.Sub(s.asleep))
	case "reset":
		s.n.end(h, StreamReset)
		h.running = true
	case "cont":
		s.n.thaw(h)
	default:
		t.Fatalf("no command %q", what)
	}
}

func (s *script) condition(t *testing.T, what string, args []string) {
	t.Helper()
	a, b, oneWay := strings.Cut(args[0], ">")
	if !oneWay {
		a, b, _ = strings.Cut(args[0], "|")
	}
	path := s.n.path
	if peer, network, on := strings.Cut(b, "@net"); on {
		link, _ := strconv.Atoi(network)
		b = peer
		path = func(from, to *host) *condition { return s.n.wire(from, to, uint8(link-1)) }
	}
	ways := []*condition{path(s.n.host(a), s.n.host(b))}
	if !oneWay {
		ways = append(ways, path(s.n.host(b), s.n.host(a)))
	}
	for _, c := range ways {
		switch what {
		case "cut", "heal":
			c.cut = what == "cut"
		case "loss":
			c.loss, _ = strconv.Atoi(strings.TrimSuffix(args[1], "%"))
		case "delay":
			c.delay = duration(t, args[1])
		}
	}
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *script) showNodes(h *host) {
	for _, n := range h.m.Nodes(s.n.now) {
		fmt.Fprintf(&s.lines, "%s %v (%v) incarnation %d turn %d links %d/%d interval %v wait %v", n.Name, n.Verdict, n.Cause,
			n.Incarnation, n.Turn, n.LinksUp, n.LinksTotal, n.Interval.Round(time.Millisecond), n.MaxWait.Round(time.Millisecond))
		if !n.PostAt.IsZero() {
			fmt.Fprintf(&s.lines, " determined, posted at %s", s.n.elapsed(n.PostAt))
		}
		s.lines.WriteString("\n")
	}
}

func (s *script) showLinks(h *host) {
	for _, l := range h.m.Links(s.n.now) {
		fmt.Fprintf(&s.lines, "%s/%s %v, %s; sent %d received %d lost %d reordered %d duplicate %d loss %d/255; MRT %v D %v J %v; interval %v wait %v deviation %d of %d; peer %v\n",
			l.PeerName, l.Network, l.State, l.Reason, l.Sent, l.Received, l.Lost, l.Reordered, l.Duplicate, l.Loss, l.MRT, l.D, l.Jitter,
			l.Interval, l.MaxWait, l.Deviation, l.MaxDeviation, l.PeerState)
	}
}

func (s *script) showSince(h *host, from uint64) {
	d := h.m.LinksSince(s.n.now, from)
	fmt.Fprintf(&s.lines, "version %d, whole %v\n", d.Version, d.Whole)
	for _, l := range d.Links {
		fmt.Fprintf(&s.lines, "%d %s/%s %v, %s\n", l.Version, l.PeerName, l.Network, l.State, l.Reason)
	}
	for _, r := range d.Removed {
		fmt.Fprintf(&s.lines, "%d %s/%s removed\n", r.Version, r.PeerName, r.Network)
	}
}

func (s *script) showWhy(h, subject *host) {
	for _, e := range h.m.Why(nodeID(subject.number)) {
		fmt.Fprintf(&s.lines, "%s %s %s\n", s.n.elapsed(e.Time), s.n.name(e.By), strings.TrimSpace(e.Link+" "+e.Text))
	}
}

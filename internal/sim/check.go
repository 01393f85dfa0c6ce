package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
)

const (
	// calm is how long nothing must have happened to nodes and links before a
	// death that is told of a live node is a violation: it takes an allowance,
	// a burst and a slow round to learn that a trouble is over.
	calm = 15 * time.Second
	// dissemination is how long a live node may be held down (invariant 3).
	dissemination = 250 * time.Millisecond
	// fairLoss is the loss up to which a link counts as sound, in 1/1000.
	fairLoss = 300
	// throwEvery is how often what does not count is thrown at some machine.
	throwEvery = 5 * time.Second
	// throwNodes is the size up to which that is done: it compares all there is.
	throwNodes = 64
	// beatWindow is over what heartbeats are counted (invariant 7).
	beatWindow = 10 * time.Second
)

// A checker watches the invariants of cluster.md 15 while a scenario runs.
type checker struct {
	held map[uint64]belief
	down map[uint64]int64 // live nodes that are held down, since when
	news []linkNews       // of links and contacts, where the scenario expects something of them
}

// A belief is what an observer posted of a subject last.
type belief struct {
	observer    uint32 // its incarnation
	incarnation belfry.Incarnation
	turn        uint16
	verdict     belfry.Verdict
}

func key(observer, subject int32) uint64 { return uint64(observer)<<32 | uint64(uint32(subject)) }

func (c *checker) setUp(s *simulation) {
	c.held, c.down = map[uint64]belief{}, map[uint64]int64{}
	for _, h := range s.hosts {
		h.disturbed = -1
	}
	if len(s.hosts) > throwNodes {
		return
	}
	for n, at := 0, throwEvery; at < s.scenario.Run; n, at = n+1, at+throwEvery {
		s.plan(event{at: int64(at), kind: eventProbe, node: int32(n % len(s.hosts))})
	}
}

// changed takes what a machine tells its consumers.
func (s *simulation) changed(h *host, change cluster.Change) {
	v := Verdict{Class: "node.state", At: time.Duration(s.now), Observer: int(h.n), Subject: int(h.n)}
	switch c := change.(type) {
	case cluster.NodeChange:
		v.Subject = numberOf(c.Node)
		v.From, v.To, v.Cause = c.From, c.To, c.Cause
		v.Since, v.Determined, v.View = c.Since.Sub(s.start), c.At.Sub(s.start), c.View
		s.check.verdict(s, h, v.Subject, c)
	case cluster.LinkChange:
		s.trace(h, 'l', uint64(numberOf(c.Peer))<<16|uint64(c.Index)<<8|uint64(c.To), []byte(c.Reason))
		s.check.link(s, h, c)
		return
	case cluster.LinkFailed:
		s.trace(h, 'f', uint64(numberOf(c.Peer))<<8|uint64(c.Index), nil)
		return
	case cluster.ContactChange:
		s.trace(h, 'g', uint64(numberOf(c.Peer))<<8|uint64(c.LinksUp), []byte(c.Reason))
		s.check.contact(s, h, c)
		return
	case cluster.Restarted:
		v.Class, v.Subject, v.Text = "node.restarted", numberOf(c.Node), fmt.Sprintf("runs as incarnation %d", c.Incarnation)
	case cluster.WasDown:
		v.Class, v.Text = "node.was-down", fmt.Sprintf("was held %v (%v) by %s", c.Verdict, c.Cause, Name(numberOf(c.By)))
	case cluster.Isolated:
		v.Class, v.Text = "node.isolated", "is isolated"
		if !c.On {
			v.Text = "is isolated no longer"
		}
	case cluster.NonTransitive:
		v.Class, v.Text = "cluster.nontransitive", "all pairs reach each other again"
		if len(c.Pairs) > 0 {
			v.Text = "pairs that do not reach each other:"
		}
		for _, p := range c.Pairs {
			v.Text += fmt.Sprintf(" %s|%s", Name(numberOf(p[0])), Name(numberOf(p[1])))
		}
	}
	s.trace(h, 'c', uint64(v.Subject)<<24|uint64(v.From)<<16|uint64(v.To)<<8|uint64(v.Cause), []byte(v.Text))
	s.result.Verdicts = append(s.result.Verdicts, v)
	if s.options.Verdict != nil {
		s.options.Verdict(v)
	}
}

// verdict checks invariants 2, 3 and 4.
func (c *checker) verdict(s *simulation, h *host, subject int, change cluster.NodeChange) {
	k := key(h.n, int32(subject))
	was, known := c.held[k]
	now := belief{observer: h.incarnation, incarnation: change.Incarnation, turn: change.Turn, verdict: change.To}
	if known && was.observer == now.observer &&
		(now.incarnation < was.incarnation || now.incarnation == was.incarnation && now.turn < was.turn) {
		s.fail(int(h.n), fmt.Sprintf("I4: the claim on %s fell from incarnation %d turn %d to %d turn %d", Name(subject), was.incarnation, was.turn, now.incarnation, now.turn))
	}
	c.held[k] = now
	if since, ok := c.down[k]; ok && change.To != belfry.VerdictDown {
		delete(c.down, k)
		if lasted := s.now - since; lasted > int64(dissemination) {
			s.fail(int(h.n), fmt.Sprintf("I3: %s, which lives and is heard, was down for %v", Name(subject), time.Duration(lasted)))
		}
	}
	if change.To != belfry.VerdictDown {
		return
	}
	if len(change.Evidence) == 0 {
		s.fail(int(h.n), fmt.Sprintf("I2: %s is down without evidence", Name(subject)))
	}
	if s.heard(h, s.hosts[subject]) {
		c.down[k] = s.now
	}
}

// heard tells whether a subject lives beyond doubt and the observer ought to
// know: some member, or the observer itself, has had sound links to both for a
// while, and nothing has happened to any of the three.
func (s *simulation) heard(observer, subject *host) bool {
	if !s.calm(observer) || !s.calm(subject) {
		return false
	}
	for _, w := range s.hosts {
		switch {
		case w == subject || !s.calm(w) || !s.sound(w, subject):
		case w == observer || s.sound(w, observer):
			return true
		}
	}
	return false
}

// calm tells whether h runs and nothing has happened to it lately.
func (s *simulation) calm(h *host) bool {
	return h.state == stateRuns && (h.disturbed < 0 || s.now-h.disturbed > int64(calm))
}

// sound tells whether datagrams between two nodes have got through lately, on
// one network at least.
func (s *simulation) sound(a, b *host) bool {
	for network := range s.scenario.Networks {
		bad := false
		for i := range s.network.rules {
			r := &s.network.rules[i]
			if time.Duration(s.now) < r.At || time.Duration(s.now) > r.end+calm || r.harmless() {
				continue
			}
			bad = bad || r.applies(int(a.n), int(b.n), network, r.At) || r.applies(int(b.n), int(a.n), network, r.At)
		}
		if !bad {
			return true
		}
	}
	return false
}

// harmless tells whether a condition leaves a link sound.
func (r *rule) harmless() bool {
	switch r.Kind {
	case StepLoss:
		return r.Permille <= fairLoss
	case StepDuplicate:
		return true
	case StepDelay, StepReorder:
		return r.D+r.Jitter <= 300*time.Millisecond
	}
	return false
}

// beat counts the heartbeats that the schedule sends to neighbours (invariant 7).
func (c *checker) beat(s *simulation, h *host) {
	if s.now-h.window >= int64(beatWindow) {
		h.window, h.beats = s.now, 0
	}
	h.beats++
	tunables := cluster.DefaultTunables()
	// Each change of the neighbours may bring a heartbeat forward.
	most := len(s.scenario.Networks)*tunables.RateMax*int(beatWindow/time.Second)/1000 + 4*tunables.Watchers
	if h.beats > most {
		s.fail(int(h.n), fmt.Sprintf("I7: more than %d heartbeats in %v", most, beatWindow))
		h.beats = 0
	}
}

// throw gives a machine datagrams that do not count, and wants nothing to
// happen (invariant 1).
func (c *checker) throw(s *simulation, h *host) {
	if h.state != stateRuns {
		return
	}
	claims := []belfry.Claim{{Subject: belfry.NodeNumber(1 + s.now%int64(len(s.hosts))), Incarnation: 99, Turn: 9, Verdict: belfry.VerdictDown, Origin: 1}}
	peer := s.hosts[(int(h.n)+1)%len(s.hosts)]
	before := s.picture(h)
	for _, d := range []cluster.Datagram{
		{From: belfry.NodeID{0xff}, Incarnation: 1, Proven: true, Body: &cluster.Claims{Claims: claims}},
		{From: h.id, Incarnation: 1, Proven: true, Body: &cluster.Claims{Claims: claims}},
		{From: peer.id, Incarnation: 0, Proven: true, Body: &cluster.Heartbeat{Seq: 9, Claims: claims}},
	} {
		h.machine.Receive(s.time(s.now), d)
	}
	out := h.machine.Take()
	if after := s.picture(h); after != before && peer.incarnation > 0 || len(out.Send)+len(out.Dial)+len(out.Changes) > 0 {
		s.fail(int(h.n), fmt.Sprintf("I1: what does not count changed something: %d datagrams, %d changes", len(out.Send), len(out.Changes)))
	}
}

// picture is all that can be seen of a machine.
func (s *simulation) picture(h *host) string {
	now := s.time(s.now)
	return fmt.Sprint(h.machine.View(), h.machine.Nodes(now), h.machine.Links(now))
}

// finish checks what is due at the end, and what the scenario expects.
func (c *checker) finish(s *simulation) {
	for _, observer := range s.hosts {
		for _, subject := range s.hosts {
			if since, ok := c.down[key(observer.n, subject.n)]; ok && s.now-since > int64(dissemination) {
				s.fail(int(observer.n), fmt.Sprintf("I3: %s, which lives and is heard, is down since %v", Name(int(subject.n)), time.Duration(since)))
			}
		}
		if len(c.down) == 0 {
			break
		}
	}
	for _, e := range s.scenario.Expects {
		held := false
		if e.Pair != PairNone {
			held = s.expectPair(e)
		} else {
			held = s.expect(e)
		}
		s.result.Expects = append(s.result.Expects, Outcome{
			Line: e.Line, Text: strings.TrimPrefix(e.format(), "expect "), Held: held,
		})
	}
}

// expect looks for what one line of the scenario wants.
func (s *simulation) expect(e Expect) (held bool) {
	want, _ := belfry.ParseVerdict(e.Verdict) // Parse has checked it
	text := e.format()
	if e.Never {
		for _, v := range s.result.Verdicts {
			if v.Text == "" && v.To == want && (e.Any || v.Subject == e.Node) {
				s.fail(v.Observer, fmt.Sprintf("line %d: %s: %s %v -> %v at %.3fs", e.Line, text, Name(v.Subject), v.From, v.To, v.At.Seconds()))
				return false
			}
		}
		return true
	}
	// The cause is one of the steps about the node: where it was stopped and
	// started, left belongs to the one and up to the other.
	var missed []Failure
	for _, cause := range s.scenario.causes(e.Node) {
		if missed = s.missing(e, want, cause); len(missed) == 0 {
			return true
		}
	}
	for _, f := range missed {
		s.fail(f.Node, f.Text)
	}
	return false
}

// missing is where an expected verdict did not come in time after a cause.
func (s *simulation) missing(e Expect, want belfry.Verdict, cause time.Duration) (missed []Failure) {
	text := e.format()
	within := s.scenario.Run
	if e.Within > 0 {
		within = cause + e.Within
	}
	first := map[int]time.Duration{}
	for _, v := range s.result.Verdicts {
		if _, known := first[v.Observer]; !known && v.Text == "" && v.Subject == e.Node && v.To == want && v.At >= cause {
			first[v.Observer] = v.At
		}
	}
	any := false
	for n, h := range s.hosts {
		if n == e.Node || h.state != stateRuns {
			continue
		}
		at, ok := first[n]
		if ok && at <= within {
			any = true
			continue
		}
		seen := "never"
		if ok {
			seen = fmt.Sprintf("%v after the cause", at-cause)
		}
		if e.All && len(missed) < 3 { // enough to know
			missed = append(missed, Failure{Node: n, Text: fmt.Sprintf("line %d: %s: %s", e.Line, text, seen)})
		}
	}
	if !any {
		missed = append(missed[:0], Failure{Node: -1, Text: fmt.Sprintf("line %d: %s: nowhere in time", e.Line, text)})
	}
	return missed
}

// causes are the times at which something happened to a node, each once; the
// start of the run if nothing ever did.
func (s *Scenario) causes(node int) (at []time.Duration) {
	for _, st := range s.Steps {
		if names(st.Nodes, node) && !st.condition() || st.condition() && (st.From != nil && names(st.From, node) || st.To != nil && names(st.To, node)) {
			at = append(at, st.At)
		}
	}
	if len(at) == 0 {
		return []time.Duration{0}
	}
	return slices.Compact(at)
}

func names(nodes []int, n int) bool {
	if nodes == nil {
		return true
	}
	return slices.Contains(nodes, n)
}

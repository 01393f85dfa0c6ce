package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// warm is a network whose machines hold each other up.
func warm(seed uint64, n int) *network {
	net := newNetwork(seed, names24()[:n]...)
	for _, h := range net.hosts {
		net.boot(h)
	}
	net.run(5 * time.Second)
	return net
}

func names24() []string { return strings.Split("abcdefghijklmnopqrstuvwx", "") }

func verdictAt(h *host, of *host) belfry.Verdict {
	return h.m.byID[nodeID(of.number)].held.Verdict
}

// M1: known to all within 250 ms, whoever dies.
func TestAKilledProcessIsKnownAtOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "nodes")
		net := warm(rapid.Uint64().Draw(t, "seed"), n)
		net.run(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
		victim := net.hosts[rapid.IntRange(0, n-1).Draw(t, "victim")]
		net.end(victim, StreamReset)
		net.run(250 * time.Millisecond)
		for _, h := range net.hosts {
			if h != victim && verdictAt(h, victim) != belfry.VerdictDown {
				t.Fatalf("%s holds %s %v, want down", h.name, victim.name, verdictAt(h, victim))
			}
		}
	})
}

// A silent host is unreachable within the target and down after the allowance.
func TestASilentHostIsUnreachableWithinTheTarget(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "nodes")
		net := warm(rapid.Uint64().Draw(t, "seed"), n)
		net.run(time.Duration(rapid.IntRange(0, 60_000).Draw(t, "ms")) * time.Millisecond)
		victim := net.hosts[rapid.IntRange(0, n-1).Draw(t, "victim")]
		victim.dead, victim.running = true, false
		net.run(1500 * time.Millisecond) // up to one interval of waiting, and the burst
		for _, h := range net.hosts {
			if h != victim && verdictAt(h, victim) != belfry.VerdictUnreachable {
				t.Fatalf("%s holds %s %v, want unreachable", h.name, victim.name, verdictAt(h, victim))
			}
		}
		net.run(2500 * time.Millisecond)
		for _, h := range net.hosts {
			if h != victim && verdictAt(h, victim) != belfry.VerdictDown {
				t.Fatalf("%s holds %s %v, want down", h.name, victim.name, verdictAt(h, victim))
			}
		}
	})
}

// Invariants 2 and 3: whatever a fifth of loss, stopped processes, resets and
// one cut link do, no living node is called down.
func TestI3NobodyWhoLivesIsDown(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(3, 6).Draw(t, "nodes")
		net := warm(rapid.Uint64().Draw(t, "seed"), n)
		net.trace = func(h *host, c Change) {
			if c, ok := c.(NodeChange); ok && c.To == belfry.VerdictDown {
				t.Fatalf("%s; want nobody down: %v", net.describe(h, c), c.Evidence)
			}
		}
		loss := rapid.IntRange(0, 20).Draw(t, "loss")
		for _, a := range net.hosts {
			for _, b := range net.hosts {
				net.path(a, b).loss = loss
			}
		}
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			h := net.hosts[rapid.IntRange(0, n-1).Draw(t, "host")]
			p := net.hosts[int(h.number)%n]
			pause := time.Duration(rapid.IntRange(10, 12_000).Draw(t, "ms")) * time.Millisecond
			switch rapid.SampledFrom([]string{"stop", "cut", "one-way", "delay", "reset", "restart", "wait"}).Draw(t, "what") {
			case "stop":
				h.frozen = true
				net.run(pause)
				net.thaw(h)
			case "cut":
				net.path(h, p).cut, net.path(p, h).cut = true, true
				net.run(pause)
				net.path(h, p).cut, net.path(p, h).cut = false, false
			case "delay":
				net.path(h, p).delay = pause / 40 // up to 300 ms
				net.run(pause)
			case "one-way":
				net.path(h, p).cut = true
				net.run(pause)
				net.path(h, p).cut = false
			case "reset":
				net.end(h, StreamReset)
				h.running = true
			case "restart":
				net.end(h, StreamReset)
				net.boot(h)
			}
			net.run(pause)
		}
		for _, a := range net.hosts {
			for _, b := range net.hosts {
				net.path(a, b).loss = 0
			}
		}
		net.run(15 * time.Second)
		for _, h := range net.hosts {
			for _, p := range net.hosts {
				if v := verdictAt(h, p); v != belfry.VerdictUp {
					t.Fatalf("in the end %s holds %s %v, want up", h.name, p.name, v)
				}
			}
		}
		if !net.agree() {
			t.Fatal("in the end the views differ, want one")
		}
	})
}

// Invariant 4, on every machine after every input.
func TestI4IncarnationAndTurnNeverFall(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		net := warm(rapid.Uint64().Draw(t, "seed"), 3)
		a := net.host("a")
		for range rapid.IntRange(1, 40).Draw(t, "claims") {
			before := map[belfry.NodeNumber]held{}
			for _, p := range a.m.sorted() {
				before[p.Number] = p.held
			}
			c := drawClaim(t, "claim")
			net.deliver(a, Datagram{
				From: nodeID(2), Incarnation: 1, Boot: net.host("b").boot, At: net.now, Proven: true,
				Body: &Claims{Claims: []belfry.Claim{{
					Subject: belfry.NodeNumber(rapid.IntRange(0, 4).Draw(t, "subject")), Incarnation: c.Incarnation, Turn: c.Turn, Verdict: c.Verdict,
					Age: time.Duration(rapid.IntRange(0, 10_000).Draw(t, "age")) * time.Millisecond, Origin: 2,
				}}},
			})
			for _, p := range a.m.sorted() {
				was := before[p.Number]
				if was.compare(p.held) > 0 {
					t.Fatalf("the claim on %s fell from %v to %v", p.Name, was, p.held)
				}
			}
			if v := a.m.self.held.Verdict; v != belfry.VerdictUp {
				t.Fatalf("a holds itself %v, want up", v)
			}
		}
	})
}

// Invariant 6: a pause of the observer, however long, changes no verdict.
func TestI6AnOwnPauseChangesNoVerdict(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		net := warm(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(2, 5).Draw(t, "nodes"))
		a := net.host("a")
		net.trace = func(h *host, c Change) {
			if c, ok := c.(NodeChange); ok && h == a {
				t.Fatalf("%s; want no verdict of the paused node", net.describe(h, c))
			}
		}
		pause := time.Duration(rapid.IntRange(60, 30_000).Draw(t, "ms")) * time.Millisecond
		switch rapid.SampledFrom([]string{"process", "machine", "machine, not told"}).Draw(t, "what sleeps") {
		case "process":
			a.frozen = true
			net.run(pause)
			net.thaw(a)
		case "machine":
			a.dead = true
			net.run(pause)
			net.wake(a, pause)
		default: // only its lateness tells
			a.dead = true
			net.run(pause)
			a.dead = false
			net.drive(a)
		}
		net.run(10 * time.Second)
	})
}

// Invariant 8.
func TestI8SameInputsSameBytes(t *testing.T) {
	t.Parallel()
	play := func() []string {
		net := warm(7, 8)
		net.record = true
		net.path(net.host("a"), net.host("b")).loss = 30
		net.run(5 * time.Second)
		net.end(net.host("c"), StreamReset)
		net.host("d").dead = true
		net.run(10 * time.Second)
		net.boot(net.host("c"))
		net.run(10 * time.Second)
		return net.digest
	}
	first := play()
	if diff := cmp.Diff(first, play()); diff != "" {
		t.Errorf("the second run differs (-first +second):\n%s", diff)
	}
	if len(first) < 500 {
		t.Errorf("%d datagrams, want some hundred", len(first))
	}
}

// Invariant 7: all is quiet, so no more than RateQuiet, and never above
// RateMax.
func TestI7HeartbeatsKeepToTheRate(t *testing.T) {
	t.Parallel()
	for n, most := range map[int]int{2: 2, 3: 2, 5: 2, 8: 3} { // per node and second
		net := warm(1, n)
		net.run(60 * time.Second)
		net.sent = 0
		net.run(100 * time.Second)
		if perSecond := net.sent / 100 / n; perSecond > most {
			t.Errorf("%d nodes: %d datagrams per node and second, want at most %d", n, perSecond, most)
		}
	}
}

// snapshot is all that can be seen of a machine.
func snapshot(m *Machine, now time.Time) string {
	text := fmt.Sprintf("%x %+v %+v", m.View(), m.Nodes(now), m.Links(now))
	for _, p := range m.sorted() {
		text += fmt.Sprintf("%+v", m.Why(p.ID))
	}
	return text
}

// Z7, Z12: what is not bound to this start, or comes from an older one, from a
// stranger or from a node that left, changes nothing.
func TestI1DatagramsThatDoNotCountChangeNothing(t *testing.T) {
	t.Parallel()
	claims := []belfry.Claim{{Subject: 3, Incarnation: 2, Turn: 9, Verdict: belfry.VerdictDown, Origin: 2}}
	tests := []struct {
		name  string
		dgram Datagram
		sends int
		drops Drops
	}{
		{"unproven heartbeat", Datagram{From: nodeID(2), Incarnation: 2, Body: &Heartbeat{Seq: 60000, Claims: claims}}, 1, Drops{Unproven: 1}},
		{"unproven probe", Datagram{From: nodeID(2), Incarnation: 9, Body: &Heartbeat{Seq: 60000, Probe: true}}, 1, Drops{Unproven: 1}},
		{"unproven claims", Datagram{From: nodeID(2), Incarnation: 2, Body: &Claims{Claims: claims}}, 1, Drops{Unproven: 1}},
		{"older incarnation", Datagram{From: nodeID(2), Incarnation: 1, Proven: true, Body: &Claims{Claims: claims}}, 0, Drops{OldIncarnation: 1}},
		{"stranger", Datagram{From: nodeID(9), Incarnation: 1, Proven: true, Body: &Claims{Claims: claims}}, 0, Drops{Stranger: 1}},
		{"myself", Datagram{From: nodeID(1), Incarnation: 1, Proven: true, Body: &Claims{Claims: claims}}, 0, Drops{Stranger: 1}},
	}
	for _, test := range tests {
		net := warm(1, 3)
		b := net.host("b")
		net.boot(b) // incarnation 2
		net.run(5 * time.Second)
		m := net.host("a").m
		m.drops = Drops{}
		net.run(50 * time.Millisecond)
		before := snapshot(m, net.now)
		m.Receive(net.now, test.dgram)
		out := m.Take()
		for i := range out.Send { // the reply takes a number and leaves a time
			if _, ok := out.Send[i].Body.(*Heartbeat); !ok {
				t.Errorf("%s: replied with a %T, want a heartbeat", test.name, out.Send[i].Body)
			}
		}
		if got := m.Drops(); got != test.drops {
			t.Errorf("%s: drops %+v, want %+v", test.name, got, test.drops)
		}
		if len(out.Send) != test.sends || len(out.Changes) != 0 || len(out.Dial) != 0 {
			t.Errorf("%s: output %+v, want %d datagrams and nothing else", test.name, out, test.sends)
		}
		if after := snapshot(m, net.now); len(out.Send) == 0 && after != before {
			t.Errorf("%s: state differs (-want +got):\n%s", test.name, cmp.Diff(before, after))
		}
		m.Receive(net.now, test.dgram)
		if again := len(m.Take().Send); again != 0 {
			t.Errorf("%s: a second one within 100 ms had %d replies, want none", test.name, again)
		}
	}
}

// Z9: a reset alone ends nobody; with the refusal it does, in either order.
func TestAResetNeedsARefusal(t *testing.T) {
	t.Parallel()
	reset := Stream{Peer: nodeID(2), Incarnation: 1, Event: StreamReset}
	refused := Refused{Peer: nodeID(2)}
	dialed := func(r DialResult) Message { return Dialed{Peer: nodeID(2), Result: r} }
	tests := []struct {
		name string
		msgs []Message
		want belfry.Verdict
	}{
		{"reset", []Message{reset}, belfry.VerdictUp},
		{"reset, dial accepted", []Message{reset, dialed(DialAccepted)}, belfry.VerdictUp},
		{"reset, dial not answered", []Message{reset, dialed(DialTimeout)}, belfry.VerdictUp},
		{"reset, dial refused", []Message{reset, dialed(DialRefused)}, belfry.VerdictDown},
		{"reset, port unreachable", []Message{reset, refused}, belfry.VerdictDown},
		{"port unreachable, reset", []Message{refused, reset}, belfry.VerdictDown},
		{"port unreachable", []Message{refused}, belfry.VerdictUp},
		{"port unreachable, dial refused", []Message{refused, dialed(DialRefused)}, belfry.VerdictUp},
		{"a dial nobody asked for", []Message{dialed(DialRefused), reset}, belfry.VerdictUp},
		{"reset of an older process", []Message{Stream{Peer: nodeID(2), Incarnation: 0xffff, Event: StreamUp}, Stream{Peer: nodeID(2), Incarnation: 1, Event: GoodbyeRekey}, reset, refused}, belfry.VerdictUp},
		{"goodbye, reset, refused", []Message{Stream{Peer: nodeID(2), Incarnation: 1, Event: GoodbyeRestart}, reset, refused}, belfry.VerdictStalled},
	}
	for _, test := range tests {
		net := warm(1, 3)
		m := net.host("a").m
		for _, msg := range test.msgs {
			m.Receive(net.now, msg)
		}
		if got := verdictAt(net.host("a"), net.host("b")); got != test.want {
			t.Errorf("%s: b is %v, want %v", test.name, got, test.want)
		}
	}
}

// Z5: who hears a node answers the claim that it is down, and the node itself
// does too.
func TestAliveAnswersDown(t *testing.T) {
	t.Parallel()
	net := warm(1, 4)
	b := net.host("b")
	lie := func(subject belfry.NodeNumber, cause belfry.Cause) []Send {
		m := net.host("a").m
		m.Receive(net.now, Datagram{
			From: nodeID(2), Incarnation: 1, Boot: b.boot, At: net.now, Proven: true,
			Body: &Claims{Claims: []belfry.Claim{{Subject: subject, Incarnation: 1, Verdict: belfry.VerdictDown, Cause: cause, Age: 3 * time.Second, Origin: 2}}},
		})
		return m.Take().Send
	}
	for subject, want := range map[belfry.NodeNumber]belfry.Claim{
		3: {Subject: 3, Incarnation: 1, Turn: 1, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect, Observers: 1, Origin: 1},
		1: {Subject: 1, Incarnation: 1, Turn: 1, Verdict: belfry.VerdictUp, Cause: belfry.CauseDirect, Observers: 1, Origin: 1},
	} {
		i := slices.IndexFunc(lie(subject, belfry.CauseSilent), func(s Send) bool { return s.To == nodeID(2) })
		if i != 0 {
			t.Fatalf("subject %d: no answer to the claimant", subject)
		}
		net.host("a").m.numbered(subject).news = net.now
		got := claimOf(net.now, net.host("a").m.numbered(subject))
		got.Age = 0
		if got != want {
			t.Errorf("subject %d: holds %+v, want %+v", subject, got, want)
		}
	}
}

// A node that lies takes no third node down, whatever it says: the subject is
// asked first, by everybody. A dead one does not answer.
func TestALiarTakesNobodyDown(t *testing.T) {
	t.Parallel()
	for _, cause := range []belfry.Cause{belfry.CauseSilent, belfry.CauseProcess, belfry.CauseStalled, belfry.CauseLeft} {
		net := warm(1, 8)
		gone := 0
		net.trace = func(_ *host, c Change) {
			if c, ok := c.(NodeChange); ok && (c.To == belfry.VerdictDown || c.To == belfry.VerdictLeft) {
				gone++
			}
		}
		lie := func(subject belfry.NodeNumber, age time.Duration) {
			claim := belfry.Claim{Subject: subject, Incarnation: 1, Turn: 7, Verdict: belfry.VerdictDown, Cause: cause, Observers: 4, Age: age, Origin: 2}
			if cause == belfry.CauseLeft {
				claim.Verdict = belfry.VerdictLeft
			}
			for _, h := range net.hosts {
				if h.name != "b" {
					net.deliver(h, Datagram{From: nodeID(2), Incarnation: 1, Boot: net.host("b").boot, At: net.now, Proven: true, Body: &Claims{Claims: []belfry.Claim{claim}}})
				}
			}
		}
		lie(3, 100*time.Millisecond)
		net.run(5 * time.Second)
		if gone != 0 || verdictAt(net.host("a"), net.host("c")) != belfry.VerdictUp || !net.agree() {
			t.Errorf("%v: %d nodes hold c down for a moment; a holds it %v", cause, gone, verdictAt(net.host("a"), net.host("c")))
		}
		net.host("d").dead, net.host("d").running = true, false
		lie(4, 0)
		if net.run(200 * time.Millisecond); gone != 0 {
			t.Errorf("%v: %d nodes hold d to be gone by the word of one, 200 ms after it was heard", cause, gone)
		}
		if net.run(4 * time.Second); gone != 7 {
			t.Errorf("%v: %d of 7 nodes hold the dead d to be gone", cause, gone)
		}
	}
}

// H2: MRT and D equal to the 4 µs unit what the formulas give for a scripted
// round trip: 2 ms, then 200 ms more.
func TestH2MeasuredRoundTripOfAScriptedDelay(t *testing.T) {
	t.Parallel()
	net := newNetwork(1, "a", "b")
	net.delay = time.Millisecond
	for _, h := range net.hosts {
		net.boot(h)
	}
	net.run(10 * time.Second)
	link := net.host("a").m.Links(net.now)[0]
	if !link.Known || link.MRT != 2*time.Millisecond || link.Measured != 2*time.Millisecond {
		t.Errorf("MRT %v T_MEAS %v, want 2ms each", link.MRT, link.Measured)
	}
	net.path(net.host("a"), net.host("b")).delay = 200 * time.Millisecond
	net.run(60 * time.Second)
	link = net.host("a").m.Links(net.now)[0]
	if link.Measured != 202*time.Millisecond || link.MRT < 190*time.Millisecond || link.MRT > 202*time.Millisecond {
		t.Errorf("200 ms later: MRT %v T_MEAS %v, want 202ms approached and reached", link.MRT, link.Measured)
	}
	if want := 10 * link.MRT; link.Interval < want*4/5 || verdictAt(net.host("a"), net.host("b")) != belfry.VerdictUp {
		t.Errorf("interval %v, want about %v, and b up", link.Interval, want)
	}
}

func TestAMachineAloneHasNothingToDo(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m := New(testConfig(), now, rand.New(rand.NewPCG(1, 1)))
	m.Receive(now, Members{Table: NewTable(belfry.ClusterID{}, 1, []Member{{ID: nodeID(1), Number: 1, Name: "a"}})})
	m.Advance(now)
	if next := m.NextTimeout(); !next.IsZero() {
		t.Errorf("NextTimeout = %v, want never", next)
	}
	if out := m.Take(); len(out.Send)+len(out.Dial)+len(out.Changes) != 0 {
		t.Errorf("output %+v, want none", out)
	}
}

func TestAnOlderMemberTableIsIgnored(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a := net.host("a")
	a.m.Receive(net.now, Members{Table: NewTable(belfry.ClusterID{}, 0, []Member{{ID: nodeID(1), Number: 1, Name: "a"}})})
	if got := len(a.m.Nodes(net.now)); got != 3 {
		t.Errorf("%d members, want 3", got)
	}
	net.generation = 2
	a.m.Receive(net.now, Members{Table: net.table(2)})
	changes := a.m.Take().Changes
	if len(a.m.Nodes(net.now)) != 2 || len(a.m.Links(net.now)) != 1 || len(changes) == 0 {
		t.Fatalf("after a removal: nodes %v, changes %v; want two nodes and a change", a.m.Nodes(net.now), changes)
	}
	if c := changes[0].(NodeChange); c.Name != "c" || c.To != belfry.VerdictLeft || c.Cause != belfry.CauseRemoved {
		t.Errorf("change %+v, want c left (removed)", c)
	}
}

// Consumers were told that it is joining, so they have to be told that it left.
func TestARemovedMemberThatNobodyEverHeardHasLeft(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rows := make([]Member, 100)
	for i := range rows {
		rows[i] = Member{ID: nodeID(belfry.NodeNumber(i + 1)), Number: belfry.NodeNumber(i + 1), Name: fmt.Sprint("n", i+1)}
	}
	m := New(testConfig(), now, rand.New(rand.NewPCG(1, 1)))
	m.Receive(now, Members{Table: NewTable(belfry.ClusterID{}, 1, rows)})
	m.Take()
	left := map[string]bool{}
	m.Receive(now, Members{Table: NewTable(belfry.ClusterID{}, 2, rows[:1])})
	for _, c := range m.Take().Changes {
		if c, ok := c.(NodeChange); ok && c.From == belfry.VerdictJoining && c.To == belfry.VerdictLeft && c.Cause == belfry.CauseRemoved {
			left[c.Name] = true
		}
	}
	if len(left) != 99 {
		t.Errorf("%d of 99 have left", len(left))
	}
}

// Z4: while a co-watcher answers, its silence about the subject is no vote,
// and the own one alone is not enough.
func TestOneObserverIsNotEnough(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a, c := net.host("a"), net.host("c")
	p := a.m.byID[nodeID(c.number)]
	a.m.verify(net.now, p, net.now, net.now, false)
	p.burst.unanswered, p.burst.worth = 60, 1_000_000
	if enough, observers := a.m.evidence(net.now, p); !enough || observers != 1 {
		t.Errorf("alone: enough %v with %d observers, want true with 1", enough, observers)
	}
	p.burst.results = []result{{from: a.m.byID[nodeID(2)], at: net.now}}
	if enough, observers := a.m.evidence(net.now, p); enough {
		t.Errorf("with a co-watcher that misses nothing: enough with %d observers, want not", observers)
	}
	p.burst.results[0].unanswered = 1
	if enough, observers := a.m.evidence(net.now, p); !enough || observers != 2 {
		t.Errorf("with a co-watcher that misses something: enough %v with %d observers, want true with 2", enough, observers)
	}
	a.m.health.score = healthDeaf
	if _, observers := a.m.evidence(net.now, p); observers != 1 {
		t.Errorf("in ill health: %d observers, want only the other one", observers)
	}
}

func TestAPauseVoidsTheBurst(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a := net.host("a")
	p := a.m.byID[nodeID(3)]
	a.m.verify(net.now, p, net.now, net.now, false)
	a.m.Receive(net.now, Suspended{D: time.Second})
	if p.burst != nil {
		t.Error("the burst goes on after a pause, want it void")
	}
	a.m.verify(net.now, p, net.now, net.now, false)
	if p.burst != nil {
		t.Error("a burst began while own votes count for nothing, want none")
	}
	if v := a.m.verdictTimer(net.now, p); !v.IsZero() {
		t.Errorf("verdict due at %v, want never", v)
	}
}

func TestAResultOfAnotherBurstDoesNotCount(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a := net.host("a")
	p := a.m.byID[nodeID(3)]
	a.m.verify(net.now, p, net.now, net.now, false)
	result := RelayResult{Subject: 3, Burst: p.burst.number - 1, Unanswered: 9, HeardAgo: heardAgoMax}
	for _, want := range []int{0, 1} {
		a.m.resulted(net.now, net.now, a.m.byID[nodeID(2)], &result)
		if got := len(p.burst.results); got != want {
			t.Errorf("burst %d, result for %d: %d results, want %d", p.burst.number, result.Burst, got, want)
		}
		result.Burst++
	}
}

func TestTheClockOfAPreviousStartIsNotMeasured(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRow(start, nodeID(2), Link{}, 76)
	at := start.Add(time.Second)
	r.receive(at, start, 1, lan(76), &Heartbeat{Echo: true, EchoOf: clockAt(start, start.Add(-3*time.Second))}, time.Time{})
	if r.rtt.known || r.echoed {
		t.Errorf("MRT %v echoed %v, want none", r.rtt.MRT(), r.echoed)
	}
	r.receive(at, start, 2, lan(76), &Heartbeat{Echo: true, EchoOf: clockAt(start, at.Add(-time.Millisecond))}, time.Time{})
	if !r.rtt.known || r.rtt.MRT() != time.Millisecond || !r.echoed {
		t.Errorf("MRT %v echoed %v, want 1ms and an echo", r.rtt.MRT(), r.echoed)
	}
}

func TestALateDatagramDoesNotBringBackWhoLeft(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a, c := net.host("a"), net.host("c")
	net.end(c, GoodbyeLeave)
	net.run(10 * time.Millisecond)
	for seq := range uint16(10) {
		net.deliver(a, Datagram{
			From: nodeID(3), Incarnation: 1, Boot: c.boot, At: net.now, Proven: true,
			Body: &Heartbeat{Seq: 1000 + seq, Echo: true, EchoOf: clockAt(a.m.start, net.now)},
		})
	}
	if got := verdictAt(a, c); got != belfry.VerdictLeft {
		t.Errorf("c is %v, want left", got)
	}
}

// The next heartbeat is due by the mean delay, not by the luck of this one.
func TestAnEarlyHeartbeatDoesNotMoveTheDeadline(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRow(start, nodeID(2), Link{}, 76)
	r.receive(start.Add(10*time.Millisecond), start, 1, lan(76), &Heartbeat{SentAt: 0, Announced: time.Second}, time.Time{})
	sent := start.Add(time.Second)
	r.receive(sent.Add(2*time.Millisecond), start, 2, lan(76), &Heartbeat{SentAt: clockAt(start, sent), Announced: time.Second}, time.Time{})
	// 8 ms early; the mean moved by a sixteenth of that.
	if got, want := r.due.Sub(sent), time.Second+9500*time.Microsecond; got != want {
		t.Errorf("due %v after the send, want %v", got, want)
	}
}

// Whatever happened, when it is over all hold all up, and hold the same.
func TestInTheEndAllAgree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 7).Draw(t, "nodes")
		net := warm(rapid.Uint64().Draw(t, "seed"), n)
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			h := net.hosts[rapid.IntRange(0, n-1).Draw(t, "host")]
			p := net.hosts[(int(h.number)+rapid.IntRange(0, n-2).Draw(t, "peer"))%n]
			disturb(t, net, h, p)
			net.run(time.Duration(rapid.IntRange(0, 8000).Draw(t, "ms")) * time.Millisecond)
		}
		for _, h := range net.hosts {
			for _, p := range net.hosts {
				*net.path(h, p) = condition{}
			}
			h.dead = false
			if !h.running {
				net.boot(h)
			}
			net.thaw(h)
		}
		net.run(20 * time.Second)
		for _, h := range net.hosts {
			for _, s := range h.m.Nodes(net.now) {
				if s.Verdict != belfry.VerdictUp || s.LinksUp != s.LinksTotal || s.Incarnation != net.host(s.Name).incarnation {
					t.Fatalf("in the end %s holds %+v, want it up on all links: %+v", h.name, s, h.m.Links(net.now))
				}
			}
		}
		if !net.agree() {
			t.Fatal("in the end the views differ, want one")
		}
	})
}

func disturb(t *rapid.T, net *network, h, p *host) {
	switch rapid.SampledFrom([]string{"kill", "halt", "sleep", "stop", "leave", "goodbye", "boot", "cut", "one-way", "loss", "delay"}).Draw(t, "what") {
	case "kill":
		net.end(h, StreamReset)
	case "halt":
		h.dead, h.running = true, false
	case "sleep":
		h.dead = true
	case "stop":
		h.frozen = true
	case "leave":
		net.end(h, GoodbyeLeave)
	case "goodbye":
		net.end(h, GoodbyeRestart)
	case "boot":
		net.end(h, StreamReset)
		net.boot(h)
	case "cut":
		net.path(h, p).cut, net.path(p, h).cut = true, true
	case "one-way":
		net.path(h, p).cut = true
	case "loss":
		net.path(h, p).loss = 40
	case "delay":
		net.path(h, p).delay = 300 * time.Millisecond
	}
}

func TestNumbersGoOnWhenAWatchBeginsAgain(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a := net.host("a")
	p := a.m.byID[nodeID(2)]
	want := nextSeq(p.rows[0].txSeq)
	a.m.unwatch(p)
	a.m.rewatch(net.now)
	a.m.sendHeartbeat(net.now, p.rows[0], false, false)
	sent := a.m.Take().Send
	if got := seqOf(sent[len(sent)-1].Body); got != want {
		t.Errorf("the first number of the new row is %d, want %d", got, want)
	}
}

// A node that the configuration has stopped is none, whatever it sends.
func TestWhatAStoppedNodeSendsDoesNotCount(t *testing.T) {
	t.Parallel()
	net := warm(1, 3)
	a, c := net.host("a"), net.host("c")
	net.stopped["c"] = true
	net.generation++
	a.m.Receive(net.now, net.members()) // c has not heard of it
	a.m.Take()
	a.m.drops = Drops{}
	before := snapshot(a.m, net.now)
	a.m.Receive(net.now, Datagram{From: nodeID(c.number), Incarnation: 1, Boot: c.boot, At: net.now, Proven: true, Body: &Heartbeat{Seq: 9, Probe: true}})
	if after := snapshot(a.m, net.now); after != before || len(a.m.Take().Send) != 0 || a.m.Drops() != (Drops{Stranger: 1}) {
		t.Errorf("drops %+v, want one of a stranger, no answer, and (-want +got):\n%s", a.m.Drops(), cmp.Diff(before, after))
	}
}

package witness

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

var update = flag.Bool("update", false, "rewrite the outputs in testdata")

// TestScripts plays testdata/*.txt on virtual time: one or more commands,
// `----`, what the machine put out, an empty line.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		if filepath.Base(file) == "mutants.txt" {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playScript(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := gocmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// playScript returns the script with the outputs that came.
func playScript(t *testing.T, script string) string {
	t.Helper()
	w := newWorld()
	var out, commands strings.Builder
	skipping := false
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "----":
			skipping = true
			out.WriteString(commands.String() + "----\n")
			for command := range strings.Lines(commands.String()) {
				if command = strings.TrimSpace(command); command != "" && command[0] != '#' {
					w.do(t, strings.Fields(command))
				}
			}
			out.WriteString(w.out.String() + "\n")
			w.out.Reset()
			commands.Reset()
		case skipping && line == "":
			skipping = false
		case !skipping:
			commands.WriteString(line + "\n")
		}
	}
	return strings.TrimSuffix(out.String(), "\n") + commands.String()
}

var scriptStart = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func scriptNode(name string) belfry.NodeID { return belfry.NodeID{15: name[0]} }

func scriptKey(name string) (k Key) {
	copy(k[:], name)
	return k
}

// A world is the witness at node a on virtual time.
type world struct {
	now  time.Time
	m    *Machine
	call CallID
	what map[CallID]string
	out  strings.Builder
}

func newWorld() *world {
	cfg := Default()
	cfg.Node, cfg.Name, cfg.Incarnation, cfg.PerPrincipal = scriptNode("a"), "a", 1, 4
	cfg.CheckEvent = func(class belfry.Class, subject string) error {
		if strings.Contains(subject, "*") {
			return refusal(belfry.ErrUsage, "event %s:%s is a pattern; name one event", class, subject)
		}
		return nil
	}
	return &world{now: scriptStart, m: New(cfg, scriptStart, rand.New(rand.NewPCG(1, 2))), what: map[CallID]string{}}
}

// do runs one command. Words with a "=" are options.
func (w *world) do(t *testing.T, f []string) {
	t.Helper()
	options := map[string]string{}
	words := slices.DeleteFunc(slices.Clone(f), func(s string) bool {
		key, value, ok := strings.Cut(s, "=")
		if ok && !strings.Contains(key, "/") {
			options[key] = value
		}
		return ok && !strings.Contains(key, "/")
	})
	switch words[0] {
	case "run":
		w.run(w.now.Add(duration(t, words[1])))
		return
	case "info":
		w.info(words[1:], options)
		return
	case "list":
		w.list()
		return
	}
	w.m.Receive(w.now, w.message(t, words, options))
	w.settle()
}

// run lets time pass, and prints when something happens.
func (w *world) run(until time.Time) {
	for next := w.m.NextTimeout(); !next.IsZero() && !next.After(until); next = w.m.NextTimeout() {
		if next.After(w.now) {
			w.now = next
		}
		w.settle()
	}
	w.now = until
	w.settle()
}

func (w *world) settle() {
	w.m.Advance(w.now)
	o := w.m.Take()
	say := func(format string, args ...any) {
		fmt.Fprintf(&w.out, "%-6s "+format+"\n", append([]any{w.now.Sub(scriptStart)}, args...)...)
	}
	for _, i := range o.Interest {
		say("interest in %s %v", i.Resource, i.On)
	}
	for _, i := range o.Observe {
		say("observe %s %v", i.Source, i.On)
	}
	for _, r := range o.Own {
		say("own %s %s seq %d", r.Resource, r.State, r.Seq)
	}
	for _, a := range o.Answers {
		say("%s", w.what[a.Call]+answerText(a))
	}
	for _, one := range o.Moved {
		say("moved %d of %s by %s from %q to %v", one.Clients, one.Resource, one.Move.ID, one.From, one.Move.To)
	}
	if o.Peers != nil {
		say("ask the others: %v", *o.Peers)
	}
	if o.Standing != nil && (*o.Standing != Standing{}) {
		say("standing: off %v draining %v registrations %d", o.Standing.Off, o.Standing.Draining, o.Standing.Registrations)
	}
	if o.Held != nil {
		for _, h := range *o.Held {
			say("keep %s %s until %s", h.Resource, h.State, h.Until.Sub(scriptStart))
		}
	}
	for _, e := range o.Ended {
		say("%s ended: %s", keyText(e.Key), e.Reason)
	}
}

func keyText(k Key) string { return strings.TrimRight(string(k[:]), "\x00") }

func answerText(a Answer) string {
	var b strings.Builder
	if a.Err != nil {
		fmt.Fprintf(&b, ": %s: %v", belfry.Code(a.Err), a.Err)
	}
	for _, p := range a.States {
		fmt.Fprintf(&b, "\n       now %s", changeText(p.Change))
		if p.Changed > 0 {
			fmt.Fprintf(&b, " changed %d", p.Changed)
		}
	}
	for _, c := range a.Changes {
		fmt.Fprintf(&b, "\n       seq %d %s", c.Seq, changeText(c))
	}
	for _, k := range a.Matched {
		b.WriteString(" " + keyText(k))
	}
	if a.Err == nil && len(a.States)+len(a.Changes)+len(a.Matched) == 0 {
		b.WriteString(": nothing")
	}
	return b.String()
}

func changeText(c belfry.ResourceChange) string {
	switch {
	case c.Move != nil:
		return fmt.Sprintf("move %s to %s, %s (%s)", c.Move.ID, strings.Join(c.Move.To, " "), strings.Join(c.Move.Addresses, " "), c.Move.Reason)
	case c.Reregister:
		return "register elsewhere"
	}
	v := c.Level.Version
	text := fmt.Sprintf("%s %s", c.Resource, c.Level.State)
	if c.HasAt {
		text += " (at " + c.Level.At.String() + ")"
	}
	text += fmt.Sprintf(" x%d %s%d.%d", c.Count, string(v.Origin[15:]), v.Incarnation, v.Seq)
	if !v.Reported {
		text += " concluded"
	}
	for word, yes := range map[string]bool{" flapped": c.Flapped} {
		if yes {
			text += word
		}
	}
	if c.Holder != "" {
		text += " on " + c.Holder
	}
	return strings.TrimSpace(text + " " + strings.Join(c.Addresses, " "))
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, s, or string) int {
	t.Helper()
	if s == "" {
		s = or
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func parsed[T any](t *testing.T, parse func(string) (T, error), s string) T {
	t.Helper()
	v, err := parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func scriptMember(name string) Member {
	name, zone, _ := strings.Cut(name, "/")
	return Member{ID: scriptNode(name), Name: name, Zone: zone, Addresses: []string{fmt.Sprintf("10.0.0.%d:7432", name[0]-'a'+1)}, Hosts: []string{fmt.Sprintf("10.0.0.%d", name[0]-'a'+1)}}
}

// message reads one command; each that has an answer gets a call.
func (w *world) message(t *testing.T, f []string, o map[string]string) Message {
	t.Helper()
	inc := belfry.Incarnation(number(t, o["inc"], "1"))
	switch f[0] {
	case "members": // members NAME[/ZONE]…
		var all []Member
		for _, name := range f[1:] {
			all = append(all, scriptMember(name))
		}
		return Members{all}
	case "verdict": // verdict NODE VERDICT [cause=] [inc=]
		cause := belfry.CauseSilent
		if o["cause"] != "" {
			cause = parsed(t, belfry.ParseCause, o["cause"])
		}
		return Verdict{Node: scriptNode(f[1]), Verdict: parsed(t, belfry.ParseVerdict, f[2]), Cause: cause, Incarnation: inc, At: w.now}
	case "link": // link NODE good|bad|cut
		return Link{scriptNode(f[1]), f[2] == "good", f[2] == "cut"}
	case "peer": // peer NODE [off] [draining] [n=]
		return Peer{Node: scriptNode(f[1]), Off: slices.Contains(f, "off"), Draining: slices.Contains(f, "draining"), Registrations: number(t, o["n"], "0")}
	case "consulted":
		return Consulted{}
	case "drained": // drained GENERATION [NODE…]
		d := Drained{Generation: uint64(number(t, f[1], ""))}
		for _, name := range f[2:] {
			d.Nodes = append(d.Nodes, scriptNode(name))
		}
		return d
	case "configured": // configured [off] [unused=] [source=]
		cfg := Default()
		cfg.PerPrincipal, cfg.Off, cfg.PerSource = 4, slices.Contains(f, "off"), number(t, o["source"], "10000")
		if o["unused"] != "" {
			cfg.Unused = duration(t, o["unused"])
		}
		return Configured{cfg}
	case "occurred": // occurred NODE RESOURCE [n=]
		return Occurred{belfry.Resource(f[2]), scriptNode(f[1]), uint64(number(t, o["n"], "1")), w.now}
	case "declare": // declare [NAME[,HOLDER…][,from:SOURCE…][,probe:NODE]]…
		var all []Declaration
		for _, text := range f[1:] {
			all = append(all, scriptDeclaration(text))
		}
		return Declared{all}
	case "report": // report NODE RESOURCE STATE SEQ [inc=]
		return Report{Resource: belfry.Resource(f[2]), Node: scriptNode(f[1]), Incarnation: inc, Seq: uint64(number(t, f[4], "")), State: parsed(t, belfry.ParseResourceState, f[3]), At: w.now}
	case "covered":
		return Covered{belfry.Resource(f[2]), scriptNode(f[1])}
	case "uncovered":
		return Uncovered{belfry.Resource(f[2]), scriptNode(f[1])}
	case "asked":
		return Asked{belfry.Resource(f[1]), f[2] == "true"}
	case "observed":
		return Observed{f[1], parsed(t, belfry.ParseResourceState, f[2]), w.now}
	}
	w.call++
	w.what[w.call] = strings.Join(f[:min(2, len(f))], " ")
	return w.callMessage(t, f, o)
}

func scriptDeclaration(text string) Declaration {
	parts := strings.Split(text, ",")
	d := Declaration{Name: belfry.Resource(parts[0])}
	for _, p := range parts[1:] {
		if source, ok := strings.CutPrefix(p, "from:"); ok {
			d.Sources = append(d.Sources, source)
			continue
		}
		if node, ok := strings.CutPrefix(p, "probe:"); ok {
			d.Probes = map[string]string{node: "tcp:" + node + ":1"}
			continue
		}
		d.Holders = append(d.Holders, p)
		d.Own = d.Own || p == "a"
	}
	return d
}

func (w *world) callMessage(t *testing.T, f []string, o map[string]string) Message {
	t.Helper()
	owner := Owner{Protocol: "native", Principal: "uid 0"}
	if o["as"] != "" {
		owner.Principal = o["as"]
	}
	owner.Connection, owner.Source = uint64(number(t, o["connection"], "0")), o["source"]
	switch f[0] {
	case "register": // register KEY RESOURCE… [at=] [client=] [known=RESOURCE:STATE[+AT]:NODE.INC.SEQ[:concluded]] [flag=…]
		r := Register{Call: w.call, Owner: owner, Key: scriptKey(f[1]), Client: o["client"], At: o["at"], LastMove: o["moved"]}
		for _, name := range f[2:] {
			r.Resources = append(r.Resources, belfry.Resource(name))
		}
		r.Eager, r.AllowMissing = strings.Contains(o["flag"], "eager"), strings.Contains(o["flag"], "missing")
		r.Certain, r.Endless = strings.Contains(o["flag"], "certain"), strings.Contains(o["flag"], "endless")
		if o["known"] != "" {
			r.Known = []Known{scriptKnown(t, o["known"])}
		}
		return r
	case "unregister":
		return Unregister{w.call, owner, scriptKey(f[1])}
	case "wait":
		wait := Wait{Call: w.call, Owner: owner, Key: scriptKey(f[1])}
		if o["for"] != "" {
			wait.For = duration(t, o["for"])
		}
		return wait
	case "cancel": // cancel N: the Nth call
		return Cancel{CallID(number(t, f[1], ""))}
	case "gone":
		return OwnerGone{"native", owner.Connection}
	case "move": // move ID TO… [sel]
		return Move{Call: w.call, Select: scriptSelector(o), Move: belfry.Move{ID: f[1], To: f[2:]}, DryRun: o["dry"] != ""}
	case "drain":
		return Drain{Call: w.call, Node: scriptNode(f[1]), ID: "d1", On: f[2] == "true", Rate: number(t, o["rate"], "0"), DryRun: o["dry"] != ""}
	case "force":
		return Force{Call: w.call, Select: scriptSelector(o), DryRun: o["dry"] != ""}
	case "override":
		return Override{w.call, belfry.Resource(f[1]), parsed(t, belfry.ParseResourceState, f[2]), w.now.Add(duration(t, o["for"])), o["dry"] != ""}
	}
	t.Fatalf("unknown command %q", f)
	return nil
}

func scriptKnown(t *testing.T, text string) Known {
	t.Helper()
	parts := strings.Split(text, ":")
	version := strings.Split(parts[2], ".")
	state, at, _ := strings.Cut(parts[1], "+")
	return Known{belfry.Resource(parts[0]), belfry.ResourceLevel{
		State: parsed(t, belfry.ParseResourceState, state), At: parsed(t, belfry.ParseResourceState, cmp.Or(at, "unknown")),
		Version: belfry.ResourceVersion{
			Origin: scriptNode(version[0]), Incarnation: belfry.Incarnation(number(t, version[1], "")),
			Seq: uint64(number(t, version[2], "")), Reported: len(parts) < 4,
		},
	}}
}

func scriptSelector(o map[string]string) (s Selector) {
	s.All, s.At, s.Resource = o["all"] != "", o["at"], belfry.Resource(o["resource"])
	if o["key"] != "" {
		s.Key = scriptKey(o["key"])
	}
	if o["client"] != "" {
		s.Client = regexp.MustCompile(o["client"])
	}
	return s
}

func (w *world) info(resources []string, o map[string]string) {
	q := Question{Client: o["client"], Accessed: o["accessed"]}
	for _, r := range resources {
		q.Resources = append(q.Resources, belfry.Resource(r))
	}
	all, incomplete := w.m.NodeInformation(q)
	for _, one := range all {
		fmt.Fprintf(&w.out, "%d %s %s", one.Rank, one.Name, strings.Join(one.Addresses, " "))
		if one.CoLocated {
			w.out.WriteString(" co-located")
		}
		if one.HoldsOne {
			w.out.WriteString(" holds")
		}
		w.out.WriteString("\n")
	}
	if incomplete {
		w.out.WriteString("incomplete\n")
	}
}

func (w *world) list() {
	for _, s := range w.m.Registrations(w.now) {
		fmt.Fprintf(&w.out, "%s %s %q at %q waits %d pending %d:", keyText(s.Key), s.Owner.Principal, s.Client, s.At, s.Waits, s.Pending)
		for _, r := range s.Resources {
			fmt.Fprintf(&w.out, " %s %s", r.Name, r.Level.State)
		}
		w.out.WriteString("\n")
	}
	for _, r := range w.m.Resources(w.now) {
		fmt.Fprintf(&w.out, "%s %s of %d:", r.Name, r.Level.State, r.Registrations)
		for _, i := range r.Instances {
			fmt.Fprintf(&w.out, " %s %s %s", i.Node, i.Verdict, i.State)
			if i.Awaited {
				w.out.WriteString(" awaited")
			}
		}
		w.out.WriteString("\n")
	}
}

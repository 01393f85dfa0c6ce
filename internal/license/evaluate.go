package license

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// OutOfReach is how long the last generation counts in full when the
// repository can not be read.
const OutOfReach = 72 * time.Hour

// An Activation records who unlocked a license. It grants nothing: without the
// file it means nothing, and without it the file counts all the same.
type Activation struct {
	License  ID
	Node     belfry.NodeID
	Time     time.Time
	Operator string
}

// Input is what a verdict depends on, and all of it: values that the agent
// copies from its settings and from the document of the committed generation.
// The order of the lists does not matter.
type Input struct {
	Product     string
	Files       [][]byte // texts as in the document; those of other products are passed over
	Activations []Activation
	Revocations [][]byte // texts of revocation lists; the newest one of the product counts
	Issuers     []Issuer // those that are built in, and those that an admin registered
	Cluster     belfry.ClusterID
	Node        belfry.NodeID // whose verdict this is
	Members     []Member
	Now         time.Time // by this node's clock
	Mark        time.Time // the greater one of the committed and the saved mark; zero: none yet
	LastRead    time.Time // when the repository was last read; zero: it is within reach
	Released    time.Time // when the running version of the product was released; zero: not known, not judged
}

// A Verdict is what a product may do on a node.
type Verdict struct {
	State belfry.LicenseState
	// Until is the first instant at which the state is another one if nothing
	// but time passes, on from Time; zero: never.
	Until      time.Time
	Reason     string     // why, and what would be right, for people
	License    ID         // the license that decides; empty: none of the product can be read
	File       []byte     // its text as in the document, for programs that check by themselves; nil as License
	Activation Activation // who unlocked it; zero: not recorded
	// Time is what counted as now. Behind is how far this node's clock is
	// before the mark, where that is more than 24 h and the mark counted in
	// its place; zero: the clock counted. Not zero is an event, license.clock.
	Time   time.Time
	Behind time.Duration
}

// Evaluate judges the licenses of one product on one node. It never fails:
// what can not be read or proven unlocks nothing, and the reason says so.
//
// Each file is judged by itself, and the best verdict wins, in the order of
// [cause]: unlocked, in grace, over capacity, expired, revoked, locked; among
// equals the one that ends last, then the one that was unlocked first, then the
// lesser id. Capacities of several files do not add up: who needs more is
// given a license that supersedes.
func Evaluate(in Input) Verdict { return in.verdict(in.candidates()) }

// EvaluateMembers is the verdict of each member, in their order: what each of
// them comes to by the same values. Each file is read and verified once. The
// field Node of in does not matter.
func EvaluateMembers(in Input) []Verdict {
	list, verdicts := in.files(), make([]Verdict, len(in.Members))
	for i, m := range in.Members {
		in.Node = m.Node
		in.on(list)
		verdicts[i] = in.verdict(list)
	}
	return verdicts
}

func (in *Input) verdict(candidates []candidate) Verdict {
	clock, behind := Clock(in.Now, in.Mark)
	v := Verdict{State: belfry.LicenseLocked, Reason: in.reason(nil, nothing, clock), Time: clock, Behind: behind}
	best, why := in.best(candidates, clock)
	if best == nil {
		return v
	}
	v.State, v.Until = why.state(), in.until(candidates, why.state(), clock)
	v.Reason, v.License, v.File, v.Activation = in.reason(best, why, clock), best.license.ID, best.text, best.activation
	return v
}

// best is the candidate that decides at an instant; nil: there is none.
func (in *Input) best(candidates []candidate, at time.Time) (best *candidate, why cause) {
	for i := range candidates {
		c := &candidates[i]
		if judged := in.judge(c, at); best == nil || judged > why || judged == why && c.before(best) {
			best, why = c, judged
		}
	}
	return best, why
}

// until is the first instant after now with another state. The state changes
// at few instants: those at which a license begins (and takes the place of
// another one) or ends.
func (in *Input) until(candidates []candidate, state belfry.LicenseState, now time.Time) time.Time {
	var instants []time.Time
	if !in.LastRead.IsZero() {
		instants = append(instants, in.LastRead.Add(OutOfReach))
	}
	for i := range candidates {
		c := &candidates[i]
		if c.flaw != nil {
			continue
		}
		instants = append(instants, c.license.NotBefore, c.license.end(), c.license.graceEnd())
	}
	slices.SortFunc(instants, time.Time.Compare)
	for _, at := range slices.Compact(instants) {
		if !at.After(now) {
			continue
		}
		if _, why := in.best(candidates, at); why.state() != state {
			return at
		}
	}
	return time.Time{}
}

// A candidate is one file of the product, with all that does not depend on time.
type candidate struct {
	license    License
	text       []byte
	activation Activation
	flaw       error           // why it proves nothing; nil: its signature holds
	covers     []belfry.NodeID // within the capacity
	member     bool            // this node is in the committed generation
	here       bool            // bound to this node
	covered    bool            // within the capacity
	revoked    bool
	successor  ID        // the license that takes its place; empty: none
	replaced   time.Time // from when on
}

// before decides between candidates of equal cause.
func (c *candidate) before(d *candidate) bool {
	return cmp.Or(
		-later(c.license.end(), d.license.end()),
		later(c.activation.Time, d.activation.Time),
		cmp.Compare(c.license.ID, d.license.ID),
		bytes.Compare(c.text, d.text),
	) < 0
}

// later compares times of which zero is after all others: no end, not recorded.
func later(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		if a.IsZero() {
			return 1
		}
		return -1
	}
	return a.Compare(b)
}

// candidates are the files as they are for this node.
func (in *Input) candidates() []candidate {
	list := in.files()
	in.on(list)
	return list
}

// on looks at files from a node.
func (in *Input) on(list []candidate) {
	member := slices.ContainsFunc(in.Members, func(m Member) bool { return m.Node == in.Node })
	for i := range list {
		c := &list[i]
		if c.flaw == nil {
			c.member, c.here = member, c.license.Binding.holdsOn(in.Cluster, in.Node)
			c.covered = slices.Contains(c.covers, in.Node)
		}
	}
}

// files reads and verifies each file once.
func (in *Input) files() []candidate {
	var list []candidate
	revoked := newest(in.Product, in.Revocations, in.Issuers)
	for _, text := range in.Files {
		f, err := Parse(text)
		if err != nil || f.Unproven().Product != in.Product {
			continue // the document holds files of all products, maybe of later versions
		}
		l, err := f.Verify(in.Issuers)
		if err != nil {
			list = append(list, candidate{license: License{ID: f.Unproven().ID}, text: text, flaw: err})
			continue
		}
		c := candidate{
			license: l, text: text, revoked: revoked[l.ID], covers: Covered(l, in.Members),
		}
		for _, a := range in.Activations {
			if a.License == l.ID && cmp.Or(later(a.Time, c.activation.Time), a.Node.Compare(c.activation.Node)) < 0 {
				c.activation = a
			}
		}
		list = append(list, c)
	}
	in.replace(list)
	return list
}

// replace notes which licenses have a successor. One that was revoked or is
// bound elsewhere takes no place, and one bought in advance takes it when it
// begins; then for good: what was given up for a term is not there again when
// the term ends.
func (in *Input) replace(list []candidate) {
	type successor struct {
		id   ID
		from time.Time
	}
	successors := map[ID]successor{}
	for i := range list {
		c := &list[i]
		if c.flaw != nil || c.revoked || !c.license.Binding.holdsIn(in.Cluster, in.Members) {
			continue
		}
		for _, id := range c.license.Supersedes {
			s, ok := successors[id]
			if from := c.license.NotBefore; !ok || from.Before(s.from) || from.Equal(s.from) && c.license.ID < s.id {
				successors[id] = successor{c.license.ID, from}
			}
		}
	}
	for i := range list {
		if s, ok := successors[list[i].license.ID]; ok {
			list[i].successor, list[i].replaced = s.id, s.from
		}
	}
}

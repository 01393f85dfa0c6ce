package event

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// A pair is two nodes with a stream that breaks: consumers at a want events
// of b, while consumers at b come and go.
type pair struct {
	a, b     *Machine
	now      time.Time
	up       bool
	toB, toA []Frame // on their way
	ledger   *ledger
	reader   map[ConsumerID]*reader // at a
	nextReg  uint32
	watches  map[WatchID]bool
	locals   int // consumers opened at b
	class    string
}

func newPair() *pair {
	p := &pair{
		a: scriptMachine("a", 1, scriptStart), b: scriptMachine("b", 1, scriptStart), now: scriptStart,
		ledger: newLedger(), reader: map[ConsumerID]*reader{}, watches: map[WatchID]bool{}, class: "file.modify",
	}
	for id := ConsumerID(1); id <= 2; id++ {
		p.reader[id] = &reader{specs: map[uint32]belfry.Registration{}}
		p.a.Receive(p.now, Open{Consumer: id, Limits: Limits{BatchNotifications: 3, Reuse: true}})
	}
	p.join()
	return p
}

func (p *pair) join() {
	if p.up {
		return
	}
	p.up = true
	for _, m := range []*Machine{p.a, p.b} {
		other := p.b
		if m == p.b {
			other = p.a
		}
		m.Receive(p.now, PeerUp{Node: other.cfg.Node, Name: other.cfg.Name, Incarnation: other.cfg.Incarnation})
		m.Receive(p.now, PeerReady{Node: other.cfg.Node})
	}
	p.settle()
}

// cut breaks the stream; what was on its way is lost. A side that gives up
// its peer takes it for down.
func (p *pair) cut(aGivesUp, bGivesUp bool) {
	if !p.up {
		return
	}
	p.up, p.toA, p.toB = false, nil, nil
	for _, side := range []struct {
		m      *Machine
		peer   belfry.NodeID
		giveUp bool
	}{{p.a, p.b.cfg.Node, aGivesUp}, {p.b, p.a.cfg.Node, bGivesUp}} {
		side.m.Receive(p.now, PeerLost{Node: side.peer})
		if side.giveUp {
			side.m.Receive(p.now, PeerGone{Node: side.peer})
		}
	}
	p.settle()
}

// settle takes the outputs; frames stay on their way.
func (p *pair) settle() {
	p.a.Advance(p.now)
	o := p.a.Take()
	for _, f := range o.Peers {
		p.toB = append(p.toB, f.Frame)
	}
	for _, batch := range o.Batches {
		r := p.reader[batch.Consumer]
		r.had = batch.Number
		for i := range batch.Notifications {
			n := &batch.Notifications[i]
			if n.Kind != belfry.KindCoverage {
				p.begin(batch.Consumer, n)
				p.ledger.take(batch.Consumer, n)
			}
		}
	}
	p.b.Advance(p.now)
	o = p.b.Take()
	for _, f := range o.Peers {
		p.toA = append(p.toA, f.Frame)
	}
	for _, w := range o.Watch {
		if !p.watches[w.ID] && w.Entry != 0 {
			p.b.Receive(p.now, Associate{Entry: w.Entry, Instance: "i1"})
		} else if w.Entry == 0 {
			for _, s := range benchSubjects {
				p.b.Receive(p.now, Found{Watch: w.ID, Subject: s})
			}
		}
		p.watches[w.ID] = true
	}
	if !p.up {
		p.toA, p.toB = nil, nil
	}
	if len(o.Watch) > 0 {
		p.settle()
	}
}

// begin notes where a registration begins with an entry: with the first
// notification of it.
func (p *pair) begin(c ConsumerID, n *belfry.Notification) {
	at, e := ledgerReader{c, n.Registration}, ledgerEvent{n.Node, n.Incarnation, n.Entry}
	a := p.ledger.given[at]
	if a == nil || n.Event.Class == "" || n.Kind == belfry.KindCoverage || n.Gap != nil && !n.Gap.Known {
		return
	}
	if _, known := a.last[e]; !known {
		stands := n.Count + n.Skipped
		if n.Gap != nil {
			stands += n.Gap.Total
		}
		a.last[e] = n.Last - min(n.Last, stands)
	}
}

func (p *pair) deliver(one bool) {
	for len(p.toA)+len(p.toB) > 0 {
		if len(p.toB) > 0 {
			f := p.toB[0]
			p.toB = p.toB[1:]
			p.b.Receive(p.now, PeerReceived{Node: p.a.cfg.Node, Frame: f})
		}
		if len(p.toA) > 0 {
			f := p.toA[0]
			p.toA = p.toA[1:]
			p.a.Receive(p.now, PeerReceived{Node: p.b.cfg.Node, Frame: f})
			if _, batch := f.(PeerBatch); batch {
				p.b.Receive(p.now, PeerReady{Node: p.a.cfg.Node})
			}
		}
		p.settle()
		if one {
			return
		}
	}
}

func (p *pair) register(t *rapid.T) {
	c := ConsumerID(rapid.IntRange(1, 2).Draw(t, "consumer"))
	spec := drawRegistration(t, p.class)
	spec.Scope, spec.Nodes = belfry.ScopeCluster, []belfry.NodeID{p.b.cfg.Node}
	p.nextReg++
	a := &account{last: map[ledgerEvent]uint64{}, remote: true}
	a.judges(&spec)
	p.ledger.given[ledgerReader{c, p.nextReg}] = a
	p.reader[c].specs[p.nextReg] = spec
	for _, v := range p.a.peers {
		for id, mirror := range v.mirrors.All() {
			p.ledger.given[ledgerReader{c, p.nextReg}].last[ledgerEvent{v.node, v.incarnation, uint64(id)}] = mirror.sequence
		}
	}
	p.a.Receive(p.now, Register{Request: 1, Consumer: c, Number: p.nextReg, Registration: spec})
	p.settle()
}

func (p *pair) unregister(t *rapid.T) {
	c := ConsumerID(rapid.IntRange(1, 2).Draw(t, "consumer"))
	numbers := sortedKeys(p.reader[c].specs)
	if len(numbers) == 0 {
		return
	}
	n := rapid.SampledFrom(numbers).Draw(t, "registration")
	p.a.Receive(p.now, Unregister{Consumer: c, Number: n})
	delete(p.reader[c].specs, n)
	p.settle()
}

// local lets a consumer at b come or go (R7: the holder of the entry changes).
func (p *pair) local(t *rapid.T) {
	subject := rapid.SampledFrom([]string{"/a", "/b", "/**"}).Draw(t, "subject")
	if p.locals > 0 && rapid.Bool().Draw(t, "go") {
		p.b.Receive(p.now, Close{Consumer: ConsumerID(p.locals)})
		p.locals--
	} else {
		p.locals++
		p.b.Receive(p.now, Open{Consumer: ConsumerID(p.locals)})
		p.b.Receive(p.now, Register{Consumer: ConsumerID(p.locals), Number: 1, Registration: belfry.Registration{Class: p.class, Subject: subject, Wait: true}})
	}
	p.settle()
}

func (p *pair) post(t *rapid.T) {
	list := p.b.sortedEntries()
	if len(list) == 0 {
		return
	}
	p.postTo(list[rapid.IntRange(0, len(list)-1).Draw(t, "entry")], int32(rapid.IntRange(0, 2).Draw(t, "code")), drawData(t), rapid.SampledFrom([]int{1, 1, 3, 900}).Draw(t, "times"))
	p.settle()
}

func (p *pair) postTo(e *entry, code int32, data string, times int) {
	p.ledger.post(ledgerEvent{p.b.cfg.Node, 1, uint64(e.entry)}, posting{time: p.now, code: code, instance: e.instance, data: data}, times)
	o := belfry.Occurrence{Time: p.now, Code: code, Data: []byte(data)}
	o.Event.Instance = e.instance
	p.b.Receive(p.now, Post{Entry: e.entry, Occurrence: o, Repeat: uint64(times)})
}

func (p *pair) read(t *rapid.T) {
	c := ConsumerID(rapid.IntRange(1, 2).Draw(t, "consumer"))
	p.a.Receive(p.now, Ready{Consumer: c})
	p.a.Receive(p.now, Ack{Consumer: c, Batch: p.reader[c].had})
	p.settle()
}

func (p *pair) check(t *rapid.T) {
	if len(p.ledger.errs) > 0 {
		t.Fatal(p.ledger.errs[0])
	}
	if n := p.a.counters.Unexplained; n != 0 {
		t.Fatalf("%d unexplained", n)
	}
}

// finish joins the nodes, posts once more to each entry, reads everything and
// compares.
func (p *pair) finish(t *rapid.T) {
	p.join()
	p.deliver(false)
	for _, e := range p.b.sortedEntries() {
		p.postTo(e, 7, "", 1)
	}
	p.settle()
	p.deliver(false)
	for c, r := range p.reader {
		for {
			had := r.had
			p.a.Receive(p.now, Ack{Consumer: c, Batch: r.had})
			p.a.Receive(p.now, Ready{Consumer: c})
			p.settle()
			if r.had == had {
				break
			}
		}
	}
	p.check(t)
	for c, r := range p.reader {
		for n, spec := range r.specs {
			p.complete(t, ledgerReader{c, n}, spec)
		}
	}
}

// complete checks that a registration has been told of everything up to the
// last post of each entry that there is: given, refused or lost with a number.
func (p *pair) complete(t *rapid.T, at ledgerReader, spec belfry.Registration) {
	a, r := p.ledger.given[at], p.a.consumers[at.consumer].registration(at.registration)
	skipped := map[ledgerEvent]uint64{}
	seen := map[string]bool{}
	for _, x := range r.attachments {
		e := ledgerEvent{x.feed.node, x.feed.incarnation, uint64(x.feed.entry)}
		skipped[e] = x.skipped + x.gate.kept()
		seen[x.feed.subject] = true
	}
	missing := uint64(0)
	for _, e := range p.b.sortedEntries() {
		if !matchGlob(spec.Subject, e.subject) {
			continue
		}
		if !seen[e.subject] {
			t.Fatalf("registration %v of %s is not on %s", at, spec.Subject, e.subject)
		}
		id := ledgerEvent{p.b.cfg.Node, 1, uint64(e.entry)}
		last, known := a.last[id]
		if !known { // everything of it was refused by the rules so far, or is in a gap
			continue
		}
		missing += e.sequence - min(e.sequence, last+skipped[id])
	}
	if missing > a.budget {
		t.Fatalf("Q5, R7: registration %v of %s: %d occurrences are missing, gaps stand for %d", at, spec.Subject, missing, a.budget)
	}
}

// TestEachNumberOnceAtAnotherNode is I3 and R7 over reconnects: whatever the
// stream and the consumers at the origin do, each number arrives once, or is
// accounted for.
func TestEachNumberOnceAtAnotherNode(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := newPair()
		p.class = rapid.SampledFrom([]string{"file.modify", "node.state"}).Draw(t, "class")
		t.Repeat(map[string]func(*rapid.T){
			"register":   p.register,
			"unregister": p.unregister,
			"local":      p.local,
			"post":       p.post,
			"post more":  p.post,
			"read":       p.read,
			"deliver":    func(*rapid.T) { p.deliver(true) },
			"deliver all": func(*rapid.T) {
				p.deliver(false)
			},
			"cut": func(t *rapid.T) {
				p.cut(rapid.Bool().Draw(t, "a gives up"), rapid.IntRange(0, 3).Draw(t, "b gives up") == 0)
			},
			"join": func(*rapid.T) { p.join() },
			"time": func(*rapid.T) { p.now = p.now.Add(time.Second) },
			"":     p.check,
		})
		p.finish(t)
	})
}

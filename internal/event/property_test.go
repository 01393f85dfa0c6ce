package event

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/belfry-ha/belfry"
)

// A bench is one machine with a producer that plays by the rules, or tries
// not to, and consumers that read as they like.
type bench struct {
	m        *Machine
	now      time.Time
	ledger   *ledger
	known    map[string]EntryID // subject -> entry, as Watch said
	ids      map[EntryID]string // identifier in force; absent: blocked
	old      map[EntryID]string // dissociated last
	next     int                // number of the next identifier
	patterns map[WatchID]string
	watches  map[WatchID]bool
	readers  map[ConsumerID]*reader
	nextReg  uint32
	base     map[ledgerReader]map[EntryID]uint64 // numbers at the registration
	held     map[EntryID][]heldModel
	class    string
}

type heldModel struct {
	instance string
	p        posting
	n        int
}

// A reader is what a client library is: it drops batches that it had.
type reader struct {
	had   uint64
	lost  bool
	open  []Batch // of one that works on them one by one
	one   bool
	specs map[uint32]belfry.Registration
}

var benchSubjects = []string{"/a", "/b", "/c", "/d/e"}

func newBench() *bench {
	return &bench{
		m: scriptMachine("a", 1, scriptStart), now: scriptStart, ledger: newLedger(),
		known: map[string]EntryID{}, ids: map[EntryID]string{}, old: map[EntryID]string{},
		patterns: map[WatchID]string{}, watches: map[WatchID]bool{}, readers: map[ConsumerID]*reader{},
		base: map[ledgerReader]map[EntryID]uint64{}, held: map[EntryID][]heldModel{}, class: "file.modify",
	}
}

func (b *bench) event(e EntryID) ledgerEvent { return ledgerEvent{scriptNode("a"), 1, uint64(e)} }

// settle carries the output until nothing more comes.
func (b *bench) settle() {
	for {
		b.m.Advance(b.now)
		o := b.m.Take()
		for _, w := range o.Watch {
			b.watch(w)
		}
		for _, u := range o.Unwatch {
			b.unwatch(u.ID)
		}
		for _, batch := range o.Batches {
			r := b.readers[batch.Consumer]
			if batch.Number <= r.had {
				continue
			}
			if batch.Number != r.had+1 {
				b.ledger.fail("batch %d after %d", batch.Number, r.had)
			}
			r.had = batch.Number
			b.worksOn(r, batch)
			for i := range batch.Notifications {
				b.ledger.take(batch.Consumer, &batch.Notifications[i])
			}
		}
		if len(o.Watch) == 0 {
			return
		}
	}
}

func (b *bench) watch(w Watch) {
	if w.Entry == 0 {
		b.watches[w.ID] = true
		b.patterns[w.ID] = w.Subject
		for _, s := range benchSubjects {
			b.m.Receive(b.now, Found{Watch: w.ID, Subject: s})
		}
		return
	}
	if b.watches[w.ID] {
		return // a change
	}
	b.watches[w.ID] = true
	b.known[w.Subject] = w.Entry
	b.associate(w.Entry)
}

func (b *bench) unwatch(id WatchID) {
	if !b.watches[id] {
		b.ledger.fail("I8: unwatch of %d, which is not watched", id)
	}
	delete(b.watches, id)
	delete(b.patterns, id)
}

func (b *bench) associate(e EntryID) {
	b.next++
	id := fmt.Sprintf("i%d", b.next)
	if h := b.held[e]; len(h) > 0 { // the identifier that was seen before it was announced
		id = h[len(h)-1].instance
	}
	b.ids[e] = id
	for _, h := range b.held[e] {
		if h.instance == id {
			b.ledger.post(b.event(e), h.p, h.n)
		}
	}
	delete(b.held, e)
	b.m.Receive(b.now, Associate{Entry: e, Instance: id})
}

// alive lists the entries that there are, sorted.
func (b *bench) alive() (list []EntryID) {
	for _, e := range b.m.sortedEntries() {
		list = append(list, e.entry)
	}
	return list
}

func (b *bench) post(t *rapid.T) {
	list := b.alive()
	if len(list) == 0 {
		return
	}
	e := rapid.SampledFrom(list).Draw(t, "entry")
	p := posting{time: b.now, code: int32(rapid.IntRange(0, 2).Draw(t, "code")), edge: belfry.Edge(rapid.IntRange(0, 2).Draw(t, "edge"))}
	n := rapid.SampledFrom([]int{1, 1, 1, 2, 7, 500}).Draw(t, "times")
	p.data = drawData(t)
	o := belfry.Occurrence{Time: b.now, Code: p.code, Edge: p.edge, Data: []byte(p.data)}
	id, active := b.ids[e]
	switch {
	case active:
		p.instance = id
		b.ledger.post(b.event(e), p, n)
	case rapid.Bool().Draw(t, "stale"):
		p.instance = b.old[e]
	default: // seen before it is announced
		p.instance = fmt.Sprintf("i%d", b.next+1)
		if h := b.held[e]; len(h) > 0 {
			p.instance = h[0].instance
		}
		b.held[e] = append(b.held[e], heldModel{p.instance, p, n})
	}
	o.Event.Instance = p.instance
	b.m.Receive(b.now, Post{Entry: e, Occurrence: o, Repeat: uint64(n)})
}

// drawData is what the filter of drawRegistration looks for, or something else.
func drawData(t *rapid.T) string {
	if rapid.IntRange(0, 2).Draw(t, "wanted") == 0 {
		return "x"
	}
	return strings.Repeat("y", rapid.IntRange(0, 40).Draw(t, "data"))
}

func (b *bench) swap(t *rapid.T) {
	list := b.alive()
	if len(list) == 0 {
		return
	}
	e := rapid.SampledFrom(list).Draw(t, "entry")
	if id, active := b.ids[e]; active {
		b.m.Receive(b.now, Invalidate{Entry: e, Instance: "nobody"}) // late, of another
		b.m.Receive(b.now, Invalidate{Entry: e, Instance: id})
		b.old[e] = id
		delete(b.ids, e)
		return
	}
	b.associate(e)
}

func (b *bench) register(t *rapid.T) {
	if len(b.readers) == 0 {
		return
	}
	c := b.anyReader(t)
	spec := drawRegistration(t, b.class)
	b.nextReg++
	at := ledgerReader{c, b.nextReg}
	a := &account{last: map[ledgerEvent]uint64{}}
	a.judges(&spec)
	b.ledger.given[at] = a
	b.readers[c].specs[b.nextReg] = spec
	base := map[EntryID]uint64{}
	b.base[at] = base
	b.m.Receive(b.now, Register{Request: 1, Consumer: c, Number: b.nextReg, Registration: spec})
	r := b.m.consumers[c].registration(b.nextReg)
	a.plain = r != nil && r.queue == nil
	for _, e := range b.m.sortedEntries() {
		base[e.entry] = e.sequence
	}
	b.settle()
	b.beginnings()
}

// beginnings notes for each registration where the events begin that it has
// not seen: at their number when it came, else at 0.
func (b *bench) beginnings() {
	for at, a := range b.ledger.given {
		for number := range b.m.entries.All() {
			id := EntryID(number)
			if _, known := a.last[b.event(id)]; !known {
				a.last[b.event(id)] = b.base[at][id]
			}
		}
	}
}

func drawRegistration(t *rapid.T, class string) belfry.Registration {
	r := belfry.Registration{Class: class, Wait: true}
	r.Subject = rapid.SampledFrom([]string{"/a", "/b", "/a", "/*", "/**"}).Draw(t, "subject")
	r.Limit = rapid.SampledFrom([]int{0, 1, 2, 3, 40}).Draw(t, "limit")
	r.Edge = belfry.EdgeFilter(rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "edge"))
	r.Filter = rapid.SampledFrom([]string{"", "", "", "code==1", "data==x"}).Draw(t, "filter")
	if rapid.IntRange(0, 4).Draw(t, "never") == 0 {
		r.Coalesce = belfry.CoalesceNever
	}
	r.Snapshot = rapid.IntRange(0, 3).Draw(t, "snapshot") == 0
	drawTimed(t, &r)
	return r
}

// drawTimed lets half of the registrations have rules about time.
func drawTimed(t *rapid.T, r *belfry.Registration) {
	rule := rapid.IntRange(0, 15).Draw(t, "timed")
	if rule&1 != 0 && r.Class == "node.state" {
		r.Hold = 2 * time.Second
	}
	if rule&2 != 0 && r.Coalesce != belfry.CoalesceNever {
		r.MinInterval = 3 * time.Second
	}
	if rule > 11 {
		r.Flap = belfry.Flap{Window: 4 * time.Second, High: 3, Low: 1 + rule&1}
	}
}

func (b *bench) unregister(t *rapid.T) {
	if len(b.readers) == 0 {
		return
	}
	c := b.anyReader(t)
	numbers := sortedKeys(b.readers[c].specs)
	if len(numbers) == 0 {
		return
	}
	n := rapid.SampledFrom(numbers).Draw(t, "registration")
	b.m.Receive(b.now, Unregister{Consumer: c, Number: n})
	delete(b.readers[c].specs, n)
	// Batches made before may still be sent again; nothing new may come.
}

func (b *bench) anyReader(t *rapid.T) ConsumerID {
	return rapid.SampledFrom(sortedKeys(b.readers)).Draw(t, "consumer")
}

func (b *bench) open(t *rapid.T) {
	if len(b.readers) == 3 {
		return
	}
	id := ConsumerID(len(b.readers) + 1)
	single := rapid.IntRange(0, 2).Draw(t, "single") == 0
	b.readers[id] = &reader{specs: map[uint32]belfry.Registration{}, one: single}
	b.m.Receive(b.now, Open{Consumer: id, Limits: Limits{
		BatchNotifications: rapid.SampledFrom([]int{1, 2, 5, 1000}).Draw(t, "batch"),
		Window:             rapid.IntRange(1, 4).Draw(t, "window"),
		Payload:            rapid.SampledFrom([]int{100, 0}).Draw(t, "payload"),
		OnePerEvent:        single, Reuse: id%2 == 0,
	}})
}

func (b *bench) read(t *rapid.T) {
	if len(b.readers) == 0 {
		return
	}
	id := b.anyReader(t)
	r := b.readers[id]
	switch rapid.SampledFrom([]string{"ready", "ready", "ack", "lost", "resume"}).Draw(t, "read") {
	case "ready":
		b.m.Receive(b.now, Ready{Consumer: id})
	case "ack":
		if !r.one {
			b.m.Receive(b.now, Ack{Consumer: id, Batch: r.had})
		} else if len(r.open) > 0 {
			b.done(id, rapid.IntRange(0, len(r.open)-1).Draw(t, "done"))
		}
	case "lost":
		if r.one {
			return // it is no stream
		}
		r.lost = true
		b.m.Receive(b.now, Lost{Consumer: id})
	case "resume":
		if r.lost {
			r.lost = false
			// What was on its way when the stream broke comes again.
			b.m.Receive(b.now, Resume{Consumer: id, Batch: r.had - uint64(rapid.IntRange(0, int(min(r.had, 2))).Draw(t, "unheard"))})
		}
	}
}

// drain reads everything that is left.
func (b *bench) drain() {
	for _, id := range sortedKeys(b.readers) {
		r := b.readers[id]
		if !r.one {
			b.m.Receive(b.now, Resume{Consumer: id, Batch: r.had})
		}
		for {
			for len(r.open) > 0 {
				b.done(id, 0)
			}
			had := r.had
			b.m.Receive(b.now, Ready{Consumer: id})
			b.settle()
			if r.had == had {
				break
			}
			if !r.one {
				b.m.Receive(b.now, Ack{Consumer: id, Batch: r.had})
			}
		}
	}
}

// worksOn holds that a consumer with OnePerEvent has one notification of an
// event at a time.
func (b *bench) worksOn(r *reader, batch Batch) {
	if !r.one {
		return
	}
	if len(batch.Notifications) != 1 {
		b.ledger.fail("batch %d has %d notifications, not one", batch.Number, len(batch.Notifications))
	}
	for _, open := range r.open {
		if e := eventOfNotification(&batch.Notifications[0]); e == eventOfNotification(&open.Notifications[0]) {
			b.ledger.fail("batch %d is of the same event as batch %d, which is worked on", batch.Number, open.Number)
		}
	}
	r.open = append(r.open, batch)
}

func (b *bench) done(id ConsumerID, i int) {
	r := b.readers[id]
	b.m.Receive(b.now, Ack{Consumer: id, Batch: r.open[i].Number})
	r.open = slices.Delete(r.open, i, i+1)
}

// check holds I5, I6 and I8 in the machine as it is.
func (b *bench) check(t *rapid.T) {
	b.settle()
	b.beginnings()
	for _, e := range b.m.entries.All() {
		if e.holds <= 0 {
			t.Fatalf("I8: %s is kept by nobody", e.subject)
		}
		if !b.watches[e.watch] {
			t.Fatalf("I8: %s is not watched", e.subject)
		}
		if len(e.ring.runs) > b.m.cfg.Runs || len(e.held.posts) > maxHeld {
			t.Fatalf("I6: ring %d, held %d", len(e.ring.runs), len(e.held.posts))
		}
	}
	if !reflect.ValueOf(b.m.never).IsZero() || !reflect.ValueOf(b.m.nothing).IsZero() {
		t.Fatalf("a part that all share was written: %v, %v", b.m.never, b.m.nothing)
	}
	if len(b.watches) != b.m.entries.Len()+len(b.m.patterns) {
		t.Fatalf("I8: %d watches for %d entries and %d patterns", len(b.watches), b.m.entries.Len(), len(b.m.patterns))
	}
	for _, c := range b.m.consumers {
		if len(c.sent) > c.limits.Window {
			t.Fatalf("I6: %d batches unacknowledged", len(c.sent))
		}
		weight := 0
		for _, r := range c.regs.All() {
			if q := r.queue; q != nil {
				checkQueue(t, q)
				weight += q.weight
			}
		}
		if weight != c.payload {
			t.Fatalf("I6: %d bytes counted, %d queued", c.payload, weight)
		}
	}
	if len(b.ledger.errs) > 0 {
		t.Fatal(b.ledger.errs[0])
	}
}

// checkQueue holds the queue's bounds and I5.
func checkQueue(t *rapid.T, q *queue) {
	if q.len() > q.limit {
		t.Fatalf("I6: %d queued, limit %d", q.len(), q.limit)
	}
	last, weight := map[*feed]*item{}, 0
	for p := q.head; p < q.tail; p++ {
		it := q.at(p)
		weight += len(it.data)
		if l := last[it.on.feed]; l != nil && !q.never && l.merges(it) {
			t.Fatalf("I5: equal neighbours of %s", it.on.feed.subject)
		}
		last[it.on.feed] = it
	}
	if weight != q.weight {
		t.Fatalf("I6: weight %d, is %d", q.weight, weight)
	}
}

// totals holds I3: what a registration was given adds up to what was posted
// to its events while it was there.
func (b *bench) totals(t *rapid.T) {
	for _, id := range sortedKeys(b.readers) {
		for n, spec := range b.readers[id].specs {
			r := b.m.consumers[id].registration(n)
			at := ledgerReader{id, n}
			a, want := b.ledger.given[at], uint64(0)
			for _, e := range b.m.sortedEntries() {
				if !matchGlob(spec.Subject, e.subject) {
					continue
				}
				want += uint64(len(b.ledger.posted[b.event(e.entry)])) - b.base[at][e.entry]
			}
			got := a.total
			for _, at := range r.attachments {
				got += at.skipped + at.gate.kept() // comes with the next notification
			}
			if got != want || a.unknown {
				t.Fatalf("I3: registration %d of %q: %d accounted for, %d posted", n, spec.Subject, got, want)
			}
		}
	}
}

// kept is how many occurrences a gate holds back.
func (g *gate) kept() (n uint64) {
	if g == nil {
		return 0
	}
	for _, it := range []*item{g.holding, g.waiting} {
		if it != nil {
			n += it.count + it.skipped
		}
	}
	return n
}

func sortedKeys[K interface{ ~uint32 | ~uint64 }, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestI1ToI8HoldOverAnyInterleaving is the rapid property of events.md 4 for
// one node. Each invariant is named in the message of its check.
func TestI1ToI8HoldOverAnyInterleaving(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := newBench()
		b.class = rapid.SampledFrom([]string{"file.modify", "node.state"}).Draw(t, "class")
		b.open(t)
		t.Repeat(map[string]func(*rapid.T){
			"open":       b.open,
			"register":   b.register,
			"unregister": b.unregister,
			"post":       b.post,
			"post more":  b.post,
			"post most":  b.post,
			"swap":       b.swap,
			"read":       b.read,
			"read more":  b.read,
			"time":       func(*rapid.T) { b.now = b.now.Add(time.Second) },
			"":           b.check,
		})
		b.drain()
		b.check(t)
		b.totals(t)
	})
}

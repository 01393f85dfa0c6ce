package event

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

var (
	townSeed  = flag.Uint64("town.seed", 0, "play this schedule only")
	townSeeds = flag.Int("town.seeds", townSchedules, "schedules of three nodes")
)

// A town is three nodes with streams that break, processes that crash,
// producers whose identifiers change, and consumers that register for each
// other's events, read, stall, and go. The ledger is the model: what was
// posted to each entry, and what each registration was given.
type town struct {
	rng    *rand.Rand
	now    time.Time
	nodes  []*resident
	up     map[[2]int]bool // streams, by the lower number first
	ledger *ledger
	reg    uint32
	ids    int
	trace  []string
}

// A resident is one node in its present incarnation.
type resident struct {
	number      int
	incarnation int
	m           *Machine
	inbox       []letter
	watches     map[WatchID]bool
	ids         map[EntryID]string
	readers     map[ConsumerID]*reader
}

// A letter is a frame on its way.
type letter struct {
	from  int
	frame Frame
}

var townSubjects = []string{"/a", "/b", "/c/d"}

func townName(number int) string { return string(rune('a' + number)) }

func newTown(seed uint64) *town {
	w := &town{rng: rand.New(rand.NewPCG(seed, 7)), now: scriptStart, up: map[[2]int]bool{}, ledger: newLedger()}
	for i := range 3 {
		w.nodes = append(w.nodes, &resident{number: i})
		w.start(i)
	}
	for i := range 3 {
		for j := range i {
			w.join(j, i)
		}
	}
	return w
}

func (w *town) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// start gives a node a new incarnation, with two consumers that nobody reads yet.
func (w *town) start(i int) {
	n := w.nodes[i]
	n.incarnation++
	n.m = scriptMachine(townName(i), n.incarnation, w.now)
	n.inbox, n.watches, n.ids, n.readers = nil, map[WatchID]bool{}, map[EntryID]string{}, map[ConsumerID]*reader{}
	for k := range 2 {
		// Numbers of consumers are unique in the town, so that the ledger knows them.
		id := ConsumerID(100*(10*n.incarnation+i) + k + 1)
		n.readers[id] = &reader{specs: map[uint32]belfry.Registration{}}
		n.m.Receive(w.now, Open{Consumer: id, Limits: Limits{BatchNotifications: 1 + w.rng.IntN(4), Window: 1 + w.rng.IntN(4), Reuse: true}})
	}
}

func pairOf(i, j int) [2]int { return [2]int{min(i, j), max(i, j)} }

func (w *town) join(i, j int) {
	if i == j || w.up[pairOf(i, j)] {
		return
	}
	w.up[pairOf(i, j)] = true
	for _, way := range [][2]int{{i, j}, {j, i}} {
		at, other := w.nodes[way[0]], w.nodes[way[1]]
		at.m.Receive(w.now, PeerUp{Node: other.m.cfg.Node, Name: other.m.cfg.Name, Incarnation: other.m.cfg.Incarnation})
		at.m.Receive(w.now, PeerReady{Node: other.m.cfg.Node})
	}
	w.settle()
}

// cut breaks a stream with all that is on its way; a side may give the other
// up for down.
func (w *town) cut(i, j int, downAtI, downAtJ bool) {
	if i == j || !w.up[pairOf(i, j)] {
		return
	}
	w.up[pairOf(i, j)] = false
	for _, side := range []struct {
		at, other int
		down      bool
	}{{i, j, downAtI}, {j, i, downAtJ}} {
		at, peer := w.nodes[side.at], w.nodes[side.other].m.cfg.Node
		at.inbox = slices.DeleteFunc(at.inbox, func(l letter) bool { return l.from == side.other })
		at.m.Receive(w.now, PeerLost{Node: peer})
		if side.down {
			at.m.Receive(w.now, PeerGone{Node: peer})
		}
	}
	w.settle()
}

// crash ends a node's process and starts the next one.
func (w *town) crash(i int) {
	for j := range w.nodes {
		w.cut(i, j, false, w.rng.IntN(2) == 0)
	}
	w.start(i)
	w.settle()
}

// settle takes what the machines put out; frames stay on their way.
func (w *town) settle() {
	for again := true; again; {
		again = false
		for _, n := range w.nodes {
			n.m.Advance(w.now)
			o := n.m.Take()
			for _, f := range o.Peers {
				to := int(f.Node[15] - 'a')
				if w.up[pairOf(n.number, to)] {
					w.nodes[to].inbox = append(w.nodes[to].inbox, letter{n.number, f.Frame})
				}
			}
			for _, b := range o.Batches {
				w.read(n, b)
			}
			for _, watch := range o.Watch {
				again = w.watch(n, watch) || again
			}
		}
	}
}

// watch is the producer of all nodes: everything that is named is there.
func (w *town) watch(n *resident, watch Watch) bool {
	if n.watches[watch.ID] {
		return false
	}
	n.watches[watch.ID] = true
	if watch.Entry == 0 {
		for _, s := range townSubjects {
			n.m.Receive(w.now, Found{Watch: watch.ID, Subject: s})
		}
		return true
	}
	w.associate(n, watch.Entry)
	return true
}

func (w *town) associate(n *resident, e EntryID) {
	w.ids++
	n.ids[e] = fmt.Sprint("i", w.ids)
	n.m.Receive(w.now, Associate{Entry: e, Instance: n.ids[e]})
}

// read puts a batch into the ledger, as a client library would take it.
func (w *town) read(n *resident, b Batch) {
	r := n.readers[b.Consumer]
	if b.Number <= r.had {
		return
	}
	if b.Number != r.had+1 {
		w.ledger.fail("consumer %d: batch %d after %d", b.Consumer, b.Number, r.had)
	}
	r.had = b.Number
	for i := range b.Notifications {
		note := &b.Notifications[i]
		if note.Kind == belfry.KindCoverage {
			continue
		}
		if spec, ok := r.specs[note.Registration]; ok && !isFor(spec, note) {
			w.ledger.fail("consumer %d wanted %s of %v, was given %s", b.Consumer, spec.Subject, spec.Nodes, noteText(note))
		}
		w.begin(b.Consumer, note)
		w.ledger.take(b.Consumer, note)
	}
}

// isFor tells whether a notification is for a registration at all.
func isFor(spec belfry.Registration, n *belfry.Notification) bool {
	return n.Event.Class == "" ||
		matchGlob(spec.Subject, n.Event.Subject) && (len(spec.Nodes) == 0 || slices.Contains(spec.Nodes, n.Node))
}

// begin lets a registration begin with the first that it is told of an entry.
func (w *town) begin(c ConsumerID, n *belfry.Notification) {
	a := w.ledger.given[ledgerReader{c, n.Registration}]
	if a == nil || n.Event.Class == "" || n.Gap != nil && !n.Gap.Known {
		return
	}
	e := ledgerEvent{n.Node, n.Incarnation, n.Entry}
	if _, known := a.last[e]; !known {
		stands := n.Count + n.Skipped
		if n.Gap != nil {
			stands += n.Gap.Total
		}
		a.last[e] = n.Last - min(n.Last, stands)
	}
}

// step does one thing at random.
func (w *town) step() {
	n := w.nodes[w.rng.IntN(3)]
	switch k := w.rng.IntN(40); {
	case k < 4:
		w.register(n)
	case k < 5:
		w.unregister(n)
	case k < 15:
		w.post(n)
	case k < 18:
		w.swap(n)
	case k < 24:
		w.readSome(n)
	case k < 34:
		w.deliver(w.rng.IntN(4) + 1)
	case k < 36:
		i, j := w.rng.IntN(3), w.rng.IntN(3)
		w.note("cut %d %d", i, j)
		w.cut(i, j, w.rng.IntN(3) == 0, w.rng.IntN(3) == 0)
	case k < 38:
		i, j := w.rng.IntN(3), w.rng.IntN(3)
		w.note("join %d %d", i, j)
		w.join(i, j)
	case k < 39 && w.rng.IntN(3) == 0:
		w.note("crash %d", n.number)
		w.crash(n.number)
	default:
		w.now = w.now.Add(time.Second)
		w.settle()
	}
}

func (w *town) register(n *resident) {
	id := pickKey(w.rng, n.readers)
	spec := belfry.Registration{
		Class: "file.modify", Subject: []string{"/a", "/b", "/*", "/**"}[w.rng.IntN(4)], Scope: belfry.ScopeCluster,
		Limit: []int{0, 0, 1, 3}[w.rng.IntN(4)], Wait: true,
	}
	switch w.rng.IntN(9) {
	case 5:
		spec.Filter = "data==x"
	case 0:
		spec.Filter = "code==1"
	case 1:
		spec.Nodes = []belfry.NodeID{w.nodes[w.rng.IntN(3)].m.cfg.Node}
	case 2:
		spec.MinInterval = 2 * time.Second
	case 3:
		spec.Scope = belfry.ScopeLocal
	case 4:
		spec.Flap = belfry.Flap{Window: 4 * time.Second, High: 3, Low: 1}
	}
	spec.OnlyWhereMonitored = spec.Scope == belfry.ScopeCluster && w.rng.IntN(3) == 0
	w.reg++
	w.note("%s: consumer %d registers %d for %s %s where %q, only where monitored %t", townName(n.number), id, w.reg, spec.Scope, spec.Subject, spec.Filter, spec.OnlyWhereMonitored)
	a := &account{last: map[ledgerEvent]uint64{}, remote: true}
	a.judges(&spec)
	w.ledger.given[ledgerReader{id, w.reg}] = a
	n.readers[id].specs[w.reg] = spec
	n.m.Receive(w.now, Register{Request: 1, Consumer: id, Number: w.reg, Registration: spec})
	w.settle()
}

func (w *town) unregister(n *resident) {
	id := pickKey(w.rng, n.readers)
	if len(n.readers[id].specs) == 0 {
		return
	}
	number := pickKey(w.rng, n.readers[id].specs)
	delete(n.readers[id].specs, number)
	w.note("%s: consumer %d ends %d", townName(n.number), id, number)
	n.m.Receive(w.now, Unregister{Consumer: id, Number: number})
	w.settle()
}

func (w *town) post(n *resident) {
	list := n.m.sortedEntries()
	if len(list) == 0 {
		return
	}
	e := list[w.rng.IntN(len(list))]
	w.postTo(n, e, int32(w.rng.IntN(3)), []int{1, 1, 1, 2, 40, 300}[w.rng.IntN(6)])
}

func (w *town) postTo(n *resident, e *entry, code int32, times int) {
	id, active := n.ids[e.entry]
	if !active {
		return
	}
	merged, data := w.rng.IntN(10) == 0, []string{"", "x", "y"}[w.rng.IntN(3)]
	w.note("%s: %d × code %d %s to %s (%d), merged %t", townName(n.number), times, code, data, e.subject, e.entry, merged)
	w.ledger.post(ledgerEvent{n.m.cfg.Node, n.m.cfg.Incarnation, uint64(e.entry)}, posting{time: w.now, code: code, instance: id, merged: merged, alone: e.locals == 0, data: data}, times)
	o := belfry.Occurrence{Time: w.now, Code: code, LowerBound: merged, Data: []byte(data)}
	o.Event.Instance = id
	n.m.Receive(w.now, Post{Entry: e.entry, Occurrence: o, Repeat: uint64(times)})
	w.settle()
}

// swap dissociates an identifier, or associates the next one.
func (w *town) swap(n *resident) {
	list := n.m.sortedEntries()
	if len(list) == 0 {
		return
	}
	e := list[w.rng.IntN(len(list))].entry
	if id, active := n.ids[e]; active {
		n.m.Receive(w.now, Invalidate{Entry: e, Instance: id})
		delete(n.ids, e)
	} else {
		w.associate(n, e)
	}
	w.settle()
}

func (w *town) readSome(n *resident) {
	id := pickKey(w.rng, n.readers)
	r := n.readers[id]
	switch w.rng.IntN(8) {
	case 0:
		r.lost = true
		n.m.Receive(w.now, Lost{Consumer: id})
	case 1:
		if r.lost {
			r.lost = false
			n.m.Receive(w.now, Resume{Consumer: id, Batch: r.had - min(r.had, uint64(w.rng.IntN(3)))})
		}
	case 2, 3, 4:
		n.m.Receive(w.now, Ack{Consumer: id, Batch: r.had})
	default:
		n.m.Receive(w.now, Ready{Consumer: id})
	}
	w.settle()
}

// deliver lets some frames arrive, those between two nodes in their order.
func (w *town) deliver(most int) {
	for range most {
		var waiting []*resident
		for _, n := range w.nodes {
			if len(n.inbox) > 0 {
				waiting = append(waiting, n)
			}
		}
		if len(waiting) == 0 {
			return
		}
		n := waiting[w.rng.IntN(len(waiting))]
		l := n.inbox[0]
		n.inbox = n.inbox[1:]
		from := w.nodes[l.from]
		n.m.Receive(w.now, PeerReceived{Node: from.m.cfg.Node, Frame: l.frame})
		if _, batch := l.frame.(PeerBatch); batch {
			from.m.Receive(w.now, PeerReady{Node: n.m.cfg.Node})
		}
		w.settle()
	}
}

// finish joins all, lets every event happen once more, reads everything, and
// compares.
func (w *town) finish() error {
	for i := range w.nodes {
		for j := range i {
			w.join(i, j)
		}
	}
	w.drain()
	w.now = w.now.Add(time.Minute) // what rules about time hold back is out
	w.settle()
	w.drain()
	for _, n := range w.nodes {
		for _, e := range n.m.sortedEntries() {
			if _, active := n.ids[e.entry]; !active {
				w.associate(n, e.entry)
				w.settle()
			}
			w.postTo(n, e, 1, 1)
		}
	}
	w.drain()
	w.now = w.now.Add(time.Minute)
	w.settle()
	w.drain()
	if len(w.ledger.errs) > 0 {
		return fmt.Errorf("%s", w.ledger.errs[0])
	}
	for _, n := range w.nodes {
		if c := n.m.counters.Unexplained; c != 0 {
			return fmt.Errorf("%s: %d occurrences unexplained", townName(n.number), c)
		}
		for id, r := range n.readers {
			for number, spec := range r.specs {
				if err := w.complete(n, ledgerReader{id, number}, spec); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *town) drain() {
	for range 10_000 {
		w.deliver(1000)
		moved := false
		for _, n := range w.nodes {
			for _, id := range sortedKeys(n.readers) {
				r := n.readers[id]
				had := r.had
				if r.lost {
					r.lost = false
					n.m.Receive(w.now, Resume{Consumer: id, Batch: r.had})
				}
				n.m.Receive(w.now, Ack{Consumer: id, Batch: r.had})
				n.m.Receive(w.now, Ready{Consumer: id})
				w.settle()
				moved = moved || r.had != had
			}
		}
		quiet := !moved
		for _, n := range w.nodes {
			quiet = quiet && len(n.inbox) == 0
		}
		if quiet {
			return
		}
	}
	w.ledger.fail("never quiet")
}

// complete checks that a registration was told of all that there is, up to the
// last post: given, refused by its own rules, or lost with a number.
func (w *town) complete(at *resident, reader ledgerReader, spec belfry.Registration) error {
	a := w.ledger.given[reader]
	r := at.m.consumers[reader.consumer].registration(reader.registration)
	if r == nil {
		return fmt.Errorf("registration %v is gone", reader)
	}
	skipped := map[ledgerEvent]uint64{}
	for _, x := range r.attachments {
		skipped[ledgerEvent{x.feed.node, x.feed.incarnation, uint64(x.feed.entry)}] = x.skipped + x.gate.kept()
	}
	for _, n := range w.nodes {
		if spec.Scope == belfry.ScopeLocal && n != at || len(spec.Nodes) > 0 && !slices.Contains(spec.Nodes, n.m.cfg.Node) {
			continue
		}
		for _, e := range n.m.sortedEntries() {
			if !matchGlob(spec.Subject, e.subject) || spec.OnlyWhereMonitored && e.locals == 0 {
				continue
			}
			id := ledgerEvent{n.m.cfg.Node, n.m.cfg.Incarnation, uint64(e.entry)}
			last, known := a.last[id]
			if !known && spec.Filter == "" && spec.MinInterval == 0 && spec.Flap.IsZero() && a.budget == 0 {
				return fmt.Errorf("registration %v of %s was told nothing of %s at %s", reader, spec.Subject, e.subject, townName(n.number))
			}
			if known && last+skipped[id]+a.budget < e.sequence {
				return fmt.Errorf("registration %v of %s: %s at %s is at %d, it was told up to %d and %d were refused, gaps stand for %d",
					reader, spec.Subject, e.subject, townName(n.number), e.sequence, last, skipped[id], a.budget)
			}
		}
	}
	return nil
}

// pickKey draws a key, the same for the same random numbers.
func pickKey[K interface{ ~uint32 | ~uint64 }, V any](rng *rand.Rand, m map[K]V) K {
	keys := sortedKeys(m)
	return keys[rng.IntN(len(keys))]
}

// TestThreeNodesAddUp plays random schedules of three nodes: for every consumer
// and event what it was given, what its own rules refused and what gaps stand
// for add up to what was posted, in order, and nothing is another's (I1 to I4,
// N5, Q5, R2 to R8). A seed that fails is printed; add it to townCases.
func TestThreeNodesAddUp(t *testing.T) {
	t.Parallel()
	seeds := *townSeeds
	if testing.Short() {
		seeds = min(seeds, 500)
	}
	cases := slices.Clone(townCases)
	for i := range seeds {
		cases = append(cases, uint64(i)+1)
	}
	if *townSeed != 0 {
		cases = []uint64{*townSeed}
	}
	for _, seed := range cases {
		w := newTown(seed)
		for range 40 + w.rng.IntN(120) {
			w.step()
			if len(w.ledger.errs) > 0 {
				break
			}
		}
		if err := w.finish(); err != nil {
			for _, line := range w.trace {
				t.Log(line)
			}
			t.Fatalf("seed %d: %v; play it alone with -town.seed %d", seed, err, seed)
		}
	}
}

// townCases are seeds that failed once, beyond those that are always played.
var townCases = []uint64{}

package event

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// A homecoming is a node a whose process ends and is started again, while b, whose
// events a's consumers are registered for, goes on. Each reader is the client of
// one registration: it remembers the last number of each event, looks into the
// journal when it comes back, and must be told without a hole of all that
// happened, though nothing happens any more.
type homecoming struct {
	rng    *rand.Rand
	now    time.Time
	gone   bool // b takes a for down each time
	a, b   *Machine
	life   int
	joined bool

	posted   map[key]uint64
	state    int32 // of homeState
	known    map[key]EntryID
	recorded map[key]Former // durable in a's journal
	readers  []*homeReader
	made     int // readers
	err      error
}

type homeReader struct {
	id    ConsumerID
	spec  belfry.Registration
	fresh bool // made in this life
	here  bool // registered in this life
	last  map[key]uint64
	state map[key]int32 // as told, in this life
	batch uint64
}

const homeJournal ConsumerID = 9

var homeState = key{"node.state", "n"}

func homeKey(class belfry.Class, subject string) key { return key{class, subject} }

func newHomecoming(seed uint64) *homecoming {
	h := &homecoming{
		rng: rand.New(rand.NewPCG(seed, 5)), now: scriptStart, gone: seed%3 == 0, posted: map[key]uint64{},
		known: map[key]EntryID{}, recorded: map[key]Former{},
	}
	h.b = scriptMachine("b", 1, h.now)
	lookOn(h.b) // so that what is sent counts though nobody is registered
	cluster := belfry.ScopeCluster
	specs := []belfry.Registration{
		{Class: "user.t", Subject: "x", Scope: cluster, Nodes: []belfry.NodeID{scriptNode("b")}},
		{Class: "user.*", Scope: cluster},
	}
	if !h.gone { // what nobody watches while a is down, nobody can count
		specs = append(specs,
			belfry.Registration{Class: "process.exit", Subject: "exe=/p", Scope: cluster, Wait: true},
			belfry.Registration{Class: "process.exit", Subject: "exe=/p", Scope: cluster, Wait: true, Filter: "code==1"},
			belfry.Registration{Class: "file.modify", Subject: "/x", Scope: cluster, Wait: true},
			belfry.Registration{Class: "file.modify", Subject: "/x", Scope: cluster, Wait: true},
			belfry.Registration{Class: "node.state", Subject: "n", Scope: cluster, Wait: true, Snapshot: true})
	}
	for _, spec := range specs {
		h.reader(spec)
	}
	h.start()
	h.join()
	for _, r := range h.readers {
		h.register(r)
	}
	return h
}

func (h *homecoming) reader(spec belfry.Registration) *homeReader {
	h.made++
	spec.Limit = maxLimit
	r := &homeReader{id: ConsumerID(9 + h.made), spec: spec, fresh: true, last: maps.Clone(h.posted), state: map[key]int32{}}
	h.readers = append(h.readers, r)
	return r
}

// start is a new life of a, with what the former one recorded.
func (h *homecoming) start() {
	h.life++
	h.a = scriptMachine("a", h.life, h.now)
	h.a.former = formerOf(slices.Collect(maps.Values(h.recorded)))
	h.joined = false
	lookOn(h.a)
}

func lookOn(m *Machine) {
	m.Receive(scriptStart, Open{Consumer: homeJournal, Kind: ConsumerJournal, Limits: Limits{Window: 1}})
	m.Receive(scriptStart, Register{Consumer: homeJournal, Number: 1, Registration: belfry.Registration{Class: "*", Limit: maxLimit}, LookOn: true})
}

func (h *homecoming) crash() {
	h.cut()
	h.readers = slices.DeleteFunc(h.readers, func(r *homeReader) bool { return r.fresh && h.life > 1 })
	for _, r := range h.readers {
		r.here, r.fresh, r.batch, r.state = false, false, 0, map[key]int32{}
	}
	h.start()
}

func (h *homecoming) cut() {
	if !h.joined {
		return
	}
	h.joined = false
	h.a.Receive(h.now, PeerLost{Node: scriptNode("b")})
	h.b.Receive(h.now, PeerLost{Node: scriptNode("a")})
	if h.gone {
		h.b.Receive(h.now, PeerGone{Node: scriptNode("a")})
	}
	h.settle()
}

func (h *homecoming) join() {
	if h.joined {
		return
	}
	h.joined = true
	h.a.Receive(h.now, PeerUp{Node: scriptNode("b"), Name: "b", Incarnation: 1})
	h.a.Receive(h.now, PeerReady{Node: scriptNode("b")})
	h.b.Receive(h.now, PeerUp{Node: scriptNode("a"), Name: "a", Incarnation: belfry.Incarnation(h.life)})
	h.b.Receive(h.now, PeerReady{Node: scriptNode("a")})
	h.settle()
}

// register puts a reader into force, with a cursor if it was before; it has what
// the journal has by now.
func (h *homecoming) register(r *homeReader) {
	spec := r.spec
	if !r.fresh {
		spec.Since = belfry.Since{Cursor: belfry.Cursor{Incarnation: belfry.Incarnation(h.life - 1), Position: 1}}
	}
	h.a.Receive(h.now, Open{Consumer: r.id, Limits: Limits{Window: 64}})
	h.a.Receive(h.now, Register{Request: 1, Consumer: r.id, Number: 1, Registration: spec})
	h.settle()
	r.here = true
	if r.fresh {
		return
	}
	h.record()
	for k, f := range h.recorded {
		if matchClass(spec.Class, k.class) && matchGlob(spec.Subject, k.subject) || spec.Class == "user.*" && k.class == "user.t" {
			r.last[k] = max(r.last[k], f.Last)
		}
	}
}

func (h *homecoming) settle() {
	for busy := true; busy; {
		busy = false
		for _, way := range []struct{ from, to *Machine }{{h.a, h.b}, {h.b, h.a}} {
			way.from.Advance(h.now)
			o := way.from.Take()
			for _, f := range o.Peers {
				busy = true
				if !h.joined {
					continue
				}
				way.to.Receive(h.now, PeerReceived{Node: way.from.cfg.Node, Frame: f.Frame})
				if _, batch := f.Frame.(PeerBatch); batch {
					way.from.Receive(h.now, PeerReady{Node: way.to.cfg.Node})
				}
			}
			for _, w := range o.Watch {
				if way.from == h.b && w.Entry != 0 && h.known[homeKey(w.Class, w.Subject)] != w.Entry {
					busy = true
					h.watch(w)
				}
			}
			for _, b := range o.Batches {
				if way.from == h.a {
					h.take(b)
				}
			}
		}
	}
}

// watch is b's producer.
func (h *homecoming) watch(w Watch) {
	k := homeKey(w.Class, w.Subject)
	h.known[k] = w.Entry
	m := Associate{Entry: w.Entry, Instance: "1:1"}
	if w.Class == "node.state" {
		m.State = &belfry.Occurrence{}
	}
	h.b.Receive(h.now, m)
}

func (h *homecoming) post() {
	times := []int{1, 2, 40}[h.rng.IntN(3)]
	if h.rng.IntN(2) == 0 || h.gone {
		k := homeKey("user.t", []string{"x", "y", "z"}[h.rng.IntN(3)])
		for i := range times { // of other data than the one before, or they would be one
			h.b.Receive(h.now, Send{Events: []Named{{Class: k.class, Subject: k.subject, Time: h.now, Data: []byte{byte(i)}}}})
			h.posted[k]++
		}
		h.settle()
		return
	}
	k := []key{homeKey("process.exit", "exe=/p"), homeKey("file.modify", "/x"), homeState}[h.rng.IntN(3)]
	e := h.known[k]
	if e == 0 {
		return
	}
	for i := range times {
		h.b.Receive(h.now, Post{Entry: e, Occurrence: belfry.Occurrence{Event: belfry.EventID{Instance: "1:1"}, Time: h.now, Code: int32(i % 2)}})
		h.posted[k]++
		if k == homeState {
			h.state = int32(i % 2)
		}
	}
	h.settle()
}

// read lets a reader, or the journal, take all there is.
func (h *homecoming) read(id ConsumerID) {
	for h.a.QueueLength(id) > 0 {
		h.a.Receive(h.now, Ready{Consumer: id})
		h.settle()
	}
}

func (h *homecoming) record() { h.read(homeJournal) }

func (h *homecoming) take(b Batch) {
	h.a.Receive(h.now, Ack{Consumer: b.Consumer, Batch: b.Number})
	for i := range b.Notifications {
		n := &b.Notifications[i]
		k := homeKey(n.Event.Class, n.Event.Subject)
		if at := slices.IndexFunc(h.readers, func(r *homeReader) bool { return r.id == b.Consumer }); at >= 0 && n.Kind != belfry.KindGap {
			h.readers[at].state[k] = n.Code
		}
		if n.Kind != belfry.KindOccurrence && n.Kind != belfry.KindGap {
			continue
		}
		if b.Consumer == homeJournal {
			h.recorded[k] = Former{
				Node: n.Node, Incarnation: n.Incarnation, Entry: EntryID(n.Entry), Class: k.class, Subject: k.subject, Last: n.Last, Time: h.now,
			}
			continue
		}
		i := slices.IndexFunc(h.readers, func(r *homeReader) bool { return r.id == b.Consumer })
		h.readers[i].told(h, k, n)
	}
}

// told takes a notification as a client does.
func (r *homeReader) told(h *homecoming, k key, n *belfry.Notification) {
	stands := n.Count + n.Skipped
	if n.Gap != nil {
		stands = n.Gap.Total + n.Skipped
	}
	switch first := n.Last - min(stands, n.Last) + 1; {
	case h.err != nil:
	case n.Gap != nil && !n.Gap.Known:
		h.err = fmt.Errorf("reader %d: an unknown number where it can be known: %s", r.id, noteText(n))
	case n.Node != scriptNode("b"):
		h.err = fmt.Errorf("reader %d: of another node: %s", r.id, noteText(n))
	case first > r.last[k]+1:
		h.err = fmt.Errorf("reader %d: %s follows %d", r.id, noteText(n), r.last[k])
	case r.fresh && first <= r.last[k]:
		h.err = fmt.Errorf("reader %d had %d when it began, and hears of %s", r.id, r.last[k], noteText(n))
	}
	r.last[k] = max(r.last[k], n.Last)
}

func (h *homecoming) step() {
	r := h.readers[h.rng.IntN(len(h.readers))]
	switch k := h.rng.IntN(32); {
	case k < 12:
		h.post()
	case k < 16:
		h.record()
	case k < 20 && r.here:
		h.read(r.id)
	case k < 22:
		h.crash()
	case k < 26:
		h.join()
	case k < 27:
		h.cut()
	case k < 30 && !r.here:
		h.register(r)
	case k < 31 && h.joined:
		spec := belfry.Registration{Class: "user.*", Scope: belfry.ScopeCluster}
		if !h.gone && h.rng.IntN(2) == 0 {
			spec = belfry.Registration{Class: "node.state", Subject: "n", Scope: belfry.ScopeCluster, Wait: true, Snapshot: true}
		}
		h.register(h.reader(spec))
	default:
		h.now = h.now.Add(time.Second)
		h.settle()
	}
}

// finish lets everybody come back and read.
func (h *homecoming) finish() error {
	h.join()
	for _, r := range h.readers {
		if !r.here {
			h.register(r)
		}
	}
	for _, r := range h.readers {
		h.read(r.id)
	}
	if h.err != nil {
		return h.err
	}
	if n := h.a.counters.Unexplained; n != 0 {
		return fmt.Errorf("%d unexplained", n)
	}
	for _, r := range h.readers {
		for k, n := range h.posted {
			wanted := matchClass(r.spec.Class, k.class) && (r.spec.Subject == "" || r.spec.Subject == k.subject)
			if wanted && r.spec.Filter == "" && r.last[k] != n {
				return fmt.Errorf("reader %d: %d of %s %s were posted, it was told up to %d", r.id, n, k.class, k.subject, r.last[k])
			}
		}
		if told, known := r.state[homeState]; r.spec.Snapshot && (!known || told != h.state) {
			return fmt.Errorf("reader %d: the state is %d, it was told %d, %t", r.id, h.state, told, known)
		}
	}
	return nil
}

// TestWhoeverWasRegisteredIsToldWhatARestartCost: through any order of ends and
// starts of the receiving node, exactly.
func TestWhoeverWasRegisteredIsToldWhatARestartCost(t *testing.T) {
	t.Parallel()
	for seed := range uint64(600) {
		h := newHomecoming(seed)
		for range 60 {
			h.step()
		}
		if err := h.finish(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestWhatNobodyWatchedIsUnknown: b took a for down and let the event go that only
// a wanted. Then an unknown number is the truth, and it is b's.
func TestWhatNobodyWatchedIsUnknown(t *testing.T) {
	t.Parallel()
	for _, heard := range []bool{false, true} {
		h := newHomecoming(1)
		h.gone = true
		k := homeKey("process.exit", "exe=/p")
		exit := func() {
			h.b.Receive(h.now, Post{Entry: h.known[k], Occurrence: belfry.Occurrence{Event: belfry.EventID{Instance: "1:1"}, Time: h.now}})
			h.settle()
		}
		if heard {
			exit()
			h.record()
		}
		h.crash()
		h.join()
		r := h.readers[2]
		h.register(r)
		exit()
		h.read(r.id)
		want := "reader 12: an unknown number where it can be known: gap b process.exit:exe=/p seq 0 x0 not-monitored known=false resync=true at 0s"
		if h.err == nil || h.err.Error() != want {
			t.Errorf("heard of it before: %v: %v, want %s", heard, h.err, want)
		}
	}
}

// TestWhoComesWhileThePastArrivesBeginsWithThePresent: what is known of an event
// halfway is no state to begin with.
func TestWhoComesWhileThePastArrivesBeginsWithThePresent(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 1})
	var got []string
	register := func(number uint32) {
		m.Receive(scriptStart, Register{Consumer: 1, Number: number, Registration: belfry.Registration{
			Class: "node.state", Subject: "x", Scope: belfry.ScopeCluster, Nodes: []belfry.NodeID{scriptNode("b")}, Snapshot: true,
		}})
		m.Receive(scriptStart, Ready{Consumer: 1})
		for _, b := range m.Take().Batches {
			for _, n := range b.Notifications {
				if n.Kind != belfry.KindCoverage {
					got = append(got, fmt.Sprintf("r%d %s", n.Registration, noteText(&n)))
				}
			}
		}
	}
	register(1)
	fromB(m, InterestsAck{Version: 1, Placed: []Placed{{Entry: 1, Until: 2}}})
	for i := range uint64(2) {
		fromB(m, PeerBatch{Batch: Batch{Number: i + 1, Notifications: []belfry.Notification{{
			Node: scriptNode("b"), NodeName: "b", Incarnation: 1, Entry: 1, Event: belfry.EventID{Class: "node.state", Subject: "x"},
			First: i + 1, Last: i + 1, Count: 1, FirstTime: scriptStart, Time: scriptStart, Code: int32(i),
		}}}})
		register(uint32(i) + 2)
	}
	slices.Sort(got)
	state := "state b node.state:x seq 2 code 1 at 0s"
	want := []string{"r1 " + state, "r2 " + state, "r3 " + state}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestAPeerThatGoesOnIsToldTheStateLast, after what led to it.
func TestAPeerThatGoesOnIsToldTheStateLast(t *testing.T) {
	t.Parallel()
	m := alone(t)
	m.Receive(scriptStart, Open{Consumer: 1})
	m.Receive(scriptStart, Register{Consumer: 1, Number: 1, Registration: belfry.Registration{Class: "node.state", Subject: "x", Wait: true}})
	m.Receive(scriptStart, Associate{Entry: 1, Instance: "i", State: &belfry.Occurrence{Time: scriptStart, Code: 7}})
	for code := range int32(3) {
		m.Receive(scriptStart, Post{Entry: 1, Occurrence: belfry.Occurrence{Event: belfry.EventID{Instance: "i"}, Time: scriptStart, Code: code}})
	}
	fromB(m, Positions{Incarnation: 1, Positions: []Position{{Entry: 1, Last: 1}}})
	fromB(m, Interests{Version: 1, Full: true, Add: []Interest{{Number: 1, Class: "node.state", Subject: "x", Snapshot: true}}})
	got := frames(m)
	want := `batch 1
    occurrence a node.state:x (i) seq 2 x1 code 1 at 0s
    occurrence a node.state:x (i) seq 3 x1 code 2 at 0s
    state a node.state:x (i) seq 3 code 2 at 0s`
	if len(got) != 2 || got[1] != want {
		t.Errorf("got %q, want\n%s", got, want)
	}
}

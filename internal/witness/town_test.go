package witness

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A town is three witnesses, two holders and some clients on virtual time, with
// what a network does to them. Its clients do what the client library does.
type town struct {
	rng       *rand.Rand
	now       time.Time
	events    []townEvent
	order     int
	witnesses []*townWitness
	holders   []*townHolder
	clients   []*townClient
	errs      []string
	calls     CallID
}

type townEvent struct {
	at    time.Time
	order int
	do    func()
}

type townWitness struct {
	name  string
	m     *Machine
	inc   belfry.Incarnation
	alive bool
	wants map[belfry.Resource]bool
	calls map[CallID]func(Answer)
	cut   map[*townHolder]bool
	queue map[*townHolder][]Report // what a cut keeps
	last  map[*townHolder]time.Time
}

type townHolder struct {
	name     string
	resource belfry.Resource
	m        *Machine
	inc      belfry.Incarnation
	alive    bool
	died     time.Time
	source   belfry.ResourceState
	reports  []Report               // the newest, if there is one
	truth    []belfry.ResourceState // as clients have to learn it
	times    []time.Time            // when it became so
}

// A townClient counts what it was told, by resource.
type townClient struct {
	t       *town
	key     Key
	at      *townWitness // nil: it looks for one
	life    int          // of its connection
	known   map[belfry.Resource]belfry.ResourceLevel
	told    map[belfry.Resource][]belfry.ResourceChange
	since   time.Time
	stalled bool
	waits   bool // a call of it waits
	names   []belfry.Resource
}

const (
	detection = 1200 * time.Millisecond
	townStep  = 10 * time.Millisecond
)

func newTown(seed uint64, clients int) *town {
	t := &town{rng: rand.New(rand.NewPCG(seed, 7)), now: scriptStart}
	for _, name := range []string{"a", "b", "c"} {
		w := &townWitness{name: name}
		t.witnesses = append(t.witnesses, w)
	}
	for _, name := range []string{"d", "e"} {
		h := &townHolder{name: name, resource: belfry.Resource("service/of-" + name), source: belfry.ResourceAvailable}
		h.truth, h.times = []belfry.ResourceState{belfry.ResourceAvailable}, []time.Time{t.now}
		t.holders = append(t.holders, h)
		t.startHolder(h)
	}
	for _, w := range t.witnesses {
		t.startWitness(w)
	}
	t.run(100 * time.Millisecond)
	for i := range clients {
		c := &townClient{
			t: t, key: scriptKey(fmt.Sprintf("client-%d", i)), known: map[belfry.Resource]belfry.ResourceLevel{},
			told: map[belfry.Resource][]belfry.ResourceChange{}, since: t.now,
			names: []belfry.Resource{t.holders[0].resource, t.holders[1].resource, "node/d"},
		}
		t.clients = append(t.clients, c)
		t.after(t.upTo(time.Second), c.connect)
	}
	return t
}

func (t *town) upTo(d time.Duration) time.Duration { return time.Duration(t.rng.Int64N(int64(d))) }

func (t *town) after(d time.Duration, do func()) {
	t.order++
	e := townEvent{t.now.Add(d), t.order, do}
	at, _ := slices.BinarySearchFunc(t.events, e, func(a, b townEvent) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return a.order - b.order
	})
	t.events = slices.Insert(t.events, at, e)
}

func (t *town) fail(format string, args ...any) {
	t.errs = append(t.errs, fmt.Sprintf("%s: ", t.now.Sub(scriptStart))+fmt.Sprintf(format, args...))
}

func (t *town) members() (m Members) {
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		m.Nodes = append(m.Nodes, scriptMember(name))
	}
	return m
}

func (t *town) machine(name string, inc belfry.Incarnation) *Machine {
	cfg := Default()
	cfg.Node, cfg.Name, cfg.Incarnation = scriptNode(name), name, inc
	m := New(cfg, t.now, rand.New(rand.NewPCG(1, 2)))
	m.Receive(t.now, t.members())
	return m
}

func (t *town) startHolder(h *townHolder) {
	h.inc++
	h.alive, h.reports = true, nil
	h.m = t.machine(h.name, h.inc)
	h.m.Receive(t.now, Declared{[]Declaration{{Name: h.resource, Own: true, Sources: []string{"source"}}}})
	for _, w := range t.witnesses {
		t.after(t.upTo(200*time.Millisecond), func() { t.refresh(w, h); t.ask(w, h) })
	}
	t.happen(h)
}

func (t *town) startWitness(w *townWitness) {
	w.inc++
	w.alive = true
	w.m = t.machine(w.name, w.inc)
	w.wants, w.calls, w.cut = map[belfry.Resource]bool{}, map[CallID]func(Answer){}, map[*townHolder]bool{}
	w.queue, w.last = map[*townHolder][]Report{}, map[*townHolder]time.Time{}
	for _, h := range t.holders {
		t.after(t.upTo(50*time.Millisecond), func() { t.refresh(w, h) })
	}
	for _, other := range t.witnesses {
		w.m.Receive(t.now, Verdict{Node: scriptNode(other.name), Verdict: belfry.VerdictUp, Incarnation: 1, At: t.now})
	}
}

// refresh tells a witness what it is to hold of a holder now.
func (t *town) refresh(w *townWitness, h *townHolder) {
	if !w.alive {
		return
	}
	v := Verdict{Node: scriptNode(h.name), Incarnation: h.inc, Cause: belfry.CauseSilent, At: t.now}
	switch {
	case h.alive && !w.cut[h]:
		v.Verdict = belfry.VerdictUp
	case h.alive || t.now.Before(h.died.Add(detection)):
		v.Verdict = belfry.VerdictUnreachable
	default:
		v.Verdict = belfry.VerdictDown
	}
	w.m.Receive(t.now, v)
}

// happen writes down what clients have to learn of a holder.
func (t *town) happen(h *townHolder) {
	state := h.source
	if !h.alive {
		state = belfry.ResourceUnavailable
	}
	if h.truth[len(h.truth)-1] != state {
		h.truth, h.times = append(h.truth, state), append(h.times, t.now)
	}
}

func (t *town) change(h *townHolder) {
	h.source = belfry.ResourceAvailable + belfry.ResourceUnavailable - h.source
	t.happen(h)
	h.m.Receive(t.now, Observed{"source", h.source, t.now})
}

func (t *town) killHolder(h *townHolder) {
	h.alive, h.died = false, t.now
	t.happen(h)
	for _, w := range t.witnesses {
		t.after(200*time.Millisecond+t.upTo(800*time.Millisecond), func() { t.refresh(w, h) })
		t.after(detection+t.upTo(300*time.Millisecond), func() { t.refresh(w, h) })
		w.queue[h] = nil
	}
}

func (t *town) killWitness(w *townWitness) {
	w.alive = false
	for _, c := range t.clients {
		if c.at == w {
			c.at, c.waits = nil, false
			c.life++
			t.after(t.upTo(200*time.Millisecond), c.connect)
		}
	}
}

func (t *town) setCut(w *townWitness, h *townHolder, cut bool) {
	w.cut[h] = cut
	t.after(t.upTo(400*time.Millisecond), func() { t.refresh(w, h) })
	if cut {
		return
	}
	t.after(t.upTo(50*time.Millisecond), func() { t.ask(w, h) })
	kept := w.queue[h]
	w.queue[h] = nil
	for _, r := range kept {
		t.carry(w, h, r)
	}
	t.after(50*time.Millisecond+t.upTo(300*time.Millisecond), func() {
		if w.alive && !w.cut[h] {
			w.m.Receive(t.now, Covered{h.resource, scriptNode(h.name)})
		}
	})
}

// ask brings a witness's interest to a holder, which answers with its state.
func (t *town) ask(w *townWitness, h *townHolder) {
	if !h.alive || !w.alive || w.cut[h] || !w.wants[h.resource] {
		return
	}
	h.m.Receive(t.now, Asked{h.resource, true})
	for _, r := range h.reports {
		t.carry(w, h, r)
	}
}

// carry brings a report to a witness, in order.
func (t *town) carry(w *townWitness, h *townHolder, r Report) {
	if w.cut[h] {
		w.queue[h] = append(w.queue[h], r)
		return
	}
	arrives := later(t.now.Add(2*time.Millisecond+t.upTo(18*time.Millisecond)), w.last[h])
	w.last[h] = arrives
	inc := w.inc
	t.after(arrives.Sub(t.now), func() {
		switch {
		case !w.alive || w.inc != inc || !w.wants[r.Resource]:
		case w.cut[h]:
			w.queue[h] = append(w.queue[h], r)
		default:
			w.m.Receive(t.now, r)
		}
	})
}

// run lets time pass.
func (t *town) run(d time.Duration) {
	for end := t.now.Add(d); t.now.Before(end); {
		t.now = t.now.Add(townStep)
		for len(t.events) > 0 && !t.events[0].at.After(t.now) {
			e := t.events[0]
			t.events = t.events[1:]
			e.do()
			t.settle()
		}
		t.settle()
	}
}

func (t *town) settle() {
	for _, h := range t.holders {
		if !h.alive {
			continue
		}
		h.m.Advance(t.now)
		o := h.m.Take()
		for _, one := range o.Observe {
			if one.On {
				t.after(2*time.Millisecond, func() {
					if h.alive {
						h.m.Receive(t.now, Observed{"source", h.source, t.now})
					}
				})
			}
		}
		for _, r := range o.Own {
			h.reports = []Report{r}
			for _, w := range t.witnesses {
				if w.alive && w.wants[r.Resource] {
					t.carry(w, h, r)
				}
			}
		}
	}
	for _, w := range t.witnesses {
		if !w.alive {
			continue
		}
		w.m.Advance(t.now)
		o := w.m.Take()
		for _, i := range o.Interest {
			w.wants[i.Resource] = i.On
			for _, h := range t.holders {
				if h.resource == i.Resource && i.On {
					t.after(t.upTo(20*time.Millisecond), func() { t.ask(w, h) })
				}
			}
		}
		for _, a := range o.Answers {
			if take := w.calls[a.Call]; take != nil {
				delete(w.calls, a.Call)
				t.after(t.upTo(5*time.Millisecond), func() { take(a) })
			}
		}
	}
}

// call sends a message to the client's witness; the answer is lost with the
// connection.
func (c *townClient) call(msg func(CallID) Message, take func(Answer)) {
	t, w, life := c.t, c.at, c.life
	t.calls++
	id := t.calls
	w.calls[id] = func(a Answer) {
		if c.life == life && w.alive {
			take(a)
		}
	}
	t.after(t.upTo(5*time.Millisecond), func() {
		if w.alive && c.life == life {
			w.m.Receive(t.now, msg(id))
		}
	})
}

func (c *townClient) connect() {
	t := c.t
	if c.at != nil {
		return
	}
	first := t.rng.IntN(len(t.witnesses))
	for i := range t.witnesses {
		if w := t.witnesses[(first+i)%len(t.witnesses)]; w.alive {
			c.at = w
			break
		}
	}
	if c.at == nil {
		t.after(200*time.Millisecond, c.connect)
		return
	}
	var known []Known
	for _, name := range c.names {
		if l, ok := c.known[name]; ok {
			known = append(known, Known{name, l})
		}
	}
	c.call(func(id CallID) Message {
		return Register{Call: id, Owner: Owner{Protocol: "native", Principal: "test"}, Key: c.key, Resources: c.names, Known: known}
	}, c.registered)
}

func (c *townClient) registered(a Answer) {
	if a.Err != nil {
		c.t.fail("%s is not registered: %v", c.key, a.Err)
		return
	}
	for _, p := range a.States {
		known, had := c.known[p.Change.Resource]
		switch {
		case !had:
			c.known[p.Change.Resource] = p.Change.Level
		case p.Changed > 0:
			c.take(p.Change)
		case known.News(p.Change.Level) > 0:
			c.t.fail("%s: %s is %+v and was %+v, and is said not to have changed", c.key, p.Change.Resource, p.Change.Level, known)
		}
	}
	c.wait()
}

// take is what the application is told.
func (c *townClient) take(change belfry.ResourceChange) {
	known := c.known[change.Resource]
	v, was := change.Level.Version, known.Version
	if v.Origin == was.Origin && v.Incarnation == was.Incarnation && v.Reported == was.Reported && v.Seq <= was.Seq {
		c.t.fail("%s: %s: version %v after %v", c.key, change.Resource, v, was)
	}
	if change.Level.State == known.State && !change.Flapped {
		c.t.fail("%s: %s is told to be %s twice", c.key, change.Resource, known.State)
	}
	c.known[change.Resource] = change.Level
	c.told[change.Resource] = append(c.told[change.Resource], change)
}

func (c *townClient) wait() {
	if c.stalled || c.at == nil || c.waits {
		return
	}
	c.waits = true
	c.call(func(id CallID) Message {
		return Wait{Call: id, Owner: Owner{Protocol: "native", Principal: "test"}, Key: c.key}
	}, func(a Answer) {
		c.waits = false
		if a.Err != nil {
			c.at = nil
			c.life++
			c.connect()
			return
		}
		for _, change := range a.Changes {
			c.take(change)
		}
		c.wait()
	})
}

func (c *townClient) stall(d time.Duration) {
	c.stalled = true
	c.t.after(d, func() {
		c.stalled = false
		c.wait()
	})
}

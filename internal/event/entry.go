package event

import (
	"math"
	"time"

	"github.com/belfry-ha/belfry"
)

// An entry is the event registration entry of US8984119: it outlives the
// event's identifier, owns the sequence number and holds the registrations.
// It is always an event of this node; what other nodes report is a [mirror],
// and only entries feed remote consumers (the loop rule of events.md 6).
type entry struct {
	feed
	machine *Machine
	*seldom
	ring ring

	since    int64   // of the state, unix ns
	instance string  // only in EntryActive
	watch    WatchID // zero: the machine itself serves it

	plain     []*registration // the first cleanOnes of them have had everything
	cleanOnes int
	locals    int32 // registrations of local consumers, passive ones too
	holds     int32 // registrations that need it; without any it goes

	// What is small stands together: there may be a million of these.
	state   belfry.EntryState
	ever    bool // it was active at least once
	wait    bool // as the producer was told
	adopted bool // made by a pattern or a send
	unseen  bool // those who look on come with the first occurrence
}

// A seldom part is what most entries have nothing in: events that users name, and
// all that nobody at another node wants. They all share an empty one; who writes
// takes one of its own first.
type seldom struct {
	previous string  // the identifier dissociated last
	gone     bool    // previous is set
	held     holding // posts under identifiers that are not associated yet

	threshold belfry.Threshold // as the producer was told

	remotes    []*registration // of peers, by node; plain ones are in plain, too
	unfollowed int             // registrations that end with the identifier
	starting   []*registration // without Wait, not answered yet
}

// own is the seldom part to write to.
func (e *entry) own() *seldom {
	if e.seldom == &e.machine.never {
		e.seldom = &seldom{}
	}
	return e.seldom
}

// A feed is what an entry and a mirror have in common: a source, its present
// state and the registrations with queues of their own.
type feed struct {
	source
	info     *belfry.ClassInfo // nil: this node does not produce the class
	sequence uint64            // of the last occurrence; never resets
	private  []*attachment
	present  *state // of a state class; nil: not known
	tally    *tally
	sampled  *sampled // of a value class, the last sample; nil: there was none
}

// A sampled value is never written again.
type sampled struct {
	value    float64
	time     int64
	instance string
	data     []byte
}

// A state is the present state of a state-like event, shared by everybody who
// is to be told; it is never written again.
type state struct {
	kind     belfry.Kind // KindState or KindAlready
	sequence uint64      // of the occurrence that led to it; 0: none yet
	time     int64
	code     int32
	edge     belfry.Edge
	*body
}

func (s *state) notification(src *source, r *registration) belfry.Notification {
	n := src.notification(s.kind, r)
	n.First, n.Last = s.sequence, s.sequence
	n.FirstTime, n.Time = unix(s.time), unix(s.time)
	n.Code, n.Edge = s.code, s.edge
	n.Event.Instance, n.Value, n.Data = s.instance, s.value, s.data
	return n
}

// entry is nil for one that has ended.
func (m *Machine) entry(id EntryID) *entry {
	e, _ := m.entries.Get(uint64(id))
	return e
}

// entryFor finds or makes the entry of one event. wait says that it may be
// absent for now.
func (m *Machine) entryFor(now time.Time, info *belfry.ClassInfo, k key, wait bool) *entry {
	if e := m.index.find(k); e != nil {
		if wait && !e.wait && e.watch != 0 {
			e.wait = true
			m.out.Watch = append(m.out.Watch, e.asWatch())
		}
		return e
	}
	m.nextEntry++
	e := &entry{
		machine: m, seldom: &m.never,
		feed:  feed{source: source{origin: m.self, entry: m.nextEntry, class: k.class, subject: k.subject}, info: info, tally: m.tallyOf(k.class)},
		since: now.UnixNano(), wait: wait,
	}
	m.entries.Set(uint64(e.entry), e)
	m.index.add(e)
	switch {
	case info.Custom: // an event that users name is there as soon as somebody asks
		e.state, e.ever = belfry.EntryActive, true
		return e
	case wait:
		e.state = belfry.EntryBlocked
	default:
		e.state = belfry.EntryStarting
	}
	m.nextWatch++
	e.watch = m.nextWatch
	m.watches[e.watch] = watched{entry: e}
	m.out.Watch = append(m.out.Watch, e.asWatch())
	return e
}

func (e *entry) asWatch() Watch {
	return Watch{ID: e.watch, Class: e.class, Subject: e.subject, Entry: e.entry, Wait: e.wait, Threshold: e.threshold}
}

// joinOpen attaches everybody whose pattern fits a new entry.
func (m *Machine) joinOpen(now time.Time, e *entry) {
	for _, r := range m.globs {
		if r.matchesLocal(e.class, e.subject) {
			m.attachTo(now, r, e)
		}
	}
	m.joinInterests(now, e)
}

// release ends an entry that nobody needs any more.
func (m *Machine) release(now time.Time, e *entry) {
	if e.holds == 0 && e.state != belfry.EntryEnded {
		m.drop(now, e)
	}
}

// drop takes an entry out of the machine. What is queued stays readable,
// because it names the source.
func (m *Machine) drop(now time.Time, e *entry) {
	e.setState(now, belfry.EntryEnded)
	m.freeInstance(e)
	if e.adopted {
		e.adopted = false
		m.found--
	}
	m.entries.Delete(uint64(e.entry))
	m.index.remove(e)
	if m.last == e {
		m.last = nil
	}
	if e.watch != 0 {
		delete(m.watches, e.watch)
		m.out.Unwatch = append(m.out.Unwatch, Unwatch{ID: e.watch, Class: e.class})
	}
	for len(e.remotes) > 0 { // those that wanted what is monitored here anyway
		m.dismissRemote(now, e, e.remotes[len(e.remotes)-1])
	}
	for len(e.private) > 0 { // those who only looked on
		m.detach(now, e.private[len(e.private)-1])
	}
}

func (e *entry) setState(now time.Time, s belfry.EntryState) {
	if e.state != s {
		e.state, e.since = s, now.UnixNano()
	}
}

// addPlain attaches a plain registration; it begins with what comes next.
func (e *entry) addPlain(r *registration) {
	if r.queue == nil && !r.consumer.remote() {
		e.machine.share(r, e)
	}
	r.entry, r.taken, r.slot = e, e.sequence, int32(len(e.plain))
	e.plain = append(e.plain, r)
	e.clean(r)
	if r.spec.Snapshot && e.present != nil {
		r.snapshot(e.present)
	}
}

func (e *entry) removePlain(r *registration) {
	if !r.dirty {
		e.swap(int(r.slot), e.cleanOnes-1)
		e.cleanOnes--
	}
	last := len(e.plain) - 1
	e.swap(int(r.slot), last)
	e.plain[last] = nil
	e.plain = e.plain[:last]
}

// clean says that a registration has had everything: the next post must tell it.
func (e *entry) clean(r *registration) {
	r.dirty = false
	e.swap(int(r.slot), e.cleanOnes)
	e.cleanOnes++
}

func (e *entry) swap(i, j int) {
	e.plain[i], e.plain[j] = e.plain[j], e.plain[i]
	e.plain[i].slot, e.plain[j].slot = int32(i), int32(j)
}

// A manner is how occurrences came.
type manner uint8

const (
	ofPost   manner = iota
	ofSample        // the thresholds have been judged
	ofMerged        // several that may differ in data came while the entry was blocked
)

// happened gives occurrences their numbers and hands them on. It is the only
// place where the sequence number moves, but for held posts that fell off.
// from is the time of the first of them, at that of the last.
func (e *entry) happened(now time.Time, o *belfry.Occurrence, from, at int64, count uint64, how manner) {
	count = min(count, math.MaxUint64-e.sequence) // the number never wraps
	if count == 0 {
		return
	}
	if e.unseen {
		e.machine.see(now, e)
	}
	first := e.sequence + 1
	e.sequence += count
	e.tally.posted += count
	var shared *body
	if how == ofSample {
		shared = newBody(o) // only queues with thresholds see samples
	} else if last := e.ring.newest(); last != nil && last.last+1 == first && last.sameClass(o) && last.unmonitored == (e.locals == 0) {
		last.extend(o, at, count)
		if how == ofMerged || last.mayDiffer(o) {
			last.renew(o, how)
		}
		shared = last.body
	} else {
		v := newRun(o, from, at, first, count)
		v.unmonitored, v.mixed = e.locals == 0, how == ofMerged
		e.ring.add(v, e.machine.cfg.Runs)
		shared = v.body
	}
	if e.info.Kind == belfry.State {
		e.present = &state{kind: belfry.KindState, sequence: e.sequence, time: at, code: o.Code, edge: o.Edge, body: shared}
	}
	e.tellPlain(from)
	if len(e.private) > 0 {
		it := item{
			kind: belfry.KindOccurrence, count: count,
			run: run{
				first: first, last: e.sequence, firstTime: from, time: at, code: o.Code, edge: o.Edge,
				lowerBound: o.LowerBound, unmonitored: e.locals == 0, mixed: how == ofMerged, body: shared,
			},
		}
		e.offer(now, &it, how == ofSample)
	}
}

// offer puts an occurrence to everybody with a queue. A peer that wants what is
// monitored here anyway is spared the rest.
func (e *entry) offer(now time.Time, it *item, sampled bool) {
	for _, a := range e.private {
		if it.unmonitored && a.reg.sparse {
			a.refuse(it)
			continue
		}
		a.offer(now, it, sampled)
	}
}

// tellPlain makes every clean registration dirty; dirty ones cost nothing.
func (e *entry) tellPlain(at int64) {
	for _, r := range e.plain[:e.cleanOnes] {
		r.dirty, r.since = true, at
		r.wake()
	}
	e.cleanOnes = 0
}

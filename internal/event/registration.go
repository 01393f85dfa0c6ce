package event

import (
	"reflect"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A registration is one wish of one consumer. A plain one (one event of this
// node, no rules) is a position in its entry's ring; any other has a queue of
// its own and one attachment for each event that it gets.
type registration struct {
	*order
	consumer *consumer

	// of a plain one
	entry *entry
	taken uint64 // the last sequence number it has had
	since int64  // time of the first occurrence after that
	snap  *state // the state to begin with
	over  *remains

	// of any other
	*elaborate
	queue *queue
	home  *entry // the one entry it names, if it names one

	request RequestID // not answered yet
	ended   *ending   // its event is gone: one last notification
	gaps    uint64

	// What is small stands together: there may be a million of these.
	number   uint32
	slot     int32   // of a plain one, in entry.plain
	awaits   awaited // why request is not answered
	onlooker bool    // it counts as nobody's
	dirty    bool    // of a plain one
	resting  bool    // a peer's, and not told now; it is dirty, too
	pending  bool    // in the consumer's list
	blocked  bool    // in the consumer's other list: has notifications of busy events only
	removed  bool
	left     bool // off its events
}

// remains are what a plain registration that has left its entry still has.
type remains struct{ notifications []belfry.Notification }

// rest is what has remained, if anything.
func (r *registration) rest() []belfry.Notification {
	if r.over == nil {
		return nil
	}
	return r.over.notifications
}

// An order is what a registration asks for. It never changes once it is in
// force, so that plain ones that ask the same share it, of whatever event: most
// registrations of a large node are such, and nothing happens for them. One that
// is shared has no subject; the entry has.
type order struct {
	spec belfry.Registration
	wish wish
}

// An elaborate part is what plain registrations have nothing in. They all share
// an empty one.
type elaborate struct {
	attachments []*attachment
	snapshots   []*attachment // with a state to begin with
	filter      Filter
	filterBad   bool       // its error has been reported
	detailed    bool       // the filter looks at what differs in occurrences that merge
	patterns    []*pattern // that it holds

	// of a peer's registration
	interests []*interest
	began     uint64 // the number before the first one that it was for
	behind    uint64 // the last number when the peer came back; what it had missed of that, it missed then
	sparse    bool   // all of them are only where it is monitored
	skipped   uint64 // of a place in the ring: left out since what it had last
	marked    bool   // that is a lower bound

	// of scope cluster
	want     *want
	coverage []coverage
}

// newRegistration makes one with parts of its own.
func newRegistration(c *consumer, spec *belfry.Registration) *registration {
	return &registration{order: &order{spec: *spec}, elaborate: &elaborate{}, consumer: c}
}

// share gives up the parts that others have just so.
func (m *Machine) share(r *registration, e *entry) {
	r.elaborate = &m.nothing
	r.spec.Subject, r.wish.subject = "", ""
	switch {
	case len(e.plain) > 0 && e.plain[0].order != r.order && reflect.DeepEqual(e.plain[0].order, r.order):
		r.order = e.plain[0].order
	case m.common != nil && reflect.DeepEqual(m.common, r.order):
		r.order = m.common
	default:
		m.common = r.order
	}
}

// An ending is the last notification of a registration.
type ending struct {
	src     *source
	at      time.Time
	last    uint64 // the event's last sequence number
	skipped uint64
	marked  bool // that is a lower bound
	alone   bool // nobody monitors it: a peer forgets it
}

// An attachment is one registration with a queue on one event: what the
// design calls the index from event to its last queued notification, kept
// where a post finds it without a hash.
type attachment struct {
	reg      *registration
	feed     *feed
	entry    *entry  // what the feed belongs to: this or
	mirror   *mirror // this
	holds    bool    // keeps the entry alive
	behind   bool    // something of it was dropped and nothing follows in the queue
	inBehind bool    // in queue.behind, which may be out of date
	after    *state  // what follows the gap if the feed has no present state
	hit      bool    // the sample at hand crosses one of its thresholds
	hitEdge  belfry.Edge
	inFeed   int        // position in feed.private
	lost     *gapRecord // what a full queue of the journal dropped of it
	inReg    int        // position in reg.attachments
	last     uint64     // position of its last queued notification, plus 1
	skipped  uint64     // refused by the registration's rules since then
	marked   bool       // what was refused was a lower bound
	off      bool       // only where monitored, and has not been told the newest
	levels   []level
	snap     *state
	snapAt   uint64 // position in the queue that snap goes out before
	gate     *gate  // of rules about time; nil: there are none
	from     uint64 // numbers up to this happened before the registration was made
}

// register checks a wish, puts it in force and answers.
func (m *Machine) register(now time.Time, msg *Register) {
	c := m.consumers[msg.Consumer]
	fail := func(err error) {
		if msg.Request != 0 {
			m.out.Answers = append(m.out.Answers, Answer{Request: msg.Request, Consumer: msg.Consumer, Number: msg.Number, Err: err})
		}
	}
	switch {
	case c == nil:
		fail(refusal(belfry.ErrNotFound, "consumer %d is not open; open it first", msg.Consumer))
		return
	case c.registration(msg.Number) != nil:
		fail(refusal(belfry.ErrExist, "registration %d exists; choose another number", msg.Number))
		return
	case c.regs.Len() >= c.limits.Registrations:
		fail(refusal(belfry.ErrLimit, "this consumer has %d registrations; at most %d are allowed, a pattern may stand for many", c.regs.Len(), c.limits.Registrations))
		return
	case m.registrations >= m.cfg.Registrations:
		fail(refusal(belfry.ErrLimit, "this node has %d registrations; no more are allowed", m.registrations))
		return
	}
	r := newRegistration(c, &msg.Registration)
	r.number, r.onlooker, r.request = msg.Number, msg.LookOn, msg.Request
	if err := m.resolve(r); err != nil {
		fail(err)
		return
	}
	if err := m.roomForWant(r); err != nil {
		fail(err)
		return
	}
	c.regs.Set(uint64(r.number), r)
	m.registrations++
	m.install(now, r)
}

// plainRegistration tells whether a position in the entry's ring is enough.
func (m *Machine) plainRegistration(r *registration) bool {
	s := &r.spec
	return r.wish.exact && !r.consumer.limits.OnePerEvent && s.Scope == belfry.ScopeLocal && r.wish.infos[0].Kind != belfry.Value && s.Edge == belfry.EdgeBoth &&
		s.Filter == "" && !r.timed() && s.Coalesce == belfry.CoalesceByCode && s.Limit <= m.cfg.Runs
}

// install puts a checked registration in force.
func (m *Machine) install(now time.Time, r *registration) {
	if !m.plainRegistration(r) {
		r.queue = newQueue(&r.spec).forJournal(r.consumer)
	}
	cluster := r.spec.Scope == belfry.ScopeCluster
	if !cluster || len(r.spec.Nodes) == 0 || slices.Contains(r.spec.Nodes, m.cfg.Node) {
		m.installLocal(now, r)
	}
	if cluster && !r.removed {
		m.installCluster(now, r)
	}
	if !r.removed {
		m.decide(now, r)
	}
}

// waits tells whether the event may be absent for now. Another node may have
// it, so a cluster registration always waits.
func (r *registration) waits() bool { return r.spec.Wait || r.spec.Scope == belfry.ScopeCluster }

func (m *Machine) installLocal(now time.Time, r *registration) {
	if r.wish.exact {
		info, k := r.wish.infos[0], key{belfry.Class(r.spec.Class), r.wish.subject}
		old := m.index.find(k)
		e := m.entryFor(now, info, k, r.waits())
		r.home = e
		if r.spec.NoFollow {
			e.own().unfollowed++
		}
		m.attach(now, r, &e.feed, e, true)
		if old == nil {
			m.joinOpen(now, e)
		}
		return
	}
	m.startAll(now, r)
	m.globs = append(m.globs, r)
	for _, e := range m.sortedEntries() {
		if r.removed {
			return
		}
		if r.matchesLocal(e.class, e.subject) {
			m.attachTo(now, r, e)
		}
	}
	if r.looksOn() {
		for _, p := range m.peers {
			m.joinMirrors(r, p)
		}
	}
}

// startAll asks producers for what a pattern stands for.
func (m *Machine) startAll(now time.Time, r *registration) {
	for _, info := range r.wish.infos {
		switch {
		case r.passive(info) || info.Custom: // custom events are made by Send
		case r.wish.glob:
			m.holdPattern(r, info)
		default: // several classes, one subject
			k := key{info.Class, r.wish.subject}
			if m.index.find(k) == nil {
				m.joinOpen(now, m.entryFor(now, info, k, true))
			}
		}
	}
}

// passive tells whether a registration only looks on at a class: it takes
// what others had started (events.md 3).
func (r *registration) passive(info *belfry.ClassInfo) bool {
	switch {
	case info.Custom:
		return false
	case r.spec.Class == "*":
		return true
	case info.Kind == belfry.Value && r.spec.Threshold.IsZero():
		return true
	case classPattern(r.spec.Class):
		return info.Volatile || r.wish.glob && !info.Globs
	}
	return false
}

// matchesLocal tells whether an event of this node is wanted by a
// registration that may match several.
func (r *registration) matchesLocal(class belfry.Class, subject string) bool {
	return matchClass(r.spec.Class, class) && r.wish.matchSubject(subject) && !r.overlooks(class)
}

func (m *Machine) unregister(now time.Time, msg Unregister) {
	c := m.consumers[msg.Consumer]
	if c == nil || c.registration(msg.Number) == nil {
		m.refuse(0, belfry.NodeID{}, refusal(belfry.ErrNotFound, "registration %d of consumer %d does not exist; list them", msg.Number, msg.Consumer))
		return
	}
	r := c.registration(msg.Number)
	m.answer(r, refusal(belfry.ErrNotFound, "the registration was ended before it was in force; register again"))
	m.remove(now, r)
}

// remove takes a registration out of everything that knows it.
func (m *Machine) remove(now time.Time, r *registration) {
	if r.removed {
		return
	}
	r.removed = true
	if !r.consumer.remote() {
		r.consumer.regs.Delete(uint64(r.number))
		m.registrations--
	}
	m.leave(now, r)
	if r.home != nil && !r.consumer.remote() && len(r.home.starting) > 0 {
		r.home.starting = without(r.home.starting, r)
	}
	if r.queue != nil {
		r.queue.discard(r.consumer)
	}
}

// leave takes a registration off its events; its queue stays.
func (m *Machine) leave(now time.Time, r *registration) {
	if r.left {
		return
	}
	r.left = true
	if r.home != nil && r.spec.NoFollow {
		r.home.unfollowed--
	}
	if i := slices.Index(m.globs, r); i >= 0 {
		m.globs = slices.Delete(m.globs, i, i+1)
		m.lookAway(now, r)
	}
	if r.want != nil {
		m.leaveCluster(r)
	}
	held := r.patterns
	if len(held) > 0 { // else the part may be the one that is shared
		r.patterns = nil
	}
	for _, p := range held {
		p.local = slices.DeleteFunc(p.local, func(q *registration) bool { return q == r })
		m.releasePattern(p)
	}
	if e := r.entry; e != nil && r.queue == nil && !r.consumer.remote() {
		m.leavePlain(now, r)
	}
	for len(r.attachments) > 0 {
		m.detach(now, r.attachments[len(r.attachments)-1])
	}
}

func (m *Machine) leavePlain(now time.Time, r *registration) {
	e := r.entry
	e.removePlain(r)
	e.holds--
	m.localLeft(e)
	m.release(now, e)
}

// attachTo puts a registration that may match several events on one of this node.
func (m *Machine) attachTo(now time.Time, r *registration, e *entry) {
	if r.looksOn() && e.sequence == 0 {
		m.lookLater(r, e)
		return
	}
	m.attach(now, r, &e.feed, e, !r.passive(e.info))
}

// attach puts a registration of a local consumer on one event.
func (m *Machine) attach(now time.Time, r *registration, f *feed, e *entry, holds bool) {
	if e != nil {
		if holds {
			e.holds++
		}
		if !r.looksOn() {
			defer m.localJoined(now, e)
		}
	}
	if r.queue == nil {
		e.addPlain(r)
		return
	}
	a := &attachment{reg: r, feed: f, entry: e, holds: holds, inFeed: len(f.private), inReg: len(r.attachments)}
	f.private = append(f.private, a)
	r.attachments = append(r.attachments, a)
	if f.info != nil && f.info.Kind == belfry.Value && !r.spec.Threshold.IsZero() {
		a.levels = []level{{threshold: r.spec.Threshold}}
	}
	a.gate = m.newGate(a)
	if len(a.levels) > 0 {
		a.begin(f)
	}
	if f.present != nil {
		a.begun(f.present)
	}
	if e != nil {
		m.tuneWatch(e)
	}
}

// detach takes a registration with a queue off one event.
func (m *Machine) detach(now time.Time, a *attachment) {
	f, r := a.feed, a.reg
	end := len(f.private) - 1
	f.private[a.inFeed] = f.private[end]
	f.private[a.inFeed].inFeed = a.inFeed
	f.private[end] = nil
	f.private = f.private[:end]
	a.inFeed = -1
	m.dropGate(a.gate)
	end = len(r.attachments) - 1
	r.attachments[a.inReg] = r.attachments[end]
	r.attachments[a.inReg].inReg = a.inReg
	r.attachments[end] = nil
	r.attachments = r.attachments[:end]
	if i := slices.Index(r.snapshots, a); i >= 0 {
		r.snapshots = slices.Delete(r.snapshots, i, i+1)
	}
	if a.inBehind {
		r.queue.behind = without(r.queue.behind, a)
		a.behind, a.inBehind = false, false
	}
	if a.entry == nil {
		m.leaveMirror(now, a.mirror)
		return
	}
	if a.holds {
		a.entry.holds--
	}
	if !r.consumer.remote() && !r.looksOn() {
		m.localLeft(a.entry)
	}
	m.tuneWatch(a.entry)
	m.release(now, a.entry)
}

// wake says that there is something to take.
func (r *registration) wake() {
	if !r.pending && !r.removed {
		r.pending = true
		r.consumer.push(r)
	}
}

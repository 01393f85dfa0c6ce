package repository

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// A takeoverWorld is a cluster whose disks are lost, on virtual time: members with their
// own copies, a network that loses, delays and is cut, and storage of which each
// member sees what it sees. Each run is a function of its seed.
type takeoverWorld struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	now     time.Duration
	serial  int
	events  []simEvent
	members []*simMember
	storage map[string]*simStorage // by epoch and disks
	part    map[int]int            // side of each member; the network is cut between sides
	faults  time.Duration          // until then
	parents map[Digest]Digest
	held    map[Digest]map[belfry.NodeID]bool
	voters  map[Digest]int
	acked   map[Digest]Version
	chosen  map[uint64]Digest
	reports map[Digest]bool // that config.lost has told of
	taken   int
	moves   int
}

type simEvent struct {
	at     time.Duration
	serial int
	do     func()
}

// A simStorage is the disks of one epoch: they decide on one generation after the other.
type simStorage struct {
	epoch uint64
	disks []UUID
	chain []simDocument
}

type simDocument struct {
	Held
	bytes []byte
}

type simMember struct {
	w     *takeoverWorld
	index int
	id    belfry.NodeID
	up    bool
	boot  int
	busy  bool // a job holds the lock: letters wait
	wait  []TakeoverMessage
	kept  EpochState
	held  simDocument
	last  time.Duration // successful read
	m     *Takeover
	sees  map[UUID]bool
}

var simEpoch = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

func (w *takeoverWorld) time() time.Time { return simEpoch.Add(w.now) }

func (w *takeoverWorld) after(d time.Duration, do func()) {
	w.serial++
	w.events = append(w.events, simEvent{w.now + d, w.serial, do})
}

func (w *takeoverWorld) spread(d time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(d)))
}

// run ends when nothing is left before that time.
func (w *takeoverWorld) run(until time.Duration) {
	for {
		i := -1
		for j, e := range w.events {
			if i < 0 || cmp.Or(cmp.Compare(e.at, w.events[i].at), cmp.Compare(e.serial, w.events[i].serial)) < 0 {
				i = j
			}
		}
		if i < 0 || w.events[i].at > until {
			return
		}
		e := w.events[i]
		w.events = slices.Delete(w.events, i, i+1)
		w.now = e.at
		e.do()
	}
}

func simDocumentOf(t *testing.T, d Document) simDocument {
	data := encodeDocument(t, d)
	return simDocument{Held{Version{Repository: d.Repository.UUID, Epoch: d.Repository.Epoch, Generation: d.Generation(), Digest: sha256.Sum256(data)}, d}, data}
}

func (w *takeoverWorld) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, at %s: %s", w.seed, w.now, fmt.Sprintf(format, args...))
}

// newTakeoverWorld has up to six nodes, of which the first are members.
func newTakeoverWorld(t *testing.T, seed uint64, members int) *takeoverWorld {
	w := &takeoverWorld{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 37)), storage: map[string]*simStorage{}, part: map[int]int{}, parents: map[Digest]Digest{},
		held: map[Digest]map[belfry.NodeID]bool{}, voters: map[Digest]int{}, acked: map[Digest]Version{}, chosen: map[uint64]Digest{}, reports: map[Digest]bool{},
	}
	d := Document{Schema: 1, Cluster: Cluster{Name: "sim", UUID: belfry.ClusterID{0xc0}, Created: simEpoch, LastNumber: 6}, Tunables: map[string]string{}}
	for i := range members {
		d.Nodes = append(d.Nodes, testNode(i+1, string(rune('a'+i))))
	}
	d.Repository = Storage{
		Kind: KindDisk, UUID: UUID{0xd0}, Epoch: 1, Spares: []UUID{{0xe1}, {0xe2}, {0xe3}, {0xe4}},
		Areas: &Areas{Hosts: 8, SlotSize: 64 << 10, RecordOffset: BlockSize, PayloadOffset: 1 << 20, Disks: []UUID{{0xd1}}},
	}
	d.History = []Entry{{Generation: 1, Time: simEpoch, Author: "founder"}}
	first := simDocumentOf(t, d)
	s := w.at(1, d.Repository.Areas.Disks)
	s.chain = append(s.chain, first)
	for i := range 6 {
		m := &simMember{w: w, index: i, id: belfry.NodeID{0xa0, byte(i + 1)}, sees: map[UUID]bool{}}
		for _, u := range []UUID{{0xd1}, {0xe1}, {0xe2}, {0xe3}, {0xe4}} {
			m.sees[u] = true
		}
		w.members = append(w.members, m)
		if i < members {
			m.take(first)
		}
		m.start()
	}
	return w
}

func (w *takeoverWorld) at(epoch uint64, disks []UUID) *simStorage {
	key := fmt.Sprint(epoch, disks)
	if w.storage[key] == nil {
		w.storage[key] = &simStorage{epoch: epoch, disks: disks}
	}
	return w.storage[key]
}

// reads is the storage of the newest epoch that a member sees a majority of.
func (m *simMember) reads() *simStorage {
	var best *simStorage
	for _, s := range m.w.storage { // of two of one epoch either: that is found by the check
		seen := 0
		for _, u := range s.disks {
			if m.sees[u] {
				seen++
			}
		}
		if len(s.chain) > 0 && seen > len(s.disks)/2 && !m.kept.Fences(s.epoch) && s.epoch >= m.held.Epoch && (best == nil || s.epoch > best.epoch) {
			best = s
		}
	}
	return best
}

// take is what a driver does under its lock: the local copy.
func (m *simMember) take(d simDocument) {
	if m.held.Generation > 0 {
		for _, l := range lossesOf(&m.held.Held, &d.Document) {
			m.w.reports[l.Digest] = true
		}
	}
	if tookOver(m.held.Epoch, d.Epoch) && m.held.Epoch > 0 {
		m.w.taken++
	}
	m.held = d
	if m.w.held[d.Digest] == nil {
		m.w.held[d.Digest] = map[belfry.NodeID]bool{}
	}
	if m.member() {
		m.w.held[d.Digest][m.id] = true
	}
	m.w.voters[d.Digest] = len(d.Document.Nodes)
}

func (m *simMember) member() bool { return m.held.Document.Key(m.id) != nil }

func (m *simMember) start() {
	m.up, m.boot, m.busy, m.wait, m.last = true, m.boot+1, false, nil, m.w.now
	m.m = NewTakeover(m.id, m.kept, m.w.time(), rand.New(rand.NewPCG(m.w.rng.Uint64(), 1)))
	m.ifUp(m.w.spread(time.Second), m.poll)
	m.ifUp(m.w.spread(5*time.Second), m.commit)
}

func (m *simMember) crash() {
	m.up = false
	m.w.after(m.w.spread(20*time.Second), m.start)
}

// ifUp is something that this start of the member does later.
func (m *simMember) ifUp(d time.Duration, do func()) {
	boot := m.boot
	m.w.after(d, func() {
		if m.up && m.boot == boot {
			do()
		}
	})
}

func (m *simMember) standing() Standing {
	s := Standing{Held: m.held.Held, Document: m.held.bytes, Lost: m.w.now-m.last > 3*time.Second}
	for u, ok := range m.sees { // sorted below
		if ok {
			s.Seen = append(s.Seen, u)
		}
	}
	slices.SortFunc(s.Seen, func(a, b UUID) int { return slices.Compare(a[:], b[:]) })
	for _, o := range m.w.members {
		if o.up && m.w.part[o.index] == m.w.part[m.index] {
			s.Up = append(s.Up, o.id)
		}
	}
	return s
}

// drive is the driver's loop: what waits for the lock comes first.
func (m *simMember) drive(msg ...TakeoverMessage) {
	m.wait = append(m.wait, msg...)
	if m.busy || !m.member() {
		return
	}
	m.m.Receive(m.w.time(), m.standing())
	for _, msg := range m.wait {
		m.m.Receive(m.w.time(), msg)
	}
	m.wait = nil
	m.m.Advance(m.w.time())
	out := m.m.Take()
	faulty := m.w.now < m.w.faults
	if out.Keep != nil {
		if faulty && m.w.rng.IntN(10) == 0 {
			m.crash()
			return
		}
		m.kept = *out.Keep
		if m.kept.Chosen {
			digest := sha256.Sum256(m.kept.Value)
			if was, ok := m.w.chosen[m.kept.Target]; ok && was != digest {
				m.w.fatalf("two documents were chosen for epoch %d", m.kept.Target)
			}
			m.w.chosen[m.kept.Target] = digest
		}
		if faulty && m.w.rng.IntN(10) == 0 {
			m.crash()
			return
		}
	}
	for _, l := range out.Letters {
		m.w.post(l)
	}
	if out.Complete != nil {
		m.complete(out.Complete)
	}
	if next := m.m.NextTimeout(); !next.IsZero() {
		m.ifUp(max(next.Sub(m.w.time()), time.Millisecond), func() { m.drive() })
	}
}

func (w *takeoverWorld) post(l Letter) {
	from, to := -1, -1
	for i, m := range w.members {
		if m.id == l.From {
			from = i
		}
		if m.id == l.To {
			to = i
		}
	}
	times := 1
	if w.now < w.faults {
		times = []int{0, 1, 1, 1, 1, 1, 1, 2}[w.rng.IntN(8)]
	}
	for range times {
		d := w.spread(50 * time.Millisecond)
		if w.now < w.faults && w.rng.IntN(20) == 0 {
			d += w.spread(10 * time.Second)
		}
		w.after(d, func() {
			if m := w.members[to]; m.up && w.part[from] == w.part[to] {
				m.drive(l)
			}
		})
	}
}

// poll takes over what is committed.
func (m *simMember) poll() {
	if m.held.Document.Moving != nil && !m.busy && m.member() && !m.kept.Fences(m.held.Epoch) {
		m.moved(m.held)
	}
	if s := m.reads(); s != nil && !m.busy {
		m.last = m.w.now
		if top := s.chain[len(s.chain)-1]; newer(top.Version, m.held.Version) && (m.member() || top.Document.Key(m.id) != nil) {
			m.take(top)
		}
	}
	m.drive()
	m.ifUp(time.Second+m.w.spread(200*time.Millisecond), m.poll)
}

// commit is one change, with the time that the disks take for it, under the lock.
func (m *simMember) commit() {
	m.ifUp(time.Second+m.w.spread(8*time.Second), m.commit)
	s := m.reads()
	if s == nil || m.busy || !m.member() {
		return
	}
	m.busy = true
	boot := m.boot
	m.w.after(m.w.spread([]time.Duration{20 * time.Millisecond, 20 * time.Millisecond, 4 * time.Second}[m.w.rng.IntN(3)]), func() {
		base := s.chain[len(s.chain)-1]
		gone := m.reads() != s || base.Document.Key(m.id) == nil
		if !gone && base.Document.Moving != nil {
			m.moved(base)
		} else if !gone { // also of one who has died: it is on its way
			to := base.Document
			to.Tunables = map[string]string{"by": fmt.Sprint(m.index, m.w.now)}
			switch m.w.rng.IntN(12) {
			case 0, 1, 2, 3:
				m.changeMembers(&to, &base.Document)
			case 4:
				m.move(&to)
			}
			next, err := Follow(base.Document, to, Entry{Time: m.w.time(), Author: "sim", Node: m.id})
			if err != nil {
				m.w.t.Fatal(err)
			}
			d := simDocumentOf(m.w.t, next)
			m.w.parents[d.Digest] = base.Digest
			s.chain = append(s.chain, d)
			if m.up && m.boot == boot {
				m.w.acked[d.Digest] = d.Version
				m.last = m.w.now
				m.take(d)
			}
		}
		if m.up && m.boot == boot {
			m.busy = false
			m.drive()
		}
	})
}

// move begins an ordinary one, to a disk that is seen by whoever sees the old one.
func (m *simMember) move(to *Document) {
	m.w.moves++
	u := UUID{0xf0, byte(m.w.moves)}
	areas := *to.Repository.Areas
	for _, o := range m.w.members {
		o.sees[u] = o.sees[areas.Disks[0]]
	}
	areas.Disks = []UUID{u}
	to.Moving = &Moving{Epoch: to.Repository.Epoch + 1, Op: OpID{1}, Areas: &areas}
}

// moved completes it: with the old disks, or without.
func (m *simMember) moved(from simDocument) {
	d, err := Completed(from.Document)
	if err != nil {
		m.w.t.Fatal(err)
	}
	if areas := d.Repository.Areas; m.sees[areas.Disks[0]] {
		s := m.w.at(d.Repository.Epoch, areas.Disks)
		if len(s.chain) == 0 {
			first := simDocumentOf(m.w.t, d)
			m.w.parents[first.Digest] = from.Digest
			s.chain = append(s.chain, first)
		}
	}
}

// changeMembers adds or removes one, as far as the members whom this one reaches say
// that they hold the base.
func (m *simMember) changeMembers(to, base *Document) {
	digest := sha256.Sum256(encodeDocument(m.w.t, *base))
	to.Nodes = slices.Clone(to.Nodes)
	other := m.w.members[m.w.rng.IntN(len(m.w.members))]
	i := slices.IndexFunc(to.Nodes, func(n Node) bool { return n.ID == other.id })
	switch {
	case other == m:
		return
	case i >= 0 && len(to.Nodes) > 2:
		to.Nodes = slices.Delete(to.Nodes, i, i+1)
	case i < 0 && other.held.Generation == 0: // never one that was removed
		to.Nodes = append(to.Nodes, testNode(other.index+1, string(rune('a'+other.index))))
	}
	if err := MembersMayChange(base, to, func(id belfry.NodeID) bool {
		o := m.w.members[id[1]-1]
		return o.up && m.w.part[o.index] == m.w.part[m.index] && o.held.Digest == digest
	}); err != nil {
		if !errors.Is(err, belfry.ErrRestricted) {
			m.w.t.Fatal(err)
		}
		to.Nodes = base.Nodes
	}
}

// complete writes the first generation of the epoch where it belongs.
func (m *simMember) complete(value []byte) {
	move, err := TakeoverMove(value)
	if err != nil {
		m.w.t.Fatal(err)
	}
	d, err := Decode(value)
	if err != nil {
		m.w.t.Fatal(err)
	}
	for _, u := range d.Repository.Areas.Disks {
		if !m.sees[u] {
			return
		}
	}
	s := m.w.at(d.Repository.Epoch, d.Repository.Areas.Disks)
	if len(s.chain) == 0 {
		first := simDocumentOf(m.w.t, d)
		m.w.parents[first.Digest] = move.Previous
		s.chain = append(s.chain, first)
	}
	if newer(s.chain[0].Version, m.held.Version) {
		m.take(s.chain[0])
		m.last = m.w.now
	}
}

// disturb has something go wrong from time to time.
func (w *takeoverWorld) disturb() {
	if w.now >= w.faults {
		return
	}
	w.after(w.spread(6*time.Second), w.disturb)
	switch m := w.members[w.rng.IntN(len(w.members))]; w.rng.IntN(6) {
	case 0:
		if m.up {
			m.crash()
		}
	case 1:
		for i := range w.members {
			w.part[i] = w.rng.IntN(2)
		}
	case 2:
		w.part = map[int]int{}
	case 3: // one member loses sight of a disk, or finds it again
		u := []UUID{{0xd1}, {0xe1}, {0xe2}, {0xe3}, {0xe4}}[w.rng.IntN(5)]
		m.sees[u] = !m.sees[u]
	default: // all lose the disks of the newest epoch, but perhaps one
		var s *simStorage
		for _, o := range w.storage { // the greatest: the order can not be seen
			if s == nil || o.epoch > s.epoch {
				s = o
			}
		}
		spared := w.rng.IntN(3 * len(w.members))
		back := w.rng.IntN(2) == 0
		for _, u := range s.disks {
			for i, o := range w.members {
				o.sees[u] = i == spared && o.sees[u]
				if back { // at each at another time, in the midst of the agreement
					w.after(4*time.Second+w.spread(8*time.Second), func() { o.sees[u] = true })
				}
			}
		}
	}
}

// heal ends all faults but that disks are lost.
func (w *takeoverWorld) heal() {
	w.part = map[int]int{}
	for _, m := range w.members {
		for _, u := range []UUID{{0xe1}, {0xe2}, {0xe3}, {0xe4}} {
			m.sees[u] = true
		}
	}
}

// line is whether a document is one of those that a newer one comes from.
func (w *takeoverWorld) line(of Digest) map[Digest]bool {
	all := map[Digest]bool{}
	for d, ok := of, true; ok; d, ok = w.parents[d] {
		all[d] = true
	}
	return all
}

// check returns how many acknowledged generations are not in the last one.
func (w *takeoverWorld) check() (gone int) {
	w.t.Helper()
	var last *simStorage
	first := map[uint64]Digest{}
	seen := map[[2]uint64]Digest{}
	for _, s := range w.storage { // no order can be seen
		if len(s.chain) == 0 {
			continue
		}
		if was, ok := first[s.epoch]; ok && was != s.chain[0].Digest {
			w.fatalf("epoch %d begins with two documents", s.epoch)
		}
		first[s.epoch] = s.chain[0].Digest
		for _, d := range s.chain {
			at := [2]uint64{d.Epoch, d.Generation}
			if was, ok := seen[at]; ok && was != d.Digest {
				w.fatalf("two documents under epoch %d, generation %d", d.Epoch, d.Generation)
			}
			seen[at] = d.Digest
		}
		if last == nil || s.epoch > last.epoch {
			last = s
		}
	}
	line := w.line(last.chain[len(last.chain)-1].Digest)
	for d, by := range w.held { // no order can be seen
		if len(by) >= w.voters[d]/2+1 && !line[d] {
			w.fatalf("a generation that %d of %d members held is not in the last one", len(by), w.voters[d])
		}
	}
	for d := range w.acked { // no order can be seen
		if line[d] {
			continue
		}
		gone++
		for _, m := range w.members {
			if w.held[d][m.id] && m.held.Epoch == last.epoch && !w.reports[d] {
				w.fatalf("member %d held a generation that is lost, is in epoch %d, and has not said so", m.index, last.epoch)
			}
		}
	}
	return gone
}

// The members never begin one epoch twice, what a majority of them held is never lost,
// and whatever else is lost is told by whoever had it.
func TestNoTakeoverForksOrLosesWhatWasReplicated(t *testing.T) {
	t.Parallel()
	seeds := uint64(120)
	switch {
	case os.Getenv("BELFRY_SOAK") != "":
		seeds *= 100
	case testing.Short():
		seeds /= 10
	}
	var taken, gone, told int
	for seed := range seeds {
		w := newTakeoverWorld(t, seed, 2+int(seed%4))
		w.faults = 90 * time.Second
		w.after(w.spread(10*time.Second), w.disturb)
		w.run(w.faults)
		w.heal()
		w.run(w.faults + 60*time.Second)
		gone += w.check()
		taken, told = taken+w.taken, told+len(w.reports)
	}
	t.Logf("%d seeds: %d times a member went to an epoch of the members; %d acknowledged generations lost, %d told", seeds, taken, gone, told)
	if taken < int(seeds) || gone == 0 || told == 0 {
		t.Errorf("%d take-overs, %d lost, %d told in %d seeds: the schedules do not try what they are for", taken, gone, told, seeds)
	}
}

package repositorytest

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Schedule says how a random run looks. The same seed gives the same run.
type Schedule struct {
	Seed  uint64
	Disks int // 1 to 3
	Steps int // one step is one call of a disk
	// NewHosts: only host 0 has a slot at first. Each host gives one to the next,
	// by an update; a host writes when it has polled a document that says so.
	NewHosts bool
}

// errKilled ends the code of a host in the middle of a call.
var errKilled = errors.New("killed")

// world is 3 to 5 hosts on the same disks, one call after the other.
type world struct {
	rng      *rand.Rand
	disks    []*Disk
	hosts    []*host
	newHosts bool

	acked   [][]byte // documents that were acknowledged or returned by Load
	highest int      // length of the longest of them
	polled  [][]byte
	refused []repository.OpID // updates that were said not to have happened
	fault   error
}

// A host runs as a coroutine that stops before each call of a disk.
type host struct {
	*world
	number            int
	incarnation, boot int
	next              func() (struct{}, bool)
	stop              func()
	yield             func(struct{}) bool
	inFlight          *late
	late              []*late // of the dead kernel, may still land
	slotted           bool    // has a slot, as far as it knows
	settling          int     // steps until nothing lands any more
	paused            int     // steps
	updates           int
}

// Run plays the schedule and returns what went wrong: a lost, doubled or forked
// update, or a value that goes back.
func (s Schedule) Run() error {
	w := &world{rng: rand.New(rand.NewPCG(s.Seed, 6)), newHosts: s.NewHosts}
	hosts := 3 + w.rng.IntN(3)
	var err error
	if w.disks, err = format(hosts, max(s.Disks, 1)); err != nil {
		return err
	}
	w.acknowledge(first())
	for i := range hosts {
		h := &host{world: w, number: i, incarnation: 1 + i%2, boot: 1, slotted: i == 0 || !s.NewHosts}
		if i == 0 {
			h.boot, h.incarnation = 0, 2 // the founder goes on without a restart of its machine
		}
		h.start()
		w.hosts = append(w.hosts, h)
	}
	defer func() {
		for _, h := range w.hosts {
			h.stop()
		}
	}()
	for range s.Steps {
		w.step()
		if w.fault != nil {
			return w.fault
		}
	}
	return w.check()
}

func (w *world) step() {
	h := w.hosts[w.rng.IntN(len(w.hosts))]
	switch p := w.rng.IntN(400); {
	case p < 4:
		h.kill(p%2 == 0)
		return
	case p < 8:
		h.paused = w.rng.IntN(100)
	case p < 11:
		w.disks[w.rng.IntN(len(w.disks))].lose(w.rng)
	case p < 14 && len(w.disks) > 1:
		d := w.disks[w.rng.IntN(len(w.disks))]
		d.down = !d.down
	case p < 40 && len(h.late) > 0:
		h.late[0].land(w.rng)
		h.late = h.late[1:]
	}
	if h.paused > 0 {
		h.paused--
		return
	}
	h.next()
}

// kill ends the host's agent, or its whole machine: then what it was writing may
// land later, or in part, or never, until its next start has settled.
func (h *host) kill(machine bool) {
	write := h.inFlight
	h.stop()
	h.inFlight = nil
	h.incarnation++
	switch {
	case machine:
		h.boot++
		if write != nil {
			h.late = append(h.late, write)
		}
		h.settling = h.rng.IntN(30)
	case write != nil && h.rng.IntN(2) == 0:
		write.land(h.rng) // its slot is free only when the call has ended
	}
	h.start()
}

func (h *host) start() {
	h.next, h.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			if r := recover(); r != nil && r != errKilled { //nolint:errorlint // the very value that before panics with
				panic(r)
			}
		}()
		h.yield = yield
		h.live()
	})
}

// before is one step: others run, or this host is killed.
func (h *host) before(w *late) error {
	h.inFlight = w
	if !h.yield(struct{}{}) {
		panic(errKilled)
	}
	h.inFlight = nil
	return nil
}

// live opens the disks and works on them until it is killed.
func (h *host) live() {
	var devices []repository.Device
	for _, d := range h.disks {
		devices = append(devices, &Port{d, h.before})
	}
	for {
		cfg := h.config()
		store, err := repository.Open(cfg, devices...)
		if err == nil && cfg.Host < 0 {
			err = h.await(store)
		}
		for err == nil && cfg.Host >= 0 {
			if store.Settling() {
				h.settle()
				err = store.Settled()
				continue
			}
			err = h.work(store)
		}
		if err != nil { // nil: it still waits for its slot, or has it now
			h.judge(err)
		}
		_ = h.before(nil)
	}
}

// config is that of a reader until the host knows of its slot.
func (h *host) config() repository.Config {
	cfg := config(h.number, h.incarnation, h.boot)
	if h.newHosts {
		cfg.Slots = slotsGiven
	}
	if !h.slotted {
		cfg.Host, cfg.Sign = -1, nil
	}
	return cfg
}

// await polls once, for a document that gives this host a slot.
func (h *host) await(store *repository.Store) error {
	found, err := store.Poll()
	if errors.Is(err, repository.Undecided) {
		return nil
	}
	if err == nil {
		h.polled = append(h.polled, found.Document)
		h.slotted = slotsGiven(found.Document) > h.number
	}
	return err
}

// settle waits until each late write has landed or is gone.
func (h *host) settle() {
	for ; h.settling > 0; h.settling-- {
		_ = h.before(nil)
	}
	for _, w := range h.late {
		if h.rng.IntN(2) == 0 {
			w.land(h.rng)
		}
	}
	h.late = nil
}

// judge takes the errors for faults that no trouble of the disks explains.
func (h *host) judge(err error) {
	for _, known := range []error{repository.Preempted, repository.Lost, repository.TooFew, repository.Settling, belfry.ErrUnknown, errIO} {
		if errors.Is(err, known) {
			return
		}
	}
	h.fail("host %d: %v", h.number, err)
}

func (w *world) fail(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf(format, args...)
	}
}

// work is one operation of a client.
func (h *host) work(store *repository.Store) error {
	if h.rng.IntN(6) == 0 {
		return h.load(store)
	}
	found, err := store.Poll()
	if errors.Is(err, repository.Undecided) {
		return h.load(store)
	}
	if err != nil {
		return tolerate(err)
	}
	h.polled = append(h.polled, found.Document)
	if h.rng.IntN(4) == 0 || len(found.Document)+opSize > repository.BlockSize {
		return nil
	}
	return h.update(store, found)
}

// load sees all that was acknowledged before it began.
func (h *host) load(store *repository.Store) error {
	begun := h.highest
	found, err := store.Load()
	if err != nil {
		return tolerate(err)
	}
	if len(found.Document) < begun {
		h.fail("host %d: a load found generation %d after a later one had been acknowledged", h.number, found.Generation)
	}
	h.acknowledge(found.Document)
	return nil
}

// tolerate gives the errors that the store itself recovers from: the next
// operation goes on with it.
func tolerate(err error) error {
	if errors.Is(err, repository.Preempted) || errors.Is(err, repository.Lost) || errors.Is(err, repository.TooFew) {
		return nil
	}
	return err
}

// update appends one operation and tries until the outcome is known.
func (h *host) update(store *repository.Store, base repository.Snapshot) error {
	h.updates++
	op := opID(h.number+1, h.updates)
	if h.newHosts && slotsGiven(base.Document) == h.number+1 && h.number+1 < len(h.hosts) {
		op = giveSlot(op)
	}
	begun := h.highest
	doc := appendOp(base.Document, op)
	for {
		_, err := store.CAS(base.Version, doc, op)
		switch {
		case err == nil:
			if len(doc) <= begun {
				h.fail("host %d: an update on generation %d was acknowledged after a longer value had been", h.number, base.Generation)
			}
			h.acknowledge(doc)
			if h.rng.IntN(3) > 0 {
				return tolerate(store.Seal())
			}
			return nil
		case errors.Is(err, belfry.ErrConflict) && !errors.Is(err, repository.Preempted):
			h.refused = append(h.refused, op)
			return nil
		case errors.Is(err, belfry.ErrUnknown), tolerate(err) == nil:
			for range h.rng.IntN(20) {
				_ = h.before(nil)
			}
		default:
			return err
		}
	}
}

// acknowledge is a value that must never be undone. All of them lie on one
// line, and each is at least as long as what was acknowledged when its
// operation began, since the operation has claimed since.
func (w *world) acknowledge(doc []byte) {
	w.acked = append(w.acked, doc)
	w.highest = max(w.highest, len(doc))
}

// check ends the run: what is not flushed is lost in part, and a new host reads.
func (w *world) check() error {
	for _, h := range w.hosts {
		write := h.inFlight
		h.stop()
		if write != nil && w.rng.IntN(2) == 0 {
			write.land(w.rng)
		}
		for _, l := range h.late {
			l.land(w.rng)
		}
	}
	var devices []repository.Device
	for _, d := range w.disks {
		d.lose(w.rng)
		d.down = false
		devices = append(devices, d.Open())
	}
	store, err := repository.Open(config(0, 1<<20, 1<<10), devices...)
	if err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	var final repository.Snapshot
	err = retry(store, 5, func() error {
		var err error
		final, err = store.Load()
		return err
	})
	if err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	return w.chain(final)
}

// chain checks that all that was seen lies on the way to the final value.
func (w *world) chain(final repository.Snapshot) error {
	if int(final.Generation) != len(final.Document)/opSize {
		return fmt.Errorf("generation %d has %d updates", final.Generation, len(final.Document)/opSize)
	}
	seen := map[repository.OpID]bool{}
	for doc := final.Document; len(doc) > 0; doc = doc[opSize:] {
		op := repository.OpID(doc[:opSize])
		if seen[op] {
			return fmt.Errorf("update %x happened twice", op)
		}
		seen[op] = true
	}
	for _, doc := range w.acked {
		if !bytes.HasPrefix(final.Document, doc) {
			return fmt.Errorf("acknowledged generation %d is not on the way to the final one %d", len(doc)/opSize, final.Generation)
		}
	}
	for _, doc := range w.polled {
		if !bytes.HasPrefix(final.Document, doc) {
			return fmt.Errorf("polled generation %d is not on the way to the final one %d", len(doc)/opSize, final.Generation)
		}
	}
	for _, op := range w.refused {
		if seen[op] {
			return fmt.Errorf("update %x happened after its caller was told of a conflict", op)
		}
	}
	return nil
}

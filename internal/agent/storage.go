package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
	"github.com/belfry-ha/belfry/internal/repository/etcd"
	"github.com/belfry-ha/belfry/internal/security"
)

// A storage is the driver of the repository's machine: it owns it, does its jobs
// in a goroutine of their own, and brings into force what comes out. Nothing
// here ever runs on the loop that sends heartbeats (repository.md, invariant 6).
type storage struct {
	agent   *Agent
	in      chan repository.Message
	ended   chan struct{}
	finder  *disk.Finder
	boot    repository.UUID    // of this kernel
	backend repository.Backend // of the job that runs; nil: not open
	unuse   func() error       // closes it
	slot    int                // of this node when it was opened
	epoch   uint64             // that it is of
	next    *takeover
	clones  string      // that were told of last
	forget  atomic.Bool // who counts has changed: for the next job

	state    atomic.Pointer[storageState]
	settling atomic.Bool
	// relocating: a spare is taking the place of a disk, or spares change.
	relocating atomic.Bool
	seen       atomic.Pointer[string] // surroundings at the last scan
	read       atomic.Int64           // how long the last read took, in nanoseconds
	chosen     atomic.Int64           // when the last commit of this node was, in nanoseconds since 1970
	look       atomic.Pointer[look]
	warnings   atomic.Pointer[[]etcd.Warning]
	away       atomic.Pointer[[]repository.UUID] // disks that the last read was without
	changing   chan struct{}                     // held by the change that is made of the document as a whole

	mu       sync.Mutex
	results  map[uint64]chan<- repository.Result
	reported map[belfry.NodeID]uint64 // generation that a member has in its local copy
	news     chan struct{}            // closed, and another one, when what is above, held or the mode changes, and after each read
	proposal uint64
}

// onDisks is what a backend of disks has beside its interface.
type onDisks interface {
	PollNamed(named ...repository.Digest) (repository.Snapshot, error)
	Strayed() error
	Settling() bool
}

// pollNamed reads the newest value that is committed, or that somebody has named,
// where a backend makes that difference.
func pollNamed(b repository.Backend, named ...repository.Digest) (repository.Snapshot, error) {
	if disks, ok := b.(onDisks); ok {
		return disks.PollNamed(named...)
	}
	return b.Poll()
}

// forgetful is a backend that remembers whose signature counts.
type forgetful interface{ Forget() }

// storageState is what others see of the machine.
type storageState struct {
	mode     repository.Mode
	why      error
	good     time.Time // last successful read
	read     time.Duration
	outcomes []uint64
}

// storageInputs bounds what waits for the machine. What a peer sends and finds no
// room is lost, as on the network: the poll brings it.
const storageInputs = 256

// newStorage is for the agent of a cluster whose document lies on shared storage.
func newStorage(a *Agent) (*storage, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	s := &storage{
		agent: a, in: make(chan repository.Message, storageInputs), ended: make(chan struct{}),
		finder: disk.NewFinder(disk.FinderConfig{Folders: a.opts.Config.Repository.Search}), boot: boot,
		results: map[uint64]chan<- repository.Result{}, reported: map[belfry.NodeID]uint64{}, news: make(chan struct{}),
		changing: make(chan struct{}, 1),
	}
	if s.next, err = newTakeover(s); err != nil {
		return nil, err
	}
	s.seen.Store(new(string))
	s.away.Store(new([]repository.UUID))
	s.state.Store(&storageState{mode: repository.Searching, good: time.Now(), outcomes: make([]uint64, len(repository.Outcomes()))})
	return s, nil
}

// bootID is proc_sys_kernel(5), random/boot_id.
func bootID() (id repository.UUID, err error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		err = id.UnmarshalText([]byte(strings.TrimSpace(string(text))))
	}
	if err != nil {
		return id, fmt.Errorf("boot id of this machine: %w", err)
	}
	return id, nil
}

// run ends when ctx does. A job that runs then is waited for: it is bounded by
// the deadlines of the devices.
func (s *storage) run(ctx context.Context) error {
	defer close(s.ended)
	m := repository.New(repository.MachineConfig{
		Self: s.agent.id.node.ID, Cluster: s.agent.members.Table().Cluster, Held: s.held().Held, Tunables: judgeTunables,
	}, time.Now(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	var jobs sync.WaitGroup
	defer func() {
		jobs.Wait()
		if err := s.close(); err != nil {
			s.agent.log.Warn("repository not closed", "err", err)
		}
	}()
	done := make(chan repository.Done, 1) // the machine has one job at a time
	var asked time.Time                   // when it was looked who leads
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case msg := <-s.in:
			m.Receive(time.Now(), msg)
		case d := <-done:
			m.Receive(time.Now(), d)
		case <-timer.C:
		case <-look.C:
			if mode, why := m.Mode(); mode == repository.Ready && why == nil || !s.inEtcd() && s.surroundings() == *s.seen.Load() {
				continue
			}
			m.Receive(time.Now(), repository.Appeared{})
		}
		for range len(s.in) { // what has already arrived counts before any deadline is judged
			m.Receive(time.Now(), <-s.in)
		}
		if now := time.Now(); now.Sub(asked) >= time.Second {
			asked = now
			m.Receive(now, repository.Lead{On: s.agent.leads()})
		}
		m.Advance(time.Now())
		out := m.Take()
		read := s.publish(m)
		for _, j := range out.Jobs {
			jobs.Go(func() { done <- s.work(j) })
		}
		s.hand(out, read)
		if next := m.NextTimeout(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// publish lets others see how the machine stands, before they are told. It tells
// whether the storage was read since.
func (s *storage) publish(m *repository.Machine) (read bool) {
	before := s.state.Load().good
	state := &storageState{good: m.Good(), read: time.Duration(s.read.Load())}
	state.mode, state.why = m.Mode()
	for _, o := range repository.Outcomes() {
		state.outcomes = append(state.outcomes, m.Outcome(o))
	}
	s.state.Store(state)
	return state.good.After(before)
}

// hand does what the machine wants, in the order of its fields: a node that is
// removed is told before anything of its removal is in force here.
func (s *storage) hand(out repository.Output, read bool) {
	for _, c := range out.Changes {
		s.agent.repositoryState(c)
	}
	held := func(n repository.Send) bool { return n.Notice.Kind == repository.NoticeHeld }
	for _, n := range out.Notices {
		if !held(n) {
			s.agent.sendNotice(n)
		}
	}
	if out.Assimilation != nil {
		s.agent.assimilate(out.Assimilation)
	}
	for _, n := range out.Notices { // who waits for the report counts on what is in force
		if held(n) {
			s.agent.sendNotice(n)
		}
	}
	s.mu.Lock()
	if out.Assimilation != nil && len(out.Assimilation.Losses) > 0 { // their numbers are those of other generations now
		clear(s.reported)
	}
	for _, r := range out.Reports {
		s.reported[r.Node] = max(s.reported[r.Node], r.Generation)
	}
	for _, r := range out.Results {
		if reply := s.results[r.ID]; reply != nil {
			reply <- r // has room
			delete(s.results, r.ID)
		}
	}
	if read || len(out.Changes)+len(out.Reports) > 0 || out.Assimilation != nil {
		close(s.news)
		s.news = make(chan struct{})
	}
	s.mu.Unlock()
	if out.Replace != nil {
		disk := out.Replace.Disk
		s.agent.group.Go(func() error { s.agent.replaceBySpare(disk); return nil })
	}
	if out.Rollback != nil {
		c := *out.Rollback
		s.agent.group.Go(func() error { s.agent.rollBack(c); return nil })
	}
}

// tell is for whoever must not wait: the heartbeat loop among them. What finds no
// room is lost.
func (s *storage) tell(msg repository.Message) {
	select {
	case s.in <- msg:
	default:
	}
}

// held is the generation in force, with its table.
func (s *storage) held() *heldTable { return s.agent.documents.held.Load() }

// changed is closed with the next report of a member, generation or mode.
func (s *storage) changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.news
}

// holds tells what a member has said that it holds.
func (s *storage) holds(id belfry.NodeID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reported[id]
}

// lookedFor returns when it is known whether the repository is there, after a
// start, or when that takes too long for whoever waits.
func (s *storage) lookedFor(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	for {
		changed := s.changed()
		if s.state.Load().mode != repository.Searching {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// fit says why this node can not commit; nil: it can.
func (s *storage) fit() error {
	state := s.state.Load()
	switch {
	case rankIn(&s.held().Document, s.agent.id.node.ID) < 0:
		return fmt.Errorf("%w: this node has no host slot in the repository and only reads; another member makes changes", belfry.ErrRestricted)
	case state.mode != repository.Ready && state.why != nil:
		return state.why
	case state.mode != repository.Ready:
		return fmt.Errorf("%w: the repository is being looked for", belfry.ErrRestricted)
	case s.settling.Load():
		return repository.Settling
	}
	return nil
}

// propose commits a document on the base that is in force, and returns when it is
// in force here, or with the error of [repository.Result].
func (s *storage) propose(ctx context.Context, base repository.Version, op repository.OpID, document []byte, kind repository.NoticeKind) (repository.Result, error) {
	reply := make(chan repository.Result, 1)
	s.mu.Lock()
	s.proposal++
	p := repository.Propose{ID: s.proposal, Base: base, Document: document, Op: op, Kind: kind}
	s.results[p.ID] = reply
	s.mu.Unlock()
	select {
	case s.in <- p:
	case <-s.ended:
		return repository.Result{}, errStopped
	}
	select {
	case r := <-reply:
		return r, r.Err
	case <-s.ended:
		return repository.Result{}, fmt.Errorf("%w: the agent stops; the change may be committed", belfry.ErrUnknown)
	case <-ctx.Done():
		return repository.Result{}, fmt.Errorf("%w: %w; the change may be committed", belfry.ErrUnknown, ctx.Err())
	}
}

func newOp() (op repository.OpID) {
	id := belfry.NewNodeID()
	copy(op[:], id[:])
	return op
}

// admit says whose signature counts: a member's in the generation that this node
// holds, or, of a node that it does not know yet, one under the authorities that
// count here, which the candidate document lists (repository.md, On-disk format).
func (s *storage) admit(signer belfry.NodeID, candidate []byte) (repository.Verify, error) {
	held := &s.held().Document
	if key := held.Key(signer); key != nil {
		return repository.VerifyKey(key), nil
	}
	if slices.ContainsFunc(held.Former, func(f repository.FormerNode) bool { return f.ID == signer }) {
		return nil, fmt.Errorf("%w: node %s was removed", belfry.ErrNotMember, signer)
	}
	return admitListed(s.agent.keys.now(), signer, candidate)
}

// admitListed judges a signer that only the candidate document lists.
func admitListed(keys *security.Keys, signer belfry.NodeID, candidate []byte) (repository.Verify, error) {
	if candidate == nil {
		return nil, fmt.Errorf("%w: node %s", belfry.ErrNotMember, signer)
	}
	d, err := repository.Decode(candidate)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(d.Nodes, func(n repository.Node) bool { return n.ID == signer })
	if i < 0 {
		return nil, fmt.Errorf("%w: node %s is not in the document that it has signed", belfry.ErrNotMember, signer)
	}
	n := &d.Nodes[i]
	if err := security.CheckListed(keys.Cluster, keys.CA, n.ID, n.Key, n.Certificate, d.Security.Revoked); err != nil {
		return nil, err
	}
	return repository.VerifyKey(n.Key), nil
}

// sign signs as this node.
func (s *storage) sign(message []byte) []byte {
	return ed25519.Sign(s.agent.keys.now().Certificate.PrivateKey.(ed25519.PrivateKey), message)
}

// config is what the store must know of this node.
func (s *storage) config() repository.Config {
	held := s.held()
	return repository.Config{
		Node: s.agent.id.node.ID, Host: slotIn(&held.Document, s.agent.id.node.ID), Incarnation: uint64(s.agent.id.incarnation), Boot: s.boot,
		Sign: s.sign, Own: repository.VerifyKey(s.agent.keys.now().Public()), Admit: s.admit,
		Holds: repository.HoldsOp, Slots: repository.SlotsGiven, Moving: repository.Moves,
		Local: held.Document.Repository.Kind == repository.KindFile, Held: held.Version,
	}
}

// work does one job.
func (s *storage) work(j repository.Job) repository.Done {
	d := repository.Done{Job: j.ID}
	switch j.Kind {
	case repository.JobScan:
		d.Err = s.scan(j.Repository)
	case repository.JobMove:
		d.Err = s.next.during(s.held().Document.Repository.Epoch, func() error { s.complete(&d); return d.Err })
	case repository.JobKeep:
		d.Err = s.next.during(j.Snapshot.Epoch, func() error { return s.next.keep(j.Snapshot) })
	case repository.JobPoll:
		s.access(j, &d)
	default:
		d.Err = s.next.during(s.epoch, func() error { s.access(j, &d); return d.Err })
	}
	return d
}

// access reads or writes the storage.
func (s *storage) access(j repository.Job, d *repository.Done) {
	begin := time.Now()
	if f, ok := s.backend.(forgetful); ok && s.forget.Swap(false) {
		f.Forget()
	}
	if s.slot != slotIn(&s.held().Document, s.agent.id.node.ID) && !s.inEtcd() {
		d.Err = repository.Moved // this node was given a slot: the disks are opened with it
		return
	}
	if s.next.fences(s.epoch) {
		d.Err = repository.Moved
		return
	}
	disks, onDisks := s.backend.(onDisks)
	if onDisks {
		if d.Err = disks.Strayed(); d.Err != nil {
			return
		}
	}
	switch j.Kind {
	case repository.JobPoll:
		d.Snapshot, d.Err = pollNamed(s.backend, j.Named...)
		if d.Err == nil {
			s.read.Store(int64(time.Since(begin)))
			s.away.Store(&d.Snapshot.Away)
			s.looked(begin, d.Snapshot)
		}
	case repository.JobLoad:
		d.Snapshot, d.Err = s.backend.Load()
	case repository.JobSwap:
		if d.Version, d.Err = s.backend.CAS(j.Base, j.Document, j.Op); d.Err == nil {
			s.chosen.Store(time.Now().UnixNano())
		}
	}
	if onDisks {
		s.settling.Store(disks.Settling())
	}
}

// digestOf is a document's.
func digestOf(document []byte) repository.Digest { return sha256.Sum256(document) }

// isConflict tells of a proposal that another generation has come before.
func isConflict(err error) bool {
	return errors.Is(err, belfry.ErrConflict) && !errors.Is(err, belfry.ErrUnknown)
}

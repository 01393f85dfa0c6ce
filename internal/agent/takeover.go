package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/repository"
)

const (
	// takeoverLost is how long the storage was not read when the members may agree on
	// other disks: as long as the machine waits before it says so.
	takeoverLost   = 15 * time.Second
	takeoverLetter = 2 * time.Second // for one to arrive
	takeoverInbox  = 64
	takeoverTick   = time.Second
)

// A takeover is the driver of the members' agreement on the next epoch.
type takeover struct {
	s     *storage
	inbox chan repository.Letter
	fence atomic.Uint64 // nothing is done in epochs below; as durable
	why   atomic.Pointer[string]
	busy  atomic.Bool // what was chosen is being brought to its disks

	// mu is held while the local copy or a disk is written, and while a letter is
	// answered: whoever has promised the next epoch does neither in this one.
	mu       sync.Mutex
	state    repository.EpochState // as durable
	machine  *repository.Takeover
	held     repository.Held // in the local copy
	document []byte          // of held
}

func newTakeover(s *storage) (*takeover, error) {
	state, err := readEpoch(s.agent.opts.Config.State)
	if err != nil {
		return nil, err
	}
	t := &takeover{s: s, inbox: make(chan repository.Letter, takeoverInbox), state: state}
	t.fence.Store(state.Target)
	t.why.Store(new(string))
	return t, nil
}

// fences tells whether nothing may be done any more in an epoch.
func (t *takeover) fences(epoch uint64) bool { return epoch < t.fence.Load() }

// waits is why the disks of an epoch are not opened.
func (t *takeover) waits() error {
	return fmt.Errorf("%w: the members agree on epoch %d without the disks that are gone; nothing is done any more in earlier ones, also if these come back", belfry.ErrNotFound, t.fence.Load())
}

// during does something in an epoch that must not be done by a member that has promised
// a later one.
func (t *takeover) during(epoch uint64, do func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fences(epoch) {
		return repository.Moved
	}
	return do()
}

// keep writes the local copy. The mutex is held.
func (t *takeover) keep(found repository.Snapshot) error {
	if err := writeCopy(t.s.agent.opts.Config.State, found.Version, found.Document); err != nil {
		return err
	}
	held, err := repository.HeldOf(found.Version, found.Document)
	if err == nil {
		t.held, t.document = held, found.Document
	}
	return err
}

// reason is what is to be told beside that the storage is gone; empty: nothing.
func (t *takeover) reason() string { return *t.why.Load() }

// run ends when ctx does.
func (t *takeover) run(ctx context.Context) error {
	if err := t.begin(); err != nil {
		return err
	}
	ticker := time.NewTicker(takeoverTick)
	defer ticker.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var looked time.Time
	var seen []repository.UUID
	for {
		var letters []repository.Letter
		select {
		case <-ctx.Done():
			return nil
		case l := <-t.inbox:
			letters = append(letters, l)
		case <-ticker.C:
		case <-timer.C:
		}
		for range len(t.inbox) {
			letters = append(letters, <-t.inbox)
		}
		lost := t.lost(time.Now())
		if (lost || t.fences(t.s.held().Epoch)) && time.Since(looked) >= takeoverTick { // off the lock: a device may hang
			seen = t.sees()
			looked = time.Now()
		}
		next := t.step(ctx, letters, lost, seen)
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// begin takes what is in the local copy.
func (t *takeover) begin() (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = t.s.held().Held
	if t.document, err = repository.Encode(t.held.Document); err != nil {
		return err
	}
	t.restart()
	return nil
}

// restart forgets all that is not durable, as a start of the agent does.
func (t *takeover) restart() {
	t.machine = repository.NewTakeover(t.s.agent.id.node.ID, t.state, time.Now(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
}

// lost tells whether the storage has not been read for so long that the members may do
// without. What is damaged or cloned is there, and people have to look at it.
func (t *takeover) lost(now time.Time) bool { return t.lostIn(t.s.state.Load(), now) }

func (t *takeover) lostIn(state *storageState, now time.Time) bool {
	for _, f := range []repository.Fault{repository.Cloned, repository.Damaged, repository.Regressed} {
		if errors.Is(state.why, f) {
			return false
		}
	}
	return state.mode == repository.Restricted && now.Sub(state.good) >= takeoverLost && !t.s.inEtcd()
}

// sees are the spares that are found on this machine, as they were reserved.
func (t *takeover) sees() (seen []repository.UUID) {
	spares := t.s.held().Document.Repository.Spares
	if len(spares) == 0 {
		return nil
	}
	for _, d := range t.s.finder.All().Disks {
		if id := d.Header.Disk(); d.Header.Reserved() && slices.Contains(spares, id) && !slices.Contains(seen, id) {
			seen = append(seen, id)
		}
	}
	return seen
}

// step gives the machine what has come, and does what it wants. It returns when it
// wants to be asked again.
func (t *takeover) step(ctx context.Context, letters []repository.Letter, lost bool, seen []repository.UUID) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := repository.Standing{Held: t.held, Document: t.document, Lost: lost, Seen: seen}
	if lost || t.fences(t.held.Epoch) {
		for id := range t.s.agent.up() { // only counted
			s.Up = append(s.Up, id)
		}
	}
	now := time.Now()
	t.machine.Receive(now, s)
	for _, l := range letters {
		t.machine.Receive(now, l)
	}
	t.machine.Advance(now)
	out := t.machine.Take()
	if !t.durable(out.Keep) {
		return now.Add(takeoverTick)
	}
	t.tellWhy()
	for _, l := range out.Letters {
		t.s.agent.group.Go(func() error { t.post(ctx, l); return nil })
	}
	if out.Complete != nil && t.busy.CompareAndSwap(false, true) {
		t.s.agent.group.Go(func() error {
			defer t.busy.Store(false)
			t.complete(out.Complete)
			return nil
		})
	}
	if out.Look {
		t.s.tell(repository.Appeared{})
	}
	return t.machine.NextTimeout()
}

// durable tells whether what was promised is on this node's disk. If not, nothing has
// happened: neither is it in force, nor does anybody hear of it.
func (t *takeover) durable(state *repository.EpochState) bool {
	if state == nil {
		return true
	}
	if err := writeEpoch(t.s.agent.opts.Config.State, *state); err != nil {
		t.s.agent.log.Error("what members promise each other about the repository can not be kept; make room on the disk of the state directory", "err", err)
		t.restart()
		return false
	}
	if state.Target > t.state.Target {
		t.s.agent.log.Warn("this member has promised another epoch of the repository; nothing is done any more in earlier ones", "epoch", state.Target)
	}
	if state.Chosen && !t.state.Chosen {
		t.s.agent.log.Warn("the members take the repository over, without the disks that are gone", "epoch", state.Target)
	}
	t.state = *state
	t.fence.Store(state.Target)
	return true
}

func (t *takeover) tellWhy() {
	text := ""
	if err := t.machine.Why(); err != nil {
		text = err.Error()
	}
	if text == *t.why.Load() {
		return
	}
	t.why.Store(&text)
	if text != "" {
		t.s.agent.log.Warn("repository; it is tried again", "err", text)
	}
}

// complete brings what was chosen to its disks, if they are here, and has them looked for.
func (t *takeover) complete(value []byte) {
	move, err := repository.TakeoverMove(value)
	if err != nil {
		t.s.agent.log.Error("what the members have agreed on is none of their epochs", "err", err)
		return
	}
	h := move.Headers[0]
	if _, err := t.s.completeOnDisks(move, t.s.held().Document.Repository.Kind); err != nil {
		t.s.agent.log.Warn("the repository is not brought to its new disks by this member; it is tried again", "epoch", h.Epoch, "err", err)
	}
	// The notice is that of the members: it names what they have chosen, so that it counts
	// on the disks before anybody has written there that it does.
	t.s.tell(repository.Noticed{From: t.s.agent.id.node.ID, Notice: repository.Notice{
		Kind: repository.NoticeConfiguration, Cluster: h.Cluster, Repository: h.Repository, Epoch: h.Epoch, Generation: move.Generation, Digest: digestOf(value),
	}})
	t.s.tell(repository.Appeared{})
}

// post sends one letter; what is lost is asked for again.
func (t *takeover) post(ctx context.Context, l repository.Letter) {
	ctx, cancel := context.WithTimeout(ctx, takeoverLetter)
	defer cancel()
	if err := t.s.agent.ask(ctx, l.To, belfryv1.MemberPeerService_TakeOver_FullMethodName, letterTo(l), new(belfryv1.TakeOverResponse)); err != nil {
		t.s.agent.log.Debug("letter about the next epoch not sent", "peer", t.s.agent.nameOf(l.To), "err", err)
	}
}

// takeLetter takes a letter of a member. What finds no room is lost, as on the network.
func (a *Agent) takeLetter(_ context.Context, from belfry.NodeID, req *belfryv1.TakeOverRequest) (*belfryv1.TakeOverResponse, error) {
	if a.storage == nil {
		return nil, fmt.Errorf("%w: the members keep the configuration among themselves", belfry.ErrUnsupported)
	}
	l, err := letterFrom(req)
	if err != nil {
		return nil, err
	}
	l.From, l.To = from, a.id.node.ID
	select {
	case a.storage.next.inbox <- l:
	default:
	}
	return &belfryv1.TakeOverResponse{}, nil
}

// tellLosses posts config.lost for each generation that this node held and that nobody
// had who took the repository over.
func (a *Agent) tellLosses(as *repository.Assimilation) {
	for _, l := range as.Losses {
		a.notices.Tell(node.ConfigLost, as.Document.Cluster.Name, time.Now(), belfry.EdgeNone, &belfryv1.ConfigLost{
			Node: a.id.node.Name, Generation: l.Generation, Epoch: l.Epoch, Digest: l.Digest.String(), Author: l.Author, Change: l.Text,
			InForce: as.Generation, InForceEpoch: as.Epoch,
		})
		a.log.Error("a committed generation is lost with the disks that it was on; make the change anew (the local copy stays, as NUMBER.lost)",
			"generation", l.Generation, "author", l.Author, "change", l.Text, "digest", l.Digest.String(), "in_force", as.Generation)
	}
}

// mayChangeMembers wants that a majority of the members holds the generation that a
// change of them follows, as long as they may have to agree on the next epoch.
func (a *Agent) mayChangeMembers(ctx context.Context, held *heldTable, document []byte) error {
	if len(held.Document.Repository.Spares) == 0 {
		return nil
	}
	to, err := repository.Decode(document)
	if err != nil {
		return err
	}
	nobody := func(belfry.NodeID) bool { return false }
	if repository.MembersMayChange(&held.Document, &to, nobody) == nil {
		return nil // they stay as they are: no need to ask
	}
	reports := a.askDisks(ctx, nil)
	return repository.MembersMayChange(&held.Document, &to, func(id belfry.NodeID) bool {
		r, ok := reports[id]
		return ok && r.epoch == held.Epoch && r.digest == held.Digest
	})
}

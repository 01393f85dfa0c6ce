package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/sink/journal"
)

const (
	// journalDirectory is the one with the journal, in the state directory.
	journalDirectory = "journal"
	// Of the journal's consumer: one commit under way, and behind it room for a
	// disk that is slow for a while. What does not fit is a gap of its event.
	journalBatch   = 4096    // notifications
	journalBytes   = 1 << 20 // of one batch
	journalQueue   = 16_384  // notifications
	journalPayload = 16 << 20

	journalPace = 5 * time.Millisecond // from one commit to the next: docs/adr/0020-journal-pace.md
	// journalGather is from an event that comes alone to its commit: whoever waits
	// for it gets it first. Write and sync would hold the processor that it woke.
	journalGather     = time.Millisecond
	journalRetryFirst = time.Second // after a commit that failed
	journalRetryMost  = 30 * time.Second
	journalLook       = 5 * time.Second  // at age and state, while nothing happens
	journalCalm       = 10 * time.Second // without trouble, until the state is ok again
)

// alwaysRecorded are the events of this node that are recorded although nobody
// watches them: what its cluster finds out, which costs nothing (a link that is
// asked for is heard more closely, so links are not among them); and of all
// others those that somebody watches.
var alwaysRecorded = []string{"node.*", "cluster.*", "security.*", "agent.*", "producer.*", "journal.*", "*"}

// A recorder takes the events to the journal. It is a consumer of the event
// loop like any other, so that a disk that is slow or full holds up nothing:
// what waits coalesces in the machine, exactly counted.
type recorder struct {
	agent *Agent
	log   *slog.Logger
	store *journal.Journal // nil: it can not be opened

	consumer *consumer
	cancel   context.CancelFunc
	ended    chan struct{}

	mu        sync.Mutex
	committed uint64        // batch
	drained   uint64        // the last batch that had all there was
	changed   chan struct{} // closed when one of them changes
	degraded  string        // why; empty: it is not
	trouble   time.Time     // the last

	records, commits, failures, lost atomic.Uint64
}

func newRecorder(a *Agent) *recorder {
	r := &recorder{
		agent: a, log: a.log.With("component", "journal"),
		ended: make(chan struct{}), changed: make(chan struct{}), cancel: func() {},
	}
	close(r.ended) // until it runs
	return r
}

// openJournal opens the journal. One that can not be opened costs the past,
// and not the node.
func (a *Agent) openJournal() error {
	r := newRecorder(a)
	a.journal = r
	settings := a.opts.Config.Journal
	store, err := journal.Open(filepath.Join(a.opts.Config.State, journalDirectory), journal.Options{
		Node: a.id.node.ID, Incarnation: a.id.incarnation, Size: settings.Bytes(), Age: settings.Duration(),
		Trouble: r.troubled,
	})
	if err != nil {
		r.troubled(err)
		return nil
	}
	r.store = store
	a.onStop("journal", r.stop) // after all that makes events
	return nil
}

// former is what this node's earlier lives recorded of other nodes' events. It is
// for the start, before anything is recorded.
func (r *recorder) former() (list []event.Former) {
	if r.store == nil {
		return nil
	}
	ends, at := r.store.Ends()
	for _, e := range ends {
		if e.Node != r.agent.id.node.ID {
			list = append(list, event.Former{
				Node: e.Node, Incarnation: e.Incarnation, Entry: event.EntryID(e.Entry), Class: e.Class, Subject: e.Subject, Last: e.Last, Time: at,
			})
		}
	}
	return list
}

// startJournal registers the journal before anybody else can.
func (a *Agent) startJournal() error {
	r := a.journal
	if r.degraded != "" {
		r.tell("degraded", r.degraded, belfry.EdgeFailing)
	} else {
		r.tell("ok", "", belfry.EdgeRecovered)
	}
	if r.store == nil {
		return nil
	}
	limits := event.Limits{
		Window: 1, BatchNotifications: journalBatch, BatchBytes: journalBytes, Payload: journalPayload, Reuse: true,
	}
	c, ok := a.events.Open(event.ConsumerJournal, "journal", limits).(*consumer)
	if !ok {
		return errStopped
	}
	r.consumer = c
	for i, class := range alwaysRecorded {
		wish := belfry.Registration{Class: class, Limit: journalQueue}
		c.tell(event.Register{Consumer: c.id, Number: uint32(i) + 1, Registration: wish, LookOn: true})
	}
	ctx, cancel := context.WithCancel(a.ended)
	r.cancel, r.ended = cancel, make(chan struct{})
	go func() { // not of the group: a disk that never answers must not keep the agent from ending
		defer close(r.ended)
		r.run(ctx)
	}()
	a.group.Go(func() error { r.activate(ctx); return nil })
	return nil
}

// activate registers for what is recorded although nobody watches it.
func (r *recorder) activate(ctx context.Context) {
	for i, on := range r.agent.opts.Config.Journal.Active {
		wish := belfry.Registration{Wait: true, Limit: journalQueue}
		wish.Class, wish.Subject, _ = strings.Cut(on, ":")
		if _, err := r.consumer.Register(ctx, uint32(len(alwaysRecorded)+i)+1, wish); err != nil && ctx.Err() == nil {
			r.log.Error("not recorded; correct journal.active in the settings", "event", on, "err", err)
		}
	}
}

// run commits batch after batch until ctx ends. What comes while the disk is
// given its pause goes into the next commit; a queue that holds more than one
// batch makes no pause.
func (r *recorder) run(ctx context.Context) {
	var begun time.Time // the last commit
	for {
		b, err := r.next(ctx)
		switch {
		case err == nil:
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			r.store.Expire()
			r.calm()
			continue
		default:
			return
		}
		if alone := time.Since(begun) > journalPace+journalGather; alone && !pause(ctx, journalGather) {
			return
		}
		begun = time.Now()
		if !r.commit(ctx, b.Notifications) {
			return
		}
		r.consumer.Ack(b.Number)
		r.count(&b)
		r.calm()
		if b.Drained && !pause(ctx, journalPace-time.Since(begun)) {
			return
		}
	}
}

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// next gives up now and then; the batch that comes later is not lost.
func (r *recorder) next(ctx context.Context) (event.Batch, error) {
	ctx, cancel := context.WithTimeout(ctx, journalLook)
	defer cancel()
	return r.consumer.Next(ctx)
}

// commit tries until the batch is durable; false: ctx ended first.
func (r *recorder) commit(ctx context.Context, batch []belfry.Notification) bool {
	for wait := journalRetryFirst; ; wait = min(2*wait, journalRetryMost) {
		err := r.store.Append(batch)
		if err == nil {
			r.commits.Add(1)
			return true
		}
		r.failures.Add(1)
		if !pause(ctx, wait) {
			return false
		}
	}
}

// count notes a batch that is durable.
func (r *recorder) count(b *event.Batch) {
	for i := range b.Notifications {
		switch n := &b.Notifications[i]; {
		case n.Kind == belfry.KindOccurrence:
			r.records.Add(1)
		case n.Gap != nil:
			r.records.Add(1)
			if n.Gap.Reason == belfry.GapOverflow || n.Gap.Reason == belfry.GapSlow {
				r.lost.Add(n.Gap.Total)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.committed = b.Number
	if b.Drained {
		r.drained = b.Number
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// flush waits until all that has happened so far is durable, and returns the
// position up to which it is.
func (r *recorder) flush(ctx context.Context) (uint64, error) {
	if r.consumer == nil {
		return 0, nil
	}
	var idle bool
	var last uint64
	var queued int
	err := r.agent.events.call(ctx, func(m *event.Machine) {
		idle, last = m.Drained(r.consumer.id)
		queued = m.QueueLength(r.consumer.id)
	})
	for err == nil && !idle {
		r.mu.Lock()
		idle = r.drained > last || queued == 0 && r.committed >= last
		changed := r.changed
		r.mu.Unlock()
		if idle {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return r.store.Durable(), err
}

// stop writes what is left, and that the journal is complete if it is.
func (r *recorder) stop(ctx context.Context) error {
	waiting, done := context.WithTimeout(ctx, stopTimeout/2)
	_, err := r.flush(waiting)
	done()
	r.cancel()
	select {
	case <-r.ended:
	case <-ctx.Done():
		r.log.Error("the disk does not answer; the next start says that something may be missing")
		return nil
	}
	if closed := r.store.Close(err == nil && r.consumer != nil); closed != nil {
		r.log.Error("the journal was not ended; the next start says that something may be missing", "err", closed)
	}
	return nil
}

// troubled is called by the store, and when that can not be opened.
func (r *recorder) troubled(err error) {
	r.mu.Lock()
	was := r.degraded
	r.degraded, r.trouble = err.Error(), time.Now()
	r.mu.Unlock()
	if was == "" {
		r.log.Error("the journal is degraded", "err", err)
		r.tell("degraded", err.Error(), belfry.EdgeFailing)
	}
}

// calm says that the journal is well again, some time after the last trouble:
// on a full disk each commit would bring new news, which is recorded.
func (r *recorder) calm() {
	r.mu.Lock()
	well := r.degraded != "" && time.Since(r.trouble) >= journalCalm
	if well {
		r.degraded = ""
	}
	r.mu.Unlock()
	if well {
		r.log.Info("the journal is well again")
		r.tell("ok", "", belfry.EdgeRecovered)
	}
}

func (r *recorder) tell(state, reason string, edge belfry.Edge) {
	if r.agent.notices != nil { // it is not, while the journal is opened
		self := r.agent.id.node.Name
		r.agent.notices.Tell(node.JournalState, self, time.Now(), edge, &belfryv1.JournalState{Node: self, State: state, Reason: reason})
	}
}

// status is for listings.
func (r *recorder) status() *belfryv1.JournalStatus {
	r.mu.Lock()
	s := &belfryv1.JournalStatus{State: "ok", Reason: r.degraded}
	r.mu.Unlock()
	if s.Reason != "" {
		s.State = "degraded"
	}
	s.Lost = r.lost.Load()
	if r.store != nil {
		stats := r.store.Stats()
		s.Bytes, s.Position = uint64(max(0, stats.Bytes)), r.store.Durable()
		s.Oldest = timestampOf(stats.Oldest)
	}
	return s
}

var errNoJournal = fmt.Errorf("%w: this node has no journal; belfry doctor journal says why", belfry.ErrUnsupported)

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/api/licenseview"
	"github.com/belfry-ha/belfry/internal/license"
	producer "github.com/belfry-ha/belfry/internal/producer/license"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

// A licenses judges what products may do on this node, each time anew from the
// document that is in force here (US20120246474): after each generation, when a
// license begins or ends, and once a minute. It is safe for concurrent use.
//
// Nothing waits for it but those who ask about licenses: neither the loops of
// heartbeats and events nor the storage's driver. What it does not survive
// leaves products locked, and all else as it is.
type licenses struct {
	agent    *Agent
	producer *producer.Producer
	stand    func(*repository.Document, belfry.NodeID, licenseview.Clock) *licenseview.Standing // licenseview.Stand
	wake     chan struct{}                                                                      // capacity 1

	latest atomic.Pointer[judged] // nil before the first judgement

	mu        sync.Mutex   // of one judgement at a time, and of what is below
	committed license.Mark // what this node commits as the leader
	saved     license.Mark // by its own clock
	kept      keptTimes    // as in the file
	keptAt    time.Time    // when that was written
}

var _ api.Licenses = (*licenses)(nil)

// apiLicenses is for [api.Options]: nil where members keep the table.
func (a *Agent) apiLicenses() api.Licenses {
	if a.licenses == nil {
		return nil
	}
	return a.licenses
}

const (
	// judgeEvery is how often licenses are judged though nothing has happened: the
	// clock may have been set.
	judgeEvery = time.Minute
	// keepEvery is how often the times are saved.
	keepEvery = time.Hour
	// licensesFile is in the state directory.
	licensesFile = "licenses"
	// searchTime is how long after a start the repository may be looked for before
	// it counts as away.
	searchTime = 15 * time.Second
)

// A judged is one judgement. Nobody writes to it.
type judged struct {
	held     *heldTable // that it is of
	standing *licenseview.Standing
	changed  chan struct{} // closed when there is another one
}

// keptTimes are what a node keeps over its restarts.
type keptTimes struct {
	Mark time.Time `json:"mark,omitzero"` // a time that has passed
	Read time.Time `json:"read,omitzero"` // when the repository was last read
}

// newLicenses is for the agent of a cluster whose document lies on shared storage.
// A file that can not be read costs what it held, no more.
func newLicenses(a *Agent) *licenses {
	l := &licenses{agent: a, stand: licenseview.Stand, wake: make(chan struct{}, 1)}
	data, err := os.ReadFile(filepath.Join(a.opts.Config.State, licensesFile))
	if err == nil {
		err = json.Unmarshal(data, &l.kept)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("times of licenses not read; they begin anew", "err", err)
		l.kept = keptTimes{}
	}
	l.saved = license.MarkAt(l.kept.Mark, 0)
	l.producer = producer.New(a.id.node.Name, l.state, license.CheckProduct)
	return l
}

// noLicenses is the producer of a cluster without a repository: every product is
// locked there.
func noLicenses(node string) *producer.Producer {
	return producer.New(node, func(product string) producer.State {
		return producer.State{Product: product, Reason: "this cluster has no repository, where licenses lie; make one with belfry init --repository", At: time.Now()}
	}, license.CheckProduct)
}

// follow has the licenses judged: the document, or how this node stands to the
// repository, is another one. It does not wait.
func (l *licenses) follow() {
	if l == nil {
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run judges until ctx ends.
func (l *licenses) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			l.keep(time.Now(), true)
			return nil
		case <-l.wake:
		case <-timer.C:
		}
		l.mu.Lock()
		now := time.Now()
		l.keep(now, false)
		l.judge(now)
		timer.Reset(l.next())
		l.mu.Unlock()
	}
}

// next is how long nothing is to be done.
func (l *licenses) next() time.Duration {
	wait, standing := judgeEvery, l.latest.Load().standing
	if until := standing.Until(); !until.IsZero() && until.Sub(standing.Time) < wait {
		wait = until.Sub(standing.Time)
	}
	return max(wait, time.Millisecond)
}

// Standing is how products stand by the generation in force: who asks right after
// it came is not told of the one before, and waits for the judgement.
func (l *licenses) Standing() (*licenseview.Standing, <-chan struct{}) {
	if now := l.latest.Load(); now != nil && now.held == l.agent.storage.held() {
		return now.standing, now.changed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.latest.Load(); now == nil || now.held != l.agent.storage.held() {
		l.judge(time.Now())
	}
	now := l.latest.Load()
	return now.standing, now.changed
}

// Latest is the last judgement; nil: there is none yet. It never waits.
func (l *licenses) Latest() *licenseview.Standing {
	if now := l.latest.Load(); now != nil {
		return now.standing
	}
	return nil
}

// judge makes the verdicts of now, and tells of those that are others. The caller
// holds the lock.
func (l *licenses) judge(now time.Time) {
	held, last := l.agent.storage.held(), l.latest.Load()
	clock := licenseview.Clock{Now: now, Mark: l.saved.Time(), LastRead: l.lastRead(now)}
	next := l.tryStand(&held.Document, clock)
	l.latest.Store(&judged{held, next, make(chan struct{})})
	var before *licenseview.Standing
	if last != nil {
		before = last.standing
		close(last.changed)
	}
	products := licenseview.Products(next.Document)
	l.producer.Known(products)
	if before == nil {
		for _, product := range products {
			l.tell("", l.stateOf(next, product))
		}
		return
	}
	for _, product := range union(products, licenseview.Products(before.Document)) {
		was, is := l.stateOf(before, product), l.stateOf(next, product)
		if was.To != is.To || was.License != is.License {
			is.From = was.To.String()
			l.producer.Changed(is)
			l.tell(is.From, is)
		}
	}
	if (before.Behind > 0) != (next.Behind > 0) {
		l.producer.Drifted(next.Behind, now)
		if next.Behind > 0 {
			l.agent.log.Warn("this node's clock is before a time that has passed; licenses are judged by that; set the clock", "behind", next.Behind, "time", next.Time)
		}
	}
}

// tryStand survives what license files may do to the one who judges them: no
// license ever stops detection, events, the witness or fail-over.
func (l *licenses) tryStand(d *repository.Document, clock licenseview.Clock) (s *licenseview.Standing) {
	defer func() {
		if p := recover(); p != nil {
			l.agent.log.Error("licenses can not be judged; all products are locked, all else goes on", "panic", fmt.Sprint(p))
			empty := &repository.Document{Cluster: d.Cluster, Nodes: d.Nodes, History: d.History}
			s = &licenseview.Standing{Document: empty, Node: l.agent.id.node.ID, Clock: clock, Time: clock.Now}
		}
	}()
	return l.stand(d, l.agent.id.node.ID, clock)
}

// union is both lists, sorted, each name once.
func union(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

// tell logs one state.
func (l *licenses) tell(from string, s producer.State) {
	log := l.agent.log.Info
	if s.To != belfry.LicenseUnlocked {
		log = l.agent.log.Warn
	}
	log("license", "product", s.Product, "from", from, "state", s.To.String(), "license", s.License, "reason", s.Reason, "generation", s.Generation)
}

func (l *licenses) stateOf(s *licenseview.Standing, product string) producer.State {
	v := s.Verdict(product)
	return producer.State{
		Product: product, To: v.State, License: string(v.License), Reason: v.Reason, Until: v.Until, Generation: s.Document.Generation(), At: s.Clock.Now,
	}
}

// state is for the producer.
func (l *licenses) state(product string) producer.State {
	s, _ := l.Standing()
	return l.stateOf(s, product)
}

// lastRead is when the repository was last read; zero: it is within reach, or is
// being looked for after a start.
func (l *licenses) lastRead(now time.Time) time.Time {
	s := l.agent.storage
	state := s.state.Load()
	switch {
	case state.mode == repository.Ready:
		return time.Time{}
	case state.mode == repository.Searching && now.Sub(l.agent.started) < searchTime:
		return time.Time{}
	case s.look.Load() == nil && !l.kept.Read.IsZero():
		return l.kept.Read
	}
	return state.good // at first the start of this agent
}

// keep saves the times once an hour, or now: only while there are licenses. The
// caller holds the lock.
func (l *licenses) keep(now time.Time, last bool) {
	if len(l.agent.storage.held().Document.Licenses.Files) == 0 || !last && now.Sub(l.keptAt) < keepEvery {
		return
	}
	l.saved = l.saved.Raise(now, now.Sub(l.agent.started))
	l.keptAt, l.kept.Mark = now, l.saved.Time().UTC().Truncate(time.Second)
	if l.agent.storage.look.Load() != nil {
		l.kept.Read = l.agent.storage.state.Load().good.UTC().Truncate(time.Second)
	}
	data, err := json.Marshal(l.kept)
	if err == nil {
		err = security.ReplaceFile(filepath.Join(l.agent.opts.Config.State, licensesFile), append(data, '\n'))
	}
	if err != nil {
		l.agent.log.Warn("times of licenses not saved; it is tried again in an hour", "err", err)
	}
}

// Mark raises the committed mark by the median of the members' clocks, and not
// faster than a mark may rise.
func (l *licenses) Mark(committed, issued time.Time) time.Time {
	uptime, sample := time.Since(l.agent.started), l.agent.clusterTime()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed = l.committed.Adopt(committed).Raise(sample, uptime).Adopt(issued)
	if at := l.committed.Time().UTC().Truncate(time.Second); at.After(committed) {
		return at
	}
	return committed
}

// markEvery is how often the leader commits the time mark, if a license has dates.
const markEvery = 24 * time.Hour

// raiseMark is a duty of the leader.
func (a *Agent) raiseMark(ctx context.Context) error {
	if a.licenses == nil {
		return nil
	}
	d := &a.storage.held().Document
	now := time.Now()
	if !licenseview.Dated(d) || a.clusterTime().Sub(d.Licenses.Mark) < markEvery || now.Sub(a.marked) < markEvery {
		return nil
	}
	_, err := configDocuments{a}.CommitConfig(ctx, licenseview.Mark(a.licenses.Mark), "node "+a.id.node.Name)
	if err == nil {
		a.marked = now
	}
	return err
}

package agent

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/producer/resource"
	"github.com/belfry-ha/belfry/internal/witness"
)

// A witnessLoop owns the witness machine. Nothing it calls may wait: what may
// goes through a mailbox.
type witnessLoop struct {
	cfg     witness.Config
	log     *slog.Logger
	in      *mailbox[witnessInput]
	stopped chan struct{}
	calls   atomic.Uint64

	settings atomic.Pointer[witness.Config] // in force, for clients
	count    *witnessCount

	interest func([]witness.Interest)
	peers    func(bool)
	standing func(witness.Standing)
	moved    func(witness.Moved)
	held     func([]witness.Holding)
	observe  func([]witness.Observe)
	own      func(witness.Report)
	ask      func(ctx context.Context, node belfry.NodeID, method string, req, resp proto.Message) error
}

// A witnessInput is one of three: a message, with somebody who waits for the
// answer or not; a call that nobody waits for any more; a look at the machine.
type witnessInput struct {
	msg    witness.Message
	call   witness.CallID
	reply  chan<- witness.Answer // with room for it
	cancel witness.CallID
	look   func(*witness.Machine)
}

func newWitnessLoop(cfg witness.Config, log *slog.Logger) *witnessLoop {
	l := &witnessLoop{
		cfg: cfg, log: log, in: newMailbox[witnessInput](), stopped: make(chan struct{}), count: newWitnessCount(),
		interest: func([]witness.Interest) {}, peers: func(bool) {}, standing: func(witness.Standing) {},
		moved: func(witness.Moved) {}, held: func([]witness.Holding) {}, observe: func([]witness.Observe) {}, own: func(witness.Report) {},
	}
	l.settings.Store(&cfg)
	return l
}

// run ends when ctx does.
func (l *witnessLoop) run(ctx context.Context) error {
	defer close(l.stopped)
	m := witness.New(l.cfg, time.Now(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	waiting := map[witness.CallID]witnessCall{}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // who waits sees it by stopped
		case <-l.in.wake:
		case <-timer.C:
		}
		for _, in := range l.in.take() {
			l.receive(m, waiting, in)
		}
		m.Advance(time.Now())
		l.hand(waiting, m.Take())
		if next := m.NextTimeout(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

func (l *witnessLoop) receive(m *witness.Machine, waiting map[witness.CallID]witnessCall, in witnessInput) {
	switch {
	case in.look != nil:
		in.look(m)
		return
	case in.cancel != 0:
		delete(waiting, in.cancel)
		m.Receive(time.Now(), witness.Cancel{Call: in.cancel})
		return
	case in.reply != nil:
		waiting[in.call] = callOf(in.msg, in.reply)
	}
	m.Receive(time.Now(), in.msg)
}

// handful is how many callers are answered before they may run. One verdict can
// answer ten thousand: if all were woken first, then all were written for, then all
// were sent, the first would be told when the last is.
const handful = 16

// hand gives away what the machine put out. Nothing here waits.
func (l *witnessLoop) hand(waiting map[witness.CallID]witnessCall, out witness.Output) {
	now := time.Now()
	for i := range out.Answers {
		a := out.Answers[i]
		if c, ok := waiting[a.Call]; ok {
			c.reply <- a // has room
			delete(waiting, a.Call)
			l.count.answered(c, &a, now)
		}
		if i%handful == handful-1 {
			runtime.Gosched()
		}
	}
	if len(out.Interest) > 0 {
		l.interest(out.Interest)
	}
	if len(out.Observe) > 0 {
		l.observe(out.Observe)
	}
	for _, r := range out.Own {
		l.own(r)
	}
	if out.Peers != nil {
		l.peers(*out.Peers)
	}
	if out.Standing != nil {
		l.standing(*out.Standing)
	}
	if out.Held != nil {
		l.held(*out.Held)
	}
	for _, one := range out.Moved {
		l.moved(one)
	}
	for _, e := range out.Ended {
		l.log.Debug("registration ended", "registration", e.Key, "client", e.Client, "reason", e.Reason)
	}
}

// tell is for all that has no answer. It never waits.
func (l *witnessLoop) tell(messages ...witness.Message) {
	inputs := make([]witnessInput, len(messages))
	for i, m := range messages {
		inputs[i].msg = m
	}
	l.in.put(inputs...)
}

// The methods below are api.Witness.

var _ api.Witness = (*witnessLoop)(nil)

// Ask waits for the answer of one call.
func (l *witnessLoop) Ask(ctx context.Context, r witness.Request) (witness.Answer, error) {
	call := witness.CallID(l.calls.Add(1))
	reply := make(chan witness.Answer, 1)
	l.in.put(witnessInput{msg: r.Numbered(call), call: call, reply: reply})
	select {
	case a := <-reply:
		return a, a.Err
	case <-ctx.Done():
		l.in.put(witnessInput{cancel: call})
		return witness.Answer{}, ctx.Err()
	case <-l.stopped:
		return witness.Answer{}, errStopped
	}
}

// look runs f on the machine between two wake-ups.
func (l *witnessLoop) look(ctx context.Context, f func(*witness.Machine)) error {
	done := make(chan struct{})
	l.in.put(witnessInput{look: func(m *witness.Machine) { f(m); close(done) }})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.stopped:
		return errStopped
	}
}

// NodeInformation is the witnesses by rank. The first that asks waits for what the
// others say of themselves, a quarter of a second at most.
func (l *witnessLoop) NodeInformation(ctx context.Context, q witness.Question) (all []witness.Witness, incomplete bool, err error) {
	l.tell(witness.Consulted{})
	for {
		var ready time.Time
		err = l.look(ctx, func(m *witness.Machine) {
			ready = m.PeersHeard(time.Now())
			all, incomplete = m.NodeInformation(q)
		})
		if err != nil || ready.IsZero() {
			return all, incomplete, err
		}
		select {
		case <-time.After(min(time.Until(ready), peersPoll)):
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// peersPoll is how often it is looked whether all others have answered.
const peersPoll = 5 * time.Millisecond

// Listing is what this witness holds.
func (l *witnessLoop) Listing(ctx context.Context) (api.WitnessListing, error) {
	got := make(chan api.WitnessListing, 1)
	err := l.look(ctx, func(m *witness.Machine) {
		now := time.Now()
		got <- api.WitnessListing{Registrations: m.Registrations(now), Resources: m.Resources(now), Draining: m.Draining()}
	})
	if err != nil {
		return api.WitnessListing{}, err
	}
	return <-got, nil
}

// Settings are what clients are told of time.
func (l *witnessLoop) Settings() (keepAlive, unused time.Duration) {
	s := l.settings.Load()
	return s.KeepAlive, s.Unused
}

// configure brings other settings into force.
func (l *witnessLoop) configure(cfg witness.Config) {
	l.settings.Store(&cfg)
	l.tell(witness.Configured{Config: cfg})
}

// PeerWitness asks another node.
func (l *witnessLoop) PeerWitness(ctx context.Context, node belfry.NodeID, method string, req, resp proto.Message) error {
	return l.ask(ctx, node, method, req, resp)
}

// newWitness makes the loop, the producer of what this node holds, and what
// feeds both; nothing runs before startWitness.
func (a *Agent) newWitness() error {
	a.witness = newWitnessLoop(a.witnessConfig(a.opts.Config), a.log.With("component", "witness"))
	a.resources = resource.New(func(name belfry.Resource, on bool) { a.witness.tell(witness.Asked{Resource: name, On: on}) })
	a.witness.own = func(r witness.Report) {
		a.resources.Changed(resource.State{Resource: r.Resource, State: r.State, Incarnation: r.Incarnation, Seq: r.Seq, At: r.At})
	}
	a.witness.ask = a.ask
	return nil
}

// witnessConfig is what the settings say; they are valid.
func (a *Agent) witnessConfig(settings config.Settings) witness.Config {
	cfg := witness.Default()
	cfg.Node, cfg.Name, cfg.Incarnation = a.id.node.ID, a.id.node.Name, a.id.incarnation
	w := settings.Witness
	cfg.Off, cfg.Registrations, cfg.PerPrincipal, cfg.PerSource = !w.Enabled, w.MaxRegistrations, w.MaxPerPrincipal, w.MaxPerSource
	cfg.KeepAlive, cfg.Unused = w.Times()
	return cfg
}

// reloadWitness takes up the settings that were read again.
func (a *Agent) reloadWitness(settings config.Settings) {
	a.config.mu.Lock() // as tableChanged has it, which declares too
	defer a.config.mu.Unlock()
	a.reloaded.Store(&settings)
	a.witness.configure(a.witnessConfig(settings))
	a.declareResources(a.members.Table())
}

// startWitness is called when the event loop runs.
func (a *Agent) startWitness() error {
	log := a.log.With("component", "witness")
	feed := newWitnessFeed(a.events, a.members.Table, a.witness, log)
	a.witness.cfg.CheckEvent = eventChecker(a.events.cfg.Classes, a.events.cfg.CheckSubject)
	a.witness.interest, a.witness.peers = feed.want, feed.wantPeers
	a.witness.standing, a.witness.moved = a.tellStanding, a.tellMoved
	observers := newObservers(a)
	a.witness.observe = observers.put
	a.observers.Store(observers)
	holdings := readHoldings(a.opts.Config.State, log)
	a.witness.held = holdings.keep
	a.config.mu.Lock()
	a.witnessTable(a.members.Table())
	a.config.mu.Unlock()
	for _, h := range holdings.list(time.Now()) {
		a.witness.tell(witness.Override{Resource: h.Resource, State: h.State, Until: h.Until})
	}
	a.group.Go(func() error { return a.witness.run(a.ended) })
	a.group.Go(func() error { return feed.run(a.ended) })
	a.group.Go(func() error { return observers.run(a.ended) })
	a.group.Go(func() error { return holdings.run(a.ended) })
	return nil
}

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

	interest func([]witness.Interest)
	observe  func([]witness.Observe)
	own      func(witness.Report)
	peer     func(ctx context.Context, node belfry.NodeID, method string, req, resp proto.Message) error
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
	return &witnessLoop{
		cfg: cfg, log: log, in: newMailbox[witnessInput](), stopped: make(chan struct{}),
		interest: func([]witness.Interest) {}, observe: func([]witness.Observe) {}, own: func(witness.Report) {},
	}
}

// run ends when ctx does.
func (l *witnessLoop) run(ctx context.Context) error {
	defer close(l.stopped)
	m := witness.New(l.cfg, time.Now(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	waiting := map[witness.CallID]chan<- witness.Answer{}
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

func (l *witnessLoop) receive(m *witness.Machine, waiting map[witness.CallID]chan<- witness.Answer, in witnessInput) {
	switch {
	case in.look != nil:
		in.look(m)
		return
	case in.cancel != 0:
		delete(waiting, in.cancel)
		m.Receive(time.Now(), witness.Cancel{Call: in.cancel})
		return
	case in.reply != nil:
		waiting[in.call] = in.reply
	}
	m.Receive(time.Now(), in.msg)
}

// handful is how many callers are answered before they may run. One verdict can
// answer ten thousand: if all were woken first, then all were written for, then all
// were sent, the first would be told when the last is.
const handful = 16

// hand gives away what the machine put out. Nothing here waits.
func (l *witnessLoop) hand(waiting map[witness.CallID]chan<- witness.Answer, out witness.Output) {
	for i, a := range out.Answers {
		if reply, ok := waiting[a.Call]; ok {
			reply <- a // has room
			delete(waiting, a.Call)
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

// NodeInformation is the witnesses by rank.
func (l *witnessLoop) NodeInformation(ctx context.Context, q witness.Question) ([]witness.Witness, bool, error) {
	type answer struct {
		all        []witness.Witness
		incomplete bool
	}
	got := make(chan answer, 1)
	err := l.look(ctx, func(m *witness.Machine) {
		all, incomplete := m.NodeInformation(q)
		got <- answer{all, incomplete}
	})
	if err != nil {
		return nil, false, err
	}
	a := <-got
	return a.all, a.incomplete, nil
}

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
	return l.cfg.KeepAlive, l.cfg.Unused
}

// PeerWitness asks another node.
func (l *witnessLoop) PeerWitness(ctx context.Context, node belfry.NodeID, method string, req, resp proto.Message) error {
	return l.peer(ctx, node, method, req, resp)
}

// newWitness makes the loop, the producer of what this node holds, and what
// feeds both; nothing runs before startWitness.
func (a *Agent) newWitness() error {
	cfg := witness.Default()
	cfg.Node, cfg.Name, cfg.Incarnation = a.id.node.ID, a.id.node.Name, a.id.incarnation
	cfg.Registrations, cfg.PerPrincipal = a.opts.Config.Witness.MaxRegistrations, a.opts.Config.Witness.MaxPerPrincipal
	a.witness = newWitnessLoop(cfg, a.log.With("component", "witness"))
	a.resources = resource.New(func(name belfry.Resource, on bool) { a.witness.tell(witness.Asked{Resource: name, On: on}) })
	a.witness.own = func(r witness.Report) {
		a.resources.Changed(resource.State{Resource: r.Resource, State: r.State, Incarnation: r.Incarnation, Seq: r.Seq, At: r.At})
	}
	a.witness.peer = a.ask
	return nil
}

// startWitness is called when the event loop runs.
func (a *Agent) startWitness() error {
	feed := newWitnessFeed(a.events, a.witness, a.log.With("component", "witness"))
	a.witness.interest = feed.want
	observers := newObservers(a)
	a.witness.observe = observers.put
	a.observers.Store(observers)
	a.witness.tell(witnessMembers(a.members.Table()))
	a.declareResources(a.opts.Config)
	a.group.Go(func() error { return a.witness.run(a.ended) })
	a.group.Go(func() error { return feed.run(a.ended) })
	a.group.Go(func() error { return observers.run(a.ended) })
	return nil
}

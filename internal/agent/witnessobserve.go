package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer/adapter"
	"github.com/belfry-ha/belfry/internal/producer/file"
	"github.com/belfry-ha/belfry/internal/producer/process"
	"github.com/belfry-ha/belfry/internal/producer/unit"
	"github.com/belfry-ha/belfry/internal/witness"
)

const (
	// absentAfter is how long the producer of a class has to find what is there
	// already, before it counts as not there.
	absentAfter = 300 * time.Millisecond
)

// observers find out what the resources of this node need to be available. They
// register for events as any program does, so that nothing is watched twice and
// nothing while nobody asks. What is true is then looked up, not concluded from
// the event.
type observers struct {
	agent    *Agent
	wishes   *mailbox[witness.Observe]
	poked    chan struct{} // an identifier came or went: capacity 1
	consumer api.Consumer
	id       event.ConsumerID
	probes   sync.WaitGroup
	http     *http.Client

	next    uint32
	sources map[string]*observed
}

// An observed is one source.
type observed struct {
	name    string
	class   belfry.Class // of unit, process and file
	subject string
	numbers []uint32 // of its registrations

	instance string    // of process and file, when it was looked at last
	since    time.Time // when it was begun
	told     belfry.ResourceState
	edge     belfry.ResourceState // of unit
	address  netip.Addr           // of address
	stop     context.CancelFunc   // of a probe
}

// sourceKinds are the forms of what a resource may watch, with the class of
// those that are events.
var sourceKinds = map[string]belfry.Class{
	"unit": unit.Class, "process": process.Class, "file": file.FileClass, "tcp": "", "http": "", "address": "",
}

func newObservers(a *Agent) *observers {
	o := &observers{agent: a, wishes: newMailbox[witness.Observe](), poked: make(chan struct{}, 1), sources: map[string]*observed{}, http: newProbeClient()}
	o.consumer, o.id = a.events.openNumbered("resources")
	return o
}

// put is called by the witness loop; it does not wait.
func (o *observers) put(wishes []witness.Observe) { o.wishes.put(wishes...) }

// poke is called with what producers say, before the event machine hears of it.
func (o *observers) poke(messages []event.Message) {
	for _, m := range messages {
		switch m.(type) {
		case event.Associate, event.Invalidate:
			select {
			case o.poked <- struct{}{}:
			default:
			}
			return
		}
	}
}

// run ends when ctx does, and its probes with it.
func (o *observers) run(ctx context.Context) error {
	defer o.probes.Wait()
	batches := make(chan event.Batch)
	failed := make(chan error, 1)
	go func() {
		for {
			b, err := o.consumer.Next(ctx)
			if err != nil {
				failed <- err
				return
			}
			select {
			case batches <- b:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	look := time.NewTimer(time.Hour)
	defer look.Stop()
	for {
		select {
		case err := <-failed:
			if ctx.Err() != nil || errors.Is(err, errStopped) || errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-o.wishes.wake:
			for _, w := range o.wishes.take() {
				if err := o.wish(ctx, w); err != nil {
					<-failed //nolint:errcheck // the agent stops: err says it
					return nil
				}
			}
			look.Reset(absentAfter)
		case b := <-batches:
			for i := range b.Notifications {
				o.take(&b.Notifications[i])
			}
			o.consumer.Ack(b.Number)
		case <-o.poked:
		case <-look.C:
		}
		o.look()
	}
}

// wish begins or ends the observation of one source.
func (o *observers) wish(ctx context.Context, w witness.Observe) error {
	if !w.On {
		s := o.sources[w.Source]
		delete(o.sources, w.Source)
		if s == nil {
			return nil
		}
		if s.stop != nil {
			s.stop()
		}
		for _, number := range s.numbers {
			if err := o.agent.events.send(ctx, event.Unregister{Consumer: o.id, Number: number}); err != nil {
				return err
			}
		}
		return nil
	}
	kind, subject, _ := strings.Cut(w.Source, ":")
	s := &observed{name: w.Source, class: sourceKinds[kind], subject: subject, since: time.Now()}
	o.sources[w.Source] = s
	switch kind {
	case "tcp", "http":
		running, stop := context.WithCancel(ctx)
		s.stop = stop
		try := func(ctx context.Context) error { return connects(ctx, subject) }
		if kind == "http" {
			try = func(ctx context.Context) error { return answers(ctx, o.http, s.name) }
		}
		o.probes.Go(func() { o.probe(running, s.name, try) })
		return nil
	case "address":
		s.address, _ = netip.ParseAddr(subject) // what is none is never there
		return errors.Join(
			o.register(ctx, s, belfry.Registration{Class: string(adapter.AddressAddedClass), Wait: true}),
			o.register(ctx, s, belfry.Registration{Class: string(adapter.AddressRemovedClass), Wait: true}),
			o.register(ctx, s, belfry.Registration{Class: string(adapter.StateClass), Wait: true}))
	}
	return o.register(ctx, s, belfry.Registration{Class: string(s.class), Subject: subject, Wait: true, Snapshot: true})
}

func (o *observers) register(ctx context.Context, s *observed, r belfry.Registration) error {
	o.next++
	s.numbers = append(s.numbers, o.next)
	return o.agent.events.send(ctx, event.Register{Consumer: o.id, Number: o.next, Registration: r})
}

// take notes the edge of what has one; all else is looked up.
func (o *observers) take(n *belfry.Notification) {
	if n.Event.Class != unit.Class || n.Kind != belfry.KindOccurrence && n.Kind != belfry.KindState {
		return
	}
	s := o.sources["unit:"+n.Event.Subject]
	if s == nil {
		return
	}
	if s.edge = belfry.ResourceUnavailable; n.Edge == belfry.EdgeRecovered {
		s.edge = belfry.ResourceAvailable
	}
}

// look says of each source what it is, if that is otherwise than before.
func (o *observers) look() {
	var interfaces []net.Interface
	now := time.Now()
	for _, s := range o.sources {
		var state belfry.ResourceState
		switch {
		case s.stop != nil:
			continue // the probe says so itself
		case s.class == unit.Class:
			state = s.edge
		case s.class != "":
			state = o.lookUp(s)
		default:
			if interfaces == nil {
				interfaces, _ = net.Interfaces() // what can not be read is not there
			}
			state = addressState(interfaces, s.address)
		}
		if state == belfry.ResourceUnknown && now.Sub(s.since) >= absentAfter {
			state = belfry.ResourceUnavailable
		}
		o.say(s, state, now)
	}
}

func (o *observers) say(s *observed, state belfry.ResourceState, now time.Time) {
	if state == s.told || state == belfry.ResourceUnknown {
		return
	}
	s.told = state
	o.agent.witness.tell(witness.Observed{Source: s.name, State: state, At: now})
}

// lookUp asks for the identifier that is in force. Another one than before means
// that what clients were connected to is gone.
func (o *observers) lookUp(s *observed) belfry.ResourceState {
	was := s.instance
	s.instance = o.agent.identified.instance(eventKey{s.class, s.subject})
	switch {
	case s.instance == "" && was != "":
		return belfry.ResourceUnavailable
	case s.instance == "":
		return belfry.ResourceUnknown
	case was != "" && was != s.instance:
		o.say(s, belfry.ResourceUnavailable, time.Now())
	}
	return belfry.ResourceAvailable
}

// addressState tells whether this machine has an address on an interface that
// carries.
func addressState(interfaces []net.Interface, addr netip.Addr) belfry.ResourceState {
	for _, i := range interfaces {
		for _, p := range prefixesOf(i) {
			if p.Addr() == addr && i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0 {
				return belfry.ResourceAvailable
			}
		}
	}
	return belfry.ResourceUnavailable
}

// observersOf is where what producers say is looked at; nil before Start.
type observersOf = atomic.Pointer[observers]

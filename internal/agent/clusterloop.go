package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/wire"
)

// A network is where a cluster loop rests: until a datagram came, which it is
// given through [clusterLoop.arrive], until a time, or until somebody wakes it.
// [transport.Datagrams] is one.
type network interface {
	Wait(until time.Time) error
	Wake()
}

// A clusterLoop owns the cluster machine. Nothing it calls may wait, because
// a late heartbeat is a false alarm at somebody else's.
type clusterLoop struct {
	cfg     cluster.Config
	network network
	arrived []cluster.Message // by the loop's own goroutine, while it waits
	in      chan cluster.Message
	calls   chan func(*cluster.Machine)
	stopped chan struct{}

	send    func(cluster.Send)
	dial    func(cluster.Dial)
	changed func([]cluster.Change)
	keep    func([]cluster.Pause)
	alive   func() // feeds the watchdog; the loop is what must live

	links uint64 // version of the link database that was told last
	moved func() // called with each newer one: not every step of it is a change above

	// slept says how long the machine was suspended since the last call. Nil:
	// nobody looks.
	slept func() time.Duration
}

// aliveEvery is how long the loop rests at most: it shows that it turns also
// where there is nobody to send a heartbeat to.
const aliveEvery = time.Second

func newClusterLoop(cfg cluster.Config) *clusterLoop {
	return &clusterLoop{
		cfg:     cfg,
		in:      make(chan cluster.Message, inputs),
		calls:   make(chan func(*cluster.Machine), inputs),
		stopped: make(chan struct{}),
		keep:    func([]cluster.Pause) {},
		moved:   func() {},
	}
}

// run ends when ctx does, or the network.
func (l *clusterLoop) run(ctx context.Context) error {
	defer close(l.stopped)
	defer context.AfterFunc(ctx, l.network.Wake)()
	m := cluster.New(l.cfg, time.Now(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	for next := time.Now(); ctx.Err() == nil; {
		if err := l.network.Wait(next); err != nil {
			return err
		}
		l.turn(m)
		l.alive()
		next = time.Now().Add(aliveEvery)
		if due := m.NextTimeout(); !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	return nil
}

// turn reads all mail before anybody is judged: what lies there may be the
// heartbeats of those who seem to be silent, if this node was paused.
func (l *clusterLoop) turn(m *cluster.Machine) {
	if l.slept != nil { // before the mail, whose round trips may span it
		if d := l.slept(); d > 0 {
			m.Receive(time.Now(), cluster.Suspended{D: d})
		}
	}
	for _, msg := range l.arrived {
		m.Receive(time.Now(), msg)
	}
	clear(l.arrived) // no body is kept until the next full load
	l.arrived = l.arrived[:0]
	for range len(l.in) {
		m.Receive(time.Now(), <-l.in)
	}
	for range len(l.calls) {
		(<-l.calls)(m)
	}
	m.Advance(time.Now())
	l.hand(m.Take())
	if v := m.LinksVersion(); v != l.links {
		l.links = v
		l.moved()
	}
}

func (l *clusterLoop) hand(out cluster.Output) {
	for _, s := range out.Send {
		l.send(s)
	}
	for _, d := range out.Dial {
		l.dial(d)
	}
	if len(out.Changes) > 0 {
		l.changed(out.Changes)
	}
	if len(out.Pauses) > 0 {
		l.keep(out.Pauses)
	}
}

// arrive is for the network, while the loop waits in it.
func (l *clusterLoop) arrive(msg cluster.Message) { l.arrived = append(l.arrived, msg) }

// receive is for other goroutines; it waits while the input is full.
func (l *clusterLoop) receive(msg cluster.Message) {
	select {
	case l.in <- msg:
		l.network.Wake()
	case <-l.stopped:
	}
}

// call runs f on the machine between two wake-ups; false when the loop has
// ended.
func (l *clusterLoop) call(f func(*cluster.Machine)) bool {
	done := make(chan struct{})
	select {
	case l.calls <- func(m *cluster.Machine) { f(m); close(done) }:
		l.network.Wake()
	case <-l.stopped:
		return false
	}
	select {
	case <-done:
		return true
	case <-l.stopped:
		return false
	}
}

// The two packages declare the same bodies, so that neither imports the
// other; a field that drifts does not compile here.

func bodyFromWire(b wire.Body) cluster.Body {
	switch b := b.(type) {
	case *wire.Heartbeat:
		return (*cluster.Heartbeat)(b)
	case *wire.RelayAsk:
		return (*cluster.RelayAsk)(b)
	case *wire.RelayResult:
		return (*cluster.RelayResult)(b)
	case *wire.Claims:
		return (*cluster.Claims)(b)
	case *wire.View:
		return (*cluster.View)(b)
	}
	return nil
}

func bodyToWire(b cluster.Body) wire.Body {
	switch b := b.(type) {
	case *cluster.Heartbeat:
		return (*wire.Heartbeat)(b)
	case *cluster.RelayAsk:
		return (*wire.RelayAsk)(b)
	case *cluster.RelayResult:
		return (*wire.RelayResult)(b)
	case *cluster.Claims:
		return (*wire.Claims)(b)
	case *cluster.View:
		return (*wire.View)(b)
	}
	return nil
}

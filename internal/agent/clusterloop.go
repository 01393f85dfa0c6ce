package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/wire"
)

// A clusterLoop owns the cluster machine. Nothing it calls may wait, because
// a late heartbeat is a false alarm at somebody else's.
type clusterLoop struct {
	cfg     cluster.Config
	in      chan cluster.Message
	calls   chan func(*cluster.Machine)
	stopped chan struct{}

	send    func(cluster.Send)
	dial    func(cluster.Dial)
	changed func([]cluster.Change)
	keep    func([]cluster.Pause)
	alive   func() // feeds the watchdog; the loop is what must live

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
		calls:   make(chan func(*cluster.Machine)),
		stopped: make(chan struct{}),
		keep:    func([]cluster.Pause) {},
	}
}

// run ends when ctx does.
func (l *clusterLoop) run(ctx context.Context) error {
	defer close(l.stopped)
	m := cluster.New(l.cfg, time.Now(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var first cluster.Message
		select {
		case <-ctx.Done():
			return nil
		case first = <-l.in:
		case call := <-l.calls:
			call(m)
		case <-timer.C:
		}
		if l.slept != nil { // before the mail, whose round trips may span it
			if d := l.slept(); d > 0 {
				m.Receive(time.Now(), cluster.Suspended{D: d})
			}
		}
		if first != nil {
			m.Receive(time.Now(), first)
		}
		for range len(l.in) { // a node that was paused reads its mail before it judges others
			m.Receive(time.Now(), <-l.in)
		}
		m.Advance(time.Now())
		l.hand(m.Take())
		wait := aliveEvery
		if next := m.NextTimeout(); !next.IsZero() {
			wait = min(wait, time.Until(next))
		}
		timer.Reset(wait)
		l.alive()
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

// receive is for the transport's goroutines; it waits while the input is full.
func (l *clusterLoop) receive(msg cluster.Message) {
	select {
	case l.in <- msg:
	case <-l.stopped:
	}
}

// call runs f on the machine between two wake-ups; false when the loop has
// ended.
func (l *clusterLoop) call(f func(*cluster.Machine)) bool {
	done := make(chan struct{})
	select {
	case l.calls <- func(m *cluster.Machine) { f(m); close(done) }:
		<-done
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

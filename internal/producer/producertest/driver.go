// Package producertest holds what every producer must pass, and the driver
// with which its tests talk to it as the event machine would.
package producertest

import (
	"context"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/producer"
)

// patience is how long a message may take on a busy machine before a test fails.
const patience = 20 * time.Second

// A Driver stands in the event machine's place for one producer that runs. It
// works in real time and inside a synctest bubble. It belongs to one test.
type Driver struct {
	t        testing.TB
	messages chan event.Message
	requests chan producer.Request
	stop     context.CancelFunc
	stopped  chan struct{}
	err      error // of Run, once stopped is closed
	last     uint64
	gate     chan struct{} // holds a token while messages are taken
}

// Start calls the producer's Run. It is stopped when the test ends, and must
// then return without an error.
func Start(t testing.TB, p producer.Producer) *Driver {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &Driver{
		t:        t,
		messages: make(chan event.Message, 1<<16),
		requests: make(chan producer.Request),
		stop:     cancel,
		stopped:  make(chan struct{}),
		gate:     make(chan struct{}, 1),
	}
	d.gate <- struct{}{}
	go func() {
		defer close(d.stopped)
		d.err = p.Run(ctx, d.requests, func(messages ...event.Message) error {
			select {
			case <-d.gate:
				d.gate <- struct{}{}
			case <-ctx.Done():
				return ctx.Err()
			}
			for _, m := range messages {
				select {
				case d.messages <- m:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return ctx.Err()
		})
	}()
	t.Cleanup(d.Stop)
	return d
}

// Stop ends Run and waits for it. It may be called more than once.
func (d *Driver) Stop() {
	d.t.Helper()
	d.stop()
	select {
	case <-d.stopped:
		if d.err != nil {
			d.t.Errorf("Run returned %v after it was cancelled; it should return nil", d.err)
			d.err = nil
		}
	case <-time.After(patience):
		d.t.Errorf("Run has not returned %v after it was cancelled", patience)
	}
}

// Watch asks for one event, or for the subjects of a pattern if w.Entry is
// NoEntry. It fills in what is zero: the ID, and the Entry, which it answers.
func (d *Driver) Watch(w event.Watch) event.Watch {
	d.t.Helper()
	d.last++
	if w.ID == 0 {
		w.ID = event.WatchID(d.last)
	}
	switch w.Entry {
	case 0:
		w.Entry = event.EntryID(d.last)
	case NoEntry:
		w.Entry = 0
	}
	d.request(producer.Request{Watch: &w})
	return w
}

// NoEntry makes Watch ask for a pattern.
const NoEntry = ^event.EntryID(0)

// Unwatch ends a watch.
func (d *Driver) Unwatch(id event.WatchID) {
	d.t.Helper()
	d.request(producer.Request{Unwatch: id})
}

func (d *Driver) request(r producer.Request) {
	d.t.Helper()
	select {
	case d.requests <- r:
	case <-d.stopped:
		d.t.Fatalf("Run returned (%v) while it was asked for %+v", d.err, r)
	case <-time.After(patience):
		d.t.Fatalf("the producer did not take %+v within %v", r, patience)
	}
}

// Next is the next message; it waits for it.
func (d *Driver) Next() event.Message {
	d.t.Helper()
	select {
	case m := <-d.messages:
		return m
	case <-d.stopped:
		d.t.Fatalf("Run returned (%v); a message was to come", d.err)
	case <-time.After(patience):
		d.t.Fatalf("no message within %v", patience)
	}
	return nil
}

// Quiet fails the test if a message comes within the time.
func (d *Driver) Quiet(within time.Duration) {
	d.t.Helper()
	select {
	case m := <-d.messages:
		d.t.Errorf("message %#v; none was to come", m)
	case <-time.After(within):
	}
}

// During is what comes within the time.
func (d *Driver) During(within time.Duration) (all []event.Message) {
	end := time.After(within)
	for {
		select {
		case m := <-d.messages:
			all = append(all, m)
		case <-end:
			return all
		}
	}
}

// Pause makes send wait, as a busy event machine does, until resume is called.
func (d *Driver) Pause() (resume func()) {
	<-d.gate
	return func() { d.gate <- struct{}{} }
}

// Until is all messages up to and with the first that satisfies done.
func (d *Driver) Until(done func(event.Message) bool) []event.Message {
	d.t.Helper()
	for all := []event.Message(nil); ; {
		m := d.Next()
		all = append(all, m)
		if done(m) {
			return all
		}
	}
}

// NextOf is the next message, which must have the type M.
func NextOf[M event.Message](d *Driver) M {
	d.t.Helper()
	next := d.Next()
	m, ok := next.(M)
	if !ok {
		d.t.Fatalf("message %#v, want %T", next, m)
	}
	return m
}

// Class is the class of that name among a producer's.
func Class(t testing.TB, p producer.Producer, class belfry.Class) belfry.ClassInfo {
	t.Helper()
	for _, c := range p.Classes() {
		if c.Class == class {
			return c
		}
	}
	t.Fatalf("%s does not serve %s", p.Name(), class)
	return belfry.ClassInfo{}
}
